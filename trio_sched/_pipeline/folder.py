"""The output folder: which file is where, who may write to it, and how a file gets there.

    run.json             what the run is and its status
    run.lock, run.pid    held while a run writes here
    data/                one part per row group: the dataset
    dropped/             for each part that lacks rows, which
    capacity_plan.json   limits, and what was used of them
    events/              the events of the latest attempt, or a summary of them
    attempts/1/, 2/...   documents and events of the attempts before

Only `data/` and `dropped/` say how far a run has come.

Every document and part is there whole or not at all, also after a crash. The content goes to a temporary name, is
flushed to the disk, and only then gets its name; the folder's entry is flushed last. A temporary file that a crash left
over is never read, and the next attempt removes it.

One run at a time writes to a folder. The lock is the operating system's, on the open file `run.lock` (flock on POSIX,
msvcrt on Windows, through `filelock`), so it ends with the process that holds it, however that process dies. Children
that the process forks close their copy of the descriptor and do not keep the lock. The file is empty and is never
deleted: deleting it would let two runs lock two files of one name. `run.pid` names the holder, for the error message
only.

`run.json` is written when the run begins and when it ends. A run that was killed did not write it again, so it still
says `running`; only the lock shows whether it does run. *The last word* must be possible on a disk that is full and in
a process that may open no further file. So it is written first: while the run goes on, an open file beside `run.json`
holds the document of a run that failed, with room to spare. The true end goes into it, and it gets its name. Where even
that is refused, it gets its name as it is.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import cast, get_args

import attrs
import trio
from filelock import FileLock, Timeout

from trio_sched._capacity import plain
from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.errors import OutputExistsError, OutputInUseError, OutputNotWritableError
from trio_sched._pipeline.fingerprint import DatasetIdentity
from trio_sched._pipeline.parts import PartFormat, PartFormatName, open_part_format
from trio_sched._util import lacks_open_files, parse_json
from trio_sched._version import __version__

__all__ = [
    "TEMPORARY_SUFFIX",
    "EarlierRows",
    "RunDocument",
    "RunFolder",
    "flush_folder",
    "hold_run_lock",
    "make_folder",
    "open_run_folder",
    "write_durably",
]

_NUMBER = r"(\d{5}|[1-9]\d{5,})"
_PART = re.compile(rf"part-{_NUMBER}\.({'|'.join(get_args(PartFormatName))})")
_DROPPED = re.compile(rf"part-{_NUMBER}\.json")
_LAST_WORD = "run-end.json"
_TEMPORARY_DOCUMENTS = {"probe", "run.json", "capacity_plan.json", _LAST_WORD}
_ROOM_FOR_THE_END = 4096
"""Bytes that the document of a run may grow by until its end."""
_OF_AN_ATTEMPT = ("events", "capacity_plan.json", "report.html", "trace.json")


class RunFolder:
    """The files of one run. path: made absolute here, so that a later `os.chdir` moves nothing.

    Raises `OutputNotWritableError` for a relative path where the working directory is gone.
    """

    def __init__(self, path: Path) -> None:
        try:
            path = path.absolute()
        except OSError as error:
            raise OutputNotWritableError(path, error) from error
        self.path = path
        self.data = path / "data"
        self.dropped = path / "dropped"
        self.events = path / "events"
        self.attempts = path / "attempts"
        self.run_file = path / "run.json"
        self.capacity_file = path / "capacity_plan.json"
        self._spare: int | None = None

    def is_free(self) -> bool:
        """Whether nothing here belongs, or could belong, to a run. Raises `OSError`."""
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
        """Make the folders that are missing, and check that parts can be written. Raises `OSError`."""
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
        content = json_document(value)
        try:
            try:
                write_durably(path, content)
            except OSError as error:
                if self._spare is None or not lacks_open_files(error):
                    raise
                self.give_spare_up()
                try:
                    write_durably(path, content)
                finally:
                    self.hold_spare()
        except OSError as error:
            raise OutputNotWritableError(path, error) from error

    def hold_spare(self) -> None:
        """Keep a file open, in whose place a document can be written where no further one may be opened."""
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def give_spare_up(self) -> None:
        """Close it, if there is one."""
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)

    def read_run_document(self) -> Mapping[str, JsonValue] | None:
        """What `run.json` says; None where there is none. Raises `OutputExistsError` for one that is no run's."""
        try:
            document = parse_json(self.run_file.read_bytes())
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
        """Move what the previous attempt wrote, other than data, to a folder of `attempts/`. Raises `OSError`.

        An attempt that was killed while it did this has moved some of it; the rest is put beside that.
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


_SCHEMA_VERSION = 2


def open_run_folder(output: str | PathLike[str]) -> RunFolder:
    """The folder that `output` names, whether it is there or not.

    Raises `InvalidTypeError` for what is no path, and `InvalidValueError` for one that no file can have.
    """
    try:
        path: object = os.fspath(output)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise InvalidTypeError("output", output, "a path")
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise InvalidValueError("output", path, "a path that a folder can have, without null characters")
    return RunFolder(Path(path))


@attrs.frozen
class EarlierRows:
    """What was durable before this attempt. dropped: rows that were rejected; filtered: removed by processors."""

    row_groups: int = 0
    rows: int = 0
    dropped: int = 0
    filtered: int = 0


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
        self._last_word: _LastWord | None = None
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
            "config_given": list[JsonValue](sorted(config.given)),
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
                # It no longer runs: this attempt holds the lock.
                "status": "killed" if resumed_from["status"] == "running" else resumed_from["status"],
                **attrs.asdict(earlier),
            }

    def write_start(self) -> None:
        """Record that the run has begun. Raises `OutputNotWritableError`."""
        try:
            word = _LastWord(self._folder.run_file, {**self._document, "status": "failed"})
        except OSError as error:
            raise OutputNotWritableError(self._folder.run_file, error) from error
        try:
            self._folder.write_json(self._folder.run_file, self._document)
        except BaseException:
            # Its name may have been given already, when only flushing the folder's entry failed.
            if self._is_there():
                with suppress(OSError):
                    word.say(json_document({**self._document, "status": "failed", "ended_at": _now()}))
            else:
                word.leave_unsaid()
            raise
        self._last_word = word
        self._folder.hold_spare()

    def _is_there(self) -> bool:
        try:
            held = self._folder.read_run_document()
        except TrioSchedError:
            return False
        return held is not None and held["run_id"] == self.run_id

    def write_end(self, status: str, **facts: JsonValue) -> None:
        """Record how it ended. Raises `OutputNotWritableError`; then it is recorded as failed, if that is possible."""
        self._folder.give_spare_up()
        self._document.update({"status": status, "ended_at": _now(), **facts})
        word, self._last_word = self._last_word, None
        try:
            if word is None:
                write_durably(self._folder.run_file, json_document(self._document))
            else:
                word.say(json_document(self._document))
        except OSError as error:
            raise OutputNotWritableError(self._folder.run_file, error) from error


class _LastWord:
    """The document of a run's end, on the disk before the run: that it failed, until something else is to be said.

    Raises `OSError` where it cannot be written.
    """

    def __init__(self, target: Path, failed: Mapping[str, JsonValue]) -> None:
        self._target = target
        self._path = target.with_name(_LAST_WORD + TEMPORARY_SUFFIX)
        self._failed = json_document(failed)
        self._size = len(self._failed) + _ROOM_FOR_THE_END
        self._descriptor: int | None = os.open(self._path, _OPEN_FLAGS, _MODE)
        try:
            self._overwrite(self._failed)
        except BaseException:
            self.leave_unsaid()
            raise
        self._is_changed = False

    def say(self, content: bytes) -> None:
        """Put `content` in the target's place. Raises `OSError`; then the target says that it failed, if it can."""
        try:
            descriptor = self._overwrite(content)
            with suppress(OSError):
                os.ftruncate(descriptor, len(content))
            self._take_place()
        except OSError:
            with suppress(OSError):
                self._say_that_it_failed()
            raise
        finally:
            self._close()

    def leave_unsaid(self) -> None:
        """Take it away again."""
        self._close()
        with suppress(OSError):
            self._path.unlink()

    def _say_that_it_failed(self) -> None:
        try:
            if self._is_changed:
                self._overwrite(self._failed)
            self._take_place()
        except OSError:
            write_durably(self._target, self._failed)

    def _overwrite(self, content: bytes) -> int:
        """Replace what the file holds, within its size if that is enough: spaces at the end of JSON are no harm."""
        descriptor = self._descriptor
        if descriptor is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.lseek(descriptor, 0, os.SEEK_SET)
        left = memoryview(content.ljust(self._size - 1) + b"\n")
        while left:
            left = left[os.write(descriptor, left) :]
            self._is_changed = True
        os.fsync(descriptor)
        return descriptor

    def _take_place(self) -> None:
        self._close()  # Windows renames no file that is open.
        try:
            os.replace(self._path, self._target)
        except BaseException:
            with suppress(OSError):
                self._path.unlink()
            raise
        with suppress(OSError):  # The word is there; only a power cut could take it back.
            flush_folder(self._target.parent)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


