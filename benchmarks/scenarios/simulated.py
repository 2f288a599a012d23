"""Scenario families 2 to 5: whole pipelines in simulated time, so that what is counted and timed repeats exactly.

Simulated seconds are the same on every machine; wall time and processor time say what the candidate's own work costs.
Every candidate builds the same pipeline out of `workloads/simulated_pipelines.py`, under its own defaults.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from benchmarks.errors import UsageError
from benchmarks.inputs import Inputs, Value
from benchmarks.scenarios.pipeline import PEER_NEEDS
from benchmarks.scenarios.scenario import Headline, Kind, Point, Scenario, grid
from benchmarks.workloads.outcome import Json
from benchmarks.workloads.simulated_pipelines import PIPELINES, SIZES

__all__ = ["END_TO_END", "HEAVY_ROOT", "HIDDEN_WAITERS", "UTILISATION"]

CLOCK: Final[dict[str, Json]] = {"clock": "simulated", "jumps": "to the next deadline", "order_seed": 0}
"""`order_seed` fixes the order in which Trio runs the tasks that are ready at once."""

SMOKE_RECORDS: Final = 60

MAKESPAN: Final = Headline("simulated_seconds", "until the last record is durable, simulated", unit="s")
FIRST: Final = Headline("first_record_seconds", "until the first record is made, simulated", unit="s")
HALF: Final = Headline("half_of_records_seconds", "until half of the records are made, simulated", unit="s")
ROW_P95: Final = Headline("row_completion_p95_seconds", "until a record is made (p95), simulated", unit="s")
IDLE_GAP: Final = Headline("ready_idle_gap_seconds", "longest gap with work and room, simulated", unit="s")
HIDDEN: Final = Headline("hidden_scheduler_resource_waiters", "most workers at once without a lease", unit="workers")
TASK_COST: Final = Headline("task_cpu_us", "the run with every event kept, per task, processor time")
READY_TO_LEASE: Final = Headline("ready_to_lease_gap_p95_us", "from ready to dispatched (p95), simulated")


def params(inputs: Inputs, point: Point, smoke: bool) -> dict[str, Json]:
    """What a worker is told."""
    sizes: dict[str, Json] = {name: getattr(inputs, name) for name in SIZES}
    if smoke and inputs.records is None:
        sizes["records"] = SMOKE_RECORDS
    return {
        **point,
        **sizes,
        "provider_script": provider_script(inputs, point),
        "order_seed": clock_script(inputs)["order_seed"],
    }


def provider_script(inputs: Inputs, point: Point) -> dict[str, Json]:
    """What the providers of the point's pipeline do: its own, or what a file says of them, with the given latencies."""
    script = PIPELINES[str(point["pipeline"])].provider_script()
    if inputs.provider_script is not None:
        given = _document(inputs.provider_script, point["pipeline"])
        if given.keys() != script.keys():
            raise UsageError(f"--provider-script must name the providers {', '.join(script)} of {point['pipeline']!r}")
        script = given
    for name, seconds in (inputs.latency or {}).items():
        if not any(name in spec.providers for spec in PIPELINES.values()):
            raise UsageError(f"--latency takes NAME=SECONDS of a provider, and {name!r} is the name of none")
        if name in script:
            script[name] = {**script[name], "seconds": seconds}
    return script


def clock_script(inputs: Inputs) -> dict[str, Json]:
    """What the clock does."""
    return CLOCK if inputs.clock_script is None else {**CLOCK, **_document(inputs.clock_script)}


def _document(path: Path, *keys: Value) -> dict[str, Any]:
    """A JSON object, or the one that it has under some keys."""
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise UsageError(f"{path.name} says nothing of {key!r}")
        found = cast("dict[str, Any]", found)[str(key)]
    if not isinstance(found, dict):
        raise UsageError(f"{path.name} holds {found!r} where an object is wanted")
    return cast("dict[str, Any]", found)


def skips(kind: Kind, point: Point) -> str | None:
    """Bare Trio cancels by cancelling: there is nothing of it to look at."""
    if kind == "floor" and point["pipeline"] == "cancellation":
        return "bare Trio has no leases that could be left behind"
    return None


def _scenario(scenario_id: str, title: str, pipelines: tuple[str, ...], *headlines: Headline) -> Scenario:
    axes = {"pipeline": pipelines}
    return Scenario(
        scenario_id=scenario_id,
        version="1",
        title=title,
        axes=axes,
        budget_points=grid(axes),
        smoke_points=grid(axes),
        workloads={
            "project": "benchmarks.workloads.simulated_here",
            "floor": "benchmarks.workloads.simulated_floor",
            "peer": "benchmarks.peers.engine_simulated",
        },
        params=params,
        headlines=headlines,
        accepts=frozenset({*SIZES, "latency", "provider_script", "clock_script"}),
        skips=skips,
        peer_needs=PEER_NEEDS,
        provider_script=provider_script,
        clock_script=clock_script,
    )


HEAVY_ROOT = _scenario(
    "heavy_root",
    "a heavy root from scratch, downstream fast",
    ("heavy root",),
    Headline("first_downstream_ready_seconds", "until the first task downstream is ready, simulated", unit="s"),
    Headline("first_downstream_dispatch_seconds", "until the first task downstream is dispatched, simulated", unit="s"),
    FIRST,
    HALF,
    ROW_P95,
    READY_TO_LEASE,
    Headline("root_over_admission_debt", "most units of the root above its strict share", unit="units"),
    Headline("root_over_admission_while_others_wait", "the same while others were queued", unit="units"),
    IDLE_GAP,
    MAKESPAN,
    TASK_COST,
)

HIDDEN_WAITERS = _scenario(
    "hidden_waiters",
    "nobody runs without a lease, however it ends",
    ("success", "failure", "cancellation", "salvage"),
    HIDDEN,
    MAKESPAN,
    TASK_COST,
)

UTILISATION = _scenario(
    "utilisation",
    "idle capacity and utilisation",
    ("less work than capacity", "more work than capacity", "unequal groups", "one endpoint for all"),
    Headline("utilisation[model]", "successful call-seconds over what the cap could carry", unit="parts of one"),
    Headline("utilisation[slow]", "the same at the slow endpoint of two", unit="parts of one"),
    Headline("active_capacity_integral", "lease-seconds, simulated", unit="s"),
    Headline(
        "jain_index[endpoint:simulated/model]", "Jain's index of groups that share an endpoint", unit="parts of one"
    ),
    IDLE_GAP,
    MAKESPAN,
    TASK_COST,
)

END_TO_END = _scenario(
    "end_to_end",
    "whole pipelines with model calls",
    (
        "narrow chain",
        "wide independent roots",
        "generate to judge",
        "heavy root to model",
        "zero to four calls",
        "cooldown of one provider",
    ),
    MAKESPAN,
    FIRST,
    HALF,
    ROW_P95,
    READY_TO_LEASE,
    IDLE_GAP,
    TASK_COST,
)
