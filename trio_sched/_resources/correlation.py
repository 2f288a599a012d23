"""Which task is at work: the value that joins the two event streams."""

from __future__ import annotations

import attrs

__all__ = ["RuntimeCorrelation"]


@attrs.frozen
class RuntimeCorrelation:
    """Identity of one task execution, carried by context to everything that it causes.

    Of what belongs to a row group, or to the run as a whole, the more specific fields are None.
    """

    run_id: str
    row_group: int | None = None
    task_column: str | None = None
    task_type: str | None = None
    scheduling_group_kind: str | None = None
    scheduling_group_identity_hash: str | None = None
    task_execution_id: str | None = None
