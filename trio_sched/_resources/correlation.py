"""Which task is at work: the value that joins the two event streams."""

from __future__ import annotations

import attrs

from trio_sched._fast_constructor import fast_constructor

__all__ = ["RuntimeCorrelation", "make_correlation"]


@attrs.frozen(weakref_slot=False)
class RuntimeCorrelation:
    """Identity of one task execution, carried by context to everything that it causes."""

    run_id: str
    row_group: int | None
    task_column: str | None
    task_type: str | None
    scheduling_group_kind: str | None
    scheduling_group_identity_hash: str | None
    task_execution_id: str | None


make_correlation = fast_constructor(RuntimeCorrelation)
"""Makes one where it is made for every task."""
