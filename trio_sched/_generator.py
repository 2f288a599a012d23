"""The base of everything that makes columns: it says what static kind of work that is."""

from __future__ import annotations

from trio_sched.metadata import SchedulingMetadata

__all__ = ["ColumnGenerator"]


class ColumnGenerator:
    """Makes one or more columns. Subclasses add how; the scheduler only needs to know what kind of work it is."""

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Static metadata: the same at every call, known before the run. The default is plain local work."""
        return SchedulingMetadata.local()
