"""Ctrl-C, SIGTERM and SIGHUP finish nothing half: complete row groups stay, incomplete ones leave no part file."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
import trio
import trio.testing
from pipeline_samples import number, status

import trio_sched as ts
from trio_sched.lowlevel import inline

PROGRAM = """
import sys, time, trio, trio_sched as ts

@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"])
async def slow(row):
    if row["number"] >= 20:
        await trio.sleep_forever()
    return row["number"]

@ts.column(needs=["number"])
def deaf(row):
    if row["number"] >= 20:
        time.sleep(600)
    return row["number"]

columns = {"slow": slow, "deaf": deaf}

class Announcer:
    done = 0
    def accepts_scheduler_event(self, kind):
        return kind == "row_group_checkpointed"
    def emit_scheduler_event(self, event):
        self.done += 1
        if self.done == 2:
            print("two row groups are durable", flush=True)

async def main():
    config = ts.RunConfig(buffer_size=10, max_concurrent_row_groups=3, write_events="all")
    try:
        steps = [number, columns[sys.argv[2]]]
        await ts.run(steps, records=100, output=sys.argv[1], config=config, event_sink=Announcer())
    finally:
        print("the program cleans up", flush=True)

trio.run(main)
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
EVERY = 1 if os.environ.get("TRIO_SCHED_FUZZ") == "full" else 4
"""Of the lines of a run, which ones are tried."""


CODES = [("SIGINT", -2), ("SIGTERM", 143), ("SIGHUP", 129)]


@asynccontextmanager
async def at_work(out: Path, column: str, **options: object) -> AsyncGenerator[trio.Process, None]:
    """A program that has written two row groups and writes no other."""
    command = [sys.executable, "-c", PROGRAM, str(out), column]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, **options)
        child: trio.Process = await nursery.start(start)
        assert child.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await child.stdout.receive_some()
        assert said == b"two row groups are durable\n"
        yield child


def parts(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "data").iterdir())


@posix
@pytest.mark.parametrize(("name", "code"), CODES)
async def test_a_signal_ends_the_run_and_then_the_program(tmp_path: Path, name: str, code: int) -> None:
    out = tmp_path / "out"
    async with at_work(out, "slow", stderr=subprocess.PIPE) as child:
        child.send_signal(getattr(signal, name))
        assert child.stdout is not None
        assert b"".join([each async for each in child.stdout]) == b"the program cleans up\n"
        assert child.stderr is not None
        said = b"".join([each async for each in child.stderr]).decode()
    assert child.returncode == code
    assert f"{name}: the run ends, and what is finished is kept; a second signal ends it at once\n" in said
    assert ("Traceback" in said) == (name == "SIGINT"), "Python shows where Ctrl-C was not caught"
    assert parts(out) == ["part-00000.jsonl", "part-00001.jsonl"]
    rows = [json.loads(line) for part in sorted((out / "data").iterdir()) for line in part.read_text().splitlines()]
    assert [row["slow"] for row in rows] == list(range(20))
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    events = [json.loads(line) for line in (out / "events" / "scheduler.jsonl").read_text().splitlines()]
    kinds = [event["event_kind"] for event in events]
    assert kinds.count("task_lease_acquired") == kinds.count("task_lease_released")
    assert kinds[-1] == "scheduler_job_completed"


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
async def test_a_second_signal_ends_it_at_once_and_what_is_durable_stays(tmp_path: Path, name: str, code: int) -> None:
    out = tmp_path / "out"
    with trio.fail_after(30):  # The thread that the run waits for sleeps for longer.
        async with at_work(out, "deaf", stderr=subprocess.PIPE) as child:
            child.send_signal(signal.SIGTERM)
            said = b""
            assert child.stderr is not None
            while b"a second signal ends it at once" not in said:
                said += await child.stderr.receive_some()
            child.send_signal(getattr(signal, name))  # an echo of the first, if it comes as soon as this
            while child.returncode is None:
                await trio.sleep(0.05)
                child.send_signal(getattr(signal, name))
    assert child.returncode == code
    assert parts(out) == ["part-00000.jsonl", "part-00001.jsonl"]
    assert status(out) == "running", "whom the lock shows to be killed"
    result = await ts.run([number], records=1, output=tmp_path / "free")
    assert result.records == 1


@posix
async def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async with at_work(out, "slow", stderr=subprocess.DEVNULL, preexec_fn=ignore) as child:
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 143


