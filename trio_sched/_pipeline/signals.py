"""What ends a program ends a run in good order: SIGTERM and SIGHUP as Ctrl-C does, and a second signal at once.

*The first signal* cancels the run. It comes down as at any cancellation: row groups that are written by then are
durable, nothing of the others is left, and `run.json` says that it was interrupted. Then the signal is raised as an
exception, so that the program may clean up and decide what becomes of it: `KeyboardInterrupt` for Ctrl-C, and for the
others `TerminatedError`, which is a `KeyboardInterrupt` to whoever handles that, and otherwise a `SystemExit` that ends
the program with the code that shells give to the signal. To let the signal strike again in the end, as servers do,
would take the decision away: nothing of the program's own cleaning up would run. That a run was over when the signal
came, or failed on its way down, changes nothing: a signal is never lost.

*Ctrl-C* is Trio's to deliver. Where that raises `KeyboardInterrupt` in code that swallows it (a weak reference's
callback, an `except:` of a column), nobody would ever know. So the run is cancelled as well.

*A second signal* ends the process there and then (`os._exit`, with the shell's code): somebody who asks twice waits for
a thread, a shield or a disk that may never come back, and so might anything that Python does on its way out. What is
durable stays so, since nothing is ever durable by half; the lock ends with the process, and readers know the run as
killed. Signals that follow the first within a moment are its echo: `timeout`, shells that hang up and wrappers of all
kinds signal the process and then its group.

*Whose handlers.* Handlers are those of the process. They are set in the main thread alone, and only over the default:
what `nohup` ignores stays ignored, and what a program handles stays its own. They are set when the first of the runs of
this process begins, and the former ones are back before the last of them raises what came.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

import trio

__all__ = ["TerminatedError", "signal_that_came", "until_signal"]

logger = logging.getLogger("trio_sched.run")

T = TypeVar("T")
_Handler: TypeAlias = "Callable[[int, FrameType | None], Any] | int | None"

_ECHO_SECONDS: Final = 0.2
"""Signals that come so soon after the first are not a second one: the fastest fingers need as long."""
_SHELL_CODE: Final = 128
"""Shells report a process that a signal ended with this and the signal's number."""
_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_TRIO_S_OWN: Final = "trio._core._ki"
"""Where Trio's handler of Ctrl-C is defined. One that a program set through Trio is defined elsewhere."""


class TerminatedError(KeyboardInterrupt, SystemExit):
    """A signal other than Ctrl-C ended a run. Attributes: `signum`, `code` (128 and that, as shells have it)."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum
        self.code = _SHELL_CODE + signum


class _Run:
    """One run that a signal cancels."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._token = trio.lowlevel.current_trio_token()

    def cancel(self, signum: int) -> None:
        """Cancel it soon. Called by a handler, within whatever step of the program."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._cancel, signum)

    def _cancel(self, signum: int) -> None:
        self.scope.cancel()
        name = signal.Signals(signum).name
        with suppress(Exception):  # Whoever writes the log may have lost its terminal, and Trio's loop bears no error.
            logger.warning("%s: the run ends, and what is finished is kept; a second signal ends it at once", name)


class _Signals:
    """The handlers of this process while runs go on. Only the main thread touches it."""

    def __init__(self) -> None:
        self.runs: list[_Run] = []
        self.first: tuple[int, float] | None = None
        self._former: dict[int, _Handler] = {}

    def begin(self, run: _Run) -> None:
        """Handle signals from now on, if nobody else does."""
        self.runs.append(run)
        if len(self.runs) > 1:
            if self.first is not None:
                run.cancel(self.first[0])
            return
        self.first = None
        for name in _NAMES:
            signum = getattr(signal, name, None)
            if signum is None:
                continue
            former = signal.getsignal(signum)
            if _is_default(signum, former):
                self._former[signum] = former
                signal.signal(signum, self._take)

    def end(self, run: _Run) -> int | None:
        """A run is over: the signal that came, if one did. The former handlers are back after the last run."""
        self.runs.remove(run)
        if not self.runs:
            for signum, former in self._former.items():
                if signal.getsignal(signum) == self._take:
                    signal.signal(signum, former)
            self._former.clear()
        return None if self.first is None else self.first[0]

    def _take(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first is not None:
            if now - self.first[1] >= _ECHO_SECONDS:
                _end_at_once(signum)
            return
        self.first = signum, now
        for run in self.runs:
            run.cancel(signum)
        former = self._former.get(signum)
        if signum == signal.SIGINT and callable(former):
            former(signum, frame)


_signals: Final = _Signals()


def signal_that_came() -> str | None:
    """The name of the signal that ends the runs of this process; None where none came."""
    if not _signals.runs or _signals.first is None:
        return None
    return signal.Signals(_signals.first[0]).name


@trio.lowlevel.enable_ki_protection
async def until_signal(act: Callable[[], Awaitable[T]]) -> T:
    """What `act` returns. A signal cancels it, and is raised when it has ended, however it did.

    Elsewhere than in the main thread, where no signal comes, this only calls it.
    """
    if threading.current_thread() is not threading.main_thread():
        return await _without_protection(act)
    run = _Run()
    made: list[T] = []
    _signals.begin(run)
    try:
        with run.scope:
            made.append(await _without_protection(act))
    except BaseException as error:
        came = _signals.end(run)
        if came is None or (came == signal.SIGINT and isinstance(error, KeyboardInterrupt)):
            raise
        raise _interrupt(came) from error
    came = _signals.end(run)
    if came is not None:
        raise _interrupt(came)
    return made[0]


@trio.lowlevel.disable_ki_protection
async def _without_protection(act: Callable[[], Awaitable[T]]) -> T:
    return await act()


def _is_default(signum: int, handler: _Handler) -> bool:
    """Whether nobody but Python or Trio handles the signal; None is a handler that Python did not set."""
    if signum != signal.SIGINT:
        return handler == signal.SIG_DFL
    return handler is signal.default_int_handler or getattr(handler, "__module__", None) == _TRIO_S_OWN


def _interrupt(signum: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if signum == signal.SIGINT else TerminatedError(signum)


def _end_at_once(signum: int) -> None:
    with suppress(OSError, ValueError, AttributeError):  # There may be no standard error.
        if os.isatty(number := sys.__stderr__.fileno()):  # type: ignore[union-attr]  # see above
            os.write(number, b"\x1b[?25h\n")  # A panel hides the cursor.
    os._exit(_SHELL_CODE + signum)
