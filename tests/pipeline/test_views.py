"""Every attempt leaves its trace and its report, however it ends, and trouble with them changes nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._observe.recorded_run import write_run_views
from trio_sched._pipeline.views import PATIENCE_AT_THE_END, PATIENCE_ON_THE_WAY_OUT
from trio_sched.lowlevel import inline

P = ParamSpec("P")
T = TypeVar("T")


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    await trio.sleep(1)
    return list(range(span.start, span.start + span.count))


CONFIG = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=1, write_events="all")


def assert_views(folder: Path, told: str) -> None:
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert told in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.tmp"))


def test_a_run_that_ends_leaves_them(tmp_path: Path) -> None:
    async def main() -> None:
        await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=inline)

    mocked(main)
    assert_views(tmp_path / "out", "Completed.")


def test_in_worker_threads_too(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def quick(span: ts.RowSpan) -> list[int]:
        return list(range(span.count))

    trio.run(lambda: ts.run([quick], records=4, output=tmp_path / "out", config=CONFIG))
    assert_views(tmp_path / "out", "Completed.")


def test_a_cancelled_run_leaves_them(tmp_path: Path) -> None:
    async def main() -> None:
        with trio.move_on_after(2.5):
            await ts.run([number], records=100, output=tmp_path / "out", config=CONFIG, blocking=inline)

    mocked(main)
    assert_views(tmp_path / "out", "Interrupted; every row")


def test_a_failing_run_leaves_them_and_keeps_its_error(tmp_path: Path) -> None:
    def rows_that_break() -> object:
        yield {"n": 1}
        yield {"n": 2}
        yield {"n": 3}
        raise OSError("the source is gone")

    @ts.column(needs=["n"])
    async def copied(row: dict[str, int]) -> int:
        return row["n"]

    async def main() -> None:
        with pytest.raises(OSError, match="the source is gone"):
            await ts.run(
                [copied],
                rows=rows_that_break(),  # type: ignore[arg-type]  # a generator of rows
                output=tmp_path / "out",
                config=CONFIG,
                blocking=inline,
            )

    mocked(main)
    assert_views(tmp_path / "out", "Failed; every row")


def test_without_events_there_is_nothing_to_draw(tmp_path: Path) -> None:
    config = ts.RunConfig(buffer_size=2, write_events=False)

    async def main() -> None:
        await ts.run([number], records=4, output=tmp_path / "out", config=config, blocking=inline)

    mocked(main)
    assert not (tmp_path / "out" / "trace.json").exists()
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_disk_that_refuses_them_changes_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out" / "report.html").mkdir(parents=True)

    async def main() -> None:
        with caplog.at_level(logging.ERROR, logger="trio_sched.run"):
            result = await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=inline)
        assert result.records == 4

    mocked(main)
    assert [record.message for record in caplog.records] == ["trace.json and report.html could not be made"]
    assert not list((tmp_path / "out").glob("*.tmp"))


class SlowDrawing:
    """Blocking work that takes no time, other than the drawing, before which `seconds` go by."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if function is write_run_views:
            await trio.sleep(self.seconds)
        return await inline(function, *args, **kwargs)


def test_what_is_made_in_time_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        slow = SlowDrawing(PATIENCE_AT_THE_END - 1)
        await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=slow)

    mocked(main)
    assert_views(tmp_path / "out", "Completed.")


def test_nobody_waits_for_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        slow = SlowDrawing(PATIENCE_AT_THE_END + 1)
        with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
            await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=slow)

    mocked(main)
    (record,) = caplog.records
    assert "would take longer than 60 s and are left out" in record.message
    assert f"`trio-sched report {tmp_path / 'out'}` makes them" in record.message
    assert not (tmp_path / "out" / "trace.json").exists()
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_who_waits_for_an_error_waits_less(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        slow = SlowDrawing(PATIENCE_ON_THE_WAY_OUT + 1)
        with trio.move_on_after(2.5), caplog.at_level(logging.WARNING, logger="trio_sched.run"):
            await ts.run([number], records=100, output=tmp_path / "out", config=CONFIG, blocking=slow)

    mocked(main)
    assert "would take longer than 5 s and are left out" in caplog.text
    assert not (tmp_path / "out" / "trace.json").exists()


def test_a_simulated_clock_does_not_run_out_while_a_thread_draws(tmp_path: Path) -> None:
    async def in_a_thread_when_all_else_sleeps(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def draw() -> T:
            # Longer than the clock waits before it jumps to wherever a task sleeps until.
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked, 0.01)
            return function(*args, **kwargs)

        if function is write_run_views:
            return await trio.to_thread.run_sync(draw)
        return await inline(function, *args, **kwargs)

    async def main() -> None:
        await ts.run(
            [number],
            records=4,
            output=tmp_path / "out",
            config=CONFIG,
            blocking=in_a_thread_when_all_else_sleeps,
        )

    mocked(main)
    assert_views(tmp_path / "out", "Completed.")


def test_files_too_large_for_the_time_there_is_are_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trio_sched._pipeline.views._BYTES_PER_SECOND", 10)

    async def main() -> None:
        with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
            slow = SlowDrawing(float("inf"))
            await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=slow)

    mocked(main)
    assert "trace.json and report.html would take longer than 60 s and are left out" in caplog.text


def test_of_a_summary_only_the_report_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await ts.run([number], records=4, output=tmp_path / "out", blocking=inline)
        slow = SlowDrawing(PATIENCE_AT_THE_END + 1)
        with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
            await ts.run([number], records=4, output=tmp_path / "late", blocking=slow)

    mocked(main)
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "trace.json").exists()
    assert f"report.html would take longer than 60 s and is left out; `trio-sched report {tmp_path}" in caplog.text
