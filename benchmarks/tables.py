"""Tables of documents, made from the committed artifacts: `python -m benchmarks tables`.

A document says where a table belongs:

    <!-- table: steps -->
    ...
    <!-- end of table -->

and what lies between is replaced. Names of tables are the keys of `TABLES`. A test compares every document of
`DOCUMENTS` with what its tables would be, so that no figure is ever copied by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.artifact import Artifact, BudgetVerdict, read_artifact
from benchmarks.budgets import BUDGETS, Budget, Quantity, Side
from benchmarks.control import artifact as control
from benchmarks.control import report as control_report
from benchmarks.control.charts import draw as draw_control
from benchmarks.environments import ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.race import artifact as race
from benchmarks.race import report as race_report
from benchmarks.reports import draw_charts, report
from benchmarks.scenarios import ALL
from benchmarks.summary import plain, table

__all__ = ["DOCUMENTS", "RESULTS", "TABLES", "Results", "fill", "made_from", "make_again"]

RESULTS: Final = ROOT / "benchmarks" / "results"
DOCUMENTS: Final = tuple(
    ROOT / name
    for name in ("docs/benchmarks.md", "plans/benchmark-plan.md", "plans/request-admission-defaults.md", "README.md")
)
BLOCK: Final = re.compile(r"<!-- table: (?P<name>[^\n]*?) -->\n.*?<!-- end of table -->", re.DOTALL)
SHORT: Final = 8
"""Digits of a commit."""
SIDES: Final[tuple[Side, ...]] = ("peer", "floor", "candidate")
VERDICTS: Final = {"shown": "met", "refuted": "**missed**", "inconclusive": "inconclusive"}

SIMULATED: Final = (
    ("heavy_root", "heavy root", "first_record_seconds", "first record, s"),
    ("heavy_root", "heavy root", "half_of_records_seconds", "half of the records, s"),
    ("heavy_root", "heavy root", "row_completion_p95_seconds", "record (p95), s"),
    ("heavy_root", "heavy root", "ready_to_lease_gap_p95_us", "ready to dispatched (p95), s"),
    (
        "heavy_root",
        "heavy root",
        "root_over_admission_while_others_wait",
        "units of the root above its share while others were queued",
    ),
    *(
        ("end_to_end", str(point["pipeline"]), "simulated_seconds", "all records, s")
        for point in ALL["end_to_end"].budget_points
    ),
    ("hidden_waiters", "salvage", "rows_lost", "rows lost"),
)
"""Scenario, pipeline, metric or count, and what it is called."""


@attrs.frozen
class Results:
    """A folder of artifacts."""

    folder: Path

    def artifact(self, scenario_id: str) -> Artifact | None:
        """That of a scenario, or None where there is none."""
        path = self.folder / f"{scenario_id}-budgets.json"
        return read_artifact(path) if path.exists() else None

    def artifacts(self) -> Iterator[Artifact]:
        """Those of all scenarios, in their order."""
        for scenario_id in ALL:
            found = self.artifact(scenario_id)
            if found is not None:
                yield found

    def control(self) -> control.ControlArtifact:
        """That of family 7."""
        return control.read(self.folder / "control" / "control.json")

    def race(self) -> race.RaceArtifact:
        """That of the race."""
        return race.read(self.folder / "race" / "race.json")


def made_from(results: Results, documents: Sequence[Path], *, plots: bool) -> dict[Path, str]:
    """Every text that is made from the artifacts: what lies beside them, and the documents with their tables."""
    texts: dict[Path, str] = {}
    for path in sorted(results.folder.glob("*.json")):
        texts |= report(path, plots=plots)
    for path in sorted((results.folder / "control").glob("*.json")):
        texts |= control_report.report(path)
    for path in sorted((results.folder / "race").glob("*.json")):
        texts |= race_report.report(path)
    return texts | {document: fill(document.read_text(encoding="utf-8"), results) for document in documents}


def make_again(results: Results, documents: Sequence[Path], *, plots: bool) -> list[Path]:
    """Write those texts, and the charts; which texts changed."""
    if plots:
        for path in sorted(results.folder.glob("*.json")):
            draw_charts(path)
        if (results.folder / "control").exists():
            draw_control(results.control(), results.folder / "control")
    texts = made_from(results, documents, plots=plots)
    changed = [path for path, text in texts.items() if not path.exists() or path.read_bytes() != text.encode()]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8", newline="")
    return changed


def fill(text: str, results: Results) -> str:
    """A document with its tables made anew."""

    def made(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in TABLES:
            raise BenchmarkError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
        return f"<!-- table: {name} -->\n\n{TABLES[name](results).strip()}\n\n<!-- end of table -->"

    return BLOCK.sub(made, text)


def _steps(results: Results) -> str:
    """Every binding budget, and those lines that only orient and have no binding one beside them."""
    shown = [quantity for each in BUDGETS if each.binding for quantity in (each.quantity, each.per)]
    lines = [each for each in BUDGETS if each.binding or each.quantity not in shown]
    rows: list[list[str]] = []
    for artifact in results.artifacts():
        verdicts = {each.budget_id: each for each in artifact.derived_metrics.budgets}
        rows += [
            _step(artifact, each, verdicts[each.budget_id])
            for each in lines
            if each.measured_by == artifact.scenario_id and each.budget_id in verdicts
        ]
    return table(["step", "peer", "floor", "ours", "measured", "budget", ""], rows, words=1)


def _step(artifact: Artifact, budget: Budget, verdict: BudgetVerdict) -> list[str]:
    unit = ", µs" if budget.per is not None and budget.quantity.metric.endswith("_us") else ""
    found = "" if verdict.value is None else f"{plain(verdict.value)} {budget.unit}"
    word = verdict.note if verdict.verdict is None else VERDICTS[verdict.verdict]
    sides = [_side(artifact, budget, side) for side in SIDES]
    return [budget.step + unit, *sides, found, verdict.claim, word if budget.binding else f"{word}, orients"]


def _side(artifact: Artifact, budget: Budget, side: Side) -> str:
    """The means of what a side has in the line; the floor and the peer also where the line compares with another."""
    if budget.per is None:
        return ""
    quantities = (budget.quantity, budget.per)
    own = [each for each in quantities if each.side == side]
    if not own and any(each.side != "candidate" for each in quantities):
        own = [attrs.evolve(each, side=side) for each in quantities]
    means = list(filter(None, (_mean(artifact, each) for each in own)))
    return " / ".join(means if side == "candidate" else means[:1])


def _mean(artifact: Artifact, quantity: Quantity) -> str:
    name = artifact.inputs["candidate"] if quantity.side == "candidate" else quantity.side
    for each in artifact.derived_metrics.summaries:
        if (each.candidate, each.metric) == (name, quantity.metric) and each.point == quantity.point:
            return plain(each.figures.mean)
    return ""


def _simulated(results: Results) -> str:
    """Whole pipelines on a simulated clock: `ahead` is the peer's figure over ours."""
    rows: list[list[str]] = []
    for scenario_id, pipeline, metric, title in SIMULATED:
        artifact = results.artifact(scenario_id)
        if artifact is None:
            continue
        names = ("peer", "floor", str(artifact.inputs["candidate"]))
        peer, floor, ours = (_repeated(artifact, name, pipeline, metric) for name in names)
        ahead = f"{peer / ours:.2f} ×" if peer and ours else ""
        digits = 1 if title.endswith(", s") else 0
        shown = ("" if each is None else f"{each:,.{digits}f}" for each in (peer, floor, ours))
        rows.append([pipeline, title, *shown, ahead])
    return table(["pipeline", "", "peer", "floor", "ours", "ahead"], rows, words=2)


