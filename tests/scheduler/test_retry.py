"""What the retry book defers, how long, and when it gives up."""

from __future__ import annotations

import pytest

from trio_sched._resources.task import Task, stable_task_id
from trio_sched._scheduler.retry import Failure, RetryBook, RetryConfig

TASK = Task("a", 0, 0, "cell")
PRESERVED = Failure("preserved", "rate_limited")
RETRYABLE = Failure("retryable", "provider_failure")


def delays(book: RetryBook, failure: Failure, times: int) -> list[float]:
    found: list[float] = []
    for _ in range(times):
        deferral = book.defer(TASK, failure, 100.0)
        assert deferral is not None
        found.append(deferral.due - 100.0)
    return found


def test_a_preserved_failure_is_deferred_for_ever() -> None:
    book = RetryBook(RetryConfig(max_salvage_rounds=0))
    assert delays(book, PRESERVED, 8) == [1, 2, 4, 8, 16, 30, 30, 30]
    assert book.attempt(stable_task_id(TASK)) == 9
    assert delays(book, PRESERVED, 200)[-1] == 30


def test_a_retryable_failure_is_deferred_for_a_bounded_number_of_rounds() -> None:
    book = RetryBook(RetryConfig(max_salvage_rounds=2))
    assert delays(book, RETRYABLE, 2) == [1, 2]
    assert book.defer(TASK, RETRYABLE, 100.0) is None
    assert book.attempt(stable_task_id(TASK)) == 1


def test_rate_limits_do_not_use_up_salvage_rounds() -> None:
    book = RetryBook(RetryConfig(max_salvage_rounds=1))
    delays(book, PRESERVED, 5)
    assert book.defer(TASK, RETRYABLE, 0.0) is not None
    assert book.defer(TASK, PRESERVED, 0.0) is not None
    assert book.defer(TASK, RETRYABLE, 0.0) is None


def test_any_other_failure_is_given_up_at_once() -> None:
    book = RetryBook(RetryConfig())
    assert book.defer(TASK, Failure("non_retryable", "unexpected_exception"), 0.0) is None
    assert book.next_due(0.0) is None


def test_a_hint_is_the_delay() -> None:
    book = RetryBook(RetryConfig())
    deferral = book.defer(TASK, Failure("preserved", "rate_limited", 7.5), 100.0)
    assert deferral is not None
    assert deferral.due == 107.5


def test_due_tasks_come_out_in_order_and_once() -> None:
    book = RetryBook(RetryConfig())
    for row, hint in enumerate([3.0, 1.0, 2.0, 1.0]):
        book.defer(Task("a", 0, row, "cell"), Failure("preserved", "rate_limited", hint), 0.0)
    assert book.next_due(0.0) == 1.0
    assert [deferral.task.row_index for deferral in book.take_due(2.0)] == [1, 3, 2]
    assert book.take_due(2.0) == []
    assert len(book) == 1


def test_success_is_forgotten() -> None:
    book = RetryBook(RetryConfig())
    delays(book, RETRYABLE, 1)
    book.take_due(1e9)
    book.forget(TASK)
    assert book.attempt(stable_task_id(TASK)) == 1


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"^RetryConfig.max_salvage_rounds must be an int of at least 0, got -1$"):
        RetryConfig(max_salvage_rounds=-1)
    with pytest.raises(ValueError, match=r"^RetryConfig.max_delay_seconds must be a positive finite number, got inf$"):
        RetryConfig(max_delay_seconds=float("inf"))
