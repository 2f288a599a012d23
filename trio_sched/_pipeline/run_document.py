"""`run.json`: what a run is and how it stands.

Written when the run begins and when it ends. A run that was killed never came to the second, so its document still says
`running`; whether it does run is what the folder's lock tells.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import attrs
import trio

from trio_sched._capacity import plain
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.durable_parts import EarlierRows
from trio_sched._pipeline.fingerprint import DatasetIdentity
from trio_sched._pipeline.folder import RunFolder
from trio_sched._version import __version__

__all__ = ["RunDocument"]

_SCHEMA_VERSION = 2


class RunDocument:
    """Writes the document of one attempt."""

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        columns: Sequence[str],
        identity: DatasetIdentity,
        *,
        resumed_from: Mapping[str, JsonValue] | None,
        earlier: EarlierRows,
    ) -> None:
        self.run_id = secrets.token_hex(8)
        self._folder = folder
        self._document: dict[str, JsonValue] = {
            "schema_version": _SCHEMA_VERSION,
            "run_id": self.run_id,
            "status": "running",
            "started_at": _now(),
            "ended_at": None,
            "process": {"pid": os.getpid(), "host": platform.node()},
            "fingerprint": identity.fingerprint,
            "dataset": dict(identity.facts),
            "config": plain(config),
            "columns": list(columns),
            "versions": {
                "trio_sched": __version__,
                "trio": trio.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
            },
            "resumed_from": None,
        }
        if resumed_from is not None:
            self._document["resumed_from"] = {
                "run_id": resumed_from["run_id"],
                # It does not run any more: this attempt holds the lock.
                "status": "killed" if resumed_from["status"] == "running" else resumed_from["status"],
                **attrs.asdict(earlier),
            }

    def write_start(self) -> None:
        """Say that the run runs. Raises `OutputNotWritableError`."""
        self._folder.write_json(self._folder.run_file, self._document)

    def write_end(self, status: str, **facts: JsonValue) -> None:
        """Say how it ended. Raises `OutputNotWritableError`."""
        self._document.update({"status": status, "ended_at": _now(), **facts})
        self._folder.write_json(self._folder.run_file, self._document)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
