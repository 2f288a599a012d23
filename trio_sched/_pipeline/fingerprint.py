"""What makes two runs the same run: everything their data depend on, and nothing else.

The code of a function or of a skip rule is not part of it, so a function may be corrected between two attempts at one
dataset. Whether there is a rule, what a skipped cell holds, and which columns are skipped along are part of it.

A column's `check`, `attempts` and `on_failure` are not: they say what is done about an answer that cannot be used, as
the function does, and whoever meets such answers has to be able to change them and go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.binding import BoundNode, BoundPipeline
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.outputs import read_cell
from trio_sched._pipeline.processors import Processor

__all__ = ["DatasetIdentity", "dataset_identity"]

_ORDER = "column_order"
"""The fact that also differs wherever the columns do."""
_SHOWN = 70
"""How much of a value a message shows, in characters."""


@attrs.frozen
class DatasetIdentity:
    """facts: all that a dataset depends on, by name. The other fields are among them."""

    facts: Mapping[str, JsonValue]
    buffer_size: int
    ordered_columns: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def differences(self, other: JsonValue) -> Iterator[str]:
        """How the facts of another dataset, read from a file, differ from these: one text for each difference."""
        known = other if isinstance(other, dict) else dict[str, JsonValue]()
        if not known:
            yield "it does not say what it was made from"
            return
        theirs, ours = _names(known.get("columns")), _names(self.facts["columns"])
        if theirs and theirs.isdisjoint(ours):
            yield f"another pipeline (columns {', '.join(sorted(theirs))} there; {', '.join(sorted(ours))} here)"
            return
        for name in sorted(theirs ^ ours):
            yield f"column {name!r}: only {'there' if name in theirs else 'here'}"
        for name in dict.fromkeys([*self.facts, *known]):
            if name != _ORDER or theirs == ours:
                yield from _differences(name, known.get(name), self.facts.get(name))


def dataset_identity(
    pipeline: BoundPipeline, config: RunConfig, source: Mapping[str, JsonValue] | None, records: int | None
) -> DatasetIdentity:
    """The columns, what they need, call and skip, the input rows, the number of records, sizes, seed and format."""
    columns: dict[str, JsonValue] = {
        name: {
            "task_type": bound.node.task_type,
            "needs": list(bound.node.needs),
            "outputs": list(bound.node.outputs),
            "ordered": bound.node.ordered,
            "after": list(bound.node.after),
            "models": [str(model) for model in bound.models],
            "stage": bound.origin.stage if isinstance(bound.origin, Processor) else None,
            "skip": _skip_facts(bound),
        }
        for name, bound in pipeline.nodes.items()
    }
    return DatasetIdentity(
        {
            "columns": columns,
            _ORDER: list(pipeline.graph.columns),
            "input": dict(source) if source is not None else None,
            "records": records,
            "buffer_size": config.buffer_size,
            "seed": config.seed,
            "format": config.format,
        },
        config.buffer_size,
        tuple(name for name, bound in pipeline.nodes.items() if bound.node.ordered),
    )


def _skip_facts(bound: BoundNode) -> JsonValue:
    """What a column does with rows that it skips."""
    rule = bound.skip
    if rule is None:
        return None
    return {
        "by_rule": rule.when is not None,
        "with": list(bound.skipped_with),
        "cells": [read_cell(cell) for cell in rule.cells],
    }


def _names(columns: JsonValue) -> set[str]:
    return set(columns) if isinstance(columns, dict) else set()


def _differences(name: str, theirs: JsonValue, ours: JsonValue) -> Iterator[str]:
    if theirs == ours:
        return
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        yield f"{name}: {_short(theirs)} there, {_short(ours)} here"
        return
    # A column that only one of them has was reported before.
    parts = theirs.keys() & ours.keys() if name == "columns" else theirs.keys() | ours.keys()
    for part in sorted(parts):
        yield from _differences(f"{name}, {part}", theirs.get(part), ours.get(part))


def _short(value: JsonValue) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
