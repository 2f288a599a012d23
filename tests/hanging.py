"""A test that does not end is ended, and fails with the leases that were held and the tasks that waited.

pytest-timeout keeps the time: the setting `timeout` in `pyproject.toml`, or a marker. This module says what happens
then. An exception that a signal handler raises within Trio's loop breaks the loop, and its remains break the tests that
follow. So the run is cancelled from within, after a look at what is held and who waits. If that is not enough, shields
are taken away; and what still goes on, as it has no checkpoint, is interrupted wherever it is.

The default is three times what the slowest test takes on two busy processors.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Final, Protocol

import pytest
import trio

from trio_sched.lowlevel import AdaptiveRequestAdmissionController, TaskAdmissionController

__all__ = ["describe_hang", "pytest_enter_pdb", "pytest_timeout_cancel_timer", "pytest_timeout_set_timer"]

_CONTROLLERS: Final = (AdaptiveRequestAdmissionController, TaskAdmissionController)
_FACTORS: Final = {"full": 200}
"""By profile of `TRIO_SCHED_FUZZ`: `full` tries up to 40 times as much as others."""
_GRACE_SECONDS: Final = 5.0
"""Between two attempts to end a test; less where its timeout is less."""
_HANG = pytest.StashKey[str]()


class Settings(Protocol):
    """What pytest-timeout found out of a test."""

    @property
    def timeout(self) -> float: ...


def describe_hang(seconds: float, frame: FrameType | None) -> str:
    """What the main thread does, each lease that is held, and every task of the Trio run with where it waits."""
    gc.collect()
    held = [lease for each in gc.get_objects() if isinstance(each, _CONTROLLERS) for lease in each.leak_report()]
    return "\n".join(
        [
            f"The test did not end within {seconds:g} s.",
            *([] if frame is None else [f"runs: {line_of(frame)}"]),
            *(f"held: {lease}" for lease in held),
            *(f"waits: {task.name} at {place(task)}" for task in tasks_of_this_run()),
        ]
    )


def main_nursery() -> trio.Nursery | None:
    """The nursery of the main task of this thread's Trio run, if there is one."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return None
    return None if root is None else root.child_nurseries[-1]


def tasks_of_this_run() -> Iterator[trio.lowlevel.Task]:
    """The tasks that are there because of the test, parents first."""
    main = main_nursery()
    nurseries = [] if main is None else [main]
    while nurseries:
        for task in nurseries.pop(0).child_tasks:
            if not task.name.startswith("pytest_trio."):
                yield task
            nurseries += task.child_nurseries


def place(task: trio.lowlevel.Task) -> str:
    """From the task's first function to that in which it waits, those of Trio left out unless there are no others."""
    frames = [frame for frame, _ in task.iter_await_frames()]
    own = [frame for frame in frames if PurePath(frame.f_code.co_filename).parent.name not in ("trio", "_core")]
    return " > ".join(map(line_of, own or frames)) or "its first step"


def line_of(frame: FrameType) -> str:
    """File, line and function."""
    return f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def cancel_run(*, shields: bool) -> bool:
    """Cancel this thread's Trio run, shields notwithstanding unless they hold. Whether there is one."""
    main = main_nursery()
    if main is None:
        return False

    def cancel() -> None:
        main.cancel_scope.cancel()
        for scope in () if shields else gc.get_objects():
            if isinstance(scope, trio.CancelScope):
                scope.shield = False

    trio.lowlevel.current_trio_token().run_sync_soon(cancel)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool | None:
    """Start the time of one test. None where there are no timers: pytest-timeout has another way."""
    if not hasattr(signal, "SIGALRM"):
        return None

    seconds = settings.timeout * _FACTORS.get(os.environ.get("TRIO_SCHED_FUZZ", ""), 1)
    shields = iter((True, False))

    def ring(signum: int, frame: FrameType | None) -> None:
        if _HANG not in item.stash:
            item.stash[_HANG] = describe_hang(seconds, frame)
        hold = next(shields, None)
        if hold is None or not cancel_run(shields=hold):
            pytest.fail(item.stash[_HANG], pytrace=False)
        # Only now, since looking at everything takes a while on a busy machine.
        signal.setitimer(signal.ITIMER_REAL, min(seconds, _GRACE_SECONDS))

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    """The test is over."""
    if not hasattr(signal, "SIGALRM"):
        return None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True


def pytest_enter_pdb() -> None:
    """Who debugs a test may take any time."""
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def fail_if_it_hung(item: pytest.Item) -> Generator[None, object, object]:
    """Whatever cancelling made of a phase of a test, it failed because it did not end."""
    try:
        result = yield
    except BaseException:
        if _HANG in item.stash:
            raise pytest.fail.Exception(item.stash[_HANG], pytrace=False) from None
        raise
    if _HANG in item.stash:
        pytest.fail(item.stash[_HANG], pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from fail_if_it_hung(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from fail_if_it_hung(item))
