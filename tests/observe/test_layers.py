"""Room that order or policy leaves empty, and a place that only waits for the scheduler's next turn."""

from __future__ import annotations

import attrs

from trio_sched._events.records import JsonValue, SchedulerAdmissionEventKind
from trio_sched._observe.layers import Limit, limit_now
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.wait_chain import wait_chain
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched.lowlevel import SchedulerAdmissionEvent

ANSWER = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "a@1")


class Told:
    """A scheduler of two places whose column `answer` has three tasks: two run, and the others are queued."""

    def __init__(self, queued: int) -> None:
        self.scheduler = SchedulerReplay()
        self._sequence = 0
        columns: JsonValue = {"answer": {"group": "g", "resources": {"submission": 1}}}
        self.tell("scheduler_job_started", {"columns": columns}, snapshot={"resource_limits": {"submission": 2}})
        for task in range(queued):
            self.tell("ready_enqueued", correlation=ANSWER, task_id=f"waiting {task}")
        for lease in (1, 2):
            self.tell("task_lease_acquired", correlation=ANSWER, task_lease_id=lease)

    def tell(
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
    told = Told(queued=3)
    told.tell("admission_blocked", {"no_capacity": 1, "queued": 3}, reason="no_capacity")
    assert told.limit() == Limit("task_admission", "submission")
    told.tell("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert told.limit() == Limit("task_admission", "submission")
    assert told.cause() == "1 of 2 of submission in use"


def test_a_policy_that_refuses_leaves_room() -> None:
    told = Told(queued=3)
    told.tell("admission_blocked", {"borrow_debt": 1, "no_capacity": 1, "queued": 3}, reason="borrow_debt")
    told.tell("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert told.limit() == Limit("fairness", "answer")
    assert told.cause() == "there is room, but the order or the admission policy holds them back (borrow_debt)"


def test_a_capped_group_is_held_back_until_it_is_granted_something() -> None:
    told = Told(queued=3)
    told.tell("admission_blocked", {"no_capacity": 4, "queued": 3}, reason="no_capacity")
    told.tell("group_capped", {"group": "g"}, reason="group_cap")
    told.tell("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert told.limit() == Limit("fairness", "answer")
    assert told.cause() == "there is room, but the order or the admission policy holds them back (group_cap)"
    told.tell("task_lease_acquired", correlation=ANSWER, task_lease_id=3)
    told.tell("task_lease_released", correlation=ANSWER, task_lease_id=2)
    assert told.limit() == Limit("task_admission", "submission")


def test_the_chain_begins_at_the_oldest_row_group_that_has_tasks() -> None:
    told = Told(queued=3)
    told.tell("row_group_admitted", {"size": 5}, correlation=attrs.evolve(ANSWER, row_group=1))
    told.tell("row_group_admitted", {"size": 5}, correlation=ANSWER)
    assert told.first() == "row group 0 waits for column answer"
    for task in range(3):
        told.tell("cancelled", correlation=ANSWER, task_id=f"waiting {task}")
    for lease in (1, 2):
        told.tell("task_lease_released", correlation=ANSWER, task_lease_id=lease)
    assert told.first() == "row group 0 waits to be written"
    told.tell("ready_enqueued", correlation=attrs.evolve(ANSWER, row_group=1), task_id="of the other")
    assert told.first() == "row group 1 waits for column answer"


def test_where_there_is_room_for_all_they_are_about_to_be_started() -> None:
    told = Told(queued=1)
    told.tell("admission_blocked", {"no_capacity": 1, "queued": 1}, reason="no_capacity")
    told.tell("task_lease_released", correlation=ANSWER, task_lease_id=1)
    assert told.limit() == Limit("fairness", "answer")
    assert told.cause() == "there is room, and they are about to be started"
