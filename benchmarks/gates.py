"""The gates: what must be true of every run, and with `--against` what may not have become worse.

A gate is broken by what the iterations show, and the note says where. What is a property of one implementation is asked
of the candidate under judgement alone: the tables show it of everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from benchmarks.artifact import GateVerdict, Iteration
from benchmarks.figures import judge, summarise
from benchmarks.series import PointKey, by_series, key_of

__all__ = ["judge_gates"]

HIDDEN: Final = "hidden_scheduler_resource_waiters"
IDLE_GAP: Final = "ready_idle_gap_seconds"
READY_TO_DISPATCH: Final = "ready_to_lease_gap_p95_us"
DEBT_OF_ROOT: Final = "root_over_admission_while_others_wait"
NO_GAP_SECONDS: Final = 1e-6
"""Simulated time stands still while the candidate works, so no gap is what rounding leaves."""
SAME_FOR_ALL: Final = frozenset({"enqueued", "peak_in_flight", "served"})
LEASES_IN_PAIRS: Final = ("task_leases", "request_leases")
LIMITS: Final = (
    ("wall time within 5 % of the baseline", "wall_time_seconds", 1.05),
    ("95th percentiles within 10 % of the baseline", "_p95_us", 1.10),
)


def judge_gates(
    scenario_id: str, iterations: Sequence[Iteration], inputs: Mapping[str, object]
) -> tuple[GateVerdict, ...]:
    """The verdicts on a run with these recorded inputs."""
    candidate, baseline = str(inputs["candidate"]), str(inputs["baseline"])
    ours = [each for each in iterations if each.candidate == candidate]
    gates = [
        _nothing_left(iterations),
        _none_broken("every lease is given back", _leases_kept(ours)),
        _none_broken("request leases equal outbound attempts", _leases_without_attempt(ours)),
        _none_broken("no row lost, no call above its cap", _lost(ours)),
        _equal_hashes(iterations),
        _ordered(iterations, ours),
        _none_broken("no hidden waiter", _above(ours, HIDDEN, 0)),
        _none_broken("no ready-idle gap in simulated time", _idle_gaps(ours)),
        _none_broken("root debt within the bound", _above(ours, DEBT_OF_ROOT, 0)),
        _counts_repeat(iterations) if inputs["profile"] == "smoke" else _same_work(iterations),
    ]
    if scenario_id == "heavy_root" and baseline != candidate:
        gates.append(_heavy_root(iterations, candidate, baseline, inputs["against"] is not None))
    if inputs["against"] is not None:
        gates += (_not_slower(iterations, candidate, baseline, *limit) for limit in LIMITS)
    return tuple(gates)


def _none_broken(gate: str, asked: Iterator[tuple[Iteration, str | None]]) -> GateVerdict:
    """The gate over every iteration that it can be asked of, each with what is wrong there, or None."""
    answers = list(asked)
    wrong = [f"{each.candidate} at {dict(each.point)}: {fault}" for each, fault in answers if fault is not None]
    return GateVerdict(gate, not wrong if answers else None, "; ".join(wrong[:3]))


def _leases_kept(ours: Sequence[Iteration]) -> Iterator[tuple[Iteration, str | None]]:
    for each in ours:
        for name in LEASES_IN_PAIRS:
            if name in each.counts:
                taken, given_back = each.counts[name], each.counts.get(f"{name}_released")
                yield each, None if taken == given_back else f"{taken} {name}, {given_back} released"


def _leases_without_attempt(ours: Sequence[Iteration]) -> Iterator[tuple[Iteration, str | None]]:
    for each in ours:
        if "outbound_attempts" in each.counts:
            leases, attempts = each.counts.get("request_leases"), each.counts["outbound_attempts"]
            yield each, None if leases == attempts else f"{leases} leases, {attempts} attempts"


def _lost(ours: Sequence[Iteration]) -> Iterator[tuple[Iteration, str | None]]:
    for each in ours:
        for name in ("rows_lost", "calls_above_cap"):
            if name in each.counts:
                yield each, None if each.counts[name] == 0 else f"{name} {each.counts[name]}"


def _above(ours: Sequence[Iteration], metric: str, bound: float) -> Iterator[tuple[Iteration, str | None]]:
    for each in ours:
        if metric in each.metrics:
            value = each.metrics[metric]
            yield each, None if value <= bound else f"{metric} {value:g}"


def _idle_gaps(ours: Sequence[Iteration]) -> Iterator[tuple[Iteration, str | None]]:
    """On a real clock the gap is what the candidate's own work takes; there it is only shown."""
    return _above([each for each in ours if "simulated_seconds" in each.metrics], IDLE_GAP, NO_GAP_SECONDS)


