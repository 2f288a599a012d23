"""Each stream, replayed from empty, gives the state that its owner had: at the end of runs, and at moments between."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
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
from trio_sched._request.limit import Grant, LimitTransition, LimitTransitionKind, RequestSample
from trio_sched._resources.identity import RuntimeCorrelation
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
    RequestReleaseOutcome("provider_failure", provider_status=503),
    RequestReleaseOutcome("provider_timeout"),
    RequestReleaseOutcome("local_cancelled"),
)
REFUSALS = (
    RequestReleaseOutcome("rate_limited"),
    RequestReleaseOutcome("rate_limited", 1.0),
    RequestReleaseOutcome("provider_failure", provider_status=529),
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


class Wayward:
    """A rule of somebody's own that keeps its numbers valid and moves everything at any time, as a seed draws it.

    It moves its limit when calls go out too, says little of what it did or something else, and begins stops, ends them
    early and changes its ceiling just because time passes.
    """

    def __init__(self, effective_max: int, now: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._effective_max = effective_max
        self._due = now + 1
        self.current_limit = effective_max
        self.blocked_until: float | None = None
        self.ceiling: int | None = None

    def granted(self, now: float, in_flight: int) -> Grant:
        self._move(now, stops=False)
        return Grant(0, in_flight, self.current_limit)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        return self._move(now, stops=True)

    def advance(self, now: float) -> Sequence[LimitTransition]:
        if self.blocked_until is not None and self.blocked_until <= now:
            self.blocked_until = None
        if now < self._due:
            return ()
        self._due = now + self._rng.choice((0.3, 1, 4))
        return self._move(now, stops=True)

    def next_deadline(self) -> float | None:
        return self._due if self.blocked_until is None else min(self._due, self.blocked_until)

    def _move(self, now: float, *, stops: bool) -> Sequence[LimitTransition]:
        rng, previous = self._rng, self.current_limit
        if rng.random() < 0.4:
            self.current_limit = rng.randint(1, self._effective_max)
        if rng.random() < 0.3:
            self.ceiling = rng.choice((None, 1, 5))
        if stops and rng.random() < 0.2:
            self.blocked_until = rng.choice((None, now + 0.5, now + 2))
        said = rng.choice((previous, self.current_limit))
        kind: LimitTransitionKind = rng.choice(("increased", "decreased", "probe_refused", "recovered"))
        return (LimitTransition(kind, previous, said),) if rng.random() < 0.3 else ()


RULES = ("evidence", "aimd", "aimd with a ramp", "fixed", "of somebody's own")


def configured(rule: str, seed: int) -> RequestAdmissionConfig:
    if rule == "aimd with a ramp":
        return RequestAdmissionConfig(startup_ramp_seconds=seed % 5, successes_until_increase=3)
    if rule == "of somebody's own":
        return RequestAdmissionConfig(limit=lambda effective_max, now: Wayward(effective_max, now, seed))
    return RequestAdmissionConfig(limit="evidence" if rule == "evidence" else "aimd" if rule == "aimd" else "fixed")


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=share_of_profile(0.25))
@given(seed=st.integers(0, 2**32), cap=st.integers(1, 6))
def test_the_request_stream_gives_the_pressure_at_any_moment(rule: str, seed: int, cap: int) -> None:
    rng = random.Random(seed)
    keys = [RequestResourceKey("p", "m", domain) for domain in (RequestDomain.CHAT, RequestDomain.EMBEDDING)]
    sink = InMemoryAdmissionEventSink()
    config = configured(rule, seed)
    # The provider goes from mostly answering to refusing everything and back.
    outcomes = [OUTCOMES, REFUSALS, OUTCOMES]

    async def caller(controller: AdaptiveRequestAdmissionController) -> None:
        key = rng.choice(keys)
        await trio.sleep(rng.uniform(0, 12))
        timeout = rng.choice((None, 0, 1))
        not_before = trio.current_time() + 2 if rng.random() < 0.2 else None
        try:
            with trio.move_on_after(rng.choice((1, 30))):
                asked = RequestAdmissionItem(key, RequestGroupSpec(key), timeout, not_before=not_before)
                lease = await controller.acquire_async(asked)
                with trio.CancelScope(shield=True):
                    await trio.sleep(rng.choice((0, 0.5, 2)))
                phase = min(2, int(trio.current_time() // 5))
                controller.release(lease, rng.choice(outcomes[phase]))
        except RequestAdmissionError:
            pass

    async def main() -> None:
        replay, taken = RequestReplay(), 0
        async with AdaptiveRequestAdmissionController(config, event_sink=sink) as controller:
            controller.register(provider_name="p", model_id="m", alias="a", max_parallel_requests=cap)
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(caller, controller)
                for _ in range(30):
                    await trio.sleep(rng.uniform(0, 1))
                    await trio.testing.wait_all_tasks_blocked()
                    if rule != "of somebody's own" and rng.random() < 0.05:
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
            assert not replay.resources[key].hinted
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
