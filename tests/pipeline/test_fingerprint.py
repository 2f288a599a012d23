"""Which runs make the same dataset, and how a refusal names the difference."""

from __future__ import annotations

import json
from typing import cast

import pytest

import trio_sched as ts
from trio_sched._events.json_value import JsonValue
from trio_sched._pipeline.binding import bind_pipeline
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
    assert difference.startswith('columns, called: {"task_type": "cell", "needs": ["number"]')


def test_a_document_without_facts_is_named_as_such() -> None:
    assert next(identity().differences(None)) == "it does not say what it was made from"
