"""Progress as plain log lines, and the words and signs that every display has in common."""

from __future__ import annotations

from typing import Final, TextIO

from trio_sched._observe.limiting import Limit
from trio_sched._observe.run_progress import EndpointProgress, RunProgress
from trio_sched._observe.waits import Layer
from trio_sched._util import printable

__all__ = ["ProgressLines", "duration", "limit_sentence", "progress_line", "records_text"]

_MINUTE: Final = 60
_HOUR: Final = 3600

_AT_A_LIMIT: Final[tuple[Layer, ...]] = ("cooldown", "request_admission")

_WORDS: Final[dict[Layer, str]] = {
    "readiness": "inputs that are not made yet",
    "fairness": "other work whose turn it is",
    "task_admission": "task admission",
    "request_admission": "request admission",
    "cooldown": "refusals",
    "provider": "the provider's answers",
    "completion": "work outside model calls",
}


def duration(seconds: float) -> str:
    """A length of time as `m:ss` or `h:mm:ss`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, _MINUTE)
    if whole < _HOUR:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // _MINUTE}:{minutes % _MINUTE:02d}:{rest:02d}"


def records_text(progress: RunProgress) -> str:
    """Records done, and of how many where that is known."""
    done = f"{progress.records_done:,}"
    if progress.records_total is None:
        return done
    if not progress.records_total:
        return f"{done}, nothing left to do"
    share = progress.records_done / progress.records_total
    return f"{done}/{progress.records_total:,} ({share:.0%})"


def limit_sentence(progress: RunProgress) -> str:
    """One sentence: what limits progress right now."""
    if progress.result is not None:
        return f"run {progress.result}"
    limit: Limit | None = progress.limit
    if limit is None:
        return "limited by work outside model calls"
    where = f" at {limit.where}" if limit.where is not None else ""
    doing = ""
    if limit.layer in _AT_A_LIMIT:
        doing = next((str(each.activity) for each in progress.endpoints if each.resource == limit.where), "")
    return f"limited by {_WORDS[limit.layer]}{where}{f': {doing}' if doing else ''}"


def progress_line(progress: RunProgress) -> str:
    """Everything in one line, for logs."""
    parts = [
        f"{duration(progress.elapsed_seconds)} records {records_text(progress)}",
        f"{progress.rate_now:.1f}/s now, {progress.rate_average:.1f}/s average",
    ]
    if progress.result is None:
        parts.append(f"left {duration(progress.eta_seconds) if progress.eta_seconds is not None else 'unknown'}")
    parts.append(f"dropped {progress.dropped:,}, deferred {progress.deferred:,}")
    parts += [_endpoint(each) for each in progress.endpoints]
    parts.append(limit_sentence(progress))
    return "; ".join(parts)


def _endpoint(endpoint: EndpointProgress) -> str:
    doing = f", {endpoint.activity}" if str(endpoint.activity) else ""
    return (
        f"{endpoint.resource} {endpoint.in_flight}/{endpoint.limit} in flight, {endpoint.waiting:,} waiting{doing}, "
        f"{endpoint.requests_per_minute:,.0f}/min"
    )


class ProgressLines:
    """Writes a line every time it is shown a progress."""

    interval_seconds = 10.0

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def start(self) -> None:
        """Nothing has to be prepared."""

    def show(self, progress: RunProgress) -> None:
        """Write one line."""
        self._file.write(printable(progress_line(progress)) + "\n")
        self._file.flush()

    def stop(self) -> None:
        """Nothing has to be cleaned up."""
