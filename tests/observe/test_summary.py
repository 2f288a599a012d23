"""The summary of a run's events: small, sampled from owners, and as good as all events for report and `why`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio
import trio.testing
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from report_parser import parse_report
from simulated_runs import FaultyRun, mocked

import trio_sched as ts
from trio_sched._events.records import JsonValue, merged_by_time
from trio_sched._observe.recorded_run import NoTraceError, RecordedEvents, write_run_views
from trio_sched._observe.report_figures import ReportCollector, ReportFigures
from trio_sched._observe.request_replay import RequestReplay
from trio_sched._observe.sampling import sample_of
from trio_sched._observe.scheduler_replay import SchedulerReplay
from trio_sched._observe.why import why
from trio_sched._scheduler.scheduler import AsyncTaskScheduler
from trio_sched.lowlevel import (
    NoEventsError,
    SchedulerAdmissionEvent,
    inline,
    view_of_run,
)

LEVELS: tuple[Literal["all", "summary", "none"], ...] = ("all", "summary", "none")
MODEL = ts.Model("here", "model", max_parallel_requests=4, timeout=None)

faulty_runs = st.builds(
    FaultyRun,
    seed=st.integers(0, 2**32),
    records=st.integers(0, 14),
    cap=st.integers(1, 3),
    cancel_after=st.none() | st.floats(0.1, 20),
)


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


def asking(seconds: float) -> ts.Column:
    @ts.column(needs=["number"], model=MODEL)
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> int:
        async def called() -> int:
            await trio.sleep(seconds)
            return row["number"]

        return await model.call(called)

    return answer


def summary_of(folder: Path) -> list[SchedulerAdmissionEvent]:
    return [event for event in RecordedEvents(folder).events() if isinstance(event, SchedulerAdmissionEvent)]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "events").iterdir())


def figures_of(folder: Path) -> ReportFigures:
    collector = ReportCollector()
    for event in RecordedEvents(folder).events():
        collector.emit(event)
    return collector.figures("completed", {}, {}, None)


@settings(max_examples=share_of_profile(0.2))
@given(faulty_runs)
def test_all_levels_that_hold_events_replay_to_the_final_snapshot_and_count_alike(run: FaultyRun) -> None:
    """Two runs are never quite the same, so each level is compared with all events of its own run."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for level in LEVELS:
                folder, every_event = Path(scratch) / level, ReportCollector()
                sink = await attrs.evolve(run, write_events=level).run(folder)
                for event in merged_by_time(sink.scheduler_events, sink.request_events):
                    every_event.emit(event)
                final = sink.scheduler_events[-1]
                assert final.event_kind == "scheduler_job_completed"
                if level == "none":
                    with pytest.raises(NoEventsError):
                        RecordedEvents(folder)
                    continue
                assert replayed(folder).snapshot() == final.snapshot
                assert counted(figures_of(folder)) == counted(every_event.figures("completed", {}, {}, None))

    mocked(main)


def replayed(folder: Path) -> SchedulerReplay:
    replay = SchedulerReplay()
    for event in summary_of(folder):
        replay.apply(event)
        sample = sample_of(event)
        if sample is not None:
            replay.load(sample.scheduler)
    return replay


def counted(figures: ReportFigures) -> object:
    """What a report counts, which samples lose nothing of."""
    endpoints = [(each.resource, each.static_cap, attrs.asdict(each.statistics)) for each in figures.endpoints]
    results = {
        column: {result: count for result, count in each.by_result.items() if count}
        for column, each in figures.view.columns.items()
    }
    return (
        figures.rows_seen,
        figures.view.result,
        endpoints,
        figures.failures,
        results,
        round(figures.view.wall_seconds, 6),
    )


@settings(max_examples=share_of_profile(0.2))
@given(faulty_runs)
def test_each_sample_gives_the_state_of_its_owners_at_its_instant(run: FaultyRun) -> None:
    owned: dict[float, dict[str, JsonValue]] = {}
    with pytest.MonkeyPatch.context() as patched:
        sample = AsyncTaskScheduler.sample

        def recorded(scheduler: AsyncTaskScheduler) -> object:
            owned[trio.current_time()] = scheduler._snapshot()
            return sample(scheduler)

        patched.setattr(AsyncTaskScheduler, "sample", recorded)

        async def main() -> None:
            with tempfile.TemporaryDirectory() as folder:
                await attrs.evolve(run, write_events="summary").run(Path(folder) / "out")
                scheduler, requests, samples = SchedulerReplay(), RequestReplay(), 0
                for event in summary_of(Path(folder) / "out"):
                    scheduler.apply(event)
                    told = sample_of(event)
                    if told is not None:
                        scheduler.load(told.scheduler)
                        requests.load(told.requests)
                        assert scheduler.snapshot() == owned[event.captured_at_monotonic]
                        for each in told.requests:
                            assert requests.resources[each.pressure.resource].agrees_with(each.pressure)
                        samples += 1
                assert samples

        mocked(main)


