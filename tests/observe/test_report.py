"""The report: figures equal to the run's, readable without its charts, self-contained, private, and escaped."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from report_parser import ParsedReport, parse_report
from sample_runs import SECRET, SampleRun, sample_run

import trio_sched as ts
from trio_sched._events.records import JsonValue
from trio_sched._observe.layers import LAYERS
from trio_sched._observe.progress import RunProgressSink
from trio_sched._observe.recorded_run import RecordedEvents, durable_rows
from trio_sched._observe.report_figures import DurableRows, ReportCollector, ReportFigures
from trio_sched._observe.report_page import report_page
from trio_sched.lowlevel import inline


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    return sample_run(tmp_path_factory.mktemp("report") / "out")


def figures_of(run: SampleRun, length: int | None = None) -> ReportFigures:
    collector = ReportCollector()
    for event in list(RecordedEvents(run.folder).events())[:length]:
        collector.emit(event)
    plan: dict[str, JsonValue] = {
        "configured": {"buffer_size": {"value": 4, "source": "run_config"}},
        "observed_maxima": {"rows": {"a": 1}},
    }
    run_document: dict[str, JsonValue] = {"status": "running", "run_id": "r", "versions": {"trio_sched": "1.0"}}
    return collector.figures("running", run_document, plan, durable_rows(run.folder))


@pytest.fixture(scope="module")
def figures(run: SampleRun) -> ReportFigures:
    return figures_of(run)


@pytest.fixture(scope="module")
def report(figures: ReportFigures) -> ParsedReport:
    return parse_report(report_page(figures))


def test_the_summary_equals_the_result(run: SampleRun, report: ParsedReport) -> None:
    attempts = sum(each.attempts for each in run.result.requests.values())
    refused = sum(each.outcomes.get("rate_limited", 0) for each in run.result.requests.values())
    assert report.facts["rows written"] == str(run.result.records)
    assert report.facts["rows dropped"] == str(run.result.dropped)
    assert report.facts["row groups"] == str(run.result.scheduler.row_groups)
    assert report.facts["requests"] == str(attempts)
    assert report.facts["refused by rate limits"].split(" ")[0] == str(refused)
    assert float(report.facts["rows a second"]) == pytest.approx(run.result.records / run.result.wall_seconds, abs=0.01)


def test_every_endpoint_equals_its_statistics(run: SampleRun, report: ParsedReport) -> None:
    head, *rows = report.table("Request resources")
    assert {row[0] for row in rows} == {str(resource) for resource in run.result.requests}
    for resource, statistics in run.result.requests.items():
        (shown,) = [dict(zip(head, row, strict=True)) for row in rows if row[0] == str(resource)]
        assert shown["attempts"] == str(statistics.attempts)
        assert shown["answered"] == str(statistics.outcomes.get("success", 0))
        assert shown["refused"] == str(statistics.outcomes.get("rate_limited", 0))
        assert shown["static cap"] == str(run.result.static_caps[resource.provider_model_key])
        assert shown["most in flight"] == str(statistics.max_in_flight)
        if statistics.lowest_limit is not None:
            assert shown["lowest limit"] == str(statistics.lowest_limit)
            assert shown["last limit"] == str(statistics.last_limit)
        utilisation = float(shown["utilisation"].rstrip("%")) / 100
        assert utilisation == pytest.approx(run.result.utilisation(resource), abs=0.002)


def test_the_layers_add_up_to_the_time_of_the_run(run: SampleRun, report: ParsedReport) -> None:
    _, *rows = report.table("By layer and place, most first")
    assert sum(float(row[2]) for row in rows) == pytest.approx(run.result.wall_seconds, abs=0.1)


def test_failures_are_reported_by_column_and_error_type(report: ParsedReport) -> None:
    _, *rows = report.table("Failures by cause")
    assert ["draft", "ValueError", "rejected", "1"] in [[row[0], row[1], row[3], row[4]] for row in rows]


def test_charts_have_the_same_values_as_their_tables(report: ParsedReport, figures: ReportFigures) -> None:
    assert set(report.charts) == set(report.chart_labels)
    assert len(report.charts) == 3 + len(figures.endpoints)
    for endpoint in figures.endpoints:
        (name,) = [name for name, label in report.chart_labels.items() if endpoint.resource in label]
        _, *rows = report.table(report.chart_labels[name].removesuffix(" The table below has the values."))
        chart = report.charts[name]
        assert len(rows) == len(chart["times"]) == len(figures.times)
        for column, series in enumerate(chart["series"], 1):
            assert [float(row[column]) for row in rows] == pytest.approx(series["values"], rel=1e-3, abs=1e-3)


def test_the_time_of_answers_and_limits_is_kept_in_the_series(run: SampleRun, figures: ReportFigures) -> None:
    edges = [*figures.times, figures.view.wall_seconds]
    widths = [later - earlier for earlier, later in pairwise(edges)]
    for endpoint in figures.endpoints:
        (statistics,) = [each for key, each in run.result.requests.items() if str(key) == endpoint.resource]
        answered = sum(rate * width for rate, width in zip(endpoint.answered, widths, strict=True))
        refused = sum(rate * width for rate, width in zip(endpoint.refused, widths, strict=True))
        assert answered + refused == pytest.approx(statistics.attempts)
        assert max(endpoint.in_flight) <= statistics.max_in_flight
        assert all(0 <= share <= 1 for share in (*endpoint.stopped, *endpoint.outage))
        assert sum(endpoint.probes_refused) == statistics.probes_refused
        assert sum(endpoint.trials) == statistics.trials
    assert any(max(endpoint.stopped) > 0 for endpoint in figures.endpoints)


def test_what_the_limits_found_out_is_counted(run: SampleRun, report: ParsedReport, figures: ReportFigures) -> None:
    head, *rows = report.table("What the limits found out")
    ((resource, statistics),) = [each for each in run.result.requests.items() if each[1].was_refused]
    (shown,) = [dict(zip(head, row, strict=True)) for row in rows]
    assert shown["endpoint and domain"] == str(resource)
    assert shown["asked for more"] == str(statistics.probes)
    assert shown["refused"] == str(statistics.probes_refused)
    assert shown["outages"] == str(statistics.outages) == "1"
    assert shown["trial calls"] == str(statistics.trials)
    assert statistics.probes >= 1
    assert statistics.trials >= 2
    seconds = float(shown["seconds stopped"])
    assert 0 < seconds == pytest.approx(figures.view.limited_by.seconds()["cooldown"], abs=2)


def test_an_outage_its_trials_and_refused_probes_are_drawn(report: ParsedReport, figures: ReportFigures) -> None:
    (with_outage,) = [chart for name, chart in report.charts.items() if "alpha/writer" in report.chart_labels[name]]
    marks = {each["label"]: each for each in with_outage["series"] if each["mark"] is not None}
    assert set(marks) == {"asked for more and refused", "trial calls"}
    assert all(0 < each["mark"] < 1 and max(each["values"]) >= 1 for each in marks.values())
    assert {"stopped", "outage"} <= {each["label"] for each in with_outage["series"]}
    (steady,) = [chart for name, chart in report.charts.items() if "beta/judge" in report.chart_labels[name]]
    assert [each["label"] for each in steady["series"]] == ["stopped", "limit", "in flight", "waiting"]


def test_a_run_without_refusals_has_no_table_of_what_its_limits_found_out(figures: ReportFigures) -> None:
    steady = [each for each in figures.endpoints if not each.statistics.was_refused]
    parsed = parse_report(report_page(attrs.evolve(figures, endpoints=steady)))
    assert "What the limits found out" not in {table.caption for table in parsed.tables}


def test_the_summary_at_the_end_says_what_a_limit_found_out(run: SampleRun) -> None:
    (line,) = [line for line in run.result.summary().splitlines() if line.startswith("alpha/writer/chat was refused")]
    statistics = next(each for each in run.result.requests.values() if each.was_refused)
    times = {1: "once", 2: "twice"}.get(statistics.probes_refused, f"{statistics.probes_refused} times")
    assert line == (
        f"alpha/writer/chat was refused {times} when it asked for more, had 1 outage and "
        f"sent {statistics.trials} trial calls"
    )


def test_stacked_layers_reach_the_whole(report: ParsedReport) -> None:
    chart = report.charts["chart-limits"]
    assert len(chart["series"]) == len(LAYERS)
    assert chart["series"][0]["values"] == pytest.approx([1.0] * len(chart["times"]), abs=1e-3)


def test_headings_and_names_lead_a_reader_who_sees_no_charts(report: ParsedReport) -> None:
    levels = [level for level, _ in report.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert len(report.ids) == len(set(report.ids))
    assert all(link.removeprefix("#") in report.ids for link in report.links)
    assert all(table.caption for table in report.tables)
    assert all(label for label in report.chart_labels.values())
    assert 'lang="en"' in (files("trio_sched._observe") / "report" / "page.html").read_text()


def test_nothing_is_fetched(figures: ReportFigures, report: ParsedReport) -> None:
    page = report_page(figures)
    assert report.fetched == []
    assert "default-src 'none'" in page
    assert not re.findall(r"url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket", page)
    assert "The MIT License" in page


def test_nothing_of_a_row_a_prompt_or_an_error_is_in_it(figures: ReportFigures) -> None:
    assert SECRET not in report_page(figures)


def test_names_cannot_become_markup(figures: ReportFigures) -> None:
    evil = "</script></title><img src=x onerror=alert(1)>&\"'"
    endpoints = [attrs.evolve(each, resource=evil) for each in figures.endpoints]
    page = report_page(attrs.evolve(figures, run_id=evil, status=evil, endpoints=endpoints))
    assert "<img" not in page
    parsed = parse_report(page)
    assert parsed.headings[0] == (1, f"Run {evil}")
    assert (3, evil) in parsed.headings


def test_a_run_cut_anywhere_has_a_report(run: SampleRun) -> None:
    whole = len(run.events.scheduler_events) + len(run.events.request_events)
    for length in (0, 1, 2, 5, *range(10, whole - 1, 23)):
        parsed = parse_report(report_page(figures_of(run, length)))
        assert parsed.headings[0][1].startswith("Run ")
        assert "Running when this was written, or killed" in parsed.text


def test_the_plan_is_reported_with_sources(report: ParsedReport) -> None:
    _, *rows = report.table("Every value that bounded the run, and what was used of it")
    assert rows == [["configured", "buffer size", "4", "run config"], ["observed maxima", "rows", "a: 1", ""]]


@pytest.mark.parametrize("name", ["uPlot.iife.min.js", "uPlot.min.css"])
def test_the_charting_library_is_what_its_readme_says(name: str) -> None:
    vendor = files("trio_sched._observe") / "report" / "vendor"
    content = (vendor / name).read_bytes()
    line = f"| `{name}` | {len(content)} | `{hashlib.sha256(content).hexdigest()}` |"
    assert line in (vendor / "README.md").read_text()


def test_rejected_rows_and_filtered_rows_are_counted_apart(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    @ts.pre_batch_processor()
    def no_fives(rows: list[dict[str, int]]) -> list[dict[str, object] | None]:
        return [None if row["number"] == 5 else {**row} for row in rows]

    @ts.batch_column(needs=["number"])
    def squared(rows: list[dict[str, int]]) -> list[int | Exception]:
        return [LookupError() if row["number"] in (0, 1, 9) else row["number"] ** 2 for row in rows]

    async def main() -> ts.RunResult:
        steps = [number, no_fives, squared]
        sink = RunProgressSink(12)
        config = ts.RunConfig(buffer_size=4)
        result = await ts.run(
            steps, records=12, output=tmp_path / "out", config=config, event_sink=sink, blocking=inline
        )
        progress = sink.progress(trio.current_time())
        assert (progress.records_done, progress.dropped) == (result.records, result.dropped)
        return result

    result = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (result.records, result.dropped, result.filtered) == (8, 3, 1)
    collector = ReportCollector()
    for event in RecordedEvents(tmp_path / "out").events():
        collector.emit(event)
    assert durable_rows(tmp_path / "out") == DurableRows(rows=8, dropped=3, filtered=1, row_groups=3)
    figures = collector.figures("completed", {}, {}, None)
    causes = {(each.column, each.error): each.tasks for each in figures.failures if each.final}
    assert causes == {(cause.column, cause.error_type): cause.rows for cause in result.scheduler.drop_causes}
    assert causes == {("squared", "LookupError"): 3}
