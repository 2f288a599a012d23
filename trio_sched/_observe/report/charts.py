"""The report's charts as data for the charting library, each with a table of the same values and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._observe.report.figures import EndpointFigures, ReportFigures
from trio_sched._observe.waits import LAYERS, Layer

__all__ = [
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "Chart",
    "Series",
    "endpoint_chart",
    "limits_chart",
    "rows_chart",
    "throughput_chart",
]

LAYER_COLOURS: Final[dict[Layer, str]] = {
    "readiness": "grey",
    "fairness": "pink",
    "task_admission": "yellow",
    "request_admission": "blue",
    "cooldown": "orange",
    "provider": "green",
    "completion": "sky",
}

LAYER_NAMES: Final[dict[Layer, str]] = {layer: layer.replace("_", " ") for layer in LAYERS}

_PROBE_HEIGHT: Final = 0.93
_TRIAL_HEIGHT: Final = 0.98


@attrs.frozen
class Series:
    """One line of a chart. shaded: filled below. stacked: drawn on top of the series after it. share: from 0 to 1.

    mark: where along the height a dot is drawn for each bin in which something happened; such a series has no line.
    """

    label: str
    colour: str
    values: Sequence[float]
    shaded: bool = False
    stacked: bool = False
    dashed: bool = False
    share: bool = False
    mark: float | None = None


@attrs.frozen
class Chart:
    """A chart over the run's time. `series` are in the order of the legend. `percent`: all values are shares."""

    name: str
    description: str
    times: Sequence[float]
    series: Sequence[Series]
    percent: bool = False

    def data(self) -> JsonValue:
        """What the page's script draws. Each mean holds for its whole bin, so the last is repeated at the end."""
        series: list[JsonValue] = []
        for each, values in zip(self.series, self._drawn_values(), strict=True):
            series.append(
                {
                    "label": each.label,
                    "colour": each.colour,
                    "values": [round(value, 4) for value in values],
                    "shaded": each.shaded,
                    "stacked": each.stacked,
                    "dashed": each.dashed,
                    "scale": "share" if each.share or each.mark is not None else "y",
                    "mark": each.mark,
                }
            )
        return {
            "times": [round(time, 4) for time in self.times],
            "series": series,
            "percent": self.percent,
            "top": 1 if self.percent else None,
        }

    def _drawn_values(self) -> list[Sequence[float]]:
        """Stacked series as running sums, the highest first, so that each lower one is painted over it."""
        if not any(each.stacked for each in self.series):
            return [each.values for each in self.series]
        drawn: list[Sequence[float]] = []
        for index in range(len(self.series)):
            rest = self.series[index:]
            drawn.append([min(1.0, sum(values)) for values in zip(*(each.values for each in rest), strict=True)])
        return drawn


def throughput_chart(figures: ReportFigures) -> Chart:
    """Tasks and answers a second."""
    bins = range(len(figures.times))
    answers = [sum(each.answered[index] for each in figures.endpoints) for index in bins]
    refusals = [sum(each.refused[index] for each in figures.endpoints) for index in bins]
    return Chart(
        "throughput",
        "Tasks finished, requests answered, and requests refused by rate limits, each second.",
        figures.times,
        [
            Series("tasks", "grey", figures.tasks_per_second, shaded=True),
            Series("requests answered", "green", answers),
            Series("requests refused", "orange", refusals),
        ],
    )


def rows_chart(figures: ReportFigures) -> Chart:
    """Durable rows so far."""
    widths = [later - earlier for earlier, later in pairwise((*figures.times, figures.view.wall_seconds))]
    made = [rate * width for rate, width in zip(figures.rows_per_second, widths, strict=True)]
    return Chart(
        "rows",
        "Durable rows so far; they come a row group at a time.",
        figures.times,
        [Series("durable rows", "blue", [round(rows) for rows in accumulate(made)], shaded=True)],
    )


def endpoint_chart(figures: ReportFigures, endpoint: EndpointFigures, number: int) -> Chart:
    """Limit, requests in flight and waiting ones of one request resource, and what its limit went through.

    Outages, trial calls and refused probes are left out where there were none.
    """
    series = [Series("stopped", "orange", endpoint.stopped, shaded=True, share=True)]
    if endpoint.statistics.outages:
        series.append(Series("outage", "pink", endpoint.outage, shaded=True, share=True))
    series += [
        Series("limit", "blue", endpoint.limit),
        Series("in flight", "green", endpoint.in_flight),
        Series("waiting", "grey", endpoint.waiting, dashed=True),
    ]
    if endpoint.statistics.probes_refused:
        series.append(Series("asked for more and refused", "yellow", endpoint.probes_refused, mark=_PROBE_HEIGHT))
    if endpoint.statistics.trials:
        series.append(Series("trial calls", "sky", endpoint.trials, mark=_TRIAL_HEIGHT))
    return Chart(
        f"endpoint-{number}",
        f"Limit, requests in flight, waiting requests and stops of {endpoint.resource}.",
        figures.times,
        series,
    )


def limits_chart(figures: ReportFigures) -> Chart:
    """Which layer limited progress, over time."""
    timeline = figures.view.timeline
    start = figures.view.started_at
    shares = [stretch.limited_by.shares() for stretch in timeline]
    return Chart(
        "limits",
        "The share of each stretch of time in which a layer limited progress; all layers together make the whole.",
        [stretch.started_at - start for stretch in timeline],
        [
            Series(LAYER_NAMES[layer], LAYER_COLOURS[layer], [share[layer] for share in shares], stacked=True)
            for layer in LAYERS
        ],
        percent=True,
    )
