"""Whatever a rule changes is emitted with a snapshot that shows it, whatever the rule says of it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
import trio
import trio.testing

from trio_sched._events.records import JsonValue
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    Grant,
    InMemoryAdmissionEventSink,
    LimitTransition,
    RequestAdmissionConfig,
    RequestAdmissionEvent,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
    RequestSample,
)

CHAT = RequestResourceKey("provider", "model", RequestDomain.CHAT)
CHANGES = ("request_limit_increased", "request_limit_decreased")


@attrs.define(eq=False)
class Quiet:
    """A rule that becomes what a test wants: when a call goes out, as a trial or not, when it ends, and at second 1."""

    current_limit: int = 4
    blocked_until: float | None = None
    ceiling: int | None = None
    at_a_grant: dict[str, float] = attrs.field(factory=dict[str, float])
    at_an_end: dict[str, int] = attrs.field(factory=dict[str, int])
    in_time: dict[str, float | None] = attrs.field(factory=dict[str, float | None])
    says: Sequence[LimitTransition] = ()
    tries: bool = True
    started_at: float = 0.0

    def granted(self, now: float, in_flight: int) -> Grant:
        for name, value in self.at_a_grant.items():
            setattr(self, name, value)
        return Grant(0, in_flight, self.current_limit, trial=self.tries)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> Sequence[LimitTransition]:
        for name, value in self.at_an_end.items():
            setattr(self, name, value)
        return self.says

    def advance(self, now: float) -> Sequence[LimitTransition]:
        for name, value in self.in_time.items():
            setattr(self, name, value)
        self.in_time = {}
        return self.says

    def next_deadline(self) -> float | None:
        return self.started_at + 1 if self.in_time else None


async def emitted(rule: Quiet) -> list[tuple[str, dict[str, JsonValue], RequestAdmissionEvent]]:
    """The changes of a limit that are emitted while one call goes out, a second passes, and the call ends."""
    sink = InMemoryAdmissionEventSink()
    rule.started_at = trio.current_time()

    def make(effective_max: int, now: float) -> Quiet:
        return rule

    async with AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit=make), event_sink=sink) as controller:
        controller.register(provider_name="provider", model_id="model", alias="a", max_parallel_requests=8)
        lease = controller.try_acquire(RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT)))
        assert isinstance(lease, RequestAdmissionLease)
        await trio.sleep(2)
        controller.release(lease, RequestReleaseOutcome("success"))
        await trio.testing.wait_all_tasks_blocked()
        snapshot = controller.pressure.snapshot(CHAT)
    last = sink.request_events[-1].pressure_snapshot
    assert last is not None
    assert snapshot is not None
    assert attrs.evolve(last, captured_at=0, sequence=0, cooldown_remaining_seconds=0) == attrs.evolve(
        snapshot, captured_at=0, sequence=0, cooldown_remaining_seconds=0
    )
    return [
        (event.event_kind, event.diagnostics, event) for event in sink.request_events if event.event_kind in CHANGES
    ]


def facts(cause: str, previous: int, current: int, ceiling: int | None = None) -> dict[str, JsonValue]:
    return {"cause": cause, "previous": previous, "current": current, "rate_limit_ceiling": ceiling}


@pytest.mark.parametrize("tries", [True, False])
async def test_a_limit_that_moves_when_a_call_goes_out(tries: bool, autojump_clock: trio.testing.MockClock) -> None:
    ((kind, diagnostics, _),) = await emitted(Quiet(at_a_grant={"current_limit": 6}, tries=tries))
    assert (kind, diagnostics) == ("request_limit_increased", facts("increased", 4, 6))


@pytest.mark.parametrize("says", [(), (LimitTransition("increased", 4, 4),)])
async def test_a_limit_that_moves_when_a_call_ends(
    says: Sequence[LimitTransition], autojump_clock: trio.testing.MockClock
) -> None:
    ((kind, diagnostics, _),) = await emitted(Quiet(at_an_end={"current_limit": 2}, says=says))
    assert (kind, diagnostics) == ("request_limit_decreased", facts("decreased", 4, 2))


async def test_a_limit_that_moves_as_the_rule_says_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    says = (LimitTransition("probe_refused", 4, 3, 4),)
    ((kind, diagnostics, _),) = await emitted(Quiet(at_an_end={"current_limit": 3, "ceiling": 4}, says=says))
    assert (kind, diagnostics) == ("request_limit_decreased", facts("probe_refused", 4, 3, 4))


async def test_a_stop_that_begins_because_time_passes(autojump_clock: trio.testing.MockClock) -> None:
    until = trio.current_time() + 9
    ((kind, diagnostics, event),) = await emitted(Quiet(in_time={"blocked_until": until}))
    assert (kind, diagnostics) == ("request_limit_decreased", facts("stopped", 4, 4))
    assert event.pressure_snapshot is not None
    assert event.pressure_snapshot.blocked_until_monotonic == until


async def test_a_stop_that_is_lifted_before_its_time(autojump_clock: trio.testing.MockClock) -> None:
    until = trio.current_time() + 9
    rule = Quiet(at_a_grant={"blocked_until": until}, in_time={"blocked_until": None})
    ((kind, diagnostics, event),) = await emitted(rule)
    assert (kind, diagnostics) == ("request_limit_increased", facts("resumed", 4, 4))
    assert event.pressure_snapshot is not None
    assert event.pressure_snapshot.blocked_until_monotonic is None


async def test_a_ceiling_that_time_moves(autojump_clock: trio.testing.MockClock) -> None:
    ((kind, diagnostics, _),) = await emitted(Quiet(in_time={"ceiling": 5}))
    assert (kind, diagnostics) == ("request_limit_increased", facts("ceiling", 4, 4, 5))


async def test_a_stop_that_ends_at_its_time_is_no_news(autojump_clock: trio.testing.MockClock) -> None:
    until = trio.current_time() + 1
    rule = Quiet(blocked_until=None, at_a_grant={"blocked_until": until}, in_time={"blocked_until": None})
    assert await emitted(rule) == []
