"""Scenario family 7 at data-designer-engine: its own controller, with its defaults, in the simulation's time.

Run in an environment that has data-designer-engine: `python -m benchmarks.peers.control --seeds 1 2 -- SCENARIO...`.
One line of JSON for each scenario goes to standard output. Besides it only the standard library is needed.

The controller reads `time.monotonic`; its module gets a `time` of ours, and nothing else of it is touched. Callers
that wait are not played by coroutines: a caller that would be served when a lease comes back, or when a cooldown ends,
asks `try_acquire` at that moment. That is what its waiters get, without the up to 50 ms that they may wake late.
"""

from __future__ import annotations

import argparse
import json
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

from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.simulator import Answer, Client
from benchmarks.control.told import Told
from benchmarks.control.worlds import play

__all__ = ["PeerClient", "main"]

RESOURCE = RequestResourceKey("scripted", "model", RequestDomain.CHAT)
ITEM = RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE))


class PeerClient:
    """The peer's controller."""

    now = 0.0
    """The time of the simulation, for all controllers."""

    def __init__(self, cap: int) -> None:
        self._controller = peer.AdaptiveRequestAdmissionController(RequestAdmissionConfig())
        self._controller.register(
            provider_name=RESOURCE.provider_name, model_id=RESOURCE.model_id, alias="model", max_parallel_requests=cap
        )
        self._leases: dict[int, Any] = {}
        self._tickets = 0
        self._limit = cap
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
        outcome = RequestReleaseOutcome(kind=answer.kind, retry_after_seconds=answer.hint)
        result = self._controller.release(self._leases.pop(ticket), outcome)
        if not result.released:
            raise AssertionError(result)
        self._look()

    def wake(self, now: float) -> None:
        """Look where the limit stands."""
        PeerClient.now = now
        self._look()

    def next_wake(self) -> float | None:
        """The end of the cooldown."""
        return self._blocked_until

    def _look(self) -> None:
        snapshot = self._controller.snapshot(RESOURCE)
        if snapshot is not None:
            self._limit = snapshot.current_limit
            self._blocked_until = snapshot.blocked_until_monotonic


def client(told: Told) -> Client:
    """A client with the peer's defaults."""
    PeerClient.now = told.now
    return PeerClient(told.cap)


def main() -> None:
    """Play the scenarios, and print the results of each, one for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("scenarios", nargs="+")
    arguments = parser.parse_args()
    peer.time = SimpleNamespace(monotonic=lambda: PeerClient.now)
    for name in arguments.scenarios:
        measures = [play(SCENARIOS[name].world, client, seed, name) for seed in arguments.seeds]
        print(json.dumps(measures), flush=True)


if __name__ == "__main__":
    main()
