"""What a run came to, for the program and for the reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

from trio_sched._capacity import AsyncCapacityPlan
from trio_sched._events.records import JsonValue
from trio_sched._observe.statistics import RequestStatistics
from trio_sched._pipeline.durable_parts import EarlierRows
from trio_sched._pipeline.folder import RunFolder
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._scheduler.result import SchedulerResult

__all__ = ["RunResult", "uncalled_model"]

_CAUSES_SHOWN: Final = 3
"""The innermost ones, which say what happened; those around them say what was attempted."""


@attrs.frozen(eq=False)
class RunResult:
    """A finished run.

    path: its output folder. earlier: what was durable before, where it went on with a run. The numbers of `scheduler`,
    `requests`, `capacity_plan` and `wall_seconds` are those of this attempt, all others those of the whole dataset.
    capacity_plan: what bounded it and what was used, as in `capacity_plan.json`. wall_seconds: from the first to the
    last step. leaks: task and request leases still held, which is always empty unless there is a bug; each entry names
    the holder. skipped_cells: by column, in how many of this attempt's rows a skip rule left the cell out.
    uncalled_models: columns that have a model, made cells in this attempt, and never called the model.
    """

    path: Path
    run_id: str
    scheduler: SchedulerResult
    requests: Mapping[RequestResourceKey, RequestStatistics]
    static_caps: Mapping[ProviderModelKey, int]
    capacity_plan: AsyncCapacityPlan
    wall_seconds: float
    leaks: tuple[str, ...]
    skipped_cells: Mapping[str, int]
    uncalled_models: tuple[str, ...] = ()
    earlier: EarlierRows = attrs.field(factory=EarlierRows)

    @property
    def status(self) -> Literal["completed", "cancelled", "stopped_early"]:
        """How it ended: with every row settled, because it was told to stop, or because too much failed."""
        if self.scheduler.cancelled:
            return "cancelled"
        return "completed" if self.scheduler.early_stop is None else "stopped_early"

    @property
    def records(self) -> int:
        """Rows that are durable."""
        return self.earlier.rows + self.scheduler.rows

    @property
    def dropped(self) -> int:
        """Rows that were given up."""
        return self.earlier.dropped + self.scheduler.dropped_rows

    @property
    def filtered(self) -> int:
        """Rows that processors removed."""
        return self.earlier.filtered + self.scheduler.filtered_rows

    def rows(self) -> Iterator[dict[str, JsonValue]]:
        """The durable rows in order, read from disk one at a time."""
        return RunFolder(self.path).rows()

    def data_hash(self) -> str:
        """SHA-256 over the durable rows in order, as JSON lines: equal data, equal hash, in either format."""
        digest = hashlib.sha256()
        for text in RunFolder(self.path).canonical_text():
            digest.update(text)
        return digest.hexdigest()

    def utilisation(self, resource: RequestResourceKey) -> float:
        """Seconds of successful calls, over what the endpoint's static cap could have carried, from 0 to 1."""
        capacity = self.static_caps[resource.provider_model_key] * self.wall_seconds
        return self.requests[resource].success_seconds / capacity if capacity else 0.0

    def summary(self) -> str:
        """A page of plain text for people."""
        outcomes: dict[str, int] = {}
        for statistics in self.requests.values():
            for kind, count in statistics.outcomes.items():
                outcomes[kind] = outcomes.get(kind, 0) + count
        attempts = sum(statistics.attempts for statistics in self.requests.values())
        lines = [
            f"rows         {self.records:,} written, {self.dropped:,} dropped"
            + (f", {self.filtered:,} filtered" if self.filtered else ""),
            f"row groups   {self.earlier.row_groups + self.scheduler.row_groups:,} in {self.path / 'data'}",
            f"requests     {attempts:,} attempts: " + (_counts(outcomes) or "none"),
            f"wall time    {self.wall_seconds:.1f} s",
            f"leases       {len(self.leaks)} leaked",
        ]
        if self.status != "completed":
            stop = self.scheduler.early_stop
            why = "it was cancelled" if stop is None else str(stop)
            mend = "" if stop is None else "mend the cause, then "
            lines.insert(1, f'stopped      before the end: {why}; to go on: {mend}resume="if-possible"')
            if stop is not None and stop.last_error is not None:
                error = stop.last_error
                lines.insert(2, f"             the last one with {type(error).__name__}: {_told(error)}")
        if self.earlier.row_groups:
            rest = "" if self.scheduler.row_groups or self.status != "completed" else "; nothing was left to do"
            lines.insert(1, f"before       {self.earlier.rows:,} rows in {self.earlier.row_groups:,} row groups{rest}")
        lines += [f"             {leak}" for leak in self.leaks]
        width = max((len(str(resource)) for resource in self.requests), default=0)
        if self.requests:
            lines += ["", f"{'endpoint':<{width}}  attempts  rate limited  cap  most  limit low/last  utilisation"]
        for resource, statistics in sorted(self.requests.items()):
            moved = statistics.lowest_limit is not None
            limits = f"{statistics.lowest_limit}/{statistics.last_limit}" if moved else "steady"
            lines.append(
                f"{resource!s:<{width}}  {statistics.attempts:>8,}  "
                f"{statistics.outcomes.get('rate_limited', 0):>5,} {statistics.refused_share:>6.1%}  "
                f"{self.static_caps[resource.provider_model_key]:>3}  {statistics.max_in_flight:>4}  "
                f"{limits:>14}  {self.utilisation(resource):>11.1%}"
            )
        lines += [_learned(resource, each) for resource, each in sorted(self.requests.items()) if each.was_refused]
        lines += [f"skipped {count:,} cells of column {name!r}" for name, count in sorted(self.skipped_cells.items())]
        lines += map(uncalled_model, self.uncalled_models)
        if self.dropped:
            lines.append(
                f"given up     {self.dropped:,} rows, in row groups that are kept: resume leaves them out; to try them "
                "again, delete each part in data/ that has a list in dropped/, and that list"
            )
        for cause in self.scheduler.drop_causes:
            lines.append(
                f"dropped {cause.rows:,} rows: column {cause.column!r}, {cause.error_type}: {_told(cause.first_error)}"
            )
        return "\n".join(lines)


def _learned(resource: RequestResourceKey, statistics: RequestStatistics) -> str:
    """What the limit of an endpoint found out by being refused."""
    found: list[str] = []
    if statistics.probes_refused:
        found.append(f"was refused {_times(statistics.probes_refused)} when it asked for more")
    if statistics.outages:
        found.append(f"had {statistics.outages:,} outage{'s' if statistics.outages > 1 else ''}")
    if statistics.trials:
        found.append(f"sent {statistics.trials:,} trial call{'s' if statistics.trials > 1 else ''}")
    return f"{resource} {', '.join(found[:-1])}{' and ' if found[1:] else ''}{found[-1]}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _told(error: Exception) -> str:
    """The error's text, and its causes as far as they say more.

    An SDK's "Connection error." tells neither where to nor what happened.
    """
    said = [_text(error)]
    causes: list[str] = []
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = _text(cause)
        if text and not any(text in each for each in said):
            said.append(text)
            causes.append(f"{type(cause).__name__}: {text}")
        cause = cause.__cause__
    return "; caused by ".join([said[0].rstrip(".") if causes else said[0], *causes[-_CAUSES_SHOWN:]])


def uncalled_model(column: str) -> str:
    """What to tell of a column that needed no model, which may be meant so, or went past admission by mistake."""
    return (
        f"column {column!r} has a model and never called it; "
        "what its function calls other than by the model's call() is neither admitted nor counted"
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its text cannot be read ({type(broken).__name__})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(counts.items()))
