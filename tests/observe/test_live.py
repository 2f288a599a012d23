"""The panel: what is on it at each width, and that it takes back all the rows that a narrower terminal made of it."""

from __future__ import annotations

import io
import os
import re

import attrs
import pytest
from progress_values import MIDWAY

from trio_sched._observe.display import LivePanel
from trio_sched._observe.progress import ColumnProgress, RunProgress
from trio_sched._observe.request_replay import Activity


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    resize(monkeypatch, 100)


def resize(monkeypatch: pytest.MonkeyPatch, width: int, height: int = 40) -> None:
    def size(_descriptor: int = 0) -> os.terminal_size:
        return os.terminal_size((width, height))

    monkeypatch.setattr(os, "get_terminal_size", size)


def drawn(monkeypatch: pytest.MonkeyPatch, width: int, height: int = 40, progress: RunProgress = MIDWAY) -> list[str]:
    resize(monkeypatch, width, height)
    file = Terminal()
    panel = LivePanel(file)
    panel.start()
    file.truncate(0)
    panel.show(progress)
    text = file.getvalue()
    panel.stop()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).strip("\0\r\n").splitlines()


def test_everything_is_on_a_wide_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, 100)
    assert lines[0] == "records 1,200/4,800 (25%)  15.0/s now  14.4/s average  1:23 so far  1:01:40 left"
    assert lines[1] == "dropped 3  deferred 2"
    assert lines[2].split() == ["column", "done", "running", "ready"]
    assert lines[3].split() == ["question", "1,500", "30", "12"]
    assert lines[5].split() == ["endpoint", "limit", "in", "flight", "waiting", "per", "minute", "state"]
    assert lines[6].split() == ["openai/gpt/chat", "8/16", "7", "40", "905", "cooling", "down", "11.3", "s"]
    assert lines[7] == "limited by refusals at openai/gpt/chat: cooling down 11.3 s"


def test_an_endpoint_with_nothing_to_tell_has_a_dash_for_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = attrs.evolve(MIDWAY.endpoints[0], activity=Activity())
    lines = drawn(monkeypatch, 100, progress=attrs.evolve(MIDWAY, endpoints=(endpoint,)))
    assert lines[6].split() == ["openai/gpt/chat", "8/16", "7", "40", "905", "-"]


@pytest.mark.parametrize(("width", "last"), [(80, "state"), (79, "minute"), (60, "minute"), (59, "waiting")])
def test_a_narrower_panel_leaves_out_the_last_columns(monkeypatch: pytest.MonkeyPatch, width: int, last: str) -> None:
    (heads,) = [line for line in drawn(monkeypatch, width) if line.startswith("endpoint")]
    assert heads.split()[-1] == last


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_no_line_is_longer_than_the_terminal_or_padded(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = drawn(monkeypatch, width)
    assert all(len(line) <= width for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_a_narrow_panel_shortens_names_and_keeps_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, 40)
    assert any(line.endswith("8/16          7       40") for line in text)
    assert any("a very long" in line and "…" in line and line.split()[-3:] == ["1,300", "0", "200"] for line in text)


def test_a_narrower_terminal_gets_all_its_rows_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sum(max(1, -(-len(line) // 40)) for line in drawn(monkeypatch, 100))
    resize(monkeypatch, 100)
    file = Terminal()
    panel = LivePanel(file)
    panel.start()
    panel.show(MIDWAY)
    resize(monkeypatch, 40)
    file.seek(0)
    file.truncate(0)
    panel.show(MIDWAY)
    assert file.getvalue().count("\x1b[1A") == rows - 1
    panel.stop()


def test_names_are_no_markup_and_no_commands() -> None:
    file = Terminal()
    panel = LivePanel(file)
    panel.start()
    panel.show(attrs.evolve(MIDWAY, columns=(ColumnProgress("[red]x[/] \x1b[2J", 1, 0, 0),)))
    panel.stop()
    assert "[red]x[/] ?[2J" in file.getvalue()


def test_no_color_takes_the_colours_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> set[str]:
        file = Terminal()
        panel = LivePanel(file)
        panel.start()
        panel.show(MIDWAY)
        panel.stop()
        return set(re.findall(r"\x1b\[(?:\d+;)*3\d(?:;\d+)*m", file.getvalue()))

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


def test_a_panel_never_fills_more_than_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(drawn(monkeypatch, 100, height=6)) == 5
