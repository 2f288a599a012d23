"""Event files read back: whole, torn, missing, wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_runs import sample_run

from trio_sched._observe.recording import UnreadableEventError, recorded_events
from trio_sched.lowlevel import RequestAdmissionEvent, SchedulerAdmissionEvent


def test_what_was_emitted_is_read_back_equal_and_in_order(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "out")
    read = list(recorded_events(run.folder / "events"))
    assert [event for event in read if isinstance(event, SchedulerAdmissionEvent)] == run.events.scheduler_events
    assert [event for event in read if isinstance(event, RequestAdmissionEvent)] == run.events.request_events
    times = [event.captured_at_monotonic for event in read]
    assert times == sorted(times)


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "out")
    file = run.folder / "events" / "request.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:9]) + lines[9][: len(lines[9]) // 2])
    read = [event for event in recorded_events(run.folder / "events") if isinstance(event, RequestAdmissionEvent)]
    assert read == run.events.request_events[:9]


def test_a_missing_file_has_no_events(tmp_path: Path) -> None:
    assert list(recorded_events(tmp_path)) == []


@pytest.mark.parametrize("line", ["[]", "{}", "no json", '{"event_kind": "selected"}', "null"])
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "request.jsonl").write_text(line + "\n")
    with pytest.raises(UnreadableEventError, match=r"request\.jsonl line 1 is no event that this version"):
        list(recorded_events(tmp_path))
