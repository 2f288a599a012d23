"""Tasks of an endpoint under pressure give way to others, as long as there are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio
from scheduler_samples import Setup, simulate

from trio_sched._scheduler.advisory import PressureAdvisory
from trio_sched._scheduler.events import SchedulerEvents
from trio_sched._task.queue import Eligibility
from trio_sched.lowlevel import (
    ColumnGenerator,
    GraphNode,
    InMemoryAdmissionEventSink,
    ProviderModelKey,
    ProviderModelPressureSnapshot,
    RequestDomain,
    RequestPressureSnapshot,
    RequestResourceKey,
    RowDrop,
    SchedulingMetadata,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    scheduler_event_stream,
)

BUSY = RequestResourceKey("p", "busy", RequestDomain.CHAT)
FREE = RequestResourceKey("p", "free", RequestDomain.CHAT)
NODES = (GraphNode("a", "from_scratch"), GraphNode("busy", "cell", ("a",)), GraphNode("free", "cell", ("a",)))
IDLE = RequestPressureSnapshot(0.0, 1, FREE, 4, 4, 0, 0, 0, None, 0.0, None, 0, None, {})
COOLING = attrs.evolve(IDLE, resource=BUSY, blocked_until_monotonic=1e9, cooldown_remaining_seconds=10.0)
CROWDED = attrs.evolve(IDLE, resource=BUSY, waiters=1)
FULL = attrs.evolve(IDLE, resource=BUSY, in_flight_count=4)


class Model(ColumnGenerator):
    def __init__(self, name: str) -> None:
        self.name = name

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        return SchedulingMetadata.model("p", self.name, "chat", weight=10)


class Pressure:
    """What request admission shows; counts how often it is asked."""

    def __init__(self, *seen: RequestPressureSnapshot) -> None:
        self.seen = {each.resource: each for each in seen}
        self.asked = 0

    def snapshot(self, resource: RequestResourceKey) -> RequestPressureSnapshot | None:
        self.asked += 1
        return self.seen.get(resource)

    def snapshots(self) -> Mapping[RequestResourceKey, RequestPressureSnapshot]:
        return self.seen

    def global_snapshot(self, provider: str, model: str) -> ProviderModelPressureSnapshot | None:
        return None

    def global_snapshots(self) -> Mapping[ProviderModelKey, ProviderModelPressureSnapshot]:
        return {}


def order_of_starts(pressure: Pressure, *, records: int = 4, change: float | None = None) -> tuple[str, Setup]:
    started: list[str] = []
    setups: list[Setup] = []

    async def work(task: Task) -> Sequence[RowDrop]:
        if task.column != "a":
            started.append(task.column[0])
        await trio.sleep(1)
        if change is not None and trio.current_time() - began >= change:
            pressure.seen[BUSY] = attrs.evolve(IDLE, resource=BUSY)
        return ()

    began = 0.0

    async def main() -> None:
        nonlocal began
        began = trio.current_time()
        limits = {"endpoint:p/busy": 20, "endpoint:p/free": 20}
        generators = {"a": ColumnGenerator(), "busy": Model("busy"), "free": Model("free")}
        setup = Setup(
            work,
            NODES,
            records=records,
            buffer_size=records,
            admission=TaskAdmissionConfig(1, limits),
            generators=generators,
            pressure=pressure,
        )
        setups.append(setup)
        result = await setup.scheduler.run()
        assert result.rows == records
        setup.assert_nothing_held()

    simulate(main)
    return "".join(started), setups[0]


def test_without_pressure_groups_take_turns() -> None:
    starts, setup = order_of_starts(Pressure(IDLE))
    assert starts in ("bfbfbfbf", "fbfbfbfb")
    assert setup.kinds()["request_pressure_advisory_skipped"] == 0


def test_a_peer_without_pressure_is_preferred_and_then_progress_is_made_all_the_same() -> None:
    for seen in (COOLING, CROWDED, FULL):
        starts, _ = order_of_starts(Pressure(seen))
        assert starts == "ffffbbbb"


def test_being_passed_over_earns_no_credit() -> None:
    """When the pressure is gone, the group that was skipped comes back as an equal, with no burst."""
    starts, _ = order_of_starts(Pressure(COOLING), records=8, change=5.0)
    tail = starts[5:13]
    assert starts[:4] == "ffff"
    assert abs(tail.count("b") - starts[5:8].count("f")) <= 8
    assert "bbb" not in starts[:12]


def test_it_is_told_once_when_a_group_begins_to_be_passed_over() -> None:
    _, setup = order_of_starts(Pressure(COOLING))
    (told,) = setup.events("request_pressure_advisory_skipped")
    assert told.task_id == "0:0:cell:busy"
    assert told.reason_or_result == "request_pressure"
    assert str(told.diagnostics["preferred_task_id"]).endswith(":cell:free")


def test_pressure_is_read_once_for_each_endpoint_and_round() -> None:
    pressure = Pressure(COOLING)
    _, setup = order_of_starts(pressure, records=3)
    rounds = setup.kinds()["task_completed"] + setup.kinds()["row_group_admitted"] + 3
    assert pressure.asked <= 3 * rounds


def test_nothing_is_asked_where_there_is_nothing_to_prefer() -> None:
    pressure = Pressure(COOLING)

    async def main() -> None:
        async def work(task: Task) -> Sequence[RowDrop]:
            return ()

        nodes = (GraphNode("busy", "from_scratch"), GraphNode("also", "cell", ("busy",)))
        generators = {"busy": Model("busy"), "also": Model("busy")}
        await Setup(work, nodes, generators=generators, pressure=pressure).scheduler.run()

    simulate(main)
    assert pressure.asked == 0


def test_the_queue_asks_the_advisory_about_many_heads_at_once() -> None:
    events = SchedulerEvents(scheduler_event_stream(InMemoryAdmissionEventSink()), "run")
    admission = TaskAdmissionController()
    advisory = PressureAdvisory(admission, Pressure(), events)
    assert isinstance(advisory, Eligibility)
