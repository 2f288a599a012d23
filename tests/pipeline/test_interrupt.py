"""Ctrl-C finishes nothing half: complete row groups stay, incomplete ones leave no part file, exit code 130."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
import trio
import trio.testing
from pipeline_samples import number, status

import trio_sched as ts
from trio_sched.lowlevel import inline

PROGRAM = """
import sys, trio, trio_sched as ts

@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"])
async def slow(row):
    if row["number"] >= 20:
        await trio.sleep_forever()
    return row["number"]

class Announcer:
    done = 0
    def accepts_scheduler_event(self, kind):
        return kind == "row_group_checkpointed"
    def emit_scheduler_event(self, event):
        self.done += 1
        if self.done == 2:
            print("two row groups are durable", flush=True)

async def main():
    config = ts.RunConfig(buffer_size=10, max_concurrent_row_groups=3, write_events="all")
    await ts.run([number, slow], records=100, output=sys.argv[1], config=config, event_sink=Announcer())

try:
    trio.run(main)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
async def test_interrupted_run_keeps_what_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(out)]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        child: trio.Process = await nursery.start(start)
        assert child.stdout is not None
        said = b""
        while not said.endswith(b"\n"):
            said += await child.stdout.receive_some()
        assert said == b"two row groups are durable\n"
        child.send_signal(signal.SIGINT)
    assert child.returncode == 130
    assert sorted(path.name for path in (out / "data").iterdir()) == ["part-00000.jsonl", "part-00001.jsonl"]
    rows = [json.loads(line) for part in sorted((out / "data").iterdir()) for line in part.read_text().splitlines()]
    assert [row["slow"] for row in rows] == list(range(20))
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    events = [json.loads(line) for line in (out / "events" / "scheduler.jsonl").read_text().splitlines()]
    kinds = [event["event_kind"] for event in events]
    assert kinds.count("task_lease_acquired") == kinds.count("task_lease_released")
    assert kinds[-1] == "scheduler_job_completed"


class InterruptAt:
    """A trace function that presses Ctrl-C at the given line, counted from 1, of what carries out an attempt."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: object) -> InterruptAt | None:
        if not frame.f_code.co_filename.endswith("attempt.py") or "_pipeline" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return self


def test_at_every_line_of_an_attempt_it_ends_as_interrupted_or_is_over(tmp_path: Path) -> None:
    line = 0
    pressed = True
    while pressed:
        line += 1
        out = tmp_path / str(line)
        interrupt, traced = InterruptAt(line), sys.gettrace()

        async def main(out: Path = out) -> None:
            await ts.run([number], records=1, output=out, blocking=inline)

        sys.settrace(interrupt)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        finally:
            sys.settrace(traced)
        pressed = interrupt.left <= 0
        if (out / "run.json").exists():
            assert status(out) in ("interrupted", "completed")
    assert line > 50
