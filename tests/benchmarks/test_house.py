"""The figures of the house are counted, and the ways that CONTRIBUTING lists are those that are gone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.house import HERE, by_room, entered

PACKAGE = HERE / "trio_sched"
CONTRIBUTING = (HERE / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^<!-- ([\w ]+) -->\n(.*?)\n\n", re.MULTILINE | re.DOTALL)


def output_of(*arguments: str) -> str:
    """In a process of its own, in which nothing was remembered and nobody else profiles."""
    command = [sys.executable, str(HERE / "benchmarks" / "house.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def ways() -> dict[str, str]:
    return dict(SECTION.findall(output_of("--ways")))


@pytest.mark.parametrize("way", ["cell", "request", "task admission"])
def test_the_map_lists_the_files_that_are_entered(ways: dict[str, str], way: str) -> None:
    assert dict(SECTION.findall(CONTRIBUTING))[way] == ways[way], "run python benchmarks/house.py --write"


def test_the_way_of_a_cell_leads_from_run_to_the_part(ways: dict[str, str]) -> None:
    rooms = {"_pipeline", "_task", "_request", "_scheduler", "_events"}
    assert rooms <= set(re.findall(r"^- `(\w+)/`:", ways["cell"], re.MULTILINE))
    assert "`run`" in ways["cell"]
    assert "report_page" not in ways["cell"]


def test_files_that_the_map_names_exist() -> None:
    named = [
        Path("" if room == "beside the rooms" else room.strip("`/"), f"{name}.py")
        for _, text in SECTION.findall(CONTRIBUTING)
        for room, names in re.findall(r"^- (.*?): (.*?)$", text.replace("\n  ", " "), re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert len(named) > 20
    assert [path for path in named if not (PACKAGE / path).is_file()] == []


def test_rooms_of_the_map_are_there_and_none_is_left_out() -> None:
    rooms = set(re.findall(r"`(_\w+)/`", CONTRIBUTING.partition("## The map")[2].partition("<!--")[0]))
    assert rooms == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_figures_are_those_of_the_tree() -> None:
    figures = dict(re.findall(r"^\| (.*?) \| ([\d,]+) \|$", output_of(), re.MULTILINE))
    files = list(PACKAGE.rglob("*.py"))
    assert figures["files of `trio_sched/`"] == str(len(files))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert figures["lines of `trio_sched/`"] == f"{lines:,}"


def test_what_was_under_way_is_not_entered_and_what_follows_the_file_neither(tmp_path: Path) -> None:
    """Each module renames one file and goes on."""
    for name in ("outer", "inner", "later"):
        (tmp_path / f"{name}.py").write_text(
            "import os\ndef call(then, *names):\n    if names:\n        os.replace(*names)\n    return then()\n"
        )
    source, part = tmp_path / "source", tmp_path / "part"
    source.touch()
    sys.path.insert(0, str(tmp_path))
    try:
        outer, inner, later = (__import__(name) for name in ("outer", "inner", "later"))
    finally:
        sys.path.remove(str(tmp_path))
    found: list[str] = []

    def looked_at() -> None:
        with entered(tmp_path, until=part) as files:
            inner.call(lambda: later.call(lambda: None), str(source), str(part))
        found.extend(files)

    outer.call(looked_at)
    assert found == ["inner.py"]


def test_a_line_for_each_room_in_the_order_of_entry() -> None:
    assert list(by_room(["_lazy.py", "_task/queue.py", "_clock.py", "_observe/report_page.py"])) == [
        "- beside the rooms: `_lazy`, `_clock`",
        "- `_task/`: `queue`",
        "- `_observe/`: `report_page`",
    ]
