"""What was handed to a constructor is told from what it filled in, also where the two are equal."""

from __future__ import annotations

import copy
import pickle

import attrs

import trio_sched as ts
from trio_sched._given import records_given


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
