"""A capacity plan line by line, for people: read from `capacity_plan.json`, or from a plan that was never written."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trio_sched._events.records import JsonValue

__all__ = ["PlanLine", "plan_lines"]


@attrs.frozen
class PlanLine:
    """One value of the capacity plan."""

    part: str
    name: str
    value: str
    source: str


def plan_lines(document: Mapping[str, JsonValue]) -> list[PlanLine]:
    """The capacity plan line by line: configured values with their source, then what was seen of them."""
    lines: list[PlanLine] = []
    for part in ("configured", "runtime_snapshot", "observed_maxima"):
        values = document.get(part)
        if isinstance(values, dict):
            lines.extend(_lines(part.replace("_", " "), "", values))
    return lines


def _lines(part: str, prefix: str, values: Mapping[str, JsonValue]) -> list[PlanLine]:
    lines: list[PlanLine] = []
    for name, value in values.items():
        # The names of endpoints and resources, which are no identifiers, stay as they are.
        label = prefix + (name.replace("_", " ") if name.isidentifier() else name)
        if isinstance(value, dict) and "bound_by" in value:
            lines.append(PlanLine(part, label, _text(value["calls"]), f"bound by {_text(value['bound_by'])}"))
        elif isinstance(value, dict) and "source" in value and "value" in value:
            reason = value.get("missing_reason")
            text = f"none: {reason}" if reason is not None else _text(value["value"])
            fallback = value.get("fallback_from")
            source = f"{value['source']}" + (f", in place of {fallback}" if fallback is not None else "")
            lines.append(PlanLine(part, label, text, source.replace("_", " ")))
        elif isinstance(value, dict) and part == "configured":
            lines.extend(_lines(part, f"{label}: ", value))
        else:
            lines.append(PlanLine(part, label, _text(value), ""))
    return lines


def _text(value: JsonValue) -> str:
    """A value as a short text."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
