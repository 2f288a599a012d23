"""`run.json` at every end of a run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import inline


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def read(output: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((output / "run.json").read_text())
    return document


def test_it_says_what_the_run_is_while_it_runs_and_how_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    during: list[dict[str, object]] = []

    @ts.column(needs=["number"])
    async def looking(row: dict[str, int]) -> int:
        during.append(read(out))
        return row["number"]

    async def main() -> None:
        config = ts.RunConfig(buffer_size=4, seed=3)
        await ts.run([number, looking], records=5, output=out, config=config, blocking=inline)

    mocked(main)
    begun, ended = during[0], read(out)
    assert (begun["status"], begun["ended_at"], begun["resumed_from"]) == ("running", None, None)
    assert begun["process"] == {"pid": os.getpid(), "host": platform.node()}
    assert ended == {
        **begun,
        "status": "completed",
        "stop_reason": None,
        "early_stop": None,
        "ended_at": ended["ended_at"],
        "rows": 5,
        "dropped_rows": 0,
        "filtered_rows": 0,
    }
    started_at, ended_at = (datetime.fromisoformat(str(ended[key])) for key in ("started_at", "ended_at"))
    assert started_at <= ended_at
    assert started_at.utcoffset() is not None
    versions = ended["versions"]
    assert isinstance(versions, dict)
    assert set(cast("dict[str, str]", versions)) == {"trio_sched", "trio", "python", "platform"}
    assert isinstance(ended["config"], dict)
    assert (ended["config"]["buffer_size"], ended["config"]["format"]) == (4, "jsonl")
    assert isinstance(ended["dataset"], dict)
    assert (ended["dataset"]["records"], ended["dataset"]["seed"], ended["dataset"]["input"]) == (5, 3, None)
    assert ended["columns"] == ["number", "looking"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt, "interrupted"), (SystemExit, "failed"), (trio.TooSlowError, "interrupted")],
)
def test_it_says_how_a_run_ended_early(tmp_path: Path, error: type[BaseException], status: str) -> None:
    @ts.column(needs=["number"])
    async def stopping(row: dict[str, int]) -> int:
        if error is not trio.TooSlowError:
            raise error
        return await trio.sleep_forever()

    async def main() -> None:
        with pytest.raises(error), trio.fail_after(5):
            await ts.run([number, stopping], records=1, output=tmp_path / "out", blocking=inline)

    mocked(main)
    document = read(tmp_path / "out")
    expected = "Cancelled" if error is trio.TooSlowError else error.__name__
    assert (document["status"], document["error"]) == (status, expected)
    assert document["ended_at"] is not None