@pytest.mark.parametrize("columns", [1, 30])
async def test_a_model_call_takes_half_a_kilobyte_at_most_and_a_tenth_of_what_all_events_take(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, columns: int
) -> None:
    def answer(name: str) -> ts.Column:
        async def ask(row: dict[str, int], model: ts.ModelHandle) -> int:
            return await model.call(asleep)

        ask.__name__ = name
        return ts.column(needs=["number"], model=MODEL)(ask)

    async def asleep() -> int:
        await trio.sleep(1)
        return 1

    steps = [number, *(answer(f"answer_{index}") for index in range(columns))]
    calls, sizes = 600, dict[str, int]()
    for level in LEVELS[:2]:
        config = ts.RunConfig(write_events=level, buffer_size=10)
        folder = tmp_path / level
        await ts.run(steps, records=calls // columns, output=folder, config=config, blocking=inline)
        sizes[level] = size_of(folder)
    assert sizes["summary"] <= 500 * calls
    assert sizes["all"] >= 10 * sizes["summary"]


async def test_samples_grow_rarer_and_end_when_nothing_happens(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    config = ts.RunConfig(no_progress_seconds=None)
    with trio.move_on_after(100_000):
        await ts.run([number, asking(1e9)], records=20, output=tmp_path, config=config, blocking=inline)
    samples = [event.captured_at_monotonic for event in summary_of(tmp_path) if sample_of(event)]
    assert 1 <= len(samples) <= 3
    assert trio.current_time() - samples[-1] < 1

    await ts.run([number, asking(10)], records=4_000, output=tmp_path / "long", blocking=inline)
    events = summary_of(tmp_path / "long")
    times = [event.captured_at_monotonic for event in events if sample_of(event)]
    assert len(times) < 500
    assert times[-1] - times[-2] > 2 * (times[1] - times[0])
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_run_that_goes_on_is_explained(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    explained: list[str] = []

    async def explain() -> None:
        await trio.sleep(30)
        explained.append(str(why(tmp_path)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(explain)
        await ts.run([number, asking(100)], records=10, output=tmp_path, blocking=inline)
    chain = explained[0].splitlines()[0]
    assert chain == (
        "row group 0 waits for column answer ← 4 tasks wait for request admission on here/model/chat ← "
        "4 of 4 of here/model/chat in use"
    )
    assert str(why(tmp_path)).splitlines()[0].startswith("completed in 300.0 s")


async def test_a_run_that_was_stopped_is_explained(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(20):
        await ts.run([number, asking(100)], records=10, output=tmp_path, blocking=inline)
    explanation = why(tmp_path)
    assert explanation.state == "interrupted"
    assert "4 tasks wait for request admission on here/model/chat" in str(explanation)


async def test_there_is_a_report_and_no_trace_and_the_summary_says_so(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    result = await ts.run([number, asking(1)], records=40, output=tmp_path, blocking=inline)
    assert 'trace.json is made with write_events="all"' in result.summary()
    assert not (tmp_path / "trace.json").exists()
    report = parse_report((tmp_path / "report.html").read_text())
    assert (report.facts["rows written"], report.facts["requests"]) == ("40", "40")
    assert "It wrote a summary of its events" in report.text
    (tmp_path / "report.html").unlink()
    assert write_run_views(tmp_path)
    assert (tmp_path / "report.html").exists()
    assert str(NoTraceError(tmp_path)).endswith('set write_events="all" for a run that is to have one')
    view = view_of_run(tmp_path)
    assert view.missing_events == 0
    assert view.columns["answer"].by_result == {"success": 40}
    assert view.columns["answer"].waits.seconds()["provider"] == pytest.approx(40, rel=0.1)


async def test_a_run_that_cannot_be_sampled_goes_on_and_says_so_once(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(scheduler: AsyncTaskScheduler) -> object:
        raise LookupError("a policy of somebody's own")

    monkeypatch.setattr(AsyncTaskScheduler, "sample", fail)
    with caplog.at_level(logging.ERROR, logger="trio_sched.events"):
        result = await ts.run([number, asking(1)], records=8, output=tmp_path, blocking=inline)
    assert result.records == 8
    assert [record.getMessage() for record in caplog.records] == [
        "The run cannot be sampled any more; the summary of its events ends here"
    ]
    assert (tmp_path / "report.html").exists()


async def test_a_damaged_summary_is_read_up_to_the_damage(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    await ts.run([number, asking(1)], records=40, output=tmp_path, blocking=inline)
    path = tmp_path / "events" / "summary.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-2], "{}\n", *lines[-1:]]))
    view = view_of_run(tmp_path)
    assert not view.complete
    assert view.result is None
    assert 0 < view.missing_events < len(lines)
    assert view.problems[0] == f"at least {view.missing_events:,} events are missing"
