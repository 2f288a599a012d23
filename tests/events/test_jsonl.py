"""The event files: written by a task of their own, complete on every way out."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ParamSpec, TypeVar

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._errors import InvalidValueError
from trio_sched._events.jsonl import EVENT_FILES, JsonlEventSink, open_jsonl_sink, read_event
from trio_sched._events.records import RequestAdmissionEvent, SchedulerAdmissionEvent
from trio_sched._util import inline

P = ParamSpec("P")
T = TypeVar("T")


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


async def test_half_a_buffer_is_written_without_waiting_for_the_rest(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline, interval=1000, max_buffered=4) as sink:
        for sequence in range(1, 4):
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
        await trio.sleep(1)
        assert scheduler_lines(tmp_path) == [1, 2, 3]


async def test_a_run_that_must_not_wait_drops_what_finds_the_buffer_full_and_says_so(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline, max_buffered=2, when_full="drop") as sink:
        for sequence in range(1, 6):
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
        assert sink.dropped == 3
    assert scheduler_lines(tmp_path) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "The event files are incomplete: 3 events dropped, 0 lost"
    ]


async def test_a_folder_that_cannot_be_written_is_told_once_and_costs_only_the_events(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_jsonl_sink(tmp_path / "missing", blocking=inline) as sink:
        sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
        await trio.sleep(1)
        sink.emit_request_event(RequestAdmissionEvent("request_wait_started", 1.0, 1))
    assert (sink.dropped, sink.lost) == (0, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_disk_that_fills_up_loses_what_comes_after_and_keeps_what_was_written(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        async with open_jsonl_sink(tmp_path, blocking=inline) as sink:
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
            await trio.sleep(1)
            written = (tmp_path / "scheduler.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (written, limit[1]))
            for sequence in (2, 3):
                sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
                await trio.sleep(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    assert sink.lost == 2
    assert scheduler_lines(tmp_path) == [1]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_an_event_that_is_no_json_is_left_out_and_counted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline) as sink:
        for sequence, name in ((1, "a"), (2, "\ud800"), (3, "\udfff"), (4, "a")):
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence, task_id=name))
    assert scheduler_lines(tmp_path) == [1, 4]
    assert sink.lost == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_buffer_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="max_buffered"):
        async with open_jsonl_sink(tmp_path, blocking=inline, max_buffered=0):
            pass


def test_batches_that_a_thread_has_not_written_yet_stay_in_front(tmp_path: Path) -> None:
    """The buffer overflows while a thread is about to write the batch before."""
    handed_over = trio.Event()

    async def later(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        handed_over.set()
        await trio.sleep(1)
        return function(*args, **kwargs)

    async def main() -> None:
        async with open_jsonl_sink(tmp_path, blocking=later, interval=0.1, max_buffered=2) as sink:
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, 1))
            await handed_over.wait()
            for sequence in range(2, 6):
                sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
            assert scheduler_lines(tmp_path) == [1, 2, 3]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert scheduler_lines(tmp_path) == [1, 2, 3, 4, 5]


def test_also_when_the_run_is_interrupted(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_jsonl_sink(tmp_path, blocking=inline, interval=3600) as sink:
            for sequence in (1, 2):
                sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.RaisesGroup(pytest.RaisesExc(KeyboardInterrupt)):
        trio.run(main)
    assert scheduler_lines(tmp_path) == [1, 2]


def kept(folder: Path) -> tuple[list[int], list[int]]:
    requests = (folder / "request.jsonl").read_text(encoding="utf-8").splitlines()
    return scheduler_lines(folder), [read_event(line, RequestAdmissionEvent).sequence for line in requests]


def emit(sink: JsonlEventSink, which: bool, sequence: int) -> None:
    if which:
        sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence))
    else:
        sink.emit_request_event(RequestAdmissionEvent("request_wait_started", 1.0, sequence))


@given(max_buffered=st.integers(1, 60), streams=st.lists(st.booleans(), max_size=150))
def test_a_buffer_of_any_size_never_holds_more_and_loses_nothing(max_buffered: int, streams: list[bool]) -> None:
    async def main(folder: Path) -> None:
        async with open_jsonl_sink(folder, blocking=inline, max_buffered=max_buffered) as sink:
            for sequence, which in enumerate(streams):
                emit(sink, which, sequence)
                written = sum((folder / name).read_bytes().count(b"\n") for name in EVENT_FILES)
                assert sequence + 1 - written <= max_buffered

    with TemporaryDirectory() as folder:
        trio.run(main, Path(folder), clock=trio.testing.MockClock(autojump_threshold=0))
        assert kept(Path(folder)) == (
            [sequence for sequence, which in enumerate(streams) if which],
            [sequence for sequence, which in enumerate(streams) if not which],
        )


@given(max_buffered=st.integers(1, 60), streams=st.lists(st.booleans(), min_size=60, max_size=150))
def test_what_a_full_buffer_drops_is_what_came_last_and_is_counted(max_buffered: int, streams: list[bool]) -> None:
    dropped: list[int] = []

    async def main(folder: Path) -> None:
        async with open_jsonl_sink(folder, blocking=inline, max_buffered=max_buffered, when_full="drop") as sink:
            for sequence, which in enumerate(streams):
                emit(sink, which, sequence)
            dropped.append(sink.dropped)

    with TemporaryDirectory() as folder:
        trio.run(main, Path(folder), clock=trio.testing.MockClock(autojump_threshold=0))
        scheduler, request = kept(Path(folder))
    assert len(scheduler) + len(request) + dropped[0] == len(streams)
    assert max_buffered * 3 // 4 <= len(scheduler) + len(request) <= max_buffered
    for of_stream, which in ((scheduler, True), (request, False)):
        assert of_stream == [sequence for sequence, each in enumerate(streams) if each is which][: len(of_stream)]


async def test_events_that_are_no_json_are_left_out_of_the_hundreds_that_are_made_into_lines_together(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_jsonl_sink(tmp_path, blocking=inline) as sink:
        for sequence in range(1000):
            name = "\ud800" if sequence % 100 == 7 else "a"
            sink.emit_scheduler_event(SchedulerAdmissionEvent("selected", 1.0, sequence, task_id=name))
    assert scheduler_lines(tmp_path) == [sequence for sequence in range(1000) if sequence % 100 != 7]
    assert sink.lost == 10
