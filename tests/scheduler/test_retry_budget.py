"""Retries never become most of the load: the bound of the token bucket, and what waits for a token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from scheduler_samples import Setup, simulate

from trio_sched._scheduler.retry import RetryBook, RetryBudget
from trio_sched.lowlevel import (
    Failure,
    HealthConfig,
    RetryBudgetConfig,
    RetryConfig,
    RowDrop,
    SchedulerConfig,
    Task,
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("first attempts"), st.integers(0, 20)),
        st.tuples(st.just("seconds"), st.floats(0, 5)),
        st.tuples(st.just("retries"), st.integers(1, 40)),
    ),
    max_size=60,
)


@given(STEPS, st.floats(0, 1), st.integers(1, 30), st.floats(0.1, 5))
def test_over_any_stretch_retries_are_bounded_by_burst_share_and_time(
    steps: list[tuple[str, float]], share: float, burst: int, per_second: float
) -> None:
    budget = RetryBudget(RetryBudgetConfig(share, burst, per_second))
    now = 0.0
    allowed: list[float] = []
    taken: list[int] = []
    for kind, amount in steps:
        allowed.append(0.0)
        taken.append(0)
        if kind == "seconds":
            now += amount
            allowed[-1] = amount * per_second
        elif kind == "first attempts":
            budget.first_attempts(int(amount))
            allowed[-1] = amount * share
        else:
            taken[-1] = sum(budget.try_take(now) for _ in range(int(amount)))
    for begin in range(len(steps)):
        for end in range(begin, len(steps)):
            assert sum(taken[begin : end + 1]) <= burst + sum(allowed[begin : end + 1]) + 1e-6


@given(st.floats(0, 1e6), st.floats(0.01, 100), st.integers(1, 5))
def test_the_next_token_is_there_when_it_was_promised(now: float, per_second: float, burst: int) -> None:
    budget = RetryBudget(RetryBudgetConfig(0.0, burst, per_second))
    while budget.try_take(now):
        pass
    assert budget.next_token_at(now) >= now
    assert budget.try_take(budget.next_token_at(now) + 1e-6)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"^RetryBudgetConfig.share must be a finite number of at least 0, got -1$"):
        RetryBudgetConfig(share=-1)
    with pytest.raises(ValueError, match=r"^RetryBudgetConfig.per_second must be a positive finite number, got 0$"):
        RetryBudgetConfig(per_second=0)


def book() -> RetryBook:
    return RetryBook(RetryConfig(budget=RetryBudgetConfig(share=0.5, burst=2, per_second=1.0)))


def cell(row: int) -> Task:
    return Task("a", 0, row, "cell")


def test_a_retry_without_a_token_waits_and_a_preserved_one_does_not() -> None:
    retries = book()
    for row in range(4):
        retries.defer(cell(row), Failure("retryable", "provider_failure", 1.0), 0.0)
    retries.defer(cell(9), Failure("preserved", "rate_limited", 1.0), 0.0)
    assert [each.task.row_index for each in retries.take_due(1.0)] == [9, 0, 1]
    assert retries.next_due(1.0) == 2.0
    retries.budget.first_attempts(2)
    assert [each.task.row_index for each in retries.take_due(1.0)] == [2]
    assert [each.task.row_index for each in retries.take_due(2.0)] == [3]
    assert len(retries) == 0


def test_what_waits_for_a_token_can_be_forgotten() -> None:
    retries = book()
    for row in range(3):
        retries.defer(cell(row), Failure("retryable", "provider_failure", 1.0), 0.0)
    retries.take_due(1.0)
    assert retries.forget(cell(2))
    assert retries.next_due(1.0) is None
    assert retries.take_due(100.0) == []


def test_a_storm_of_failures_retries_at_the_pace_of_the_budget_and_drops_nothing() -> None:
    tries: Counter[Task] = Counter()
    retried_at: list[float] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        tries[task] += 1
        if task.column == "b" and tries[task] == 1:
            raise ConnectionError
        if task.column == "b":
            retried_at.append(trio.current_time())
        return ()

    async def main() -> None:
        budget = RetryBudgetConfig(share=0.0, burst=10, per_second=2.0)
        config = SchedulerConfig(retry=RetryConfig(budget=budget), health=HealthConfig(stop_error_rate=None))
        setup = Setup(
            work, records=50, buffer_size=50, config=config, classify=lambda _: Failure("retryable", "provider_failure")
        )
        result = await setup.scheduler.run()
        assert (result.rows, result.dropped_rows) == (50, 0)
        first = retried_at[0]
        assert sum(at == first for at in retried_at) == 10
        assert retried_at[-1] - first == pytest.approx(20.0)
        setup.assert_nothing_held()

    simulate(main)


def test_other_retryables_are_dropped_when_salvage_is_exhausted() -> None:
    tries: Counter[Task] = Counter()

    async def work(task: Task) -> Sequence[RowDrop]:
        tries[task] += 1
        if task.column == "b" and task.row_index == 0:
            raise ConnectionError
        return ()

    async def main() -> None:
        config = SchedulerConfig(retry=RetryConfig(max_salvage_rounds=3))
        setup = Setup(work, records=2, config=config, classify=lambda _: Failure("retryable", "provider_failure"))
        result = await setup.scheduler.run()
        assert tries[Task("b", 0, 0, "cell")] == 4
        assert (result.rows, result.dropped_rows) == (1, 1)
        assert setup.events("non_retryable_dropped")[0].reason_or_result == "provider_failure"

    simulate(main)
