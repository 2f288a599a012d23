"""The live panel on a terminal, drawn with rich a few times a second where the last one was.

*No ghost lines.* To draw anew, rich goes up as many rows as it wrote and erases them. When the terminal has become
narrower meanwhile, its lines were broken into more rows than that, and the uppermost would stay behind. So the panel
remembers how long its lines were, and goes up by the rows that they take now. Lines end where their text ends: padding
would break too. What the terminal itself pushed off its top by then is in its history, where nobody can erase it.

Everything else that is printed meanwhile appears above the panel. Names are shown as they are, never as markup, and
without control characters. `NO_COLOR` takes the colours out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

from trio_sched._extras import require
from trio_sched._observe.lines import duration, limit_sentence, records_text
from trio_sched._observe.run_progress import RunProgress

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment
    from rich.table import Table

__all__ = ["LivePanel"]

_WIDE: Final = 60
"""Columns of a terminal from which on there is room for every figure."""
_UP_AND_ERASE: Final = "\x1b[1A\x1b[2K"


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
        self._frame = _Frame(_lines(self._console, _panel(progress, width)))
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


def _lines(console: Console, panel: RenderableType) -> list[list[Segment]]:
    """The panel's lines, without the padding at their ends, and no more than fit above the last row."""
    lines = console.render_lines(panel, pad=False)[: max(1, console.height - 1)]
    return [_without_padding(line) for line in lines]


def _without_padding(line: list[Segment]) -> list[Segment]:
    from rich.segment import Segment

    kept = list(line)
    while kept and not kept[-1].text.rstrip(" "):
        kept.pop()
    if kept:
        last = kept.pop()
        kept.append(Segment(last.text.rstrip(" "), last.style))
    return kept


def _panel(progress: RunProgress, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    wide = width >= _WIDE
    left = duration(progress.eta_seconds) if progress.eta_seconds is not None else "unknown"
    head = [
        f"records {records_text(progress)}",
        f"{progress.rate_now:.1f}/s now",
        f"{progress.rate_average:.1f}/s average",
        f"{duration(progress.elapsed_seconds)} so far",
    ]
    if progress.result is None:
        head.append(f"{left} left")
    problems = f"dropped {progress.dropped:,}  deferred {progress.deferred:,}"
    text = [Text("  ".join(head), style="bold"), Text(problems, style="red" if progress.dropped else "")]
    if not wide:
        text[0] = Text("  ".join([head[0], *head[3:]]), style="bold", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [*text, _columns(progress)]
    if progress.endpoints:
        parts.append(_endpoints(progress, wide=wide))
    parts.append(Text(limit_sentence(progress), style="yellow" if progress.limit is not None else "green"))
    return Group(*parts)


def _columns(progress: RunProgress) -> Table:
    table = _table("column", ["done", "running", "ready"])
    for each in progress.columns:
        _row(table, each.column, f"{each.done:,}", f"{each.running:,}", f"{each.ready:,}")
    return table


def _endpoints(progress: RunProgress, *, wide: bool) -> Table:
    table = _table("endpoint", ["limit", "in flight", "waiting", *(["cooldown", "per minute"] if wide else [])])
    for each in progress.endpoints:
        limit = "?" if each.limit is None else f"{each.limit}/{each.effective_max}"
        figures = [limit, f"{each.in_flight:,}", f"{each.waiting:,}"]
        if wide:
            cooldown = f"{each.cooldown_left_seconds:.1f} s" if each.cooldown_left_seconds > 0 else "-"
            figures += [cooldown, f"{each.requests_per_minute:,.0f}"]
        _row(table, each.resource, *figures)
    return table


def _table(name: str, figures: list[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(name, overflow="ellipsis")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def _row(table: Table, name: str, *figures: str) -> None:
    from rich.text import Text

    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    # Only columns that may wrap give way on a narrow terminal: the name is to, but in one line.
    table.add_row(Text(printable, no_wrap=True, overflow="ellipsis"), *figures)
