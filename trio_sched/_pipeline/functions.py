"""The functions that users hand over: which are accepted, and how one is called.

A function is async, and runs in the run's own thread, or it is sync, and runs in a worker thread through the one seam
for blocking work, so that it never holds up the run. Which of the two it is, is read off its definition once, where it
is declared. A sync function cannot wait for a model, so it gets no model handle.

Around a call two things are mended, and nothing else. The correlation of the task at work is set in the worker thread,
whatever carries the call there. And a nursery inside a function wraps what went wrong in an exception group: one error
leaves as itself, and a cancellation of the run is not mistaken for a failure that happened beside it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NoReturn, TypeAlias

import trio

from trio_sched import _validation as check
from trio_sched._errors import PipelineError
from trio_sched._events.correlation import runtime_correlation
from trio_sched._util import Blocking, single_error

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["UserCall", "accept_function", "awaited_call", "column_names", "function_name", "raise_as_one"]

UserCall: TypeAlias = Callable[..., Awaitable[object]]


def function_name(what: str, function: Callable[..., object], name: str | None) -> str:
    """The name given, or else the function's own."""
    found: object = name if name is not None else getattr(function, "__name__", "")
    if not isinstance(found, str) or not found or found == "<lambda>":
        raise PipelineError(f"a {what} needs a name, and {function!r} has none to go by; write name='...'")
    return found


def column_names(parameter: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names given for `parameter`, checked. A string is refused, since its letters would be taken for names."""
    if isinstance(names, str):
        raise PipelineError(f"{parameter} must be a list of column names, got the string {names!r}; write [{names!r}]")
    return tuple(check.check_text(f"each of {parameter}", each) for each in names)


def accept_function(owner: str, function: Callable[..., object], arguments: Sequence[str], *, models: int = 0) -> bool:
    """Whether `function` is async. Raises `PipelineError` for one that cannot be called with `arguments`."""
    if not callable(function):
        raise PipelineError(f"{owner} must be made by a function, got {function!r}")
    looked_at = (function, type(function).__call__)  # The second is what runs if `function` is an object.
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in looked_at):
        raise PipelineError(f"{owner} must be made by a function that returns, got {function!r}, which yields")
    is_async = any(inspect.iscoroutinefunction(each) for each in looked_at)
    if models and not is_async:
        raise PipelineError(
            f"{owner} calls a model and must be made by an async function, got {function!r}; write `async def`, "
            "and for a blocking client `await model.call(trio.to_thread.run_sync, ...)`"
        )
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise PipelineError(
            f"{owner} calls its function with {len(arguments)} arguments ({', '.join(arguments)}), "
            f"which it does not take: {error}"
        ) from error
    except ValueError:
        pass  # A builtin without a signature: what it takes shows when it is called.
    return is_async


def awaited_call(function: Callable[..., object], *, is_async: bool, blocking: Blocking) -> UserCall:
    """`function` as the run calls it: itself if it is async, else through a worker thread."""
    if is_async:
        return function  # type: ignore[return-value]  # `accept_function` has seen that it is async

    async def call(*args: object) -> object:
        return await blocking(runtime_correlation.carried(function), *args)

    return call


def raise_as_one(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what a function's own nursery wrapped, as the one thing it is, where it is one."""
    cancelled, rest = group.split(trio.Cancelled)
    with single_error():
        if cancelled is not None and (rest is None or isinstance(rest, Exception)):
            raise cancelled
        raise group
    raise AssertionError("unreachable")
