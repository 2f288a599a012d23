"""What several rooms share: waits after failures, fields that were chosen, one error for a group."""

from __future__ import annotations

import copy
import pickle
import sys

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import trio_sched as ts
from trio_sched._util import counted, doubled, parse_json, records_given, single_error

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


SECONDS = st.floats(1e-3, 1e6)


def test_it_doubles_from_the_first_time_on() -> None:
    assert [doubled(0.5, 3.0, failures=failures) for failures in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(first=SECONDS, most=SECONDS, failures=st.integers(1, 10**9))
def test_it_never_shrinks_and_never_exceeds_the_maximum(first: float, most: float, failures: int) -> None:
    now, after = doubled(first, most, failures=failures), doubled(first, most, failures=failures + 1)
    assert now <= after <= most
    assert doubled(first, most, failures=10**9) == most


@records_given
@attrs.frozen
class Settings:
    first: int = 1
    second: int = 2
    third: int = attrs.field(default=3, kw_only=True)
    given: frozenset[str] = attrs.field(default=frozenset[str](), init=False, eq=False, repr=False)


def test_a_value_that_equals_its_default_counts_as_given() -> None:
    assert Settings().given == set()
    assert Settings(1).given == {"first"}
    assert Settings(1, 2, third=3).given == {"first", "second", "third"}
    assert Settings(second=2).given == {"second"}


def test_the_record_is_no_part_of_the_value() -> None:
    assert Settings(1) == Settings()
    assert hash(Settings(1)) == hash(Settings())
    assert repr(Settings(1)) == "Settings(first=1, second=2, third=3)"


def test_copies_keep_the_record_and_an_evolved_one_was_handed_everything() -> None:
    made = Settings(second=5)
    assert copy.copy(made).given == copy.deepcopy(made).given == {"second"}
    assert pickle.loads(pickle.dumps(made)).given == {"second"}
    assert attrs.evolve(made, first=7).given == {"first", "second", "third"}


def test_the_users_own_values_keep_it() -> None:
    assert ts.RunConfig().given == set()
    assert ts.RunConfig(buffer_size=100, seed=0).given == {"buffer_size", "seed"}
    assert ts.Model("p", "m").given == {"provider", "model_id"}
    assert ts.Model("p", "m", max_parallel_requests=64).given == {"provider", "model_id", "max_parallel_requests"}


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


@pytest.mark.parametrize("text", ["[" * 100_000, b'{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_json_that_is_nested_too_deeply_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)


def test_other_json_is_what_it_is() -> None:
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    with pytest.raises(ValueError, match="Expecting value"):
        parse_json("x")


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1_234, "1,234 rows")])
def test_a_number_of_things_has_the_right_plural(count: int, text: str) -> None:
    assert counted(count, "row") == text
