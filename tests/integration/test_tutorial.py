"""The tutorial's program survives what the tutorial does to it: refusals, a kill, and being started again."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.environ.get("TRIO_SCHED_INTEGRATION") != "1", reason="on the real clock, run by `nox -s integration`"
    ),
]

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "docs" / "examples" / "topics.py"
COMMAND = [sys.executable, "-W", "error", str(PROGRAM)]
MAX_SECONDS = 300


def environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}


async def kill_when_something_is_durable(folder: Path) -> int:
    """Start the program, kill it when its first part is there, and say how many rows its parts have."""
    parts = folder / "out" / "topics" / "data"
    child = await trio.lowlevel.open_process(COMMAND, cwd=folder, env=environment())
    with trio.fail_after(MAX_SECONDS):
        while child.poll() is None and not list(parts.glob("part-*.jsonl")):  # noqa: ASYNC110 - another process writes
            await trio.sleep(0.02)
        child.kill()
        await child.wait()
    return sum(len(part.read_text().splitlines()) for part in parts.glob("part-*.jsonl"))


async def test_the_tutorial_ends_with_a_run_that_survived(tmp_path: Path) -> None:
    kept = await kill_when_something_is_durable(tmp_path)
    assert kept >= 10
    with trio.fail_after(MAX_SECONDS):
        done = await trio.run_process(COMMAND, cwd=tmp_path, env=environment(), capture_stdout=True)
    said = done.stdout.decode()
    assert re.search(r"rows +\d+ written, 0 dropped", said)
    assert re.search(rf"before +{kept} rows in {kept // 10} row groups?\n", said)
    assert re.search(r"requests .* \d+ rate limited", said)
    assert "leases       0 leaked" in said
    parts = sorted((tmp_path / "out" / "topics" / "data").iterdir())
    topics = [json.loads(line)["topic"] for part in parts for line in part.read_text().splitlines()]
    assert topics == sorted(set(topics))
    assert f"{len(topics):,} written" in said
