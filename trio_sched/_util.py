"""Small functions that several rooms need and that belong to none of them.

Blocking work: `in_threads` and `inline`. One error instead of a group: `single_error` and `leaves_of`. Waits after
failures: `doubled`. The clock of a run: `run_clock`. Which fields of a value somebody chose: `records_given`. Text for
terminals: `printable`, `page` and `counted`. JSON from outside: `parse_json`. Too many open files: `lacks_open_files`
and `with_open_files`.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, ParamSpec, Protocol, TypeVar, cast

import attrs
import trio

from trio_sched._errors import TrioSchedError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = [
    "Blocking",
    "ThreadPool",
    "counted",
    "doubled",
    "in_threads",
    "inline",
    "lacks_open_files",
    "leaves_of",
    "page",
    "parse_json",
    "printable",
    "records_given",
    "run_clock",
    "single_error",
    "with_open_files",
]

logger = logging.getLogger("trio_sched.run")

P = ParamSpec("P")
T = TypeVar("T")

_MOST_DOUBLINGS: Final = 64
"""Any wait has reached its maximum by then, and far more of them would be too much for a float."""

_LONGEST_LINE: Final = 2_000
"""Letters of a line for people: more than any line of ours, and far less than an error body may have."""

_NO_FURTHER_FILE: Final = {errno.EMFILE, errno.ENFILE}
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Blocking(Protocol):
    """Runs a synchronous function that may block, and waits for it: files, fsync, synchronous columns.

    In a run it goes to a worker thread, under a limiter of its own so that it neither starves nor is starved by other
    uses of threads in the same program. A simulation on a mock clock passes `inline` instead, because that clock jumps
    while a thread works.
    """

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run `function` to its end; a cancelled caller waits for it, so that nothing is left half done unseen."""
        ...


class ThreadPool:
    """Blocking work in worker threads, at most `max_threads` at once. most_waiting: calls that waited for one."""

    def __init__(self, max_threads: int) -> None:
        self._limiter = trio.CapacityLimiter(max_threads)
        self.most_waiting = 0

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in a thread, once there is one."""
        limiter = self._limiter
        if limiter.available_tokens <= 0:
            self.most_waiting = max(self.most_waiting, limiter.statistics().tasks_waiting + 1)
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=limiter)


def in_threads(max_threads: int) -> Blocking:
    """Blocking work in worker threads, at most `max_threads` at once."""
    return ThreadPool(max_threads)


async def inline(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Blocking work in the caller's own thread: for simulations. There is no worker thread for `trio.from_thread`."""
    await trio.lowlevel.checkpoint()
    return function(*args, **kwargs)


@contextmanager
def single_error() -> Generator[None, None, None]:
    """Unwrap what the block raises, as far as it is a single error or an interrupt.

    A nursery wraps what leaves it in an exception group, even a single error. One leaf is raised as itself, with its
    own cause and context. Ctrl-C wins over whatever else went wrong while the run came down. When several parts fail
    for one reason that this package has a type for, such as a full disk, are all cancelled, all ask to exit, or fail
    with the same error, the first of them is raised. Different errors stay a group, of one level, however deep they
    were nested.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(leaves_of(group))
        interrupt = next((leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)), None)
        error = interrupt if interrupt is not None else leaves[0]
        by_type = isinstance(error, TrioSchedError | trio.Cancelled | SystemExit)
        alike = all(type(leaf) is type(error) and (by_type or leaf.args == error.args) for leaf in leaves)
        if interrupt is None and len(leaves) > 1 and not alike:
            if not any(isinstance(each, BaseExceptionGroup) for each in group.exceptions):
                raise
            raise BaseExceptionGroup("several parts of the run failed", leaves) from None
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """The errors that a group consists of, however deep they are nested; or the error itself, where it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves_of(each)
    else:
        yield error


def doubled(first_seconds: float, max_seconds: float, *, failures: int) -> float:
    """`first_seconds` after one failure, twice as long after each further one, at most `max_seconds`."""
    return min(max_seconds, first_seconds * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))


def run_clock() -> float:
    """The clock of the Trio run this is called in, in seconds, or the performance counter outside one."""
    try:
        return trio.current_time()
    except RuntimeError:
        return perf_counter()


def records_given(cls: type[T]) -> type[T]:
    """Decorator of an attrs class: its field `given` (`init=False`) names the fields that the constructor was handed.

    A field that was handed its default is one that somebody chose, which cannot be seen afterwards. A copy by
    `attrs.evolve` was handed all of them. Validation that depends on it goes into `validate_given(self)`.
    """
    made = cast("Callable[..., None]", cls.__init__)
    fields = attrs.fields(cast("type[attrs.AttrsInstance]", cls))
    positional = [field.name for field in fields if field.init and not field.kw_only]
    validate = cast("Callable[[T], None] | None", getattr(cls, "validate_given", None))

    @functools.wraps(made)
    def init(self: T, *args: object, **kwargs: object) -> None:
        made(self, *args, **kwargs)
        # Past the guard of a frozen class, as its own constructor goes.
        object.__setattr__(self, "given", frozenset((*positional[: len(args)], *kwargs)))
        if validate is not None:
            validate(self)

    type.__setattr__(cls, "__init__", init)
    return cls


def printable(text: str, *, longest: int = _LONGEST_LINE) -> str:
    """One line for a terminal: without anything that it could take for a command, and of `longest` letters at most.

    Control characters, line breaks, marks that change the direction of writing and halves of surrogates become "?".
    Text that comes from outside may have any of them: an error body, the name of a column, a file.
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
    return cut if cut.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in cut)


def page(lines: Iterable[str]) -> str:
    """A text of several lines for a terminal. No line can pass for two, whatever it is made of."""
    return "\n".join(map(printable, lines))


def counted(count: int, noun: str) -> str:
    """A number of things: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def parse_json(text: str | bytes) -> object:
    """What JSON from outside decodes to. Raises `ValueError`, also where it is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def lacks_open_files(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that the process or the system may open no further file.

    That is this machine's trouble: it says nothing about what was called or written, and passes when files are closed.
    """
    unseen, seen = [error], set[int]()
    while unseen:
        each = unseen.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, OSError) and each.errno in _NO_FURTHER_FILE:
            return True
        if isinstance(each, BaseExceptionGroup):
            unseen += cast("BaseExceptionGroup[BaseException]", each).exceptions
        cause = each.__cause__ if each.__cause__ is not None or each.__suppress_context__ else each.__context__
        if cause is not None:
            unseen.append(cause)
    return False


async def with_open_files(blocking: Blocking, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`, which may be called again, until there is a file for each that it opens.

    The pauses double, up to a second. The first is logged.
    """
    failures = 0
    while True:
        try:
            return await blocking(function, *args, **kwargs)
        except OSError as error:
            if not lacks_open_files(error):
                raise
            failures += 1
            if failures == 1:
                logger.warning("no further file can be opened (%s): writing waits until one is closed", error.strerror)
        await trio.sleep(doubled(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, failures=failures))
