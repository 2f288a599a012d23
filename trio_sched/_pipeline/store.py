"""The output folder: one part file per row group, there whole or not at all.

A complete row group is written to a temporary name, flushed to the disk, renamed, and then the folder's entry is
flushed too. A crash at any moment leaves either the whole part or none; what is left of a temporary file is never read.
The names say the order: `data/part-00000.jsonl` holds row group 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from trio_sched._blocking import Blocking
from trio_sched._errors import TrioSchedError
from trio_sched._events.json_value import JsonValue
from trio_sched._pipeline.buffers import RowGroupBuffer
from trio_sched._scheduler.row_groups import RowGroup

__all__ = ["OutputExistsError", "OutputNotWritableError", "PartStore", "RunFolder", "write_durably"]


class OutputExistsError(TrioSchedError):
    """The output folder holds another run. Attributes: `path`, `run_id` (None where unknown)."""

    def __init__(self, path: Path, run_id: str | None) -> None:
        self.path = path
        self.run_id = run_id
        super().__init__(path, run_id)

    def __str__(self) -> str:
        held = f"run {self.run_id!r}" if self.run_id else "files of another run"
        return f"output {str(self.path)!r} already holds {held}; choose another folder, or move or delete this one"


class OutputNotWritableError(TrioSchedError, OSError):
    """The output folder cannot be written. Attributes: `path`, `problem`."""

    def __init__(self, path: Path, problem: OSError) -> None:
        super().__init__(problem.errno, problem.strerror, str(path))
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"output {str(self.path)!r} cannot be written: {self.problem.strerror}; choose a folder you may write to"


def write_durably(path: Path, text: str) -> None:
    """Put `text` at `path` so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.events = path / "events"
        self.run_file = path / "run.json"
        self.capacity_file = path / "capacity_plan.json"

    def create(self) -> None:
        """Make the folder, or take an empty one. Raises if it holds a run or cannot be written."""
        made: list[Path] = []
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.run_file.exists() or self.data.exists() or self.events.exists():
                raise OutputExistsError(self.path, self._held_run_id())
            for folder in (self.data, self.events):
                folder.mkdir()
                made.append(folder)
            probe = self.data / ".probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            # What is left behind would look like another run to the next attempt.
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
            raise OutputNotWritableError(self.path, error) from error

    def part(self, row_group: int) -> Path:
        """The part file of a row group."""
        return self.data / f"part-{row_group:05d}.jsonl"

    def parts(self) -> list[Path]:
        """The part files there are, in order."""
        return sorted(self.data.glob("part-*.jsonl"), key=lambda part: int(part.stem.removeprefix("part-")))

    def rows(self) -> Iterator[dict[str, JsonValue]]:
        """The rows that are durable, in order, read one at a time."""
        for part in self.parts():
            with part.open(encoding="utf-8") as lines:
                for line in lines:
                    yield cast("dict[str, JsonValue]", json.loads(line))

    def write_json(self, path: Path, value: Mapping[str, JsonValue]) -> None:
        """Write one of the run's JSON documents. Raises `OutputNotWritableError`."""
        try:
            write_durably(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputNotWritableError(path, error) from error

    def _held_run_id(self) -> str | None:
        try:
            held: object = json.loads(self.run_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        run_id = cast("dict[str, object]", held).get("run_id") if isinstance(held, dict) else None
        return run_id if isinstance(run_id, str) else None


class PartStore:
    """The buffers of the open row groups, and where they go; a `RowGroupStore`."""

    def __init__(self, folder: RunFolder, columns: Sequence[str], *, blocking: Blocking) -> None:
        self._folder = folder
        self._columns = columns
        self._blocking = blocking
        self._open: dict[int, tuple[RowGroup, RowGroupBuffer]] = {}

    def open(self, row_group: RowGroup) -> None:
        """Make room for a row group that was admitted."""
        self._open[row_group.index] = (row_group, RowGroupBuffer(self._columns, row_group.size))

    def row_group(self, index: int) -> RowGroup:
        """An open row group."""
        return self._open[index][0]

    def buffer(self, index: int) -> RowGroupBuffer:
        """The cells of an open row group."""
        return self._open[index][1]

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        """Write the part file and forget the row group's cells. Raises `OutputNotWritableError`."""
        _, buffer = self._open.pop(row_group.index)
        path = self._folder.part(row_group.index)
        try:
            await self._blocking(lambda: write_durably(path, buffer.lines(living_rows)))
        except OSError as error:
            raise OutputNotWritableError(path, error) from error
