"""Shows a run's progress to a person while it goes on, as log lines or as a panel, without ever touching the run.

A task of its own takes a frozen snapshot of the counts, and hands it to the display where files are written too (worker
threads), so a terminal that blocks holds up nobody; only the last snapshot is shown in the run's own thread, when the
work is done. A display that fails is logged once and not used again.

The panel is drawn with rich a few times a second where the last one was. *No ghost lines.* To draw anew, rich goes up
as many rows as it wrote and erases them. When the terminal has become narrower meanwhile, its lines were broken into
more rows than that, and the uppermost would stay behind. So the panel remembers how long its lines were, and goes up by
the rows that they take now. Lines end where their text ends: padding would break too. What the terminal itself pushed
off its top by then is in its history, where nobody can erase it.

Everything else that is printed meanwhile appears above the panel. Names are shown as they are, never as markup, and
without control characters. `NO_COLOR` takes the colours out.
"""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TextIO, get_args

import attrs
import trio

from trio_sched._errors import InvalidValueError, MissingExtraError, require
from trio_sched._observe.layers import Layer, Limit
from trio_sched._observe.progress import EndpointProgress, RunProgress, RunProgressSink
from trio_sched._util import Blocking, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment

__all__ = [
    "LiveMode",
    "LivePanel",
    "ProgressDisplay",
    "ProgressLines",
    "RunWatch",
    "choose_display",
    "duration",
    "limit_sentence",
    "progress_line",
    "records_text",
    "shown",
]

LiveMode = Literal["auto", "panel", "lines"]

logger = logging.getLogger("trio_sched.live")

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

_WIDE: Final = 60
"""Columns of a terminal from which on there is room for every figure."""
_WIDE_WITH_STATE: Final = 80
"""Columns from which on the state of an endpoint has room too; where it limits, it is shown below anyway."""
_CELLS_WHEN_NARROW: Final = 4
_CELLS_WHEN_WIDE: Final = 5
"""Cells of an endpoint's row that there is room for."""
_GAP: Final = "  "
_UP_AND_ERASE: Final = "\x1b[1A\x1b[2K"


class ProgressDisplay(Protocol):
    """Something that shows progress, every `interval_seconds`."""

    @property
    def interval_seconds(self) -> float:
        """Time between two snapshots."""
        ...

    def start(self) -> None:
        """Called once, before the first snapshot."""
        ...

    def show(self, progress: RunProgress) -> None:
        """Show one snapshot. Runs in a worker thread, never twice at once."""
        ...

    def stop(self) -> None:
        """Called once, after the last snapshot."""
        ...


def choose_display(mode: LiveMode, file: TextIO | None = None) -> ProgressDisplay:
    """The display for `file`, standard error by default.

    auto: the panel on a terminal that can be drawn on, where rich is installed; else lines. Raises `InvalidValueError`
    for another mode, and `MissingExtraError` where the panel was asked for and rich is not installed.
    """
    if mode not in get_args(LiveMode):
        raise InvalidValueError("live", mode, "None, 'auto', 'panel' or 'lines'")
    stream: TextIO = sys.stderr if file is None else file
    if mode == "lines" or (mode == "auto" and not (stream.isatty() and os.environ.get("TERM") != "dumb")):
        return ProgressLines(stream)
    try:
        return LivePanel(stream)
    except MissingExtraError:
        if mode == "panel":
            raise
        return ProgressLines(stream)


@attrs.frozen
class RunWatch:
    """What counts a run's progress, and where it is shown."""

    sink: RunProgressSink
    display: ProgressDisplay


@asynccontextmanager
async def shown(watch: RunWatch, blocking: Blocking) -> AsyncGenerator[None, None]:
    """Show progress while the block runs, and once more at its end, however it ends."""
    shower = _Shower(watch)
    shower.attempt(watch.display.start)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shower.run, blocking, name="progress display")
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
    finally:
        shower.show(trio.current_time())
        shower.attempt(watch.display.stop)


class _Shower:
    """Takes snapshots and contains the display's failures."""

    def __init__(self, watch: RunWatch) -> None:
        self._sink = watch.sink
        self._display = watch.display
        self._failed = False

    async def run(self, blocking: Blocking) -> None:
        """Show for ever, or until the display fails."""
        while not self._failed:
            await trio.sleep(self._display.interval_seconds)
            progress = self._sink.progress(trio.current_time())
            await blocking(partial(self.attempt, partial(self._display.show, progress)))

    def show(self, now: float) -> None:
        """Show the progress at `now`."""
        if not self._failed:
            progress = self._sink.progress(now)
            self.attempt(partial(self._display.show, progress))

    def attempt(self, act: Callable[[], None]) -> None:
        """Let the display do something; its first failure is its last."""
        try:
            act()
        except Exception:
            self._failed = True
            logger.exception("Progress cannot be shown any more; the run goes on without")


