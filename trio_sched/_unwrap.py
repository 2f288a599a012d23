"""Gives the user one error instead of a group that holds one.

A nursery wraps what leaves it in an exception group, even a single error. Where a user would meet that, `single_error`
takes the wrapping off: one leaf is raised as itself, with its own cause and context; Ctrl-C wins over whatever else
went wrong while the run came down; when several parts fail for one reason that this package has a type for, such as a
full disk, are all cancelled, all ask to exit, or fail with the same error, the first of them tells it. Different errors
stay a group, of one level, however deep they were nested.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

import trio

from trio_sched._errors import TrioSchedError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["leaves_of", "single_error"]


@contextmanager
def single_error() -> Generator[None, None, None]:
    """Unwrap what the block raises, as far as it is a single error or an interrupt."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(leaves_of(group))
        interrupt = next((leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)), None)
        error = interrupt if interrupt is not None else leaves[0]
        tells = isinstance(error, TrioSchedError | trio.Cancelled | SystemExit)
        alike = all(type(leaf) is type(error) and (tells or leaf.args == error.args) for leaf in leaves)
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
