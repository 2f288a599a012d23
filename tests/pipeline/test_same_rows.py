"""Concurrency never shows in the data: any sizes, limits and delays give the rows that a sequential run gives."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import trio
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_samples import Row, mocked
from sequential import rows_sequentially

import trio_sched as ts
from trio_sched.lowlevel import inline

MODEL = ts.Model("p", "m", max_parallel_requests=5)


class ServerError(Exception):
    status_code = 503


def without_seven(row: Row) -> bool:
    return row["seven"] is None


def pipeline(delay: Callable[[], Awaitable[None]], call: Callable[[Row], Awaitable[object]]) -> list[ts.PipelineStep]:
    """Every kind of step, with failures that depend on the row alone."""

    @ts.from_scratch_column(outputs=["n", "word"], side_effect_columns=["seven"])
    async def root(span: ts.RowSpan) -> list[object]:
        await delay()
        numbers = range(span.start, span.start + span.count)
        return [
            LookupError(f"row {n}") if n % 29 == 5 else {"n": n, "word": "x" * (n % 3), "seven": n % 7 or None}
            for n in numbers
        ]

    @ts.from_scratch_column()
    def seed(span: ts.RowSpan) -> list[int]:
        return [span.seed] * span.count

    @ts.pre_batch_processor()
    async def thinned(rows: list[dict[str, int]]) -> list[Row | None]:
        await delay()
        return [None if row["n"] % 13 == 4 else {"seed": row["seed"] + row["n"]} for row in rows]

    @ts.column(needs=["n", "word"], model=MODEL)
    async def asked(row: Row, model: ts.ModelHandle) -> object:
        await delay()
        return await model.call(call, row)

    @ts.column(needs=["asked", "seven"], skip_when=without_seven, skip_value="skipped")
    async def told(row: Row) -> object:
        await delay()
        if row["seven"] == 3:
            raise LookupError("three")
        return [row["asked"], row["seven"]]

    @ts.column(needs=["told", "seed"], outputs=["left", "right"])
    def split(row: Row) -> Row:
        return {"left": row["told"], "right": row["seed"]}

    @ts.column(needs=["left"], skip_with_needs=False)
    def always(row: Row) -> str:
        return str(row["left"])

    @ts.batch_column(needs=["split_of", "seven"])
    async def ranked(rows: list[Row]) -> list[object]:
        await delay()
        return [LookupError("second") if index == 1 else [index, len(rows)] for index, _ in enumerate(rows)]

    @ts.column(needs=["right"], name="split_of", ordered=True)
    async def split_of(row: Row) -> object:
        await delay()
        return row["right"]

    @ts.batch_column(needs=["always"], ordered=True)
    def lengths(rows: list[dict[str, str]]) -> list[int]:
        return [len(row["always"]) for row in rows]

    @ts.post_batch_processor(outputs=["place"])
    def placed(rows: list[Row]) -> list[Row | None]:
        return [{"place": place, "always": None} if place != 2 else None for place, _ in enumerate(rows)]

    @ts.post_batch_processor()
    async def last(rows: list[Row]) -> list[Row]:
        await delay()
        return [{**row, "word": [row["word"], row["place"]]} for row in rows]

    return [root, seed, thinned, asked, told, split, always, split_of, ranked, lengths, placed, last]


@given(
    records=st.integers(0, 60),
    buffer_size=st.integers(1, 70),
    row_groups=st.integers(1, 6),
    submission_capacity=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=share_of_profile(0.075))
def test_any_concurrency_gives_the_rows_of_a_sequential_run(
    records: int, buffer_size: int, row_groups: int, submission_capacity: int, seed: int
) -> None:
    rng = random.Random(seed)

    async def delay() -> None:
        await trio.sleep(rng.random() * rng.choice([0, 1, 10]))

    async def no_delay() -> None:
        pass

    async def unsure(row: Row) -> object:
        await delay()
        if rng.random() < 0.2:
            raise ServerError
        return await sure(row)

    async def sure(row: Row) -> object:
        return f"{row['n']}{row['word']}"

    async def main() -> None:
        config = ts.RunConfig(
            buffer_size=buffer_size,
            max_concurrent_row_groups=row_groups,
            submission_capacity=submission_capacity,
            max_attempts=50,
            seed=3,
            write_events=False,
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            result = await ts.run(pipeline(delay, unsure), records=records, output=out, config=config, blocking=inline)
            assert result.leaks == ()
            expected = await rows_sequentially(
                pipeline(no_delay, sure), records=records, seed=3, buffer_size=buffer_size
            )
            assert list(result.rows()) == expected
            assert list(map(list, result.rows())) == list(map(list, expected))
            assert result.records + result.dropped + result.scheduler.filtered_rows == records

    mocked(main)


def test_ordered_columns_are_called_in_the_order_of_the_rows(tmp_path: Path) -> None:
    rng = random.Random(7)
    calls: dict[str, list[object]] = {"cell": [], "batch": [], "from_scratch": []}

    @ts.from_scratch_column(ordered=True)
    async def root(span: ts.RowSpan) -> list[int]:
        await trio.sleep(rng.random())
        calls["from_scratch"].append(span.start)
        return list(range(span.start, span.start + span.count))

    @ts.column(needs=["root"])
    async def late(row: dict[str, int]) -> int:
        await trio.sleep(rng.random() * 5)
        if row["root"] % 7 == 2:
            raise LookupError
        return row["root"]

    @ts.column(needs=["late"], ordered=True)
    async def cell(row: dict[str, int]) -> int:
        calls["cell"].append(row["late"])
        await trio.sleep(rng.random())
        calls["cell"].append(-row["late"])
        return row["late"]

    @ts.batch_column(needs=["late"], ordered=True)
    async def batch(rows: list[Row]) -> list[object]:
        calls["batch"].append(rows[0]["late"])
        await trio.sleep(rng.random())
        return [row["late"] for row in rows]

    async def main() -> None:
        config = ts.RunConfig(buffer_size=5, max_concurrent_row_groups=4)
        result = await ts.run(
            [root, late, cell, batch], records=40, output=tmp_path / "o", config=config, blocking=inline
        )
        living = [n for n in range(40) if n % 7 != 2]
        assert [row["cell"] for row in result.rows()] == living
        assert calls["cell"] == [sign * n for n in living for sign in (1, -1)]
        assert calls["from_scratch"] == list(range(0, 40, 5))
        assert calls["batch"] == sorted(cast("list[int]", calls["batch"]))

    mocked(main)
