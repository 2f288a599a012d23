"""The report as one page of HTML: headings, figures, and a table behind each chart, for readers of every kind.

Whatever comes from a run is escaped here, and only here: `_Html` marks what is markup already. The page loads nothing:
style, script, charting library and its licence are in it, and a policy in its head forbids every request.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from string import Template

from trio_sched._observe.display import duration
from trio_sched._observe.layers import LAYERS, Layer, WaitBreakdown, seconds
from trio_sched._observe.report_figures import (
    LAYER_COLOURS,
    LAYER_NAMES,
    Chart,
    EndpointFigures,
    ReportFigures,
    endpoint_chart,
    limits_chart,
    rows_chart,
    throughput_chart,
)
from trio_sched._version import __version__

__all__ = ["report_page"]


class _Html(str):
    """Text that is markup already."""

    __slots__ = ()


def report_page(figures: ReportFigures) -> str:
    """The whole page."""
    charts: list[Chart] = []
    sections = [
        ("summary", "Summary", _summary(figures)),
        ("limits", "What limited progress, when", _limits(figures, charts)),
        ("throughput", "Throughput", _throughput(figures, charts)),
        ("endpoints", "Endpoints", _endpoints(figures, charts)),
        ("waits", "Where the time of tasks went", _waits(figures)),
        ("failures", "Drops and retries", _failures(figures)),
        ("plan", "Capacity plan", _plan(figures)),
    ]
    data = json.dumps({f"chart-{chart.name}": chart.data() for chart in charts}, allow_nan=False)
    return Template(_resource("page.html")).substitute(
        title=_text(f"Run {figures.run_id}: {figures.status}"),
        heading=_text(f"Run {figures.run_id}"),
        lead=_text(_lead(figures)),
        problems=_problems(figures.view.problems),
        navigation="".join(f'<li><a href="#{name}">{_text(title)}</a></li>' for name, title, _ in sections),
        sections="\n".join(
            f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(title)}</h2>\n{content}</section>'
            for name, title, content in sections
        ),
        version=_text(__version__),
        charts=data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        style=_resource("page.css"),
        script=_resource("page.js"),
        chart_style=_resource("vendor/uPlot.min.css"),
        chart_code=_resource("vendor/uPlot.iife.min.js"),
        licence=_resource("vendor/LICENSE.uPlot"),
    )


@cache
def _resource(name: str) -> str:
    return (files("trio_sched._observe") / "report" / name).read_text(encoding="utf-8")


def _text(value: object) -> _Html:
    return value if isinstance(value, _Html) else _Html(html.escape(str(value)))


def _lead(figures: ReportFigures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items() if name != "platform")
    state = {
        "completed": "Completed.",
        "stopped": "Stopped before its end; every row counted here is complete.",
        "interrupted": "Interrupted; every row counted here is complete.",
        "failed": "Failed; every row counted here is complete.",
        "running": "Running when this was written, or killed; every row counted here is complete.",
        "killed": "Killed; every row counted here is complete.",
        "unknown": "How it ended is not known; every row counted here is complete.",
    }.get(figures.status, f"State: {figures.status}.")
    if figures.sampled:
        state += " It wrote a summary of its events: what happened between two samples is spread evenly over that time."
    return f"{state} Made with {versions}." if versions else state


def _problems(problems: Sequence[str]) -> _Html:
    return _Html("".join(f'<p class="warning">{_text(problem)}</p>' for problem in problems))


def _summary(figures: ReportFigures) -> _Html:
    view = figures.view
    attempts = sum(each.statistics.attempts for each in figures.endpoints)
    refused = sum(each.statistics.outcomes.get("rate_limited", 0) for each in figures.endpoints)
    durable = figures.durable
    facts = [
        ("rows written", "not known" if durable is None else f"{durable.rows:,}"),
        ("rows dropped", "not known" if durable is None else f"{durable.dropped:,}"),
        ("rows filtered", "not known" if durable is None else f"{durable.filtered:,}"),
        ("row groups", "not known" if durable is None else f"{durable.row_groups:,}"),
        ("time" if view.complete else "time shown", duration(view.wall_seconds)),
        ("rows a second", f"{figures.rows_seen / view.wall_seconds:.2f}" if view.wall_seconds else "-"),
        ("requests", f"{attempts:,}"),
        ("refused by rate limits", f"{refused:,} ({refused / attempts:.1%})" if attempts else "0"),
        ("limited most by", LAYER_NAMES[view.limited_by.largest] if view.limited_by.total else "-"),
    ]
    return _Html(
        '<dl class="facts">'
        + "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
        + "</dl>"
    )


def _limits(figures: ReportFigures, charts: list[Chart]) -> _Html:
    view = figures.view
    if not view.limited_by.total:
        return _nothing(figures, "No time passed.")
    rows = [
        (
            LAYER_NAMES[limit.layer],
            limit.where or "",
            f"{seconds(limit.nanoseconds):.2f}",
            _percent(limit.nanoseconds, view.limited_by.total),
        )
        for limit in view.limits
    ]
    return _Html(
        "<p>At every instant one layer limits: where most of the waiting work waits, or what is under way. "
        "The seconds of all layers add up to the time of the run.</p>"
        + _breakdown_bar(view.limited_by)
        + _table("By layer and place, most first", ("layer", "at", "seconds", "share"), rows, text_columns=2)
        + _figure(limits_chart(figures), charts)
    )


def _throughput(figures: ReportFigures, charts: list[Chart]) -> _Html:
    if not figures.times:
        return _nothing(figures, "No time passed.")
    return _Html(_figure(throughput_chart(figures), charts) + _figure(rows_chart(figures), charts))


def _endpoints(figures: ReportFigures, charts: list[Chart]) -> _Html:
    if not figures.endpoints:
        return _nothing(figures, "No model was called.")
    parts = [
        _paragraph(
            "Utilisation is the time of answered calls over what the static cap could have carried in the time of the "
            "run. Limits are those of the adaptive limit."
        ),
        _table(
            "Request resources",
            (
                "endpoint and domain",
                "attempts",
                "answered",
                "refused",
                "other",
                "static cap",
                "most in flight",
                "lowest limit",
                "last limit",
                "utilisation",
            ),
            [_endpoint_row(each) for each in figures.endpoints],
        ),
    ]
    probed = [each for each in figures.endpoints if _was_probed(each)]
    if probed:
        parts += [
            _paragraph(
                "A limit that works is raised by a call now and then, to ask whether the provider accepts more. Where "
                "everything is refused, all calls wait, and a trial call goes out alone until one is answered."
            ),
            _table(
                "What the limits found out",
                ("endpoint and domain", "asked for more", "refused", "outages", "trial calls", "seconds stopped"),
                [_probed_row(each) for each in probed],
            ),
        ]
    for number, endpoint in enumerate(figures.endpoints):
        parts.append(_Html(f"<h3>{_text(endpoint.resource)}</h3>"))
        if figures.times:
            parts.append(_figure(endpoint_chart(figures, endpoint, number), charts))
    return _Html("".join(parts))


def _endpoint_row(endpoint: EndpointFigures) -> tuple[str, ...]:
    statistics = endpoint.statistics
    answered, refused = statistics.outcomes.get("success", 0), statistics.outcomes.get("rate_limited", 0)
    lowest = statistics.lowest_limit if statistics.lowest_limit is not None else endpoint.first_limit
    last = statistics.last_limit if statistics.last_limit is not None else endpoint.first_limit
    return (
        endpoint.resource,
        f"{statistics.attempts:,}",
        f"{answered:,}",
        f"{refused:,}",
        f"{sum(statistics.outcomes.values()) - answered - refused:,}",
        _or_dash(endpoint.static_cap),
        f"{statistics.max_in_flight:,}",
        _or_dash(lowest),
        _or_dash(last),
        f"{endpoint.utilisation:.1%}" if endpoint.utilisation is not None else "-",
    )


def _was_probed(endpoint: EndpointFigures) -> bool:
    statistics = endpoint.statistics
    return bool(statistics.probes or statistics.probes_refused or statistics.outages or statistics.trials)


def _probed_row(endpoint: EndpointFigures) -> tuple[str, ...]:
    statistics = endpoint.statistics
    return (
        endpoint.resource,
        f"{statistics.probes:,}",
        f"{statistics.probes_refused:,}",
        f"{statistics.outages:,}",
        f"{statistics.trials:,}",
        f"{endpoint.stopped_seconds:.2f}",
    )


def _waits(figures: ReportFigures) -> _Html:
    columns = figures.view.columns
    if not columns:
        return _nothing(figures, "No task finished.")
    rows = [
        (
            column,
            f"{waits.executions:,}",
            ", ".join(f"{count:,} {result}" for result, count in sorted(waits.by_result.items())),
            *(f"{waits.waits.seconds()[layer] / max(1, waits.executions):.3f}" for layer in LAYERS),
        )
        for column, waits in columns.items()
    ]
    bars = "".join(f"<h3>{_text(column)}</h3>{_breakdown_bar(waits.waits)}" for column, waits in columns.items())
    heads = ("column", "executions", "results", *(LAYER_NAMES[layer] for layer in LAYERS))
    return _Html(
        "<p>From being ready to giving the lease back, the mean of all finished executions, in seconds by layer.</p>"
        + _table("Mean seconds of an execution by layer", heads, rows)
        + bars
    )


def _failures(figures: ReportFigures) -> _Html:
    if not figures.failures:
        return _nothing(figures, "No task failed.")
    rows = [
        (
            each.column,
            each.error,
            each.reason.replace("_", " "),
            "rejected" if each.final else "repeated",
            f"{each.tasks:,}",
        )
        for each in figures.failures
    ]
    durable = figures.durable
    dropped = "" if durable is None else f"<p>Rows dropped from durable row groups: {durable.dropped:,}.</p>"
    return _Html(
        dropped
        + _table("Failures by cause", ("column", "error", "reason", "then", "tasks or rows"), rows, text_columns=4)
    )


def _plan(figures: ReportFigures) -> _Html:
    if not figures.plan:
        return _paragraph("There is no readable capacity_plan.json beside the events.")
    rows = [(line.part, line.name, line.value, line.source) for line in figures.plan]
    heads = ("part", "value of", "value", "source")
    return _table("Every value that bounded the run, and what was used of it", heads, rows, text_columns=4)


def _figure(chart: Chart, charts: list[Chart]) -> _Html:
    """A chart, its legend, and its values as a table."""
    charts.append(chart)
    legend = "".join(
        f'<li><span style="background:var(--{each.colour})"></span>{_text(each.label)}</li>' for each in chart.series
    )
    rows = [
        (f"{time:.2f}", *(f"{each.values[index]:.6g}" for each in chart.series))
        for index, time in enumerate(chart.times)
    ]
    table = _table(chart.description, ("from second", *(each.label for each in chart.series)), rows)
    name = f"chart-{chart.name}"
    return _Html(
        f'<figure><div class="chart" id="{name}" role="img" aria-label="{_text(chart.description)} '
        f'The table below has the values."></div><ul class="legend" aria-hidden="true">{legend}</ul>'
        f"<figcaption>{_text(chart.description)}</figcaption></figure>"
        f"<details><summary>Values of this chart as a table</summary>{table}</details>"
    )


def _breakdown_bar(breakdown: WaitBreakdown) -> _Html:
    """A breakdown as a bar and in words."""
    shares = breakdown.shares()
    shown: list[Layer] = [layer for layer in LAYERS if shares[layer] > 0]
    bar = "".join(
        f'<div style="width:{shares[layer]:.3%};background:var(--{LAYER_COLOURS[layer]})"></div>' for layer in shown
    )
    legend = "".join(
        f'<li><span style="background:var(--{LAYER_COLOURS[layer]})"></span>{_text(LAYER_NAMES[layer])} '
        f"{breakdown.seconds()[layer]:.2f} s ({shares[layer]:.1%})</li>"
        for layer in shown
    )
    return _Html(f'<div class="share" aria-hidden="true">{bar}</div><ul class="legend">{legend}</ul>')


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> _Html:
    """A table that scrolls by itself. The first cell of a row is its head; the first `text_columns` hold words."""
    head = "".join(
        f'<th scope="col"{_words(index < text_columns)}>{_text(name)}</th>' for index, name in enumerate(heads)
    )
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td{_words(index < text_columns)}>{_text(cell)}</td>" for index, cell in enumerate(row) if index)
        + "</tr>"
        for row in rows
    )
    return _Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _words(holds_words: bool) -> str:
    return ' class="text wrap"' if holds_words else ""


def _nothing(figures: ReportFigures, sentence: str) -> _Html:
    """Says that something did not happen, which only complete events can show."""
    return _paragraph(sentence if figures.view.complete else f"{sentence[:-1]}, as far as the events show.")


def _paragraph(sentence: str) -> _Html:
    return _Html(f"<p>{_text(sentence)}</p>")


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
