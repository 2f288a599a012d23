"""Ctrl-C finishes nothing half: complete row groups stay, incomplete ones leave no part file, exit code 130."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

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
    config = ts.RunConfig(buffer_size=10, max_concurrent_row_groups=3)
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
