"""Scenario family 7 at data-designer-engine: its own controller, with its defaults, in the simulation's time.

Run in an environment that has data-designer-engine: `python -m benchmarks.peers.aimd --seeds 1 2 3`. One JSON object
goes to standard output. Besides it only the standard library is needed.

The controller reads `time.monotonic`; its module gets a `time` of ours, and nothing else of it is touched. Callers
that wait are not played by coroutines: a caller that would be served when a lease comes back, or when a cooldown ends,
asks `try_acquire` at that moment. That is what its waiters get, without the up to 50 ms that they may wake late.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from types import SimpleNamespace
from typing import Any

# Installed only in the peer's own environment.
from data_designer.engine.models.request_admission import controller as peer  # type: ignore[import-not-found]
from data_designer.engine.models.request_admission.config import (  # type: ignore[import-not-found]
    RequestAdmissionConfig,
)
from data_designer.engine.models.request_admission.outcomes import (  # type: ignore[import-not-found]
    RequestReleaseOutcome,
)
from data_designer.engine.models.request_admission.resources import (  # type: ignore[import-not-found]
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)

from benchmarks.aimd.results import Result, run_scenarios
from benchmarks.aimd.scenarios import FULL, SCENARIOS, SMOKE
from benchmarks.aimd.simulator import Answer, Client

__all__ = ["PeerClient", "main"]

RESOURCE = RequestResourceKey("scripted", "model", RequestDomain.CHAT)
ITEM = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))


class PeerClient:
    """The peer's controller."""

    now = 0.0
    """The time of the simulation, for all controllers."""

    def __init__(self, *, cap: int, ramp: float) -> None:
        self._controller = peer.AdaptiveRequestAdmissionController(RequestAdmissionConfig(startup_ramp_seconds=ramp))
        self._controller.register(
            provider_name=RESOURCE.provider_name, model_id=RESOURCE.model_id, alias="model", max_parallel_requests=cap
        )
        self._cap = cap
        self._ramp = ramp
        self._started_at = PeerClient.now
        self._leases: dict[int, Any] = {}
        self._tickets = 0
        self._limit = cap if ramp == 0 else 1
        self._blocked_until: float | None = None

    @property
    def limit(self) -> int:
        """As its snapshot reports it."""
        return self._limit

    def grant(self, now: float) -> int | None:
        """A ticket if the controller gives a lease. It is not asked where it certainly would not: that saves time."""
        PeerClient.now = now
        if len(self._leases) >= self._limit or self._blocked_until is not None:
            return None
        decision = self._controller.try_acquire(ITEM)
        if not isinstance(decision, peer.RequestAdmissionLease):
            return None
        self._tickets += 1
        self._leases[self._tickets] = decision
        return self._tickets

    def release(self, ticket: int, answer: Answer, now: float) -> None:
        """Give the lease back with what came of it."""
        PeerClient.now = now
        outcome = RequestReleaseOutcome(kind=answer.kind, retry_after_seconds=answer.retry_after)
        result = self._controller.release(self._leases.pop(ticket), outcome)
        if not result.released:
            raise AssertionError(result)
        self._look()

    def wake(self, now: float) -> None:
        """Look where the limit stands."""
        PeerClient.now = now
        self._look()

    def next_wake(self) -> float | None:
        """The end of the cooldown, or a moment at which the ramp may have risen."""
        if self._blocked_until is None and PeerClient.now < self._started_at + self._ramp:
            return PeerClient.now + self._ramp / (4 * self._cap)
        return self._blocked_until

    def _look(self) -> None:
        snapshot = self._controller.snapshot(RESOURCE)
        if snapshot is not None:
            self._limit = snapshot.current_limit
            self._blocked_until = snapshot.blocked_until_monotonic


def make(*, cap: int, now: float = 0.0, ramp: float = 0.0) -> Client:
    """A client with the peer's defaults."""
    PeerClient.now = now
    return PeerClient(cap=cap, ramp=ramp)


def main() -> None:
    """Run the scenarios and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    peer.time = SimpleNamespace(monotonic=lambda: PeerClient.now)

    def progress(result: Result) -> None:
        print(result.scenario, result.seed, file=sys.stderr, flush=True)

    results = run_scenarios(make, arguments.scenarios, arguments.seeds, SMOKE if arguments.smoke else FULL, progress)
    version = importlib.metadata.version("data-designer-engine")
    print(json.dumps({"version": version, "results": [result.to_json() for result in results]}))


if __name__ == "__main__":
    main()
