"""This project's rule as a client of the simulation: the rule alone, and the whole controller around it.

`RuleClient` is an `AdaptiveRequestLimitState` with a count of what is in flight: fast enough to sweep its parameters.
`ControllerClient` is the controller as anybody uses it, inside a Trio run whose clock is the simulation's. A test holds
that both make the same decisions, call by call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import trio

from benchmarks.aimd.scenarios import ClientFactory
from benchmarks.aimd.simulator import Answer, Client
from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    AdaptiveRequestLimitState,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestAdmissionTuningConfig,
    RequestDomain,
    RequestGroupSpec,
    RequestReleaseOutcome,
    RequestResourceKey,
)

__all__ = ["ControllerClient", "RuleClient", "Tuning", "controllers", "in_simulated_time", "rules"]

T = TypeVar("T")

RESOURCE: Final = RequestResourceKey("scripted", "model", RequestDomain.CHAT)
ITEM: Final = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))


@dataclass(frozen=True, order=True)
class Tuning:
    """The parameters of the rule that are swept. The ramp is the scenario's."""

    factor: float
    successes: int
    cooldown: float
    step: int = 1

    def config(self, ramp: float = 0.0) -> RequestAdmissionTuningConfig:
        """As the project's configuration."""
        return RequestAdmissionTuningConfig(
            multiplicative_decrease_factor=self.factor,
            additive_increase_step=self.step,
            successes_until_increase=self.successes,
            cooldown_seconds=self.cooldown,
            startup_ramp_seconds=ramp,
        )

    def as_dict(self) -> dict[str, float]:
        """For artifacts."""
        return asdict(self)


class RuleClient:
    """The adaptive rule, applied at once. A ticket is the epoch in which it was granted."""

    def __init__(self, tuning: RequestAdmissionTuningConfig, *, cap: int, now: float) -> None:
        self._limits = AdaptiveRequestLimitState(tuning, effective_max=cap, now=now)
        self._in_flight = 0

    @property
    def limit(self) -> int:
        """The rule's present limit."""
        return self._limits.current_limit

    def grant(self, now: float) -> int | None:
        """A ticket while there is room and no cooldown."""
        limits = self._limits
        if limits.blocked_until is not None or self._in_flight >= limits.current_limit:
            return None
        self._in_flight += 1
        return limits.epoch

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """Tell the rule."""
        self._in_flight -= 1
        limits = self._limits
        deadline = limits.next_deadline()
        if deadline is not None and now >= deadline:
            limits.advance(now)
        if answer.kind == "success":
            if limits.success(now):
                limits.grow()
        elif answer.kind == "rate_limited":
            limits.rate_limited(now, epoch=ticket, retry_after=answer.retry_after)

    def wake(self, now: float) -> None:
        """A cooldown may be over, or a step of the ramp due."""
        self._limits.advance(now)

    def next_wake(self) -> float | None:
        """The rule's next deadline."""
        return self._limits.next_deadline()


class SimulatedClock(trio.abc.Clock):
    """A clock that stands where it was put, exactly."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        """Nothing runs."""

    def current_time(self) -> float:
        """Where it was put."""
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Nobody sleeps in a simulation."""
        return 0.0


class ControllerClient:
    """A controller that was never opened: it judges where it is called, in the time of `clock`.

    Without a ramp the only moment to wake for is the end of a cooldown, and the controller's own picture tells it.
    """

    def __init__(self, tuning: RequestAdmissionTuningConfig, clock: SimulatedClock, *, cap: int) -> None:
        self._clock = clock
        self._controller = AdaptiveRequestAdmissionController(tuning.with_limits())
        self._controller.register(
            provider_name=RESOURCE.provider_name, model_id=RESOURCE.model_id, alias="model", max_parallel_requests=cap
        )
        self._leases: dict[int, RequestAdmissionLease] = {}
        self.limit = cap
        self._blocked_until: float | None = None

    def grant(self, now: float) -> int | None:
        """A ticket if the controller gives a lease."""
        self._clock.now = now
        decision = self._controller.try_acquire(ITEM)
        if not isinstance(decision, RequestAdmissionLease):
            return None
        self._leases[decision.lease_id] = decision
        return decision.lease_id

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """Give the lease back with what came of it."""
        self._clock.now = now
        result = self._controller.release(
            self._leases.pop(ticket), RequestReleaseOutcome(answer.kind, retry_after_seconds=answer.retry_after)
        )
        assert result.released, result
        self.wake(now)

    def wake(self, now: float) -> None:
        """Look where the limit stands."""
        self._clock.now = now
        snapshot = self._controller.pressure.snapshot(RESOURCE)
        if snapshot is not None:
            self.limit = snapshot.current_limit
            self._blocked_until = snapshot.blocked_until_monotonic

    def next_wake(self) -> float | None:
        """The end of the cooldown."""
        until = self._blocked_until
        return until if until is not None and until > self._clock.now else None


def rules(tuning: Tuning) -> ClientFactory:
    """Makes clients that are the rule alone."""

    def make(*, cap: int, now: float = 0.0, ramp: float = 0.0) -> Client:
        return RuleClient(tuning.config(ramp), cap=cap, now=now)

    return make


def controllers(tuning: Tuning, clock: SimulatedClock) -> ClientFactory:
    """Makes clients that are whole controllers. For use inside `in_simulated_time`; a ramp is refused."""

    def make(*, cap: int, now: float = 0.0, ramp: float = 0.0) -> Client:
        assert ramp == 0, "a controller that was never opened has nobody to raise a ramp"
        clock.now = now
        return ControllerClient(tuning.config(), clock, cap=cap)

    return make


def in_simulated_time(function: Callable[[SimulatedClock], T]) -> T:
    """Call `function` inside a Trio run whose clock is the one it is given."""
    clock = SimulatedClock()

    async def main() -> T:
        await trio.lowlevel.checkpoint()
        return function(clock)

    return trio.run(main, clock=clock)
