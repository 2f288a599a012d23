"""The demo's session, as noxfile.py writes it; reading it needs no nox."""

from __future__ import annotations

import ast
from pathlib import Path

from trio_sched._pipeline.views import PATIENCE_ON_THE_WAY_OUT

ROOT = Path(__file__).resolve().parents[2]


def test_nox_leaves_an_interrupted_demo_the_time_to_write_its_report() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (demo,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "demo")
    keywords = {each.arg: each.value for each in ast.walk(demo) if isinstance(each, ast.keyword)}
    seconds = ast.literal_eval(keywords["interrupt_timeout"])
    assert seconds >= 2 * PATIENCE_ON_THE_WAY_OUT