class SignalAt:
    """A trace function that sends a signal at the given line, counted from 1, of what carries out a run."""

    def __init__(self, line: int, signum: int) -> None:
        self.left = line
        self._signum = signum

    def __call__(self, frame: FrameType, event: str, argument: object) -> SignalAt | None:
        path = Path(frame.f_code.co_filename)
        place = f"{path.parent.name}/{path.name}:{frame.f_code.co_name}"
        if not place.startswith(("_pipeline/attempt.py", "_pipeline/run.py")) or place == "_pipeline/run.py:run":
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(self._signum)
        return self


def run_mocked(out: Path, *columns: ts.Column) -> None:
    async def main() -> None:
        config = ts.RunConfig(write_events="none")
        await ts.run([number, *columns], records=1, output=out, config=config, blocking=inline)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_at_every_line_of_a_run_it_ends_as_interrupted_or_is_over_and_the_signal_is_raised(
    tmp_path: Path, name: str
) -> None:
    line, signum = (1 - EVERY if name == "SIGINT" else 2 - EVERY), getattr(signal, name)
    sent = True
    while sent:
        line += EVERY
        out = tmp_path / str(line)
        interrupt, traced = SignalAt(line, signum), sys.gettrace()
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        raised: BaseException | None = None
        sys.settrace(interrupt)
        try:
            run_mocked(out)
        except KeyboardInterrupt as error:
            raised = error
        finally:
            sys.settrace(traced)
        sent = interrupt.left <= 0
        assert (raised is not None) == sent
        if sent:
            assert isinstance(raised, SystemExit) == (name == "SIGTERM")
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
        if (out / "run.json").exists():
            assert status(out) in ("interrupted", "completed")
    assert line > 70


def test_ctrl_c_that_is_swallowed_ends_the_run_all_the_same(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def hungry(row: dict[str, int]) -> int:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run_mocked(tmp_path / "out", hungry)
    assert status(tmp_path / "out") == "interrupted"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_strikes_where_errors_are_ignored_ends_the_run_all_the_same(tmp_path: Path) -> None:
    class Watched:
        pass

    @ts.column(needs=["number"])
    async def forgetful(row: dict[str, int]) -> int:
        watched = Watched()
        reference = weakref.ref(watched, lambda _: signal.raise_signal(signal.SIGINT))
        del watched
        gc.collect()
        assert reference() is None
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run_mocked(tmp_path / "out", forgetful)
    assert status(tmp_path / "out") == "interrupted"


@posix
def test_a_handler_of_the_program_stays(tmp_path: Path) -> None:
    taken: list[int] = []
    former = {each: signal.signal(each, lambda signum, _: taken.append(signum)) for each in (15, 1)}
    try:

        @ts.column(needs=["number"])
        async def sending(row: dict[str, int]) -> int:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            await trio.sleep(1)
            return 1

        run_mocked(tmp_path / "out", sending)
        assert status(tmp_path / "out") == "completed"
        assert taken == [15, 1]
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


@posix
def test_signals_that_come_as_one_are_one_and_two_runs_share_them(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def sending(row: dict[str, int]) -> int:
        await trio.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        await trio.sleep_forever()
        raise AssertionError

    @ts.column(needs=["number"])
    async def waiting(row: dict[str, int]) -> int:
        return await trio.sleep_forever()

    ended: list[object] = []

    async def make(name: str, column: ts.Column) -> None:
        try:
            await ts.run([number, column], records=1, output=tmp_path / name, blocking=inline)
        except KeyboardInterrupt as error:
            ended.append(error.args)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, "a", sending)
            nursery.start_soon(make, "b", waiting)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert ended == [("ended by SIGTERM",)] * 2
    assert (status(tmp_path / "a"), status(tmp_path / "b")) == ("interrupted", "interrupted")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_in_another_thread_has_no_handlers(tmp_path: Path) -> None:
    handlers: list[object] = []

    @ts.column(needs=["number"])
    async def looking(row: dict[str, int]) -> int:
        handlers.append(signal.getsignal(signal.SIGTERM))
        return 1

    async def main() -> None:
        await trio.to_thread.run_sync(run_mocked, tmp_path / "out", looking)

    trio.run(main)
    assert handlers == [signal.SIG_DFL]
    assert status(tmp_path / "out") == "completed"
