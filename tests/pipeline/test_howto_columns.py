"""The program that the how-to page on columns builds up runs, and makes what the page says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "columns.md"


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    program = "\n".join(block.split("```")[0] for block in blocks)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows         11 written, 0 dropped, 1 filtered" in done.stdout
    assert "skipped 2 cells of column 'shout'" in done.stdout
    parts = sorted((tmp_path / "out" / "data").iterdir())
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [row["number"] for row in rows] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert [row["position"] for row in rows] == list(range(1, 12))
    assert [row["verdict"] for row in rows] == ["too small"] * 2 + ["fair"] * 7 + ["fair"] + ["large"]
    assert [row["shout"] for row in rows[:3]] == [None, None, "FAIR"]
    assert [row["length"] for row in rows[:3]] == [9, 9, 4]
    assert [row["note"] for row in rows[:2]] == ["nothing comes of nothing", None]
    assert sum(row["share"] for row in rows[:4]) == 1
    assert all("rank" in row for row in rows)
