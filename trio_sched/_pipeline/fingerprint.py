"""What makes two runs the same run: everything their data depend on, and nothing else, as one hash."""

from __future__ import annotations

import hashlib
import json

from trio_sched._pipeline.binding import BoundPipeline
from trio_sched._pipeline.config import RunConfig

__all__ = ["fingerprint"]


def fingerprint(pipeline: BoundPipeline, config: RunConfig, source: str | None, records: int | None) -> str:
    """SHA-256 over the columns, what they need and call, the rows' source, the number of records, sizes and seed.

    A function's code is not part of it: how a column is made may be mended between two attempts at one dataset.
    """
    facts = {
        "columns": [
            [
                column.node.column,
                column.node.task_type,
                list(column.node.needs),
                list(column.node.outputs),
                [str(model) for model in column.models],
            ]
            for column in pipeline.columns.values()
        ],
        "source": source,
        "records": records,
        "buffer_size": config.buffer_size,
        "seed": config.seed,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