LOCK_NAME = "run.lock"
HOLDER_NAME = "run.pid"


@contextmanager
def hold_run_lock(folder: Path) -> Generator[None, None, None]:
    """Hold the folder's lock. Raises `OutputInUseError` while another run holds it, at once."""
    lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False, fallback_to_soft=False)
    holder = folder / HOLDER_NAME
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except Timeout:
            raise OutputInUseError(folder, *_read_holder(holder)) from None
        except OSError as error:
            raise OutputNotWritableError(folder / LOCK_NAME, error) from error
        with suppress(OSError):
            holder.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()


def _read_holder(holder: Path) -> tuple[int | None, str | None]:
    try:
        held = parse_json(holder.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    if not isinstance(held, dict):
        return None, None
    known = cast("dict[str, object]", held)
    pid, host = known.get("pid"), known.get("host")
    return (pid, host) if isinstance(pid, int) and isinstance(host, str) else (None, None)


TEMPORARY_SUFFIX = ".tmp"
_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
_MODE = 0o666
"""Left to the process's umask, as for any file."""


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path`.

    Raises `OSError`; then `path` is as before, or complete where only flushing the folder's entry failed.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        _write_and_flush(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and flush their entries, so that a crash does not undo it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk. Where folders cannot be opened (Windows), the system does so by itself."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_and_flush(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _OPEN_FLAGS, _MODE)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_document(value: Mapping[str, JsonValue]) -> bytes:
    """A document as it is written."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _files(folder: Path) -> Iterator[Path]:
    if folder.exists():
        yield from folder.iterdir()


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _is_ours(temporary: Path) -> bool:
    name = temporary.name.removesuffix(TEMPORARY_SUFFIX)
    return name in _TEMPORARY_DOCUMENTS or bool(_PART.fullmatch(name) or _DROPPED.fullmatch(name))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
