"""The output folder: which file is where.

    run.json             what the run is and how it stands
    run.lock, run.pid    held while a run writes here
    data/                one part per row group: the dataset
    dropped/             for each part that lacks rows, which
    capacity_plan.json   limits, and what was used of them
    events/              both event streams of the latest attempt
    attempts/1/, 2/...   documents and events of the attempts before

Only `data/` and `dropped/` say how far a run has come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

from trio_sched._events.records import JsonValue
from trio_sched._pipeline.durable import TEMPORARY_SUFFIX, flush_folder, make_folder, write_durably
from trio_sched._pipeline.output_errors import OutputExistsError, OutputNotWritableError
from trio_sched._pipeline.parquet import ParquetParts
from trio_sched._pipeline.parts import JsonlParts, PartFormat, PartFormatName

__all__ = ["RunFolder", "open_part_format"]

_FORMATS: Mapping[PartFormatName, Callable[[], PartFormat]] = {"jsonl": JsonlParts, "parquet": ParquetParts}

_NUMBER = r"(\d{5}|[1-9]\d{5,})"
_PART = re.compile(rf"part-{_NUMBER}\.({'|'.join(_FORMATS)})")
_DROPPED = re.compile(rf"part-{_NUMBER}\.json")
_TEMPORARY_DOCUMENTS = {"probe", "run.json", "capacity_plan.json"}
_OF_AN_ATTEMPT = ("events", "capacity_plan.json", "report.html", "trace.json")


def open_part_format(name: PartFormatName) -> PartFormat:
    """A reader and writer of parts of this format. Raises `MissingExtraError` where its extra is not installed."""
    return _FORMATS[name]()


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.dropped = path / "dropped"
        self.events = path / "events"
        self.attempts = path / "attempts"
        self.run_file = path / "run.json"
        self.capacity_file = path / "capacity_plan.json"

    def is_free(self) -> bool:
        """Whether nothing here is, or could be taken for, a run's. Raises `OSError`."""
        if self.run_file.exists():
            return False
        return not any(
            file
            for folder in (self.data, self.dropped, self.events, self.attempts)
            if folder.exists()
            for file in folder.iterdir()
            if file.suffix != TEMPORARY_SUFFIX
        )

    def make(self) -> None:
        """Make the folders that are not there, and see that parts can be written. Raises `OSError`."""
        for folder in (self.path, self.data, self.events):
            make_folder(folder)
        probe = self.data / f"probe{TEMPORARY_SUFFIX}"
        probe.touch()
        probe.unlink()

    def part(self, row_group: int, format_name: PartFormatName) -> Path:
        """The part file of a row group."""
        return self.data / f"part-{row_group:05d}.{format_name}"

    def dropped_file(self, row_group: int) -> Path:
        """The list of the rows that a row group's part lacks."""
        return self.dropped / f"part-{row_group:05d}.json"

    def parts(self) -> list[tuple[int, PartFormatName]]:
        """The row groups that have a part file, in order, each with the format."""
        found: list[tuple[int, PartFormatName]] = []
        for path in _files(self.data):
            match = _PART.fullmatch(path.name)
            if match is not None:
                found.append((int(match[1]), cast("PartFormatName", match[2])))
        return sorted(found)

    def dropped_files(self) -> Iterator[tuple[int, Path]]:
        """The lists of missing rows there are, with their row groups."""
        for path in _files(self.dropped):
            match = _DROPPED.fullmatch(path.name)
            if match is not None:
                yield int(match[1]), path

    def rows(self) -> Iterator[dict[str, JsonValue]]:
        """The rows that are durable, in order, read one at a time."""
        for part_format, part in self._part_files():
            yield from part_format.read(part)

    def canonical_text(self) -> Iterator[bytes]:
        """The canonical lines of the durable rows in order, in chunks of any size."""
        for part_format, part in self._part_files():
            yield from part_format.canonical_text(part)

    def write_json(self, path: Path, value: Mapping[str, JsonValue]) -> None:
        """Write one of the run's JSON documents. Raises `OutputNotWritableError`."""
        try:
            write_durably(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise OutputNotWritableError(path, error) from error

    def read_run_document(self) -> Mapping[str, JsonValue] | None:
        """What `run.json` says; None where there is none. Raises `OutputExistsError` for one that is no run's."""
        try:
            document: object = json.loads(self.run_file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputNotWritableError(self.run_file, error) from error
        except ValueError as error:
            raise OutputExistsError(self.path, None) from error
        if not isinstance(document, dict):
            raise OutputExistsError(self.path, None)
        known = cast("dict[str, JsonValue]", document)
        if not all(isinstance(known.get(key), str) for key in ("run_id", "status", "fingerprint")):
            raise OutputExistsError(self.path, None)
        return known

    def remove_leftovers(self) -> None:
        """Remove what a crash left half written, and lists of missing rows without their part. Raises `OSError`."""
        for folder in (self.path, self.data, self.dropped, *_files(self.attempts)):
            for path in _files(folder):
                if path.suffix == TEMPORARY_SUFFIX and _is_ours(path):
                    path.unlink()
        durable = {row_group for row_group, _ in self.parts()}
        for row_group, path in self.dropped_files():
            if row_group not in durable:
                path.unlink()
        if self.dropped.exists():
            flush_folder(self.dropped)

    def set_attempt_aside(self) -> None:
        """Keep what the attempt before wrote, other than data, in a folder of `attempts/`. Raises `OSError`.

        An attempt that ended before its `run.json` may have moved some of it already; the rest is put beside that.
        """
        document = self.run_file.read_bytes()
        aside = self._last_aside()
        if aside is None or not _holds(aside / self.run_file.name, document):
            aside = self.attempts / str(int(aside.name) + 1 if aside is not None else 1)
            make_folder(aside)
            write_durably(aside / self.run_file.name, document)
        for name in _OF_AN_ATTEMPT:
            if (self.path / name).exists() and not (aside / name).exists():
                (self.path / name).rename(aside / name)
        flush_folder(self.path)

    def _last_aside(self) -> Path | None:
        numbers = [int(path.name) for path in _files(self.attempts) if path.name.isdecimal()]
        return self.attempts / str(max(numbers)) if numbers else None

    def _part_files(self) -> Iterator[tuple[PartFormat, Path]]:
        formats: dict[PartFormatName, PartFormat] = {}
        for row_group, name in self.parts():
            if name not in formats:
                formats[name] = open_part_format(name)
            yield formats[name], self.part(row_group, name)


def _files(folder: Path) -> Iterator[Path]:
    if folder.exists():
        yield from folder.iterdir()


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _is_ours(temporary: Path) -> bool:
    name = temporary.name.removesuffix(TEMPORARY_SUFFIX)
    return name in _TEMPORARY_DOCUMENTS or bool(_PART.fullmatch(name) or _DROPPED.fullmatch(name))
