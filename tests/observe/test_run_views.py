"""Trace and report of a run's folder: whole files or none, from whatever a run left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_parser import parse_report
from sample_runs import SECRET, sample_run

from trio_sched._observe.recorded_run import write_run_views
from trio_sched.lowlevel import NoEventsError


def bare(folder: Path) -> Path:
    """A run's folder without the views."""
    sample_run(folder)
    for name in ("trace.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    return folder


def test_both_files_are_made_and_nothing_else(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    before = {path.name for path in folder.iterdir()}
    assert write_run_views(folder)
    assert {path.name for path in folder.iterdir()} - before == {"trace.json", "report.html"}
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    report = parse_report((folder / "report.html").read_text())
    assert report.facts["rows written"] == "11"
    assert len(report.table("Every value that bounded the run, and what was used of it")) > 10


def test_made_again_they_are_the_same(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    write_run_views(folder)
    first = [(folder / name).read_bytes() for name in ("trace.json", "report.html")]
    write_run_views(folder)
    assert [(folder / name).read_bytes() for name in ("trace.json", "report.html")] == first


def test_a_killed_run_has_them_too(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    for name, keep in (("scheduler.jsonl", 0.6), ("request.jsonl", 0.5)):
        path = folder / "events" / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
    (folder / "run.json").write_text('{"status": "running"}')
    (folder / "capacity_plan.json").write_text('{"configured": {"buf')
    assert write_run_views(folder)
    report = parse_report((folder / "report.html").read_text())
    assert "or killed" in report.text
    assert "events are missing" in report.text
    assert "There is no readable capacity_plan.json" in report.text


@pytest.mark.parametrize("missing", ["scheduler.jsonl", "request.jsonl"])
def test_one_stream_alone_is_enough(tmp_path: Path, missing: str) -> None:
    folder = bare(tmp_path / "out")
    (folder / "events" / missing).unlink()
    assert write_run_views(folder)
    parse_report((folder / "report.html").read_text())


def test_giving_up_leaves_nothing(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    assert not write_run_views(folder, keep_going=lambda: False)
    assert not list(folder.glob("*.tmp"))
    assert not (folder / "trace.json").exists()


def test_giving_up_keeps_what_was_there(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    write_run_views(folder)
    assert not write_run_views(folder, keep_going=lambda: False)
    assert (folder / "trace.json").exists()
    assert (folder / "report.html").exists()


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoEventsError):
        write_run_views(tmp_path)
    folder = bare(tmp_path / "out")
    shutil.rmtree(folder / "events")
    with pytest.raises(NoEventsError):
        write_run_views(folder)
    assert not list(folder.glob("*.tmp"))


def test_no_file_has_anything_of_a_row_or_an_error(tmp_path: Path) -> None:
    folder = bare(tmp_path / "out")
    write_run_views(folder)
    for path in (*folder.glob("*.json"), folder / "report.html", *(folder / "events").iterdir()):
        assert SECRET not in path.read_text(), path
