"""The import of Trio, which this project cannot do without."""

from __future__ import annotations

from benchmarks.workloads import imports
from benchmarks.workloads.outcome import Params, Run

__all__ = ["prepare"]


def prepare(params: Params) -> Run:
    """The import of Trio."""
    return imports.prepare({**params, "imported": "trio"})
