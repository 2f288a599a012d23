"""What the request workloads of all implementations share: what is asked, who is in flight, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.workloads.outcome import Json, Outcome, Params, number
from benchmarks.workloads.samples import Steps, Stopwatch, digest

__all__ = ["MODEL", "PROVIDER", "Flight", "Turns"]

PROVIDER = "bench"
MODEL = "model"


@dataclass(frozen=True)
class Turns:
    """callers: how many ask at once; 1 asks again and again instead, with nobody waiting, `turns` times."""

    callers: int
    permits: int
    turns: int

    @classmethod
    def of(cls, params: Params, *, warm_up: bool) -> Turns:
        """The turns that `params` ask for; less of them to warm up."""
        callers, turns = number(params, "callers"), number(params, "turns")
        if warm_up:
            callers, turns = min(callers, 200), min(turns, 200)
        return cls(callers, number(params, "permits"), turns)


class Flight:
    """Who is in flight now, who was served, and the most there were at once."""

    __slots__ = ("in_flight", "peak", "served")

    def __init__(self) -> None:
        self.in_flight = 0
        self.peak = 0
        self.served: list[int] = []

    def enter(self) -> None:
        """One more is in flight."""
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self.in_flight

    def leave(self, caller: int) -> None:
        """One is done."""
        self.in_flight -= 1
        self.served.append(caller)

    def outcome(
        self, turns: Turns, watch: Stopwatch, steps: Steps, final_request_snapshot: dict[str, Json] | None
    ) -> Outcome:
        """What is reported of the iteration."""
        done = len(self.served)
        each = watch.each("request", done) if turns.callers > 1 else {}
        return Outcome(
            wall_time_seconds=watch.wall,
            metrics={**each, **steps.metrics()},
            counts={"served": done, "peak_in_flight": self.peak},
            final_request_snapshot=final_request_snapshot,
            output_hashes={"served": digest(sorted(self.served))},
            capacity_plan={
                "configured": {
                    "provider_model_static_caps": {
                        f"{PROVIDER}/{MODEL}": {"value": {"cap": turns.permits}, "source": "benchmark_override"}
                    }
                }
            },
        )
