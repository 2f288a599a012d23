"""The artifact of a run: every field that a report, a gate or another run needs, versioned.

Reading is strict: an unknown or a missing field, or a value of the wrong type, is refused. `benchmarks.schema`
checks what types cannot say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NewType, cast

import attrs
from cattrs.preconf.json import JsonConverter, make_converter

from benchmarks.figures import Figures, Verdict

__all__ = [
    "ARTIFACT_SCHEMA_VERSION",
    "Artifact",
    "BudgetVerdict",
    "Comparison",
    "DerivedMetrics",
    "Environment",
    "GateVerdict",
    "Iteration",
    "JsonObject",
    "Noise",
    "Skipped",
    "Summary",
    "TimelineEntry",
    "converter",
    "read_artifact",
    "six_digits",
    "write_artifact",
]

ARTIFACT_SCHEMA_VERSION: Final = "1"

JsonObject = NewType("JsonObject", dict[str, object])
"""An object of JSON values whose keys this schema does not fix."""


@attrs.frozen
class TimelineEntry:
    """One event of either stream. `stream` is `scheduler` or `request`; `sequence` counts within it."""

    event_kind: str
    captured_at_monotonic: float
    stream: str
    sequence: int
    captured_correlation: JsonObject | None = None
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: str | None = None
    request_attempt_id: str | None = None
    request_lease_id: str | None = None
    scheduler_resource_key: str | None = None
    request_resource_key: str | None = None
    reason_or_outcome: str | None = None


@attrs.frozen
class Iteration:
    """One measured iteration of one candidate at one point; `order` is its place in the whole run."""

    candidate: str
    point: JsonObject
    index: int
    order: int
    wall_time_seconds: float
    cpu_time_seconds: float
    peak_memory_bytes: int
    calibration_seconds: float
    metrics: Mapping[str, float]
    counts: Mapping[str, int]
    timeline: tuple[TimelineEntry, ...]
    final_task_snapshot: JsonObject | None
    final_request_snapshot: JsonObject | None
    output_hashes: Mapping[str, str]


@attrs.frozen
class Summary:
    """The figures of one metric of one candidate at one point."""

    candidate: str
    point: JsonObject
    metric: str
    figures: Figures


@attrs.frozen
class Comparison:
    """How far the candidate is ahead of another one in a metric: the ratios of the paired iterations."""

    candidate: str
    against: str
    point: JsonObject
    metric: str
    ratio: Figures
    ahead: Verdict


@attrs.frozen
class BudgetVerdict:
    """One line of the budget table. `value` is None where this run did not measure it, and `note` says why."""

    budget_id: str
    step: str
    claim: str
    bound: float
    value: float | None
    verdict: Verdict | None
    binding: bool
    note: str = ""


@attrs.frozen
class GateVerdict:
    """One gate. `passed` is None where it does not apply to this run."""

    gate: str
    passed: bool | None
    note: str = ""


@attrs.frozen
class Skipped:
    """A point that a candidate did not run."""

    candidate: str
    point: JsonObject
    reason: str


@attrs.frozen
class Noise:
    """How steady the machine was: the spread of a fixed piece of work that ran before every iteration."""

    calibration: Figures
    load_average_before: float | None
    load_average_after: float | None
    note: str


@attrs.frozen
class DerivedMetrics:
    """Everything that follows from the iterations."""

    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]
    budgets: tuple[BudgetVerdict, ...]
    gates: tuple[GateVerdict, ...]
    skipped: tuple[Skipped, ...]
    noise: Noise | None


@attrs.frozen
class Environment:
    """Where it ran. No name of a host and no path."""

    machine: JsonObject
    runtimes: Mapping[str, JsonObject]
    command_line: tuple[str, ...]


@attrs.frozen
class Artifact:
    """One run of one scenario."""

    scenario_id: str
    artifact_schema_version: str
    scenario_version: str
    harness_version: str
    baseline_sha: str
    candidate_sha: str
    inputs: JsonObject
    provider_script: JsonObject | None
    clock_script: JsonObject | None
    capacity_plan: JsonObject | None
    iterations: tuple[Iteration, ...]
    derived_metrics: DerivedMetrics
    environment: Environment
    candidate_shas: Mapping[str, str]


def converter() -> JsonConverter:
    """Reads and writes artifacts."""
    made = make_converter(forbid_extra_keys=True)
    made.register_structure_hook_func(lambda kind: kind is JsonObject, _json_object)
    made.register_structure_hook(float, _number)
    made.register_structure_hook(int, _whole)
    made.register_structure_hook(str, _text)
    made.register_structure_hook(bool, _truth)
    return made


def write_artifact(artifact: attrs.AttrsInstance, path: Path) -> None:
    """Write one as JSON, the entries of every list on a line of their own, numbers to six digits."""
    path.write_text(_dumps(_rounded(converter().unstructure(artifact))) + "\n", encoding="utf-8")


def read_artifact(path: Path) -> Artifact:
    """Read one back. Raises what cattrs raises where it does not have this schema's form."""
    return converter().structure(json.loads(path.read_text(encoding="utf-8")), Artifact)


def _json_object(value: object, _kind: object) -> object:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return cast("dict[str, object]", value)


def _number(value: object, _kind: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value


def _whole(value: object, _kind: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _text(value: object, _kind: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _truth(value: object, _kind: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def six_digits(number: float) -> float:
    """A number as an artifact holds it: what is claimed is derived from such numbers, so it can be derived again."""
    return float(f"{number:.6g}")


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return six_digits(value)
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in cast("list[object]", value)]
    return value


def _dumps(value: object, depth: int = 0) -> str:
    """JSON whose outer two levels are spread over lines."""
    encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
    if depth == 3 or not value:
        return encode(value)
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return "{\n" + ",\n".join(f"{encode(key)}: {_dumps(item, depth + 1)}" for key, item in members.items()) + "\n}"
    if isinstance(value, list):
        items = cast("list[object]", value)
        if isinstance(items[0], dict):
            return "[\n" + ",\n".join(map(encode, items)) + "\n]"
    return encode(value)
