"""The tables of family 9, made from its artifact."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.race.artifact import Point, RaceArtifact, RaceIteration, read
from benchmarks.race.racers import RACERS
from benchmarks.summary import plain, table

__all__ = ["acceptance", "report", "results", "short", "summary"]

VERDICTS: Final = {"shown": "met", "refuted": "**missed**", "inconclusive": "inconclusive"}
LEGEND: Final = """\
The mean over the rounds, and each round where it is not the same. Utilisation is the share of the calls at once that
the provider allowed and that were under way, from the tenth round trip to the last but one; refused is the share of all
attempts. Rows a second count finished rows alone; a row is lost when its client gave it up. Processor time and memory
are the client's, imports only in the memory. A client that did not come to its end has a mark, and its unfinished rows
are lost.
"""


def report(path: Path) -> dict[Path, str]:
    """The text files that belong to the artifact in `path`."""
    artifact = read(path)
    return {path.with_suffix(".csv"): _csv(artifact), path.with_name("summary.md"): summary(artifact)}


def summary(artifact: RaceArtifact) -> str:
    """Who ran, the results at every point, and the lines of acceptance."""
    said, machine = artifact.inputs, artifact.environment.machine
    noise = artifact.derived_metrics.noise
    late = max(each.provider.late_seconds for each in artifact.iterations)
    share = max(each.provider.processor_share for each in artifact.iterations)
    parts = [
        "# Benchmark race: real clients over real HTTP\n",
        "\n".join(
            [
                f"- machine: {machine['processor']}, {machine['processors']} processors",
                f"- workload: {said['rows']:,} rows × 2 calls, the second needs the first",
                *(f"- provider, {name}: {_script(artifact, name)}" for name in artifact.provider_script),
                f"- the provider alone: {artifact.provider_rate:,.0f} requests a second",
                f"- the provider in the race: at most {share:.0%} busy, 99 of 100 answers at most {late:.4f} s late",
                f"- rounds: {said['rounds']}, interleaved",
                f"- command: `{' '.join(artifact.environment.command_line)}`",
                *([f"- noise: {noise.note}"] if noise is not None else []),
            ]
        )
        + "\n",
        _who(artifact) + "\n",
        results(artifact, depth=2) + "\n",
        LEGEND,
        "## What is required\n",
        acceptance(artifact) + "\n",
    ]
    return "\n".join(parts)


def results(artifact: RaceArtifact, *, depth: int) -> str:
    """One table for every point."""
    heads = ["client", "utilisation", "refused", "rows lost", "rows a second", "wall, s", "processor, s", "memory, MB"]
    parts: list[str] = []
    for point in artifact.points():
        rows = [_line(name, found) for name in artifact.candidate_shas if (found := artifact.of(name, point))]
        parts += [f"{'#' * depth} {_titled(point)}", table(heads, rows, words=1)]
    return "\n\n".join(parts)


def short(artifact: RaceArtifact) -> str:
    """The means of every client at every point, a line for each client."""
    points = artifact.points()
    heads = ["client"]
    for hint, cap in points:
        heads += [f"cap {cap}, hint {hint:g} s: used", "refused", "rows lost", "rows a second"]
    rows: list[list[str]] = []
    for name in artifact.candidate_shas:
        cells = [name]
        for point in points:
            rounds = artifact.of(name, point)
            cells += [
                _mean_of([each.provider.utilisation for each in rounds], ".2f"),
                _mean_of([each.refused_share for each in rounds], ".0%"),
                _mean_of([each.rows_lost for each in rounds], ".0f"),
                _mean_of([each.rows_per_second for each in rounds], ".1f"),
            ]
        rows.append(cells)
    return table(heads, rows, words=1)


def _mean_of(values: Sequence[float], form: str) -> str:
    return format(sum(values) / len(values), form) if values else "not run"


def acceptance(artifact: RaceArtifact) -> str:
    """Every line at every point where it binds, with what was measured."""
    rows = [
        [
            each.candidate,
            _titled((each.hint_seconds, each.cap)),
            each.line,
            f"{each.value:.3f}",
            VERDICTS[each.verdict],
        ]
        for each in artifact.derived_metrics.verdicts
    ]
    return table(["client", "provider", "line", "measured", ""], rows, words=3)


def _titled(point: Point) -> str:
    return f"hint {point[0]:g} s, cap {point[1]}"


def _script(artifact: RaceArtifact, name: str) -> str:
    script = artifact.provider_script[name]
    phases = script["phases"]
    assert isinstance(phases, list)
    spans = [f"{allowed} calls at once for {seconds:g} s" for seconds, allowed in phases[:-1]]
    return f"calls of {script['call_seconds']} s; {', then '.join(spans)}, then {phases[-1][1]}; 429 above"


def _who(artifact: RaceArtifact) -> str:
    rows: list[list[str]] = []
    for name, sha in artifact.candidate_shas.items():
        runtime: Mapping[str, object] = artifact.environment.runtimes.get(name, {})
        versions = ", ".join(f"{package} {version}" for package, version in runtime.items())
        rows.append([name, RACERS[name.partition(" at ")[0]].what, sha, versions])
    return table(["client", "what it is", "measured", "with"], rows, words=4)


def _line(name: str, rounds: Sequence[RaceIteration]) -> list[str]:
    faults = sorted({each.fault for each in rounds if each.fault is not None})
    return [
        f"{name} ({'; '.join(faults)})" if faults else name,
        _each([each.provider.utilisation for each in rounds], lambda value: f"{value:.3f}"),
        _each([each.refused_share for each in rounds], lambda value: f"{value:.1%}"),
        _each([each.rows_lost for each in rounds], plain_count),
        _each([each.rows_per_second for each in rounds], lambda value: f"{value:.1f}"),
        _mean([each.wall_seconds for each in rounds]),
        _mean([each.processor_seconds for each in rounds if each.processor_seconds is not None]),
        _mean([each.peak_memory_megabytes for each in rounds if each.peak_memory_megabytes is not None]),
    ]


def plain_count(value: float) -> str:
    """A mean of counts."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _each(values: Sequence[float], shown: Callable[[float], str]) -> str:
    mean = shown(sum(values) / len(values))
    single = [shown(value) for value in values]
    return mean if set(single) == {mean} else f"{mean} ({', '.join(single)})"


def _mean(values: Sequence[float]) -> str:
    return plain(sum(values) / len(values)) if values else ""


def _csv(artifact: RaceArtifact) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    head = ["candidate", "hint_seconds", "cap", "round", "fault", "rows_finished", "refused_share", "rows_per_second"]
    own = ["rows_lost", "wall_seconds", "processor_seconds", "peak_memory_megabytes", "load", "calibration_seconds"]
    seen = list(asdict(artifact.iterations[0].provider))
    lines.writerow([*head, *own, *(f"provider_{name}" for name in seen)])
    for each in artifact.iterations:
        lines.writerow(
            [
                *(each.candidate, each.hint_seconds, each.cap, each.index, each.fault or "", each.rows_finished),
                *(f"{value:.6g}" for value in (each.refused_share, each.rows_per_second)),
                *("" if (value := getattr(each, name)) is None else value for name in own),
                *asdict(each.provider).values(),
            ]
        )
    return text.getvalue()
