"""Takes the output folder for a run: a new one, or one that goes on where an earlier attempt ended.

`never` begins only where there is no run. `always` only goes on with one. `if-possible` goes on if there is one, and
else begins. Both go on only with a run of the same dataset (`fingerprint.py`), whose every part is whole. Whatever does
not fit is refused before anything in the folder is changed; nothing is ever overwritten or begun afresh in its place.

To go on is to plan only the row groups that are not durable (`ResumePlan`); the scheduler does not know of it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from trio_sched._errors import InvalidValueError
from trio_sched._events.records import JsonValue
from trio_sched._pipeline.durable import make_folder
from trio_sched._pipeline.durable_parts import DurableParts, read_durable_parts
from trio_sched._pipeline.fingerprint import DatasetIdentity
from trio_sched._pipeline.folder import RunFolder
from trio_sched._pipeline.output_errors import (
    NothingToResumeError,
    OutputExistsError,
    OutputMismatchError,
    OutputNotWritableError,
)
from trio_sched._pipeline.parts import PartFormat
from trio_sched._pipeline.run_lock import hold_run_lock

__all__ = ["ResumeMode", "check_resume_mode", "hold_output", "make_output", "reopen_output", "resume_advice"]

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
    """Hold the folder's lock; gives the `run.json` of the run to go on with, or None for a new run.

    Looked at twice: before the lock, whose file may not be put into a folder that is refused, and under it.
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
    """Make the folder of an earlier attempt ready and say what is durable in it. `held` as given by `hold_output`."""
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
    """What to tell whoever's run ended early. after_failures: because too many attempts failed."""
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
