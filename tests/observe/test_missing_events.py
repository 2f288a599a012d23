"""Events that are missing: every view says so, shows what is known up to there, and states nothing that is not so."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_parser import ParsedReport, parse_report
from sample_runs import SampleRun, sample_run

from trio_sched._observe.recorded_run import RecordedEvents, durable_rows, view_of_run, write_run_views
from trio_sched._observe.report_figures import DurableRows
from trio_sched._observe.view import CorrelatedRuntimeView
from trio_sched._observe.why import explain, why
from trio_sched.lowlevel import RuntimeViewBuilder, inline, open_jsonl_sink

STREAMS = ("scheduler.jsonl", "request.jsonl")
ABSENCES = ("No task failed.", "No model was called.", "No task finished.", "No time passed.")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    return sample_run(tmp_path_factory.mktemp("missing") / "out")


@pytest.fixture
def folder(run: SampleRun, tmp_path: Path) -> Path:
    """A copy of the run's folder, to damage."""
    return Path(shutil.copytree(run.folder, tmp_path / "out"))


def prefix_of(run: SampleRun, until: float) -> CorrelatedRuntimeView:
    """What is true of the run up to an instant: the view of all that was emitted by then."""
    return CorrelatedRuntimeView.from_events(
        [each for each in run.events.scheduler_events if each.captured_at_monotonic <= until],
        [each for each in run.events.request_events if each.captured_at_monotonic <= until],
    )


def lines_of(folder: Path, name: str) -> list[bytes]:
    return (folder / "events" / name).read_bytes().splitlines(keepends=True)


def assert_states_nothing_false(run: SampleRun, folder: Path, *, says: str) -> CorrelatedRuntimeView:
    """Every view of a folder in which both files are there, and one lacks something, which `says` says."""
    view = view_of_run(folder)
    assert not view.complete
    assert any(says in problem for problem in view.problems), view.problems
    read = list(RecordedEvents(folder).events())
    truth = prefix_of(run, read[-1].captured_at_monotonic if read else -1.0)
    assert (view.limited_by, view.limits) == (truth.limited_by, truth.limits)
    assert view.result is None or view.result == run.result.status

    explanation = why(folder)
    assert explanation.state == "completed", "run.json says how it ended"
    assert (explanation.complete, explanation.chain, explanation.limit) == (False, (), None)
    assert explanation.problems == view.problems
    assert explanation.limits == view.limits
    lines = str(explanation).splitlines()
    assert lines[: len(view.problems)] == list(view.problems)
    assert lines[len(view.problems) + len(explanation.failing)].startswith("completed; its events cover ")
    assert explanation.to_json()["complete"] is False

    assert write_run_views(folder)
    report = parse_report((folder / "report.html").read_text())
    assert_report(report, view)
    trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
    notes = [entry for entry in trace if entry["ph"] == "i" and entry["s"] == "g"]
    assert [note["name"] for note in notes] == list(view.problems)
    assert all(note["ts"] == max((each["ts"] for each in trace if "ts" in each), default=0) for note in notes)
    return view


def assert_report(report: ParsedReport, view: CorrelatedRuntimeView) -> None:
    """Its rows are those in the parts, and it says what is missing."""
    facts = report.facts
    assert (facts["rows written"], facts["rows dropped"], facts["row groups"]) == ("11", "1", "3")
    assert all(problem in report.text for problem in view.problems)
    assert "Completed." in report.text
    assert "time shown" in facts
    assert not [sentence for sentence in ABSENCES if sentence in report.text]


def test_of_a_whole_run_nothing_is_missing(run: SampleRun, folder: Path) -> None:
    view = view_of_run(folder)
    assert (view.complete, view.missing_events, view.problems) == (True, 0, ())
    assert view == prefix_of(run, float("inf"))
    assert why(folder).complete
    write_run_views(folder)
    report = parse_report((folder / "report.html").read_text())
    assert "missing" not in report.text
    assert "time" in report.facts
    assert '"s":"g"' not in (folder / "trace.json").read_text()


