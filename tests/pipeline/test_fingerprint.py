"""Which runs make the same dataset, and how a refusal names the difference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import pytest

import trio_sched as ts
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.binding import bind_pipeline
from trio_sched._pipeline.columns import SkipWhen
from trio_sched._pipeline.fingerprint import DatasetIdentity, dataset_identity


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return [0]


@ts.column(needs=["number"], model=ts.Model("p", "m"))
async def called(row: object, model: object) -> int:
    return 0


def identity(
    *steps: ts.PipelineStep,
    records: int = 3,
    config: ts.RunConfig | None = None,
    source: dict[str, JsonValue] | None = None,
) -> DatasetIdentity:
    pipeline = bind_pipeline(steps or (number, called), None, {})
    return dataset_identity(pipeline, config or ts.RunConfig(), source, records)


def test_what_the_data_do_not_depend_on_makes_no_difference() -> None:
    @ts.column(needs=["number"], model=ts.Model("p", "m", max_parallel_requests=99), name="called")
    async def mended(row: object, model: object) -> int:
        return 1

    config = ts.RunConfig(max_concurrent_row_groups=9, submission_capacity=7, max_attempts=1, write_events=False)
    assert identity(number, mended, config=config).fingerprint == identity().fingerprint


def test_what_is_done_about_bad_answers_makes_no_difference() -> None:
    @ts.column(needs=["number"], model=ts.Model("p", "m"), name="called", check=int, attempts=7, on_failure=[-1])
    async def careful(row: object, model: object) -> int:
        return 0

    assert identity(number, careful).fingerprint == identity().fingerprint


OTHERS: list[tuple[DatasetIdentity, str]] = [
    (identity(records=4), "records: 3 there, 4 here"),
    (identity(config=ts.RunConfig(seed=1)), "seed: 0 there, 1 here"),
    (identity(config=ts.RunConfig(buffer_size=1)), "buffer_size: 100 there, 1 here"),
    (identity(config=ts.RunConfig(format="parquet")), 'format: "jsonl" there, "parquet" here'),
    (identity(source={"form": ".csv"}), 'input: nothing there, {"form": ".csv"} here'),
]


@pytest.mark.parametrize(("other", "difference"), OTHERS)
def test_what_the_data_depend_on_is_named(other: DatasetIdentity, difference: str) -> None:
    read_back = cast("JsonValue", json.loads(json.dumps(identity().facts)))
    assert list(identity().differences(read_back)) == []
    assert other.fingerprint != identity().fingerprint
    assert list(other.differences(read_back)) == [difference]


def test_columns_are_compared_one_by_one() -> None:
    @ts.column(needs=["number"], model=ts.Model("p", "other"), name="called")
    async def elsewhere(row: object, model: object) -> int:
        return 0

    (difference,) = identity(number, elsewhere).differences(dict(identity().facts))
    assert difference == 'columns, called, models: ["p/m/chat"] there, ["p/other/chat"] here'


def test_a_document_without_facts_is_named_as_such() -> None:
    assert next(identity().differences(None)) == "it does not say what it was made from"


def with_rule(
    skip_when: SkipWhen | None, skip_value: object = None, *, follow: bool = True, ordered: bool = False
) -> DatasetIdentity:
    @ts.column(needs=["number"], skip_when=skip_when, skip_value=skip_value, ordered=ordered)
    async def some(row: object) -> int:
        return 0

    @ts.column(needs=["some"], skip_with_needs=follow)
    async def follower(row: object) -> int:
        return 0

    return identity(number, some, follower)


def is_odd(row: Mapping[str, int]) -> bool:
    return row["number"] % 2 == 1


def is_even(row: Mapping[str, int]) -> bool:
    return not is_odd(row)


def test_what_becomes_of_skipped_cells_is_part_of_the_dataset() -> None:
    others = [
        with_rule(None),
        with_rule(is_odd),
        with_rule(is_odd, 7),
        with_rule(is_odd, [7]),
        with_rule(is_odd, follow=False),
        with_rule(is_odd, ordered=True),
    ]
    assert len({other.fingerprint for other in others}) == len(others)


def test_a_rule_may_be_mended_and_what_it_never_does_makes_no_difference() -> None:
    assert with_rule(is_odd).fingerprint == with_rule(is_even).fingerprint
    assert with_rule(None, follow=False).fingerprint == with_rule(None, 7).fingerprint


def test_the_stage_and_the_outputs_of_a_processor_are_part_of_the_dataset() -> None:
    def checked(rows: list[object]) -> list[object]:
        return rows

    others = [
        identity(number, ts.pre_batch_processor()(checked)),
        identity(number, ts.post_batch_processor()(checked)),
        identity(number, ts.post_batch_processor(outputs=["checked"])(checked)),
        identity(number, ts.post_batch_processor(outputs=["checked", "more"])(checked)),
    ]
    assert len({other.fingerprint for other in others}) == len(others)
