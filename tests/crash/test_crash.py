"""Killed at any moment and resumed: nothing lost, nothing twice, no file by half, the rows of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import attrs
import pytest
from crashing_run import BUFFER_SIZE, RECORDS, Attempt, Moment, input_rows

from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.parts import open_part_format
from trio_sched._pipeline.resume import read_durable_parts, read_missing_rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills and forks")

FULL = os.environ.get("TRIO_SCHED_FUZZ") == "full"
ROUNDS = 200 if FULL else 20
EVERY = 1 if FULL else 4
"""Of the renames and writes of a run, which ones are tried."""

ROW_GROUPS = -(-RECORDS // BUFFER_SIZE)
DROPPED = [n for n in range(RECORDS) if n % 7 == 3]
EXPECTED = [
    {"number": n, "kept": 2 * n, "nested": {"of": n, "text": "é" * (2 * n % 50)}}
    for n in range(RECORDS)
    if n not in DROPPED
]


class Runs:
    """The process that forks the children."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, attempt: Attempt) -> int:
        """The exit code of a child."""
        if attempt.source == "jsonl":
            rows = "".join(json.dumps(row) + "\n" for row in input_rows())
            Path(attempt.output).with_suffix(".rows.jsonl").write_text(rows, encoding="utf-8")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(attrs.asdict(attempt)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("crashing_run.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Runs(process)


def counts(runs: Runs, attempt: Attempt) -> dict[Moment, int]:
    """How often each moment comes in an undisturbed run."""
    output = Path(attempt.output).with_name("undisturbed")
    assert runs.run(attrs.evolve(attempt, output=str(output))) == 0
    found: dict[Moment, int] = json.loads(output.with_suffix(".steps.json").read_text())
    return found


def durable(attempt: Attempt) -> dict[str, bytes]:
    """The parts and the lists of dropped rows that belong to one, each checked for being whole."""
    folder = RunFolder(Path(attempt.output))
    part_format = open_part_format(attempt.format)
    columns = ("number", "kept", "nested")
    read_durable_parts(folder, part_format, columns, buffer_size=BUFFER_SIZE, records=RECORDS)
    found: dict[str, bytes] = {}
    for row_group, name in folder.parts():
        part = folder.part(row_group, name)
        numbers = range(row_group * BUFFER_SIZE, min(RECORDS, (row_group + 1) * BUFFER_SIZE))
        assert list(part_format.read(part)) == [row for row in EXPECTED if row["number"] in numbers]
        assert list(read_missing_rows(folder, row_group).dropped) == [n for n in DROPPED if n in numbers]
        found[part.name] = part.read_bytes()
    return found


def assert_complete(attempt: Attempt) -> None:
    folder = RunFolder(Path(attempt.output))
    assert list(folder.rows()) == EXPECTED
    assert len(durable(attempt)) == ROW_GROUPS
    assert not list(folder.path.rglob("*.tmp"))
    document = json.loads(folder.run_file.read_text())
    assert (document["status"], document["rows"], document["dropped_rows"]) == (
        "completed",
        len(EXPECTED),
        len(DROPPED),
    )


def kill_and_check(runs: Runs, attempt: Attempt) -> None:
    """Nothing that was durable is lost or changed by an attempt, and what it left is whole."""
    before = durable(attempt)
    assert runs.run(attempt) in (0, -signal.SIGKILL)
    after = durable(attempt)
    assert before.items() <= after.items()


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_a_random_step_and_resumed(tmp_path: Path, runs: Runs, seed: int) -> None:
    rng = random.Random(seed)
    attempt = Attempt(
        output=str(tmp_path / "out"),
        source=rng.choice(("scratch", "iterable", "jsonl")),
        format="parquet" if seed % 5 == 4 else "jsonl",
        threads=seed % 2 == 1,
    )
    steps = counts(runs, attempt)["step"]
    for _ in range(rng.randint(1, 4)):
        kill_and_check(runs, attrs.evolve(attempt, at=rng.randint(1, steps)))
    assert runs.run(attempt) == 0
    assert_complete(attempt)
    assert runs.run(attempt) == 0
    assert_complete(attempt)


@pytest.mark.fuzz
@pytest.mark.parametrize("moment", [moment for moment in get_args(Moment) if moment != "step"])
def test_killed_around_renames_and_within_writes(tmp_path: Path, runs: Runs, moment: Moment) -> None:
    attempt = Attempt(output=str(tmp_path / "out"), source="iterable")
    for at in range(1, counts(runs, attempt)[moment] + 1, EVERY):
        dying = attrs.evolve(attempt, output=str(tmp_path / f"out{at}"), moment=moment, at=at)
        assert runs.run(dying) == -signal.SIGKILL
        left = durable(dying)
        living = attrs.evolve(dying, at=0)
        assert runs.run(living) == 0
        assert_complete(living)
        assert left.items() <= durable(living).items()


@pytest.mark.fuzz
def test_killed_again_and_again_it_still_ends(tmp_path: Path, runs: Runs) -> None:
    """Every attempt is killed right after its first new part; as many attempts as parts finish the dataset."""
    attempt = Attempt(output=str(tmp_path / "out"), source="scratch", moment="after_rename")
    for done in range(ROW_GROUPS):
        before = len(durable(attempt))
        assert before >= done
        if before == ROW_GROUPS:
            break
        for at in range(1, 50):
            assert runs.run(attrs.evolve(attempt, at=at)) == -signal.SIGKILL
            if len(durable(attempt)) > before:
                break
    assert runs.run(attrs.evolve(attempt, at=0)) == 0
    assert_complete(attempt)


def test_a_killed_run_says_running_and_its_lock_is_free(tmp_path: Path, runs: Runs) -> None:
    attempt = Attempt(output=str(tmp_path / "out"), source="scratch", moment="after_rename", at=5)
    assert runs.run(attempt) == -signal.SIGKILL
    killed = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (killed["status"], killed["ended_at"]) == ("running", None)
    assert runs.run(attrs.evolve(attempt, at=0)) == 0
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert document["resumed_from"]["status"] == "killed"
    assert document["resumed_from"]["run_id"] == killed["run_id"]
