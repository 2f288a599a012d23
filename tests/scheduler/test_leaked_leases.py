"""A task lease that is not released is named with its task, at the end of the run or when the run stalls for it."""

from __future__ import annotations

import logging

import pytest
from scheduler_samples import Setup, nothing, simulate

from trio_sched.lowlevel import NoProgressError, TaskAdmissionConfig, TaskAdmissionLease

LEAKING = "0:1:cell:b"


@pytest.fixture
def _leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task leaves its lease's block without giving it back."""
    leave = TaskAdmissionLease.__exit__

    def leave_unless_it_leaks(lease: TaskAdmissionLease, *error: object) -> None:
        if lease.item.task_id != LEAKING:
            leave(lease, *error)  # type: ignore[arg-type]  # what a `with` statement passes

    monkeypatch.setattr(TaskAdmissionLease, "__exit__", leave_unless_it_leaks)


@pytest.mark.usefixtures("_leak")
def test_at_the_end_of_a_run_a_leaked_lease_is_named_with_its_task(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        setup = Setup(nothing)
        result = await setup.scheduler.run()
        assert (result.rows, result.cancelled) == (20, False)
        assert [leak.task_id for leak in setup.admission.leak_report()] == [LEAKING]

    with caplog.at_level(logging.WARNING, "trio_sched.scheduler"):
        simulate(main)
    (record,) = caplog.records
    assert record.getMessage().startswith("Task leases not released at the end of the run: task lease ")
    assert f"of task '{LEAKING}' (group local/default/b) holds 1 of submission" in record.getMessage()


def test_a_run_that_leaks_nothing_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await Setup(nothing).scheduler.run()

    with caplog.at_level(logging.WARNING, "trio_sched.scheduler"):
        simulate(main)
    assert caplog.records == []


@pytest.mark.usefixtures("_leak")
def test_a_run_that_a_leaked_lease_brings_to_a_stop_names_it_and_ends() -> None:
    async def main() -> None:
        setup = Setup(nothing, admission=TaskAdmissionConfig(1))
        with pytest.raises(NoProgressError) as caught:
            await setup.scheduler.run()
        (holder,) = caught.value.explanation.holders
        assert (holder.task_id, holder.is_running) == (LEAKING, False)
        assert f"  leaked: {LEAKING} does not run, and its lease of 1 of submission was not released" in str(
            caught.value
        )
        assert "running:" not in str(caught.value)

    simulate(main)