# Words


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


# Lines


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


# The panel


class LivePanel:
    """Shows progress on the terminal behind `file`. Raises `MissingExtraError` unless the extra `cli` is installed."""

    interval_seconds = 0.25

    def __init__(self, file: TextIO) -> None:
        require("cli", "rich.live")
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=file, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._frame = _Frame([])
        self._width = self._console.width

    def start(self) -> None:
        """Take hold of the terminal: the cursor hides, and what is printed from now on appears above."""
        self._live.start()

    def show(self, progress: RunProgress) -> None:
        """Draw `progress` over what was drawn before."""
        width = self._console.width
        if width < self._width:
            extra = sum(self._frame.rows(width)) - len(self._frame.lines)
            self._console.file.write("\x1b[2K" + _UP_AND_ERASE * extra)
        self._width = width
        self._frame = _Frame(_drawn(progress, width, self._console.height))
        self._live.update(self._frame, refresh=True)

    def stop(self) -> None:
        """Leave the last panel where it is, and give the terminal back."""
        self._live.stop()


class _Frame:
    """What was drawn, line by line."""

    def __init__(self, lines: list[list[Segment]]) -> None:
        self.lines = lines

    def rows(self, width: int) -> list[int]:
        """How many rows each line takes on a terminal of that width."""
        from rich.segment import Segment

        return [max(1, -(-Segment.get_line_length(line) // width)) for line in self.lines]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for number, line in enumerate(self.lines):
            if number:
                yield Segment.line()
            yield from line


def _drawn(progress: RunProgress, width: int, height: int) -> list[list[Segment]]:
    """The panel's lines, none longer than the terminal is wide, and no more than fit above its last row.

    The tables are laid out here: rich's own take ten times as long, which a run would notice four times a second.
    """
    from rich.segment import Segment
    from rich.style import Style

    wide = width >= _WIDE
    left = duration(progress.eta_seconds) if progress.eta_seconds is not None else "unknown"
    so_far = f"{duration(progress.elapsed_seconds)} so far" + (f"  {left} left" if progress.result is None else "")
    rates = f"  {progress.rate_now:.1f}/s now  {progress.rate_average:.1f}/s average" if wide else ""
    lines = [
        (f"records {records_text(progress)}{rates}  {so_far}", "bold"),
        (f"dropped {progress.dropped:,}  deferred {progress.deferred:,}", "red" if progress.dropped else "none"),
    ]
    for table in (_columns(progress), _endpoints(progress, width)):
        laid_out = _laid_out(table, width)
        lines += [(line, "none" if number else "dim") for number, line in enumerate(laid_out) if len(laid_out) > 1]
    sentence = textwrap.wrap(printable(limit_sentence(progress)), max(1, width))
    lines += [(line, "yellow" if progress.limit is not None else "green") for line in sentence]
    return [[Segment(_cut(line, width).rstrip(), Style.parse(style))] for line, style in lines[: max(1, height - 1)]]


def _columns(progress: RunProgress) -> list[list[str]]:
    rows = [[each.column, f"{each.done:,}", f"{each.running:,}", f"{each.ready:,}"] for each in progress.columns]
    return [["column", "done", "running", "ready"], *rows]


def _endpoints(progress: RunProgress, width: int) -> list[list[str]]:
    rows = [["endpoint", "limit", "in flight", "waiting", "per minute", "state"]]
    for each in progress.endpoints:
        limit = f"{each.limit}/{each.effective_max}"
        figures = [limit, f"{each.in_flight:,}", f"{each.waiting:,}", f"{each.requests_per_minute:,.0f}"]
        rows.append([each.resource, *figures, str(each.activity) or "-"])
    if width < _WIDE_WITH_STATE:
        rows = [row[: _CELLS_WHEN_WIDE if width >= _WIDE else _CELLS_WHEN_NARROW] for row in rows]
    return rows


def _laid_out(rows: list[list[str]], width: int) -> list[str]:
    """Rows as lines: figures to the right and whole, names cut to what is left for them."""
    from rich.cells import cell_len

    names = [printable(row[0]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*(row[1:] for row in rows), strict=True)]
    room = max(1, width - sum(widths) - len(_GAP) * len(widths))
    longest = min(room, max(map(cell_len, names)))
    return [
        _cut(name, longest, pad=True)
        + "".join(_GAP + figure.rjust(across) for figure, across in zip(row[1:], widths, strict=True))
        for name, row in zip(names, rows, strict=True)
    ]


def _cut(text: str, width: int, *, pad: bool = False) -> str:
    """A text in as many cells as there are, with an ellipsis where it is cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size(text, width) if pad else text
