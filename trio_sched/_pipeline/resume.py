"""Takes the output folder for a run: for a new run, or for one that continues an earlier attempt.

`never` begins only where there is no run. `always` only continues one. `if-possible` continues one if there is one, and
otherwise begins. Both continue only a run of the same dataset (`fingerprint.py`) whose parts are all whole. Anything
else is refused before the folder is changed; nothing is ever overwritten or begun again in its place.

How far a run has come is read from its part files and from nothing else. A part counts if it is whole: it reads to its
end, has the dataset's columns, and its rows together with those that its list in `dropped/` names are as many as the
row group has. A part that is there and not whole is a reason to stop and ask, never to overwrite.

A resumed run plans only the row groups that are not durable; the scheduler does not know of the others. Where the
input's content is part of the dataset's identity, or there is no input, the durable row groups are only counted. The
rows of an iterable are read again and compared with what the parts hold, since nothing else shows whether they are the
same. Where processors may have changed what the parts hold, only the number of rows is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast, get_args

import attrs

from trio_sched._errors import InvalidValueError
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.errors import (
    InputChangedError,
    MalformedOutputError,
    NothingToResumeError,
    OutputDamagedError,
    OutputExistsError,
    OutputMismatchError,
    OutputNotWritableError,
)
from trio_sched._pipeline.fingerprint import DatasetIdentity
from trio_sched._pipeline.folder import EarlierRows, RunFolder, hold_run_lock, make_folder
from trio_sched._pipeline.outputs import keep_cell, read_cell
from trio_sched._pipeline.parts import PartFormat, count_rows
from trio_sched._pipeline.sources import Row, RowReader
from trio_sched._scheduler.messages import RowGroup, RowGroupPlan, SkippingRowGroupPlan
from trio_sched._task.completion import RowGroupSet
from trio_sched._util import Blocking, parse_json, with_open_files

__all__ = [
    "DurableParts",
    "MissingRows",
    "ResumeMode",
    "ResumePlan",
    "check_resume_mode",
    "hold_output",
    "make_output",
    "read_durable_parts",
    "read_missing_rows",
    "reopen_output",
    "resume_advice",
    "resume_plan",
]

logger = logging.getLogger("trio_sched.run")


ResumeMode = Literal["never", "always", "if-possible"]


def check_resume_mode(resume: str) -> ResumeMode:
    """Return `resume` if it is a mode. Raises `InvalidValueError`."""
    match resume:
        case "never" | "always" | "if-possible":
            return resume
        case _:
            raise InvalidValueError("resume", resume, f"one of {', '.join(map(repr, get_args(ResumeMode)))}")


@contextmanager
def hold_output(folder: RunFolder, resume: ResumeMode) -> Generator[Mapping[str, JsonValue] | None, None, None]:
    """Hold the folder's lock; yields the `run.json` of the run to continue, or None for a new run.

    The folder is examined twice: before locking, since a folder that is refused must not get a lock file, and again
    under the lock.
    """
    _find_run(folder, resume)
    with _as_not_writable(folder):
        make_folder(folder.path)
    with hold_run_lock(folder.path):
        yield _find_run(folder, resume)


def make_output(folder: RunFolder) -> None:
    """Make the folder of a new run ready."""
    with _as_not_writable(folder):
        folder.make()


def reopen_output(
    folder: RunFolder,
    held: Mapping[str, JsonValue],
    identity: DatasetIdentity,
    part_format: PartFormat,
    columns: Sequence[str],
    records: int | None,
) -> DurableParts:
    """Make the folder of an earlier attempt ready and return what is durable in it. held: from `hold_output`."""
    if held["fingerprint"] != identity.fingerprint:
        raise OutputMismatchError(folder.path, str(held["run_id"]), tuple(identity.differences(held.get("dataset"))))
    with _as_not_writable(folder):
        durable = read_durable_parts(folder, part_format, columns, buffer_size=identity.buffer_size, records=records)
    if durable.row_groups and identity.ordered_columns:
        logger.warning(
            "the ordered columns %s are made for the missing row groups only: what their functions carry over "
            "from row to row begins anew there",
            ", ".join(map(repr, identity.ordered_columns)),
        )
    with _as_not_writable(folder):
        folder.remove_leftovers()
        folder.set_attempt_aside()
        folder.make()
    return durable


def resume_advice(folder: RunFolder, *, after_failures: bool = False) -> str:
    """What a user can do after a run ended early. after_failures: it ended because too many attempts failed."""
    try:
        kept = f"{len(folder.parts())} row groups are"
    except OSError:
        kept = "what is finished is"
    then = "mend the cause, then the" if after_failures else "the"
    return f'{kept} kept in {str(folder.data)!r}; {then} same run goes on from there with resume="if-possible"'


def _find_run(folder: RunFolder, resume: ResumeMode) -> Mapping[str, JsonValue] | None:
    held = folder.read_run_document()
    if held is not None:
        if resume == "never":
            raise OutputExistsError(folder.path, str(held["run_id"]))
        return held
    with _as_not_writable(folder):
        free = folder.is_free()
    if not free:
        raise OutputExistsError(folder.path, None)
    if resume == "always":
        raise NothingToResumeError(folder.path)
    return None


@contextmanager
def _as_not_writable(folder: RunFolder) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise OutputNotWritableError(Path(str(error.filename or folder.path)), error) from error


@attrs.frozen
class MissingRows:
    """The rows of the dataset that a durable row group lacks. dropped: rejected; filtered: removed by processors."""

    dropped: Sequence[int] = ()
    filtered: Sequence[int] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.dropped, *self.filtered)


@attrs.frozen(eq=False)
class DurableParts:
    """The row groups that are durable. last_size: rows of the last of them; all others have `buffer_size`."""

    buffer_size: int
    row_groups: RowGroupSet = attrs.field(factory=RowGroupSet)
    last_row_group: int | None = None
    last_size: int = 0
    earlier: EarlierRows = attrs.field(factory=EarlierRows)

    def rows_of(self, first: int, row_groups: int) -> int:
        """How many rows of the input this many durable row groups took, from `first` on."""
        last = self.last_row_group
        if last is not None and first <= last < first + row_groups:
            return (row_groups - 1) * self.buffer_size + self.last_size
        return row_groups * self.buffer_size


def read_durable_parts(
    folder: RunFolder, part_format: PartFormat, columns: Sequence[str], *, buffer_size: int, records: int | None
) -> DurableParts:
    """Read every part. records: rows of the dataset, None where that is known only at the end of the input.

    Raises `OutputDamagedError` for a part that is not whole, `OSError` for one that cannot be read.
    """
    found = folder.parts()
    row_groups = RowGroupSet()
    rows = dropped = filtered = size = 0
    for position, (row_group, format_name) in enumerate(found):
        part = folder.part(row_group, format_name)
        if format_name != part_format.name:
            raise OutputDamagedError(part, f"it is not {part_format.name}, as the other parts are")
        held, missing = _read_part(folder, row_group, part_format, part, columns)
        size = held + len(missing.all)
        most = buffer_size if records is None else max(0, min(buffer_size, records - row_group * buffer_size))
        may_be_shorter = records is None and position == len(found) - 1
        if size > most or size == 0 or (size < most and not may_be_shorter):
            raise OutputDamagedError(
                part,
                f"it holds {held} rows, and {len(missing.all)} are known to be missing, of {most}",
            )
        row_groups.add(row_group)
        rows += held
        dropped += len(missing.dropped)
        filtered += len(missing.filtered)
    return DurableParts(
        buffer_size=buffer_size,
        row_groups=row_groups,
        last_row_group=found[-1][0] if found else None,
        last_size=size,
        earlier=EarlierRows(len(row_groups), rows, dropped, filtered),
    )


def read_missing_rows(folder: RunFolder, row_group: int) -> MissingRows:
    """The rows that a durable row group lacks. Raises `OutputDamagedError` or `OSError`."""
    path = folder.dropped_file(row_group)
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError:
        return MissingRows()
    except ValueError as error:
        raise OutputDamagedError(path, str(error)) from error
    dropped, filtered = _numbers(document, "dropped_rows"), _numbers(document, "filtered_rows")
    if dropped is None or filtered is None:
        raise OutputDamagedError(path, "it does not list the rows that are missing")
    return MissingRows(dropped, filtered)


def _numbers(document: object, key: str) -> list[int] | None:
    held = cast("dict[str, object]", document).get(key) if isinstance(document, dict) else None
    if isinstance(held, list) and all(isinstance(number, int) for number in cast("list[object]", held)):
        return cast("list[int]", held)
    return None


def _read_part(
    folder: RunFolder, row_group: int, part_format: PartFormat, part: Path, columns: Sequence[str]
) -> tuple[int, MissingRows]:
    """How many rows a part has, and which it lacks."""
    try:
        count = count_rows(part_format, part, columns)
    except ValueError as error:
        raise OutputDamagedError(part, str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # This is how Arrow reports a torn page.
        raise OutputDamagedError(part, str(error)) from error
    return count, read_missing_rows(folder, row_group)


class ResumePlan:
    """A plan without the row groups that are durable; indices and starts of the others stay."""

    def __init__(self, plan: SkippingRowGroupPlan, durable: DurableParts, source: str) -> None:
        self._plan = plan
        self._durable = durable
        self._source = source
        self._next = 0

    async def next_row_group(self) -> RowGroup | None:
        """The next row group that is not durable."""
        durable = self._durable.row_groups.run_from(self._next)
        if durable:
            first, self._next = self._next, self._next + durable
            rows = await self._skip(first, durable)
            expected = self._durable.rows_of(first, durable)
            if rows != expected:
                raise InputChangedError(
                    self._source,
                    f"row groups {first} to {first + durable - 1} hold {expected} rows, and it has {rows} for them",
                )
        row_group = await self._plan.next_row_group()
        self._next += 1
        return row_group

    async def _skip(self, first: int, row_groups: int) -> int:
        return await self._plan.skip(row_groups)


class _ComparingResumePlan(ResumePlan):
    """Reads the rows that are durable again and compares them with their parts."""

    def __init__(
        self, reader: RowReader, durable: DurableParts, blocking: Blocking, compare: Callable[[RowGroup], None]
    ) -> None:
        super().__init__(reader, durable, reader.source)
        self._reader = reader
        self._blocking = blocking
        self._compare = compare

    async def _skip(self, first: int, row_groups: int) -> int:
        rows = 0
        for _ in range(row_groups):
            row_group = await self._reader.next_row_group()
            if row_group is None:
                break
            rows += row_group.size
            await with_open_files(self._blocking, self._compare, row_group)
            self._reader.forget(row_group.index)
        return rows


def resume_plan(
    plan: SkippingRowGroupPlan,
    durable: DurableParts,
    folder: RunFolder,
    part_format: PartFormat,
    blocking: Blocking,
    *,
    keeps_input: bool,
) -> RowGroupPlan:
    """The plan of what is still to do: `plan` itself where nothing is durable.

    keeps_input: whether the parts hold the input's rows as they came, so that they can be compared.
    """
    if not durable.row_groups:
        return plan
    if not isinstance(plan, RowReader):
        return ResumePlan(plan, durable, "the number of records")
    if plan.file is not None or not keeps_input:
        return ResumePlan(plan, durable, plan.source)
    reader = plan

    def compare(row_group: RowGroup) -> None:
        missing = set(read_missing_rows(folder, row_group.index).all)
        numbered = enumerate(reader.take(row_group.index), row_group.start)
        expected = [(number, row) for number, row in numbered if number not in missing]
        kept = part_format.read(folder.part(row_group.index, part_format.name))
        for (number, row), held in zip(expected, kept, strict=False):
            for column in reader.columns:
                if not _is_same(column, row, held[column]):
                    raise InputChangedError(reader.source, f"row {number + 1} has another {column!r}")

    return _ComparingResumePlan(reader, durable, blocking, compare)


def _is_same(column: str, row: Row, held: object) -> bool:
    try:
        return cast("object", read_cell(keep_cell(column, row[column]))) == held
    except MalformedOutputError:
        return False