def _repeated(artifact: Artifact, name: str, pipeline: str, metric: str) -> float | None:
    """What is the same in every iteration."""
    for each in artifact.iterations:
        if (each.candidate, dict(each.point)) == (name, {"pipeline": pipeline}):
            found = each.metrics.get(metric, each.counts.get(metric))
            return found if found is None or not metric.endswith("_us") else found / 1e6
    return None


def _artifacts(results: Results) -> str:
    """Which commit each artifact was measured at, how often, and how steady the machine was."""
    rows = [
        [
            each.scenario_id,
            each.candidate_sha[:SHORT],
            str(each.inputs["iterations"]),
            "" if each.derived_metrics.noise is None else each.derived_metrics.noise.note,
        ]
        for each in results.artifacts()
    ]
    rows.append(["control", results.control().candidate_sha[:SHORT], "5 seeds, 1 of the others", "simulated time"])
    run = results.race()
    noise = run.derived_metrics.noise
    rows.append(
        ["race", str(run.candidate_sha)[:SHORT], str(run.inputs["rounds"]), "" if noise is None else noise.note]
    )
    return table(["scenario", "commit", "iterations", "noise"], rows, words=4)


def _includes(results: Results) -> str:
    """A page's includes of every summary."""
    names = [f"{each.scenario_id}-budgets.md" for each in results.artifacts()]
    return "\n\n".join(
        f"```{{include}} ../benchmarks/results/{name}\n:heading-offset: 2\n:relative-images:\n```"
        for name in (*names, "control/summary.md", "race/summary.md")
    )


TABLES: Final[Mapping[str, Callable[[Results], str]]] = {
    "steps": _steps,
    "simulated pipelines": _simulated,
    "control": lambda results: control_report.acceptance_table(results.control()),
    "control: who": lambda results: control_report.candidates_table(results.control()),
    "race": lambda results: race_report.results(results.race(), depth=3),
    "race: short": lambda results: race_report.short(results.race()),
    "race: required": lambda results: race_report.acceptance(results.race()),
    "artifacts": _artifacts,
    "summaries": _includes,
}
