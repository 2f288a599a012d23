"""The budget table of performance.md, as data: what each step must cost beside the peer and the floor.

A line is one quantity, or the ratio of two that were measured in the same round. Ratios bind; a line in microseconds
only orients, because absolute times move from machine to machine. Single steps are medians of many; whole runs are
processor time, which on an idle machine is what they take, and on a shared one is not what others take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import attrs

from benchmarks.artifact import BudgetVerdict, Iteration
from benchmarks.figures import judge, summarise
from benchmarks.inputs import Value

__all__ = ["BUDGETS", "COUNT_BUDGETS", "Budget", "Quantity", "Side", "judge_budgets"]

Side = Literal["candidate", "peer", "floor"]


@attrs.frozen
class Quantity:
    """One metric of one side at one point."""

    side: Side
    metric: str
    point: Mapping[str, Value]


@attrs.frozen
class Budget:
    """A quantity, or its ratio to `per`, against a bound. `measured_by` is the scenario whose run it is judged in."""

    budget_id: str
    measured_by: str
    step: str
    quantity: Quantity
    relation: Literal["at least", "at most"]
    bound: float
    per: Quantity | None = None
    unit: str = "×"
    binding: bool = True

    @property
    def claim(self) -> str:
        """The claim in words."""
        return f"{self.relation} {self.bound:g} {self.unit}"

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.bound if self.relation == "at least" else value <= self.bound


def judge_budgets(
    scenario_id: str, iterations: Sequence[Iteration], candidate: str, *, smoke: bool
) -> tuple[BudgetVerdict, ...]:
    """The verdicts that the iterations of one run allow; `candidate` is the one under judgement."""
    return tuple(
        _verdict(budget, iterations, candidate)
        for budget in (COUNT_BUDGETS if smoke else BUDGETS)
        if budget.measured_by == scenario_id
    )


def _verdict(budget: Budget, iterations: Sequence[Iteration], candidate: str) -> BudgetVerdict:
    above = _values(budget.quantity, iterations, candidate)
    below = _values(budget.per, iterations, candidate) if budget.per is not None else dict.fromkeys(above, 1.0)
    missing = [
        quantity
        for quantity, values in ((budget.quantity, above), (budget.per, below))
        if quantity is not None and not values
    ]
    values = [above[index] / below[index] for index in sorted(above.keys() & below.keys())]
    if missing or not values:
        note = "not in this run: " + ", ".join(f"{each.side} {_at(each.point)}" for each in missing)
        return BudgetVerdict(
            budget.budget_id, budget.step, budget.claim, budget.bound, None, None, budget.binding, note
        )
    return BudgetVerdict(
        budget_id=budget.budget_id,
        step=budget.step,
        claim=budget.claim,
        bound=budget.bound,
        value=summarise(values).mean,
        verdict=judge(values, budget.holds),
        binding=budget.binding,
    )


def _values(quantity: Quantity | None, iterations: Sequence[Iteration], candidate: str) -> dict[int, float]:
    """The metric by iteration."""
    if quantity is None:
        return {}
    name = candidate if quantity.side == "candidate" else quantity.side
    return {
        each.index: each.metrics[quantity.metric]
        for each in iterations
        if each.candidate == name and each.point == quantity.point and quantity.metric in each.metrics
    }


def _at(point: Mapping[str, Value]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in point.items())


def _tasks(groups: int, policy: str, *, tasks: int = 1_000, resources: str = "local") -> dict[str, Value]:
    return {"tasks": tasks, "groups": groups, "resources": resources, "policy": policy}


# The whole cycle of ours, with the select that finds nothing, against the peer's cycle without it.
OURS: Final = "full_cycle_and_nothing_us"
PEERS: Final = "open_cycle_us"


def _cycle_ahead(groups: int, policy: str, bound: float) -> Budget:
    return Budget(
        f"cycle-{policy}-{groups}-local",
        "tasks",
        f"admission cycle, {policy}, {groups} group{'s' * (groups > 1)}, local, against the peer's",
        Quantity("peer", PEERS, _tasks(groups, policy)),
        "at least",
        bound,
        Quantity("candidate", OURS, _tasks(groups, policy)),
    )


def _cycle_growth(policy: str) -> Budget:
    return Budget(
        f"cycle-{policy}-growth-local",
        "tasks",
        f"admission cycle, {policy}, local: 256 groups against 1",
        Quantity("candidate", OURS, _tasks(256, policy)),
        "at most",
        1.5,
        Quantity("candidate", OURS, _tasks(1, policy)),
    )


def _worst_cases(policy: str) -> tuple[Budget, ...]:
    """A resource of its own for each group, and every other group refused: cost grows with the groups, but little."""
    shared = Quantity("candidate", OURS, _tasks(64, policy))
    exclusive = Quantity("candidate", OURS, _tasks(64, policy, resources="exclusive"))
    refused = Quantity("candidate", "capped_cycle_us", _tasks(64, policy))
    of_each = f"admission cycle, {policy}, 64 groups, a resource of its own for each"
    of_refused = f"admission cycle, {policy}, 64 groups, all but one refused"
    return (
        Budget(
            f"cycle-{policy}-exclusive", "tasks", f"{of_each}: against a shared one", exclusive, "at most", 5, shared
        ),
        Budget(
            f"cycle-{policy}-refused", "tasks", f"{of_refused}: against none refused", refused, "at most", 7, shared
        ),
        _orients(f"cycle-{policy}-exclusive-time", of_each, exclusive, 150),
        _orients(f"cycle-{policy}-refused-time", of_refused, refused, 150),
    )


def _cycle_backlog(policy: str, groups: int) -> Budget:
    return Budget(
        f"cycle-{policy}-backlog-{groups}",
        "tasks",
        f"admission cycle, {policy}, {groups} group{'s' * (groups > 1)}: 100,000 queued against 1,000",
        Quantity("candidate", OURS, _tasks(groups, policy, tasks=100_000)),
        "at most",
        1.3,
        Quantity("candidate", OURS, _tasks(groups, policy)),
    )


def _orients(budget_id: str, step: str, quantity: Quantity, bound: float) -> Budget:
    return Budget(budget_id, _scenario_of(quantity), step, quantity, "at most", bound, unit="µs", binding=False)


def _scenario_of(quantity: Quantity) -> str:
    scenarios = {"callers": "requests", "events": "pipeline", "sink": "events", "columns": "columns"}
    return scenarios.get(next(iter(quantity.point)), "tasks")


def _memory(budget_id: str, step: str, metric: str, load: str, bound: float, unit: str = "MB") -> Budget:
    quantity = Quantity("candidate", metric, {"load": load})
    return Budget(budget_id, "soak", step, quantity, "at most", bound, unit=unit)


def _by_width(budget_id: str, step: str, metric: str) -> Budget:
    return Budget(
        f"{budget_id}-growth",
        "columns",
        f"{step}: 300 columns against 1",
        Quantity("candidate", metric, {"columns": 300}),
        "at most",
        1.3,
        Quantity("candidate", metric, {"columns": 1}),
    )


FLAT_MB: Final = 5.0
"""Growth that is still called flat: what an allocator keeps back for itself in runs that grow by nothing."""

BUDGETS: Final[tuple[Budget, ...]] = (
    Budget(
        "enqueue",
        "tasks",
        "enqueue, per task, against the peer's",
        Quantity("peer", "enqueue_us", _tasks(8, "strict")),
        "at least",
        1.36,
        Quantity("candidate", "enqueue_us", _tasks(8, "strict")),
    ),
    _orients("enqueue-time", "enqueue, per task", Quantity("candidate", "enqueue_us", _tasks(8, "strict")), 2.5),
    _cycle_ahead(1, "strict", 2.3),
    _cycle_ahead(256, "strict", 30),
    _cycle_growth("strict"),
    *_worst_cases("strict"),
    _cycle_backlog("strict", 1),
    _cycle_backlog("strict", 256),
    _orients(
        "cycle-strict-time", "admission cycle, strict, 1 group", Quantity("candidate", OURS, _tasks(1, "strict")), 15
    ),
    _cycle_ahead(1, "borrow", 1.8),
    _cycle_ahead(256, "borrow", 60),
    _cycle_growth("borrow"),
    *_worst_cases("borrow"),
    _cycle_backlog("borrow", 1),
    _cycle_backlog("borrow", 256),
    _orients(
        "cycle-borrow-time", "admission cycle, borrow, 1 group", Quantity("candidate", OURS, _tasks(1, "borrow")), 32
    ),
    Budget(
        "request-alone",
        "requests",
        "request acquire and release, nobody waiting, against the peer's",
        Quantity("peer", "acquire_release_us", {"callers": 1}),
        "at least",
        13,
        Quantity("candidate", "acquire_release_us", {"callers": 1}),
    ),
    _orients(
        "request-alone-time",
        "request acquire and release, nobody waiting",
        Quantity("candidate", "acquire_release_us", {"callers": 1}),
        12,
    ),
    Budget(
        "request-2000",
        "requests",
        "request through 64 permits, 2,000 callers, against the peer's",
        Quantity("peer", "request_cpu_us", {"callers": 2_000}),
        "at least",
        700,
        Quantity("candidate", "request_cpu_us", {"callers": 2_000}),
    ),
    _orients(
        "request-2000-time",
        "request through 64 permits, 2,000 callers",
        Quantity("candidate", "request_cpu_us", {"callers": 2_000}),
        45,
    ),
    Budget(
        "request-100000",
        "requests",
        "request through 64 permits: 100,000 callers against 2,000",
        Quantity("candidate", "request_cpu_us", {"callers": 100_000}),
        "at most",
        2,
        Quantity("candidate", "request_cpu_us", {"callers": 2_000}),
    ),
    Budget(
        "pipeline-floor",
        "pipeline",
        "whole pipeline, events off, per task, against the floor's",
        Quantity("candidate", "task_cpu_us", {"events": "off"}),
        "at most",
        2.5,
        Quantity("floor", "task_cpu_us", {"events": "off"}),
    ),
    Budget(
        "pipeline-peer",
        "pipeline",
        "whole pipeline, events off, per task, against the peer's",
        Quantity("peer", "task_cpu_us", {"events": "off"}),
        "at least",
        2.5,
        Quantity("candidate", "task_cpu_us", {"events": "off"}),
    ),
    _orients(
        "pipeline-time",
        "whole pipeline, events off, per task",
        Quantity("candidate", "task_cpu_us", {"events": "off"}),
        50,
    ),
    _orients(
        "event-time",
        "an event to JSONL, over a whole pipeline, processor time",
        Quantity("candidate", "event_cpu_us", {"events": "jsonl"}),
        3,
    ),
    _orients("one-event-time", "one event to JSONL", Quantity("candidate", "one_event_cpu_us", {"sink": "jsonl"}), 3),
    _by_width("views", "report and trace, per event", "views_cpu_us"),
    _by_width("why", "why, per event", "why_cpu_us"),
    _orients("views-time", "report and trace, per event", Quantity("candidate", "views_cpu_us", {"columns": 300}), 50),
    Budget(
        "summary-size",
        "columns",
        "a summary of the events of 30 columns, per model call",
        Quantity("candidate", "summary_bytes", {"columns": 30}),
        "at most",
        500,
        unit="bytes",
    ),
    Budget(
        "summary-share",
        "columns",
        "all events of 30 columns, against a summary of them",
        Quantity("candidate", "all_bytes", {"columns": 30}),
        "at least",
        10,
        Quantity("candidate", "summary_bytes", {"columns": 30}),
    ),
    Budget(
        "one-unwanted-event",
        "events",
        "one event that the sink does not want, against one without a sink",
        Quantity("candidate", "one_event_cpu_us", {"sink": "unwanted"}),
        "at most",
        1.3,
        Quantity("candidate", "one_event_cpu_us", {"sink": "nobody"}),
    ),
    _memory("memory-million-rows", "a million rows × 5 columns", "memory_above_start_mb", "million rows", 150),
    _memory("memory-flat", "a million rows × 5 columns, after warm-up", "memory_growth_mb", "million rows", FLAT_MB),
    _memory("soak-flat", "300,000 tasks that call, after warm-up", "memory_growth_mb", "300 thousand tasks", FLAT_MB),
    _memory("row-groups-memory", "a million row groups prepared", "memory_above_start_mb", "million row groups", 10),
    _memory("row-groups-time", "a million row groups prepared", "preparation_seconds", "million row groups", 1, "s"),
    Budget(
        "unwanted-event",
        "pipeline",
        "whole pipeline with a sink that wants no event, against none",
        Quantity("candidate", "with_sink", {"events": "unwanted"}),
        "at most",
        1.03,
    ),
    Budget(
        "import",
        "imports",
        "import, against import trio",
        Quantity("candidate", "import_us", {"face": "trio_sched"}),
        "at most",
        1.3,
        Quantity("floor", "import_us", {"face": "trio_sched"}),
    ),
)


def _calls(part: str, groups: int, resources: str, policy: str) -> Budget:
    return Budget(
        f"calls-{part}-{policy}-{groups}-{resources}",
        "tasks",
        f"heads looked at in a cycle, {part}, {policy}, {groups} groups, {resources}",
        Quantity("candidate", f"{part}_eligibility_calls", _tasks(groups, policy, resources=resources)),
        "at most",
        4,
        unit="calls",
    )


COUNT_BUDGETS: Final[tuple[Budget, ...]] = tuple(
    _calls(part, 256, resources, policy)
    for policy in ("strict", "borrow")
    for part, resources in (("open", "local"), ("full", "local"), ("full", "exclusive"))
)
"""What stands for cost where counts must repeat: how many heads are looked at, whatever the machine."""
