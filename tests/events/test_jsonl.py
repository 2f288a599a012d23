"""The event files: written by a task of their own, complete on every way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from trio_sched._blocking import inline
from trio_sched._events.jsonl import open_jsonl_sink
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._events.serde import read_event


def scheduler_lines(folder: Path) -> list[int]:
    lines = (folder / "scheduler.jsonl").read_text(encoding="utf-8").splitlines()
    return [read_event(line, SchedulerAdmissionEvent).sequence for line in lines]


async def test_files_can_be_read_while_the_run_goes_on(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline, interval=0.5) as sink:
        sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
        sink.emit_request_event(RequestAdmissionEvent("request_wait_started", 1.0, 1))
        assert scheduler_lines(tmp_path) == []
        await trio.sleep(0.6)
        assert scheduler_lines(tmp_path) == [1]
        assert (tmp_path / "request.jsonl").read_text(encoding="utf-8").count("\n") == 1


async def test_the_rest_is_written_on_the_way_out(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline) as sink:
        sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
    assert scheduler_lines(tmp_path) == [1]


async def test_also_when_the_block_raises_or_is_cancelled(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(KeyError)):
        async with open_jsonl_sink(tmp_path, blocking=inline) as sink:
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
            raise KeyError
    assert scheduler_lines(tmp_path) == [1]
    with trio.move_on_after(1):
        async with open_jsonl_sink(tmp_path, blocking=inline, interval=5) as sink:
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 2))
            await trio.sleep_forever()
    assert scheduler_lines(tmp_path) == [2]


async def test_a_full_buffer_is_written_by_whoever_fills_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline, max_buffered=3) as sink:
        for sequence in range(1, 5):
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
        assert scheduler_lines(tmp_path) == [1, 2, 3]
    assert scheduler_lines(tmp_path) == [1, 2, 3, 4]


async def test_nothing_to_write_arms_no_timer(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline):
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
