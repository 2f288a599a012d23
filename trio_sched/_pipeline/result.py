"""The result of a run, for the program and for people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

from trio_sched._capacity import AsyncCapacityPlan
from trio_sched._events.records import JsonValue, RequestStatistics
from trio_sched._pipeline.config import WriteEvents
from trio_sched._pipeline.errors import AttemptsSpentError
from trio_sched._pipeline.folder import EarlierRows, RunFolder
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._scheduler.health import StopReason
from trio_sched._scheduler.scheduler import SchedulerResult
from trio_sched._util import counted, page, printable

__all__ = ["RunResult", "uncalled_model"]

_CAUSES_SHOWN: Final = 3
"""The innermost causes say what happened; those around them say what was attempted."""

_LONGEST_ERROR_TEXT: Final = 300
"""Letters of an error's text: it may hold a whole response, or a prompt."""


@attrs.frozen(eq=False)
class RunResult:
    """A finished run.

    The numbers of `scheduler`, `requests`, `capacity_plan` and `wall_seconds` are those of this attempt, all others
    those of the whole dataset.

    path: its output folder, absolute. run_id: of this attempt. scheduler: what the scheduler did. requests: the calls
    to each endpoint and domain. static_caps: the most calls at once to each endpoint. capacity_plan: what bounded the
    run and what was used, as in `capacity_plan.json`. wall_seconds: from the first to the last step. leaks: task and
    request leases still held; always empty unless there is a bug; each entry names the holder. skipped_cells: by
    column, in how many of this attempt's rows the cell was skipped. fallback_cells: in how many it holds the column's
    `on_failure`. mended_cells: in how many half a surrogate pair became U+FFFD. null_cells: of columns with a model, in
    how many the function left it null. uncalled_models: columns that have a model, made cells in this attempt, and
    never called the model. earlier: what was durable before, if it resumed a run. events: what was written of the
    events of this attempt.
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
    events: WriteEvents = "all"
    fallback_cells: Mapping[str, int] = attrs.field(factory=dict[str, int])
    mended_cells: Mapping[str, int] = attrs.field(factory=dict[str, int])
    null_cells: Mapping[str, int] = attrs.field(factory=dict[str, int])

    @property
    def status(self) -> Literal["completed", "stopped", "interrupted"]:
        """How it ended: with every row written or rejected; by itself before that, see `stop_reason`; or cancelled."""
        if self.scheduler.cancelled:
            return "interrupted"
        return "completed" if self.scheduler.early_stop is None else "stopped"

    @property
    def stop_reason(self) -> StopReason | None:
        """Why it stopped: too many rows failed, or an endpoint is closed or did not answer; None if it did not stop."""
        stop = self.scheduler.early_stop
        return None if stop is None or self.scheduler.cancelled else stop.reason

    @property
    def records(self) -> int:
        """Rows that are durable."""
        return self.earlier.rows + self.scheduler.rows

    @property
    def dropped(self) -> int:
        """Rows that were rejected."""
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
        """Seconds of successful calls divided by what the endpoint's static cap allows in that time: from 0 to 1."""
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
            f"requests     {counted(attempts, 'attempt')}: " + (_counts(outcomes) or "none"),
            f"wall time    {self.wall_seconds:.1f} s",
            f"leases       {len(self.leaks)} leaked",
        ]
        if self.events == "summary":
            lines.append('events       summed up for report and why; trace.json is made with write_events="all"')
        if self.status != "completed":
            stop = self.scheduler.early_stop
            why = "it was cancelled" if stop is None else str(stop)
            mend = "" if stop is None else "mend the cause, then "
            if stop is not None and stop.reason == "endpoint_not_answering":
                mend = "when it answers again, "
            lines.insert(1, f'stopped      before the end: {why}; to go on: {mend}resume="if-possible"')
            if stop is not None and stop.last_error is not None:
                error = stop.last_error
                lines.insert(2, f"             the last one with {type(error).__name__}: {_error_text(error)}")
        if self.earlier.row_groups:
            rest = "" if self.scheduler.row_groups or self.status != "completed" else "; nothing was left to do"
            earlier = f"{counted(self.earlier.rows, 'row')} in {counted(self.earlier.row_groups, 'row group')}"
            lines.insert(1, f"before       {earlier}{rest}")
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
        lines += [
            f"skipped {counted(count, 'cell')} of column {name!r}" for name, count in sorted(self.skipped_cells.items())
        ]
        lines += [
            f"on_failure   of column {name!r} is in {counted(count, 'cell')}, which had nothing else to keep"
            for name, count in sorted(self.fallback_cells.items())
        ]
        lines += [
            f"mended {counted(count, 'cell')} of column {name!r}: half a letter became U+FFFD"
            for name, count in sorted(self.mended_cells.items())
        ]
        lines += [
            f"null         in {counted(count, 'cell')} of column {name!r}, which has a model; a check can refuse that"
            for name, count in sorted(self.null_cells.items())
        ]
        lines += map(uncalled_model, self.uncalled_models)
        if self.dropped:
            lines.append(
                f"rejected     {counted(self.dropped, 'row')}, in row groups that are kept: resume leaves them out; to "
                "try them again, delete each part in data/ that has a list in dropped/, and that list"
            )
        for cause in self.scheduler.drop_causes:
            what = f"{cause.error_type}: {_error_text(cause.first_error)}"
            lines.append(f"dropped {counted(cause.rows, 'row')}: column {cause.column!r}, {what}")
        return page(lines)


def _learned(resource: RequestResourceKey, statistics: RequestStatistics) -> str:
    """What the limit of an endpoint learned from refusals."""
    found: list[str] = []
    if statistics.probes_refused:
        found.append(f"was refused {_times(statistics.probes_refused)} when it asked for more")
    if statistics.outages:
        found.append(f"had {counted(statistics.outages, 'outage')}")
    if statistics.trials:
        found.append(f"sent {counted(statistics.trials, 'trial call')}")
    return f"{resource} {', '.join(found[:-1])}{' and ' if found[1:] else ''}{found[-1]}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _error_text(error: Exception) -> str:
    """The error's text, and its causes as far as they add something.

    An SDK's "Connection error." names neither the address nor the reason.
    """
    said = [_text(error)]
    causes: list[str] = []
    seen = {id(error)}
    # That error says what its cause does, in one line.
    cause = None if isinstance(error, AttemptsSpentError) else error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = _text(cause)
        if text and not any(text in each for each in said):
            said.append(text)
            causes.append(f"{type(cause).__name__}: {text}")
        cause = cause.__cause__
    return "; caused by ".join([said[0].rstrip(".") if causes else said[0], *causes[-_CAUSES_SHOWN:]])


def uncalled_model(column: str) -> str:
    """The warning for a column that did not call its model: on purpose, or by a call that bypassed admission."""
    return (
        f"column {column!r} has a model and never called it; "
        "what its function calls other than by the model's call() is neither admitted nor counted"
    )


def _text(error: BaseException) -> str:
    try:
        return printable(str(error), longest=_LONGEST_ERROR_TEXT)
    except Exception as broken:
        return f"its text cannot be read ({type(broken).__name__})"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(counts.items()))
