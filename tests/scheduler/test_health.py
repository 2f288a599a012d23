"""The error rate that stops a run, and the warning of a degraded provider."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from scheduler_samples import CHAIN, Setup, simulate

from trio_sched._scheduler.health import HealthMonitor
from trio_sched.lowlevel import (
    Failure,
    GraphNode,
    HealthConfig,
    RetryConfig,
    RowDrop,
    RowFailure,
    RowGroupConfig,
    SchedulerConfig,
    Task,
)


class Busy(Exception):
    pass


class Broken(Exception):
    pass


def classify(error: Exception) -> Failure:
    if isinstance(error, Busy):
        return Failure("preserved", "rate_limited")
    return Failure("retryable" if isinstance(error, Broken) else "non_retryable", "provider_failure")


CONFIG = SchedulerConfig(
    row_groups=RowGroupConfig(2),
    retry=RetryConfig(max_salvage_rounds=5),
    health=HealthConfig(window=10, stop_error_rate=0.5),
)


def cell(row: int) -> Task:
    return Task("a", 0, row, "cell")


def monitor_of(window: int, rate: float) -> HealthMonitor:
    return HealthMonitor(HealthConfig(window=window, stop_error_rate=rate))


def test_nothing_is_said_before_the_window_is_full() -> None:
    monitor = monitor_of(4, 0.5)
    for row in range(3):
        monitor.began(cell(row))
        monitor.rejected(0, row)
        assert monitor.early_stop() is None
    monitor.began(cell(3))
    monitor.rejected(0, 3)
    stop = monitor.early_stop()
    assert stop is not None
    assert (stop.reason, str(stop)) == ("error_rate", "50% or more of 4 rows in a row failed")


def test_rows_are_judged_in_the_order_in_which_they_began() -> None:
    """Two of four in a row are too many; every third one is not."""
    monitor = monitor_of(4, 0.5)
    for row in range(30):
        monitor.began(cell(row))
    for row in range(0, 30, 4):
        monitor.rejected(0, row)
        assert monitor.early_stop() is None
    monitor.rejected(0, 15)
    assert monitor.early_stop() is not None


def test_fast_failures_do_not_crowd_out_slow_successes() -> None:
    """Each row in ten fails at once, and all others take for ever."""
    monitor = monitor_of(100, 0.5)
    for row in range(5000):
        monitor.began(cell(row))
        if row % 10 == 0:
            monitor.rejected(0, row)
    assert monitor.early_stop() is None


def test_rows_that_all_fail_late_stop_the_run_however_many_are_in_flight() -> None:
    monitor = monitor_of(100, 0.5)
    for row in range(1024):
        monitor.began(cell(row))
    for row in range(50):
        assert monitor.early_stop() is None
        monitor.rejected(0, row)
        monitor.began(cell(1024 + row))
    assert monitor.early_stop() is not None


def test_rows_of_a_task_for_the_whole_row_group_begin_together() -> None:
    monitor = monitor_of(10, 0.5)
    for row_group in range(50):
        monitor.opened(row_group, 10)
        monitor.rejected(row_group, 3)
        monitor.closed(row_group)
    assert monitor.early_stop() is None
    monitor.opened(50, 10)
    for row in range(5):
        monitor.rejected(50, row)
    assert monitor.early_stop() is not None


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 8), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_window_is_any_run_of_rows(fails: list[bool], window: int, rate: float) -> None:
    monitor = monitor_of(window, rate)
    for row in range(len(fails)):
        monitor.began(cell(row))
    for row in sorted(range(len(fails)), key=lambda row: row * 7 % len(fails)):
        if fails[row]:
            monitor.rejected(0, row)
    runs = [fails[start : start + window] for start in range(len(fails) - window + 1)]
    expected = any(sum(run) >= max(1, rate * window) for run in runs)
    assert (monitor.early_stop() is not None) == expected


def test_no_rate_never_stops() -> None:
    monitor = HealthMonitor(HealthConfig(window=1, stop_error_rate=None))
    monitor.failed("non_retryable", "a", "x", 0.0)
    assert monitor.early_stop() is None


def test_a_degraded_provider_is_warned_of_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    monitor = HealthMonitor(HealthConfig(window=4, degraded_share=0.5, warning_interval_seconds=60))
    with caplog.at_level(logging.WARNING, "trio_sched.scheduler"):
        told = [now for now in range(130) if monitor.failed("preserved", "answer", "rate_limited", float(now))]
    assert told == [3, 63, 123]
    assert len(caplog.records) == 3
    assert caplog.messages[0] == (
        "100 % of the last 4 attempts were refused or failed for reasons that may pass "
        "(last: column 'answer', rate_limited); they are tried again"
    )


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"^HealthConfig.stop_error_rate must be None or a number from 0 to 1, got 2$"):
        HealthConfig(stop_error_rate=2)
    with pytest.raises(ValueError, match=r"^HealthConfig.window must be a positive int, got 0$"):
        HealthConfig(window=0)
    with pytest.raises(ValueError, match=r"^SchedulerConfig.no_progress_seconds must be None or a positive finite"):
        SchedulerConfig(no_progress_seconds=0)


def test_a_run_that_only_fails_stops_early_and_admits_no_more_row_groups() -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        await trio.sleep(1)
        if task.column == "b":
            raise LookupError
        return ()

    async def main() -> None:
        setup = Setup(work, records=1000, config=CONFIG)
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert result.early_stop.reason == "error_rate"
        assert not result.cancelled
        assert setup.kinds()["row_group_admitted"] < 10
        assert setup.events("scheduler_job_completed")[0].reason_or_result == "stopped"
        assert result.row_groups + result.abandoned_row_groups == setup.kinds()["row_group_admitted"]
        setup.assert_nothing_held()

    simulate(main)


@pytest.mark.parametrize("fails_later", [False, True])
def test_after_an_early_stop_row_groups_with_finished_rows_go_on_and_nothing_is_settled(fails_later: bool) -> None:
    """Row group 0 has finished a row when the failures of row group 1 stop the run; 1 has none."""

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.row_group == 0 and task.row_index:
            await trio.sleep(20)
        if fails_later and task.row_group == 0 and task.row_index == 2 and task.column == "b":
            raise Broken
        if task.row_group == 0 and task.row_index == 3 and task.column == "b" and trio.current_time() < start + 60:
            raise Busy
        if task.row_group == 1 and task.column == "b":
            await trio.sleep(1)
            raise LookupError if (task.row_index or 0) < 12 else Broken
        return ()

    start = 0.0

    async def main() -> None:
        nonlocal start
        start = trio.current_time()
        setup = Setup(
            work,
            records=60,
            buffer_size=20,
            config=attrs.evolve(CONFIG, health=HealthConfig(window=30, stop_error_rate=0.5)),
            classify=classify,
        )
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert (result.row_groups, result.abandoned_row_groups) == ((0, 2) if fails_later else (1, 1))
        assert setup.store.written == ([] if fails_later else [(0, tuple(range(20)))])
        assert result.dropped_rows == 0
        abandoned = [event for event in setup.events("cancelled") if event.task_id is None]
        assert {event.reason_or_result for event in abandoned} == {"row_group_abandoned"}
        setup.assert_nothing_held()

    simulate(main)


def test_what_follows_an_abandoned_row_group_in_order_is_abandoned_too() -> None:
    """Row group 1 has finished rows, but its ordered node would be made without row group 0."""

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column == "b":
            await trio.sleep(task.row_index or 0)
            if task.row_group == 0:
                raise LookupError
        return ()

    async def main() -> None:
        nodes = (
            GraphNode("a", "from_scratch"),
            GraphNode("b", "cell", ("a",)),
            GraphNode("story", "batch", ("a",), ordered=True),
        )
        config = attrs.evolve(CONFIG, health=HealthConfig(window=8, stop_error_rate=0.4))
        setup = Setup(work, nodes, records=100, buffer_size=10, config=config)
        result = await setup.scheduler.run()
        assert result.early_stop is not None
        assert result.abandoned_row_groups == 2
        assert setup.store.written == []
        setup.assert_nothing_held()

    simulate(main)


def test_trouble_is_told_in_a_health_snapshot() -> None:
    tries = 0

    async def work(task: Task) -> Sequence[RowDrop]:
        nonlocal tries
        tries += 1
        if task.column == "b" and tries < 100:
            raise Busy
        return ()

    async def main() -> None:
        setup = Setup(work, CHAIN, config=CONFIG, classify=classify)
        await setup.scheduler.run()
        told = setup.events("scheduler_health_snapshot")
        assert {event.reason_or_result for event in told} == {"interval", "degraded"}
        assert all(event.snapshot is not None for event in told)

    simulate(main)


@pytest.mark.parametrize(("failing_rows", "stops"), [(3, True), (2, False)])
def test_of_a_task_over_many_rows_each_row_counts(failing_rows: int, stops: bool) -> None:
    async def work(task: Task) -> Sequence[RowDrop]:
        return [RowFailure(row, Broken()) for row in range(failing_rows)] if task.column == "b" else ()

    async def main() -> None:
        nodes = (GraphNode("a", "from_scratch"), GraphNode("b", "batch", ("a",)))
        config = attrs.evolve(CONFIG, row_groups=RowGroupConfig(1))
        result = await Setup(work, nodes, records=200, classify=classify, config=config).scheduler.run()
        assert (result.early_stop is not None) == stops
        assert result.early_stop is None or isinstance(result.early_stop.last_error, Broken)
        assert (result.dropped_rows < 10) if stops else (result.dropped_rows == 80)

    simulate(main)
