"""Room that order or policy leaves empty, and a place that only waits for the scheduler's next turn."""

from __future__ import annotations

import attrs

from trio_sched._events.records import JsonValue, SchedulerAdmissionEventKind
from trio_sched._observe.layers import Limit, limit_now
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.wait_chain import wait_chain
from trio_sched._resources.identity import RuntimeCorrelation
from trio_sched.lowlevel import SchedulerAdmissionEvent

ANSWER = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "a@1")


class Reported:
    """A scheduler of two places whose column `answer` has three tasks: two run, and the others are queued."""

    def __init__(self, queued: int) -> None:
        self.scheduler = SchedulerReplay()
        self._sequence = 0
        columns: JsonValue = {"answer": {"group": "g", "resources": {"submission": 1}}}
        self.report("scheduler_job_started", {"columns": columns}, snapshot={"resource_limits": {"submission": 2}})
        for task in range(queued):
            self.report("ready_enqueued", correlation=ANSWER, task_id=f"waiting {task}")
        for lease in (1, 2):
            self.report("task_lease_acquired", correlation=ANSWER, task_lease_id=lease)

    def report(
        self,
        kind: SchedulerAdmissionEventKind,
        diagnostics: dict[str, JsonValue] | None = None,
        *,
        reason: str | None = None,
        correlation: RuntimeCorrelation | None = None,
        task_id: str | None = None,
        task_lease_id: int | None = None,
        snapshot: dict[str, JsonValue] | None = None,
    ) -> None:
        self._sequence += 1
        self.scheduler.apply(
            SchedulerAdmissionEvent(
                kind,
                0.0,
                self._sequence,
                correlation,
                task_id=task_id,
                task_lease_id=task_lease_id,
                reason_or_result=reason,
                snapshot=snapshot,
                diagnostics=diagnostics or {},
            )
        )

    def limit(self) -> Limit | None:
        return limit_now(self.scheduler, RequestReplay(), 0.0, model_tasks_call=False)

    def first(self) -> str:
        return str(wait_chain(self.scheduler, RequestReplay(), 0.0, model_tasks_call=False)[1][0])

    def cause(self) -> str:
        return str(wait_chain(self.scheduler, RequestReplay(), 0.0, model_tasks_call=False)[1][-1])


def test_a_place_that_was_just_given_back_is_no_room_that_policy_leaves() -> None:
    state = Reported(queued=3)
    state.report("admission_blocked", {"no_capacity": 1, "queued": 3}, reason="no_capacity")
    assert state.limit() == Limit("task_admission", "submission")
    state.report("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert state.limit() == Limit("task_admission", "submission")
    assert state.cause() == "1 of 2 of submission in use"


def test_a_policy_that_refuses_leaves_room() -> None:
    state = Reported(queued=3)
    state.report("admission_blocked", {"borrow_debt": 1, "no_capacity": 1, "queued": 3}, reason="borrow_debt")
    state.report("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert state.limit() == Limit("fairness", "answer")
    assert state.cause() == "there is room, but the order or the admission policy holds them back (borrow_debt)"


def test_a_capped_group_is_held_back_until_it_is_granted_something() -> None:
    state = Reported(queued=3)
    state.report("admission_blocked", {"no_capacity": 4, "queued": 3}, reason="no_capacity")
    state.report("group_capped", {"group": "g"}, reason="group_cap")
    state.report("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert state.limit() == Limit("fairness", "answer")
    assert state.cause() == "there is room, but the order or the admission policy holds them back (group_cap)"
    state.report("task_lease_acquired", correlation=ANSWER, task_lease_id=3)
    state.report("task_lease_released", correlation=ANSWER, task_lease_id=2)
    assert state.limit() == Limit("task_admission", "submission")


def test_the_chain_begins_at_the_oldest_row_group_that_has_tasks() -> None:
    state = Reported(queued=3)
    state.report("row_group_admitted", {"size": 5}, correlation=attrs.evolve(ANSWER, row_group=1))
    state.report("row_group_admitted", {"size": 5}, correlation=ANSWER)
    assert state.first() == "row group 0 waits for column answer"
    for task in range(3):
        state.report("cancelled", correlation=ANSWER, task_id=f"waiting {task}")
    for lease in (1, 2):
        state.report("task_lease_released", correlation=ANSWER, task_lease_id=lease)
    assert state.first() == "row group 0 waits to be written"
    state.report("ready_enqueued", correlation=attrs.evolve(ANSWER, row_group=1), task_id="of the other")
    assert state.first() == "row group 1 waits for column answer"


def test_where_there_is_room_for_all_they_are_about_to_be_started() -> None:
    state = Reported(queued=1)
    state.report("admission_blocked", {"no_capacity": 1, "queued": 1}, reason="no_capacity")
    state.report("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert state.limit() == Limit("fairness", "answer")
    assert state.cause() == "there is room, and they are about to be started"
