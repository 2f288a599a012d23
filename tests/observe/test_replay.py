"""Each stream, replayed from empty, gives the state that its owner had: at the end of runs, and at moments between."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import FaultyRun, mocked

import trio_sched as ts
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    InMemoryAdmissionEventSink,
    RequestAdmissionConfig,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
    SchedulerAdmissionEvent,
    inline,
)

OUTCOMES = (
    *[RequestReleaseOutcome("success")] * 6,
    RequestReleaseOutcome("rate_limited"),
    RequestReleaseOutcome("rate_limited", 3.0),
    RequestReleaseOutcome("provider_failure"),
)

faulty_runs = st.builds(
    FaultyRun,
    seed=st.integers(0, 2**32),
    records=st.integers(0, 14),
    cap=st.integers(1, 3),
    cancel_after=st.none() | st.floats(0, 20),
)


@settings(max_examples=share_of_profile(0.4))
@given(faulty_runs)
def test_the_scheduler_stream_gives_the_final_snapshot(run: FaultyRun) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            sink = await run.run(Path(folder) / "out")
        replay = SchedulerReplay()
        for event in sink.scheduler_events:
            replay.apply(event)
            if event.event_kind in ("scheduler_job_completed", "scheduler_health_snapshot"):
                assert replay.snapshot() == event.snapshot

    mocked(main)


@pytest.mark.parametrize("kind", ["selected", "task_lease_acquired", "worker_spawned", "task_lease_released"])
def test_also_of_a_run_that_is_interrupted_between_two_steps(tmp_path: Path, kind: str) -> None:
    class Interrupting(InMemoryAdmissionEventSink):
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            super().emit_scheduler_event(event)
            if event.event_kind == kind and event.sequence > 20:
                raise KeyboardInterrupt

    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.count))

    @ts.column(needs=["number"])
    async def double(row: dict[str, int]) -> int:
        return row["number"] * 2

    sink = Interrupting()

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await ts.run([number, double], records=9, output=tmp_path, event_sink=sink, blocking=inline)

    mocked(main)
    replay = SchedulerReplay()
    for event in sink.scheduler_events:
        replay.apply(event)
    last = sink.scheduler_events[-1]
    assert last.event_kind == "scheduler_job_completed"
    assert replay.snapshot() == last.snapshot


@settings(max_examples=share_of_profile(0.4))
@given(st.integers(0, 2**32), st.floats(0, 5), st.integers(1, 4))
def test_the_request_stream_gives_the_pressure_at_any_moment(seed: int, ramp: float, cap: int) -> None:
    rng = random.Random(seed)
    keys = [RequestResourceKey("p", "m", domain) for domain in (RequestDomain.CHAT, RequestDomain.EMBEDDING)]
    sink = InMemoryAdmissionEventSink()
    config = RequestAdmissionConfig(startup_ramp_seconds=ramp, successes_until_increase=3)

    async def caller(controller: AdaptiveRequestAdmissionController) -> None:
        key = rng.choice(keys)
        await trio.sleep(rng.uniform(0, 10))
        timeout = rng.choice((None, 0, 1))
        try:
            with trio.move_on_after(rng.choice((1, 30))):
                lease = await controller.acquire_async(RequestAdmissionItem(key, RequestGroupSpec(key), timeout))
                with trio.CancelScope(shield=True):
                    await trio.sleep(rng.choice((0, 0.5, 2)))
                controller.release(lease, rng.choice(OUTCOMES))
        except RequestAdmissionError:
            pass

    async def main() -> None:
        replay, taken = RequestReplay(), 0
        async with AdaptiveRequestAdmissionController(config, event_sink=sink) as controller:
            controller.register(provider_name="p", model_id="m", alias="a", max_parallel_requests=cap)
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(caller, controller)
                for _ in range(30):
                    await trio.sleep(rng.uniform(0, 1))
                    await trio.testing.wait_all_tasks_blocked()
                    if rng.random() < 0.05:
                        controller.register(
                            provider_name="p", model_id="m", alias="a", max_parallel_requests=rng.randint(1, 5)
                        )
                    for event in sink.request_events[taken:]:
                        replay.apply(event)
                    taken = len(sink.request_events)
                    for key, snapshot in controller.pressure.snapshots().items():
                        assert replay.resources[key].agrees_with(snapshot), (replay.resources[key], snapshot)
            caps = controller.pressure.global_snapshots()
        for event in sink.request_events[taken:]:
            replay.apply(event)
        for key, snapshot in controller.pressure.snapshots().items():
            assert replay.resources[key].agrees_with(snapshot)
            assert (snapshot.in_flight_count, snapshot.waiters) == (0, 0)
        assert replay.static_caps == {endpoint: each.static_cap for endpoint, each in caps.items()}

    mocked(main)


def test_where_a_lease_repays_only_what_it_borrowed_the_start_says_so() -> None:
    correlation = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "a@1")
    start = SchedulerAdmissionEvent(
        "scheduler_job_started",
        0.0,
        1,
        snapshot={"resource_limits": {"submission": 4}},
        diagnostics={
            "columns": {"answer": {"group": "g", "resources": {"submission": 1}}},
            "repays_only_borrowed": True,
        },
    )
    entitled = SchedulerAdmissionEvent("task_lease_acquired", 0.0, 2, correlation, task_lease_id=1)
    borrowing = SchedulerAdmissionEvent(
        "task_lease_acquired", 0.0, 3, correlation, task_lease_id=2, diagnostics={"borrowed": {"submission": 1}}
    )
    replay = SchedulerReplay()
    for event in (start, entitled, borrowing):
        replay.apply(event)
    replay.apply(SchedulerAdmissionEvent("task_lease_released", 1.0, 4, correlation, task_lease_id=1))
    assert replay.snapshot()["policy_debt"] == {"g|submission": 1}
    replay.apply(SchedulerAdmissionEvent("task_lease_released", 1.0, 5, correlation, task_lease_id=2))
    assert replay.snapshot()["policy_debt"] == {}


def test_borrowed_units_are_owed_until_leases_of_the_group_come_back() -> None:
    correlation = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "a@1")
    replay = SchedulerReplay()
    replay.apply(
        SchedulerAdmissionEvent(
            "scheduler_job_started",
            0.0,
            1,
            snapshot={"resource_limits": {"submission": 4}},
            diagnostics={"columns": {"answer": {"group": "g", "resources": {"submission": 1}}}},
        )
    )
    for lease_id in (1, 2):
        replay.apply(
            SchedulerAdmissionEvent(
                "task_lease_acquired",
                0.0,
                1 + lease_id,
                correlation,
                task_lease_id=lease_id,
                diagnostics={"borrowed": {"submission": 1}},
            )
        )
    assert replay.snapshot()["policy_debt"] == {"g|submission": 2}
    assert replay.snapshot()["resources_available"] == {"submission": 2}
    replay.apply(SchedulerAdmissionEvent("task_lease_released", 1.0, 4, correlation, task_lease_id=1))
    assert replay.snapshot()["policy_debt"] == {"g|submission": 1}
    replay.apply(SchedulerAdmissionEvent("task_lease_released", 1.0, 4, correlation, task_lease_id=2))
    assert replay.snapshot()["policy_debt"] == {}
    assert replay.snapshot()["leased_resources"] == {}
