"""What the demo says at its end, and with which exit code, on small runs in simulated time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import trio

import trio_sched as ts
from trio_sched.testing import simulate

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CONFIG = ts.RunConfig(buffer_size=5, write_events="all")
A = ts.Model("a", "writer", max_parallel_requests=32)
B = ts.Model("b", "judge", max_parallel_requests=48)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)
    spec.loader.exec_module(module)
    return module


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


@ts.column(needs=["number"], model=A)
async def question(row: dict[str, int], model: ts.ModelHandle) -> int:
    return await model.call(doubled, row["number"])


@ts.column(needs=["question"], model=B)
async def judgement(row: dict[str, int], model: ts.ModelHandle) -> int:
    return await model.call(doubled, row["question"])


async def doubled(value: int) -> int:
    await trio.sleep(1)
    return 2 * value


def run(output: Path) -> ts.RunResult:
    return simulate([number, question, judgement], records=20, output=output, config=CONFIG, resume="if-possible")


def test_a_run_in_one_go_whose_events_do_not_show_it_is_a_failure(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.exit_code(run(tmp_path / "out"), rehearsed=True) == 1
    assert "A's limit fell to 32" in capsys.readouterr().out


def test_a_run_that_went_on_is_not_judged_by_the_events_of_its_second_half(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "out")
    assert demo.exit_code(run(tmp_path / "out"), rehearsed=True) == 0
    assert f"for that, delete {tmp_path / 'out'} and start again" in capsys.readouterr().out


def test_another_endpoint_is_judged_by_its_rows_alone(demo: ModuleType, tmp_path: Path) -> None:
    assert demo.exit_code(run(tmp_path / "whole"), rehearsed=False) == 0

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        return 1 // row["number"]

    dropped = simulate([number, picky], records=20, output=tmp_path / "dropped", config=CONFIG)
    assert demo.exit_code(dropped, rehearsed=False) == 1
