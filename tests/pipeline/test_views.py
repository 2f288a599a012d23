"""Every attempt leaves its trace and its report, however it ends, and trouble with them changes nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import inline


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    await trio.sleep(1)
    return list(range(span.start, span.start + span.count))


CONFIG = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=1)


def assert_views(folder: Path, told: str) -> None:
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert told in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.tmp"))


def test_a_run_that_ends_leaves_them(tmp_path: Path) -> None:
    async def main() -> None:
        await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=inline)

    mocked(main)
    assert_views(tmp_path / "out", "It came to its end.")


def test_in_worker_threads_too(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def quick(span: ts.RowSpan) -> list[int]:
        return list(range(span.count))

    trio.run(lambda: ts.run([quick], records=4, output=tmp_path / "out", config=CONFIG))
    assert_views(tmp_path / "out", "It came to its end.")


def test_a_cancelled_run_leaves_them(tmp_path: Path) -> None:
    async def main() -> None:
        with trio.move_on_after(2.5):
            await ts.run([number], records=100, output=tmp_path / "out", config=CONFIG, blocking=inline)

    mocked(main)
    assert_views(tmp_path / "out", "It was stopped before its end")


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
    assert_views(tmp_path / "out", "It failed")


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


def test_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trio_sched._pipeline.attempt.PATIENCE_AT_THE_END", 0.0)

    async def main() -> None:
        with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
            await ts.run([number], records=4, output=tmp_path / "out", config=CONFIG, blocking=inline)

    mocked(main)
    (record,) = caplog.records
    assert f"`trio-sched report {tmp_path / 'out'}` makes them" in record.message
    assert not (tmp_path / "out" / "trace.json").exists()
    assert not list((tmp_path / "out").glob("*.tmp"))
