"""What is shown where, when, and what a display that fails does to a run: nothing."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._observe.display import LivePanel, ProgressLines, RunWatch, choose_display, shown
from trio_sched._observe.progress import RunProgress, RunProgressSink
from trio_sched.lowlevel import inline


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@attrs.define(eq=False)
class Recorder:
    """A display that notes what it is asked to do, and fails where it is asked to."""

    fails_at: str | None = None
    interval_seconds: float = 0.25
    calls: list[str] = attrs.field(factory=list[str])

    def start(self) -> None:
        self._note("start")

    def show(self, progress: RunProgress) -> None:
        self._note("show")

    def stop(self) -> None:
        self._note("stop")

    def _note(self, what: str) -> None:
        self.calls.append(what)
        if what == self.fails_at:
            raise OSError("the terminal is gone")


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_auto_takes_the_panel_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_display("auto", Terminal()), LivePanel)
    assert isinstance(choose_display("auto", io.StringIO()), ProgressLines)
    assert isinstance(choose_display("lines", Terminal()), ProgressLines)
    assert isinstance(choose_display("panel", io.StringIO()), LivePanel)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose_display("auto", Terminal()), ProgressLines)


def test_without_rich_there_are_lines_unless_the_panel_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert isinstance(choose_display("auto", Terminal()), ProgressLines)
    with pytest.raises(
        ts.MissingExtraError, match=r"^rich\.live is not installed; run: pip install 'trio_sched\[cli\]'$"
    ):
        choose_display("panel", Terminal())


def test_snapshots_come_at_their_interval_and_once_at_the_end() -> None:
    display = Recorder()

    async def main() -> None:
        async with shown(RunWatch(RunProgressSink(1), display), inline):
            await trio.sleep(1.1)

    mocked(main)
    assert display.calls == ["start", *["show"] * 4, "show", "stop"]


@pytest.mark.parametrize("place", ["start", "show", "stop"])
def test_a_failing_display_is_not_used_again_and_the_run_goes_on(place: str, caplog: pytest.LogCaptureFixture) -> None:
    display = Recorder(fails_at=place)
    finished: list[bool] = []

    async def main() -> None:
        async with shown(RunWatch(RunProgressSink(1), display), inline):
            await trio.sleep(1.1)
            finished.append(True)

    with caplog.at_level(logging.ERROR, logger="trio_sched.live"):
        mocked(main)
    assert finished == [True]
    assert len(caplog.records) == 1
    assert display.calls.count("show") == {"start": 0, "show": 1, "stop": 5}[place]
    assert display.calls[-1] == "stop"


def test_a_cancelled_block_still_gives_the_terminal_back() -> None:
    display = Recorder()

    async def main() -> None:
        with trio.move_on_after(0.3):
            async with shown(RunWatch(RunProgressSink(1), display), inline):
                await trio.sleep_forever()

    mocked(main)
    assert display.calls == ["start", "show", "show", "stop"]


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    await trio.sleep(15)
    return list(range(span.count))


def test_a_run_prints_nothing_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await ts.run([number], records=2, output=tmp_path / "quiet", blocking=inline)
        assert capsys.readouterr() == ("", "")
        await ts.run([number], records=2, output=tmp_path / "shown", blocking=inline, live="lines")

    mocked(main)
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first.startswith("0:10 records 0/2 (0%)")
    assert last.startswith("0:15 records 2/2 (100%)")
    assert last.endswith("run completed")


def test_an_unknown_mode_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ts.InvalidValueError, match=r"^live must be None, 'auto', 'panel' or 'lines', got 'loud'$"):
            await ts.run([number], records=2, output=tmp_path / "out", live="loud")  # type: ignore[arg-type]  # wrong

    mocked(main)
    assert not (tmp_path / "out").exists()
