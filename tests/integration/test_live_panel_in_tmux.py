"""The live panel in a real terminal emulator, tmux, which is resized in mid-run: every row on the screen belongs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.environ.get("TRIO_SCHED_INTEGRATION") != "1", reason="real peers, run by `nox -s integration`"
    ),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here"),
]

PROGRAM = """
import sys
import trio
import trio_sched as ts

fast = ts.Model("alpha", "writer", max_parallel_requests=4)

async def reply(number):
    await trio.sleep(0.05)
    return number

@ts.from_scratch_column()
async def number(span):
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"], model=fast)
async def a_column_with_a_rather_long_name(row, model):
    if row["number"] % 100 == 50:
        print("program says", row["number"])
    return await model.call(reply, row["number"])

async def main():
    await ts.run(
        [number, a_column_with_a_rather_long_name],
        records=600, output=sys.argv[1], live="auto", config=ts.RunConfig(buffer_size=20),
    )
    print("program ended")

trio.run(main)
"""

ROWS = (
    r"records [\d,]+/600 \(\d+%\)( .*)?",
    r"dropped 0  deferred 0",
    r"column .*",
    r"number .*",
    r"a_column_.*",
    r"endpoint .*",
    r"alpha/wri.*",
    r"limited by .*|run completed",
)
CONTINUED = r"alpha/writer/chat|calls|admission.*|at .*|model calls|outside.*"


@attrs.frozen
class Tmux:
    """A server of its own, with one window."""

    socket: Path

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self.socket), "-f", "/dev/null", *arguments], check=True, capture_output=True, text=True
        ).stdout

    def screen(self) -> list[str]:
        return [line.rstrip() for line in self("capture-pane", "-p", "-t", "run").rstrip("\n").splitlines()]

    def wait_for(self, pattern: str, seconds: float = 30) -> list[str]:
        """The screen, once a line of it matches."""
        deadline = time.monotonic() + seconds
        while not any(re.fullmatch(pattern, line) for line in self.screen()):
            assert time.monotonic() < deadline, f"no line like {pattern!r} in:\n" + "\n".join(self.screen())
            time.sleep(0.05)
        return self.screen()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    server = Tmux(tmp_path / "tmux")
    command = f"env -u NO_COLOR -u COLUMNS -u LINES {sys.executable} {program} {tmp_path / 'out'}; sleep 60"
    server("new-session", "-d", "-s", "run", "-x", "100", "-y", "40", command)
    yield server
    server("kill-server")


def assert_one_panel(screen: list[str]) -> None:
    """The program's own lines, then each row of the panel once, in order, and nothing else."""
    rows = [line for line in screen if line and not line.startswith("program ")]
    expected = list(ROWS)
    for row in rows:
        if expected and re.fullmatch(expected[0], row):
            expected.pop(0)
        else:
            belongs = not expected and re.fullmatch(CONTINUED, row)
            assert belongs, f"{row!r} does not belong in:\n" + "\n".join(screen)
    assert not expected


def at_width(tmux: Tmux, width: int) -> list[str]:
    """The screen after a resize, when the panel has been drawn for it: an even number of settled pictures later."""
    tmux("resize-window", "-t", "run", "-x", str(width))
    time.sleep(1.0)
    return tmux.screen()


def test_no_ghost_lines_at_any_width_and_after_resizes(tmux: Tmux) -> None:
    tmux.wait_for(ROWS[0])
    for width in (80, 40, 200, 40, 80):
        assert_one_panel(at_width(tmux, width))
    for _ in range(4):
        tmux("resize-window", "-t", "run", "-x", "45")
        time.sleep(0.2)
        tmux("resize-window", "-t", "run", "-x", "120")
        time.sleep(0.3)
    assert_one_panel(at_width(tmux, 80))
    end = tmux.wait_for("program ended")
    assert_one_panel(end)
    assert "run completed" in end
    assert end[-1] == "program ended"


def test_what_the_program_prints_stays_above_the_panel(tmux: Tmux) -> None:
    end = tmux.wait_for("program ended")
    printed = [f"program says {number}" for number in range(50, 600, 100)]
    assert [line for line in end if line.startswith("program says")] == printed
    assert end.index(printed[-1]) < end.index("run completed")
