"""Scenario family 8 at this project: pipelines of many columns that call a model, and who reads their events."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, Literal

import trio

import trio_sched
from benchmarks.workloads.outcome import Outcome, Params, Run, number
from benchmarks.workloads.samples import Stopwatch, rows_hash
from trio_sched.lowlevel import why, write_run_views

__all__ = ["prepare"]

LEVELS: Final[tuple[Literal["none", "summary", "all"], ...]] = ("none", "summary", "all")
MODEL: Final = trio_sched.Model("provider", "model", max_parallel_requests=64)


@trio_sched.from_scratch_column()
async def root(span: trio_sched.RowSpan) -> list[int]:
    """The number of every row."""
    return list(range(span.start, span.start + span.count))


async def answer() -> int:
    """A call that is answered at once."""
    await trio.lowlevel.checkpoint()
    return 1


def asking(number: int) -> trio_sched.Column:
    """A column that makes one call for each cell."""

    async def ask(row: dict[str, object], model: trio_sched.ModelHandle) -> int:
        return await model.call(answer)

    ask.__name__ = f"column_{number}"
    return trio_sched.column(needs=["root"], model=MODEL)(ask)


def prepare(params: Params) -> Run:
    """The workload at this project."""
    width, calls = number(params, "columns"), number(params, "calls")
    columns = [root, *map(asking, range(width))]

    def run(warm_up: bool) -> Outcome:
        rows = max(1, (calls // 10 if warm_up else calls) // width)
        made = rows * width
        with tempfile.TemporaryDirectory() as scratch:
            watches, folders = dict[str, Stopwatch](), dict[str, Path]()
            results = dict[str, trio_sched.RunResult]()
            for level in LEVELS:
                folders[level] = Path(scratch) / level
                watches[level] = Stopwatch()
                results[level] = run_once(columns, rows, folders[level], level)
                watches[level].stop()
            lines = sum(path.read_bytes().count(b"\n") for path in (folders["all"] / "events").glob("*.jsonl"))
            sizes = {
                level: sum(path.stat().st_size for path in (folders[level] / "events").iterdir()) for level in LEVELS
            }
            views = Stopwatch()
            write_run_views(folders["all"])
            views.stop()
            asked = Stopwatch()
            why(folders["all"])
            asked.stop()
            # A run with all events also makes report and trace of them, which cost what they cost just now.
            added = watches["all"].cpu - watches["none"].cpu - views.cpu
            return Outcome(
                wall_time_seconds=watches["summary"].wall,
                metrics={
                    **watches["summary"].each("task", made),
                    "event_cpu_us": max(0.0, added) * 1e6 / lines,
                    "views_cpu_us": views.cpu * 1e6 / lines,
                    "why_cpu_us": asked.cpu * 1e6 / lines,
                    "summary_bytes": sizes["summary"] / made,
                    "all_bytes": sizes["all"] / made,
                },
                counts={"rows": results["all"].records, "calls": made},
                output_hashes={"rows": rows_hash(results["all"].rows())},
            )

    return run


def run_once(
    columns: list[trio_sched.Column], rows: int, output: Path, level: Literal["none", "summary", "all"]
) -> trio_sched.RunResult:
    """One run into a new folder."""
    config = trio_sched.RunConfig(write_events=level)

    async def main() -> trio_sched.RunResult:
        return await trio_sched.run(columns, records=rows, output=output, config=config)

    result = trio.run(main)
    assert result.records == rows, result.summary()
    return result
