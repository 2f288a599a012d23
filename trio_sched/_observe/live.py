"""The live panel on a terminal, drawn with rich a few times a second where the last one was.

*No ghost lines.* To draw anew, rich goes up as many rows as it wrote and erases them. When the terminal has become
narrower meanwhile, its lines were broken into more rows than that, and the uppermost would stay behind. So the panel
remembers how long its lines were, and goes up by the rows that they take now. Lines end where their text ends: padding
would break too. What the terminal itself pushed off its top by then is in its history, where nobody can erase it.

Everything else that is printed meanwhile appears above the panel. Names are shown as they are, never as markup, and
without control characters. `NO_COLOR` takes the colours out.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final, TextIO

from trio_sched._errors import require
from trio_sched._observe.lines import duration, limit_sentence, records_text
from trio_sched._observe.run_progress import RunProgress
from trio_sched._util import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment

__all__ = ["LivePanel"]

_WIDE: Final = 60
"""Columns of a terminal from which on there is room for every figure."""
_WIDE_WITH_STATE: Final = 80
"""Columns from which on the state of an endpoint has room too; where it limits, it is told below anyway."""
_CELLS_WHEN_NARROW: Final = 4
_CELLS_WHEN_WIDE: Final = 5
"""Cells of an endpoint's row that there is room for."""
_GAP: Final = "  "
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