@pytest.mark.parametrize("name", STREAMS)
def test_a_tail_that_is_cut_at_any_line(run: SampleRun, folder: Path, name: str) -> None:
    lines = lines_of(folder, name)
    for kept in range(0, len(lines), max(1, len(lines) // 12)):
        (folder / "events" / name).write_bytes(b"".join(lines[:kept]))
        view = assert_states_nothing_false(run, folder, says="missing")
        assert view.missing_events >= len(lines) - kept


@pytest.mark.parametrize("name", STREAMS)
def test_every_line_is_missed(folder: Path, name: str) -> None:
    lines = lines_of(folder, name)
    for lost in range(len(lines)):
        (folder / "events" / name).write_bytes(b"".join([*lines[:lost], *lines[lost + 1 :]]))
        assert not view_of_run(folder, max_executions=0).complete, lost


@pytest.mark.parametrize("name", STREAMS)
def test_a_line_cut_in_the_middle(run: SampleRun, folder: Path, name: str) -> None:
    content = (folder / "events" / name).read_bytes()
    for kept in (len(content) - 1, len(content) * 2 // 3, len(content) // 3):
        (folder / "events" / name).write_bytes(content[:kept])
        assert_states_nothing_false(run, folder, says="missing")


@pytest.mark.parametrize("name", STREAMS)
def test_lines_lost_in_the_middle(run: SampleRun, folder: Path, name: str) -> None:
    lines = lines_of(folder, name)
    for first, count in ((0, 1), (len(lines) // 4, 3), (len(lines) // 2, 1), (len(lines) * 3 // 4, 20)):
        (folder / "events" / name).write_bytes(b"".join([*lines[:first], *lines[first + count :]]))
        view = assert_states_nothing_false(run, folder, says="missing")
        assert view.missing_events >= count


@pytest.mark.parametrize("name", STREAMS)
def test_a_bit_that_flipped(run: SampleRun, folder: Path, name: str) -> None:
    content = (folder / "events" / name).read_bytes()
    digit = re.compile(rb'"captured_at_monotonic":(\d)')
    for found in list(digit.finditer(content))[:: len(lines_of(folder, name)) // 4]:
        at = found.start(1)
        changed = bytes([content[at] ^ 1])
        (folder / "events" / name).write_bytes(content[:at] + changed + content[at + 1 :])
        assert_states_nothing_false(run, folder, says="missing")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_lost_as_a_whole(run: SampleRun, folder: Path, name: str) -> None:
    lost = len(lines_of(folder, name))
    (folder / "events" / name).unlink()
    view = view_of_run(folder)
    assert (view.complete, view.missing_events) == (False, lost)
    assert view.problems[0].startswith(f"events/{name} is missing: nothing is known of ")
    explanation = why(folder)
    assert (explanation.state, explanation.chain, explanation.limit) == ("completed", (), None)
    assert str(explanation).startswith(view.problems[0])
    write_run_views(folder)
    assert_report(parse_report((folder / "report.html").read_text()), view)
    assert view.problems[0] in (folder / "trace.json").read_text()


def test_without_the_list_of_batches_nothing_is_sure(run: SampleRun, folder: Path) -> None:
    (folder / "events" / "batches.log").unlink()
    assert_states_nothing_false(run, folder, says="whether events are missing is not known")


def test_a_list_of_batches_that_is_cut(run: SampleRun, folder: Path) -> None:
    lines = lines_of(folder, "batches.log")
    for kept in range(0, len(lines), max(1, len(lines) // 6)):
        (folder / "events" / "batches.log").write_bytes(b"".join(lines[:kept]))
        assert_states_nothing_false(run, folder, says="the last events are missing")


def test_a_list_of_batches_that_is_damaged(run: SampleRun, folder: Path) -> None:
    lines = lines_of(folder, "batches.log")
    for damage in (b"\xff\n", b"[]\n", b"{}\n", lines[1].replace(b'"crc32":', b'"crc32":"x","y":'), b"[" * 100_000):
        (folder / "events" / "batches.log").write_bytes(b"".join([lines[0], damage, *lines[2:]]))
        assert_states_nothing_false(run, folder, says="the last events are missing")


def test_a_killed_run_is_shown_up_to_its_last_batch(run: SampleRun, folder: Path) -> None:
    batches = lines_of(folder, "batches.log")
    (folder / "events" / "batches.log").write_bytes(b"".join(batches[: len(batches) // 2]))
    (folder / "run.json").write_text(json.dumps({"status": "running", "process": None}))
    view = view_of_run(folder)
    assert (view.complete, view.problems, view.result) == (True, (), None)
    truth = prefix_of(run, list(RecordedEvents(folder).events())[-1].captured_at_monotonic)
    assert (view.limited_by, view.limits) == (truth.limited_by, truth.limits)
    assert why(folder).state == "running"
    assert why(folder).chain


def test_how_it_ended_is_not_known_without_a_word_of_it(folder: Path) -> None:
    (folder / "run.json").unlink()
    assert why(folder).state == "completed", "the events say so"
    batches = lines_of(folder, "batches.log")
    (folder / "events" / "batches.log").write_bytes(b"".join(batches[: len(batches) // 2]))
    explanation = why(folder)
    assert (explanation.state, explanation.chain) == ("unknown", ())
    assert str(explanation).startswith("not known to have ended; its events cover ")
    write_run_views(folder)
    assert "How it ended is not known" in parse_report((folder / "report.html").read_text()).text


def test_rows_are_those_in_the_parts(run: SampleRun, folder: Path) -> None:
    assert durable_rows(folder) == DurableRows(rows=11, dropped=1, filtered=0, row_groups=3)
    (listed,) = (folder / "dropped").iterdir()
    listed.write_text('{"dropped_rows": [')
    assert durable_rows(folder) is None
    write_run_views(folder)
    assert parse_report((folder / "report.html").read_text()).facts["rows written"] == "not known"
    shutil.rmtree(folder / "data")
    assert durable_rows(folder) is None


async def test_events_that_were_dropped_end_what_is_shown(run: SampleRun, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    async with open_jsonl_sink(tmp_path / "events", blocking=inline, max_buffered=40, when_full="drop") as sink:
        for event in run.events.scheduler_events[:30]:
            sink.emit_scheduler_event(event)
        sink.flush()
        for event in run.events.scheduler_events[30:]:
            sink.emit_scheduler_event(event)
    assert sink.dropped
    view = view_of_run(tmp_path)
    assert (view.complete, view.missing_events) == (False, len(run.events.scheduler_events) - 30)
    assert len(list(RecordedEvents(tmp_path).events())) == 30


def test_gaps_in_the_numbers_of_events_are_missing_events(run: SampleRun) -> None:
    builder = RuntimeViewBuilder()
    for event in (*run.events.scheduler_events[:10], *run.events.scheduler_events[12:20]):
        builder.emit_scheduler_event(event)
    builder.emit_request_event(run.events.request_events[1])
    view = builder.view()
    assert (view.complete, view.missing_events) == (False, 3)
    explanation = explain(builder)
    assert (explanation.chain, explanation.problems) == ((), ("at least 3 events are missing",))
    assert str(explanation).startswith("at least 3 events are missing\nnot ended; its events cover ")
