"""Which task is at work: the value that joins the two event streams."""

from __future__ import annotations

import attrs

__all__ = ["RuntimeCorrelation"]


@attrs.frozen(slots=False)  # as it is made twice as fast so, and made for every task
class RuntimeCorrelation:
    """Identity of one task execution, carried by context to everything that it causes."""

    run_id: str
    row_group: int | None
    task_column: str | None
    task_type: str | None
    scheduling_group_kind: str | None
    scheduling_group_identity_hash: str | None
    task_execution_id: str | None
