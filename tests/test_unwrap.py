"""One error leaves as itself, an interrupt wins, several stay a group."""

from __future__ import annotations

import sys

import pytest
import trio

from trio_sched._unwrap import single_error

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


async def test_a_single_error_keeps_its_cause_and_context() -> None:
    async def fail() -> None:
        try:
            raise ValueError("cause")
        except ValueError as cause:
            raise KeyError("error") from cause

    with pytest.raises(KeyError) as caught, single_error():
        async with trio.open_nursery() as outer, trio.open_nursery():
            outer.start_soon(fail)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__context__ is caught.value.__cause__


def test_an_interrupt_wins() -> None:
    with pytest.raises(KeyboardInterrupt), single_error():
        raise BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [KeyboardInterrupt()])])


def test_several_errors_stay_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught, single_error():
        raise ExceptionGroup("both", [ValueError(), KeyError()])
    assert len(caught.value.exceptions) == 2


def test_several_errors_that_were_nested_are_a_group_of_one_level() -> None:
    deep, shallow = ValueError(), KeyError()
    with pytest.raises(ExceptionGroup) as caught, single_error():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ExceptionGroup("innermost", [deep])]), shallow])
    assert caught.value.exceptions == (deep, shallow)


def test_the_same_error_many_times_is_one() -> None:
    with pytest.raises(LookupError, match="gone"), single_error():
        raise ExceptionGroup("all", [ExceptionGroup("", [LookupError("gone"), LookupError("gone")])])


def test_several_exits_are_one() -> None:
    with pytest.raises(SystemExit) as caught, single_error():
        raise BaseExceptionGroup("both", [SystemExit(3), BaseExceptionGroup("", [SystemExit(3)])])
    assert caught.value.code == 3


def test_what_is_no_group_passes() -> None:
    with pytest.raises(ValueError, match="plain"), single_error():
        raise ValueError("plain")