def _heavy_root(iterations: Sequence[Iteration], candidate: str, baseline: str, against_ourselves: bool) -> GateVerdict:
    """Better than another implementation; where the baseline is an earlier commit of ours, at least as good."""
    series = by_series(iterations)
    worse: list[str] = []
    asked = False
    for (key, name, metric), ours in series.items():
        theirs = series.get((key, baseline, metric))
        if name != candidate or metric != READY_TO_DISPATCH or theirs is None:
            continue
        asked = True
        pairs = [(ours[index], theirs[index]) for index in sorted(ours.keys() & theirs.keys())]
        holds = _at_most if against_ourselves else _below
        if judge([mine - other for mine, other in pairs], holds) != "shown":
            worse.append(f"{summarise(list(ours.values())).mean:.0f} µs at {dict(key)}")
    name = "heavy root, ready to dispatch (p95): " + ("no worse than" if against_ourselves else "better than")
    return GateVerdict(f"{name} the baseline", not worse if asked else None, "; ".join(worse))


def _at_most(difference: float) -> bool:
    return difference <= 0


def _below(difference: float) -> bool:
    return difference < 0


def _nothing_left(iterations: Sequence[Iteration]) -> GateVerdict:
    """No lease and no waiter is left at the end of any iteration."""
    left = [
        f"{each.candidate} {name} {value}"
        for each in iterations
        for snapshot in (each.final_task_snapshot, each.final_request_snapshot)
        if snapshot is not None
        for name, value in snapshot.items()
        if name in ("leased", "in_flight", "waiters", "leaks") and value != 0
    ]
    return GateVerdict("no lease and no waiter left", not left, "; ".join(left[:3]))


def _equal_hashes(iterations: Sequence[Iteration]) -> GateVerdict:
    """Whoever computes the same at a point has the same hash of it."""
    seen: dict[tuple[PointKey, str], set[str]] = {}
    for each in iterations:
        for name, value in each.output_hashes.items():
            seen.setdefault((key_of(each.point), name), set()).add(value)
    differ = [f"{name} at {dict(key)}" for (key, name), values in seen.items() if len(values) > 1]
    return GateVerdict("equal hashes", None if not seen else not differ, "; ".join(differ[:3]))


def _same_work(iterations: Sequence[Iteration]) -> GateVerdict:
    """Everybody does the same work, as far as the time that it may take does not cut it short."""
    seen: dict[tuple[PointKey, str], set[int]] = {}
    for each in iterations:
        for name in SAME_FOR_ALL & each.counts.keys():
            seen.setdefault((key_of(each.point), name), set()).add(each.counts[name])
    differ = [f"{name} at {dict(key)}: {sorted(values)}" for (key, name), values in seen.items() if len(values) > 1]
    return GateVerdict("same work", None if not seen else not differ, "; ".join(differ[:3]))


def _counts_repeat(iterations: Sequence[Iteration]) -> GateVerdict:
    """Whatever is counted, or timed on a simulated clock, is the same in every iteration of a candidate."""
    seen: dict[tuple[PointKey, str, str], set[float]] = {}
    for each in iterations:
        simulated = "simulated_seconds" in each.metrics
        timed = {name: value for name, value in each.metrics.items() if simulated and name.endswith("_seconds")}
        for name, value in {**each.counts, **timed}.items():
            seen.setdefault((key_of(each.point), each.candidate, name), set()).add(value)
    differ = [f"{name} at {dict(key)}: {sorted(values)}" for (key, _, name), values in seen.items() if len(values) > 1]
    return GateVerdict("counts repeat", not differ, "; ".join(differ[:3]))


def _not_slower(
    iterations: Sequence[Iteration], candidate: str, baseline: str, gate: str, suffix: str, limit: float
) -> GateVerdict:
    """No time that ends in `suffix` has grown beyond `limit`, as far as the iterations show it."""
    series = by_series(iterations)
    slower: list[str] = []
    for (key, name, metric), ours in series.items():
        theirs = series.get((key, baseline, metric))
        if name != candidate or theirs is None or not metric.endswith(suffix):
            continue
        ratios = [ours[index] / theirs[index] for index in sorted(ours.keys() & theirs.keys()) if theirs[index]]
        if ratios and judge(ratios, lambda ratio: ratio <= limit) == "refuted":
            slower.append(f"{metric} at {dict(key)}: {summarise(ratios).mean:.2f} ×")
    return GateVerdict(gate, not slower, "; ".join(slower[:5]))


def _ordered(iterations: Sequence[Iteration], ours: Sequence[Iteration]) -> GateVerdict:
    """The sequence of each stream only rises in what is kept, and nothing was out of order in the whole of ours."""
    broken = [f"{each.candidate} at {dict(each.point)}" for each in iterations if _falls(each)]
    for each in ours:
        broken += [
            f"{name} {each.counts[name]} at {dict(each.point)}"
            for name in ("streams_out_of_order", "requests_out_of_order")
            if each.counts.get(name)
        ]
    asked = any(each.timeline for each in iterations)
    return GateVerdict("monotonic timelines", None if not asked else not broken, "; ".join(broken[:3]))


def _falls(each: Iteration) -> bool:
    last: dict[str, int] = {}
    for entry in each.timeline:
        if entry.sequence <= last.get(entry.stream, -1):
            return True
        last[entry.stream] = entry.sequence
    return False
