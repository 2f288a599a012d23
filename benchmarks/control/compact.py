"""One line for each scenario, for whoever works on a rule: mean over the seeds, worst seed in brackets."""

from __future__ import annotations

import math
from collections.abc import Mapping

from benchmarks.control.acceptance import Summary, Verdict

__all__ = ["compact_line", "shown"]

NAMES = {"utilisation": "", "refused": "ref", "recovery": "rt", "trials": "trials", "jain": "J", "timeouts": "to"}
PERCENT = frozenset({"refused", "timeouts", "lost", "neighbour"})


def shown(measure: str, value: float) -> str:
    """A measure as people read it."""
    if math.isinf(value):
        return "never"
    if measure in PERCENT:
        return f"{100 * value:.2f} %"
    if measure == "recovery":
        return f"{value:.1f}"
    return f"{value:.2f}" if measure == "trials" else f"{value:.3f}"


def compact_line(name: str, summary: Mapping[str, Summary], verdict: Verdict, width: int) -> str:
    """The line of one scenario."""
    cells = [
        f"{NAMES.get(measure, measure)} {shown(measure, each.mean)} ({shown(measure, each.worst)})".strip()
        for measure, each in summary.items()
    ]
    mark = {"kept": "", "reported": "", "on average": "  on average", "missed": "  MISSED"}[verdict]
    return f"{name:<{width}} | {' | '.join(cells)}{mark}"
