"""Errors that a pipeline raises, each with the value that is wrong and what to do about it.

A declaration that is wrong raises a `PipelineError`, an `UnknownNameError` or an `InvalidValueError`. Other rooms raise
these too, so they are in `trio_sched/_errors.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

from trio_sched._errors import TrioSchedError, shown
from trio_sched._util import counted

__all__ = [
    "AttemptsSpentError",
    "CheckError",
    "InputChangedError",
    "InputRowError",
    "MalformedOutputError",
    "NothingToResumeError",
    "OutputDamagedError",
    "OutputError",
    "OutputExistsError",
    "OutputInUseError",
    "OutputMismatchError",
    "OutputNotWritableError",
    "ProcessorError",
    "SkipRuleError",
    "TryAgain",
    "WaitTimeoutError",
]

JSON_VALUES = "JSON values (str, int, float, bool, None, list, and dict with str keys)"


class MalformedOutputError(TrioSchedError):
    """A generator returned something that cannot be kept. Attributes: `column`, `problem`, `expected`."""

    def __init__(self, column: str, problem: str, expected: str = JSON_VALUES) -> None:
        self.column = column
        self.problem = problem
        self.expected = expected
        super().__init__(column, problem, expected)

    def __str__(self) -> str:
        return f"column {self.column!r} returned {self.problem}; return {self.expected}"


class TryAgain(TrioSchedError):  # noqa: N818 - what a column says is a wish, no error
    """Raise this in a column's function, or in its check, to have the cell made again. Attribute: `reason`.

    How often a cell is made in all the column says: `attempts=`. After the last attempt its row is rejected with the
    reason, or the cell takes `on_failure=` where the column has one. In the place of a row's value in a batch or
    from-scratch column it concerns that row, and all of them are made again.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason: str = reason if isinstance(cast("object", reason), str) else str(reason)
        super().__init__(self.reason)


RefusalKind: TypeAlias = Literal["try_again", "check_failed", "malformed_output"]


class AttemptsSpentError(TrioSchedError):
    """A column was made as often as it may be, and nothing was there to keep; its cause is what ended the last attempt.

    Attributes: `column`, `attempts`, `kind` (`try_again`, `check_failed` or `malformed_output`), `reason` (bounded).
    """

    def __init__(self, column: str, attempts: int, kind: RefusalKind, reason: str) -> None:
        self.column = column
        self.attempts = attempts
        self.kind: RefusalKind = kind
        self.reason = reason
        super().__init__(column, attempts, kind, reason)

    def __str__(self) -> str:
        why = {
            "try_again": f"it asked to be made again: {self.reason or 'without a reason'}",
            "check_failed": f"its check refused the value: {self.reason}",
            "malformed_output": self.reason,
        }[self.kind]
        more = "; attempts=3 of the column would do that" if self.attempts == 1 and self.kind == "try_again" else ""
        return f"column {self.column!r} has nothing to keep after {counted(self.attempts, 'attempt')}: {why}{more}"


class CheckError(TrioSchedError):
    """A bug of a column's `check`; its cause is what the check raised. Attribute: `column`."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(column)

    def __str__(self) -> str:
        cause = self.__cause__
        found = "returned something to await" if cause is None else f"raised {cause!r}"
        return (
            f"check of column {self.column!r} {found}; it must return the value to keep, "
            "or refuse the value by ValueError, AssertionError or TryAgain"
        )


class InputRowError(TrioSchedError, ValueError):
    """An input row that cannot be used. Attributes: `source`, `number` (from 1), `problem`."""

    def __init__(self, source: str, number: int, problem: str) -> None:
        self.source = source
        self.number = number
        self.problem = problem
        super().__init__(source, number, problem)

    def __str__(self) -> str:
        return f"{self.source}, row {self.number}: {self.problem}"


class SkipRuleError(TrioSchedError):
    """A column's `skip_when` raised; its cause is what it raised. Attribute: `column`."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(column)

    def __str__(self) -> str:
        raised = _raised(self.__cause__)
        return f"skip_when of column {self.column!r} {raised}; it must say whether to skip, for any row"


def _raised(cause: BaseException | None) -> str:
    where = ", which only a column's function or its check may raise" if isinstance(cause, TryAgain) else ""
    return f"raised {shown(cause)}{where}"


class WaitTimeoutError(TrioSchedError):
    """A timeout of a column's own ended while its call waited for admission, so the cell is made again.

    Its cause is what the column raised. Attribute: `column`.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__(column)

    def __str__(self) -> str:
        return (
            f"a timeout around a model call of column {self.column!r} included the wait for admission, which says "
            "nothing about the row; bound the call alone with Model(timeout=...)"
        )


Stage: TypeAlias = Literal["pre-batch", "post-batch"]


class ProcessorError(TrioSchedError):
    """A processor failed, and the run with it; its cause says why. Attributes: `stage`, `processor`, `row_group`."""

    def __init__(self, stage: Stage, processor: str, row_group: int) -> None:
        self.stage = stage
        self.processor = processor
        self.row_group = row_group
        super().__init__(stage, processor, row_group)

    def __str__(self) -> str:
        cause = self.__cause__
        if isinstance(cause, MalformedOutputError):
            why = f"it returned {cause.problem}; return {cause.expected}"
        else:
            why = f"it {_raised(cause)}"
        return f"{self.stage} processor {self.processor!r} failed on row group {self.row_group}: {why}"


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_FURTHER_FILE = {errno.EMFILE, errno.ENFILE}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a network or FUSE file system answers that has no locks, when it is asked for one."""
_LOCK_NAME = "run.lock"


class OutputError(TrioSchedError):
    """An output folder that a run cannot use. Attribute: `path`, the folder or the file in it."""

    path: Path


class OutputExistsError(OutputError):
    """The output folder holds another run. Attributes: `path`, `run_id` (None where the files are no run's)."""

    def __init__(self, path: Path, run_id: str | None) -> None:
        self.path = path
        self.run_id = run_id
        super().__init__(path, run_id)

    def __str__(self) -> str:
        if self.run_id is None:
            return (
                f"output {str(self.path)!r} already holds files that are not a run's; "
                "choose another folder, or move or delete this one"
            )
        return (
            f"output {str(self.path)!r} already holds run {self.run_id!r}; choose another folder, or move or delete "
            'this one, or go on with that run: resume="if-possible"'
        )


class NothingToResumeError(OutputError):
    """There is no run to go on with. Attribute: `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(path)

    def __str__(self) -> str:
        return (
            f"output {str(self.path)!r} holds no run to go on with; look at the spelling, "
            'or let the run begin where there is none: resume="if-possible"'
        )


class OutputMismatchError(OutputError):
    """The run in the output folder makes another dataset. Attributes: `path`, `run_id`, `differences` (texts)."""

    def __init__(self, path: Path, run_id: str, differences: Sequence[str]) -> None:
        self.path = path
        self.run_id = run_id
        self.differences: tuple[str, ...] = tuple(differences)
        super().__init__(path, run_id, self.differences)

    def __str__(self) -> str:
        run, advice = (
            f"run {self.run_id!r} in {str(self.path)!r}",
            "choose another folder, or give what that run was given",
        )
        if len(self.differences) == 1:
            return f"{run} makes another dataset: {self.differences[0]}; {advice}"
        lines = "".join(f"\n  {difference}" for difference in self.differences)
        return f"{run} makes another dataset:{lines}\n{advice}"


class OutputDamagedError(OutputError):
    """A file of the run is not as the run left it. Attributes: `path`, `problem`."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return (
            f"{str(self.path)!r} is not as a run left it: {self.problem}; "
            "restore it, or delete this one file to have its rows made again"
        )


class OutputInUseError(OutputError):
    """Another run writes to the folder now. Attributes: `path`, `pid` and `host` of the holder (None if unknown)."""

    def __init__(self, path: Path, pid: int | None, host: str | None) -> None:
        self.path = path
        self.pid = pid
        self.host = host
        super().__init__(path, pid, host)

    def __str__(self) -> str:
        holder = "another process" if self.pid is None else f"process {self.pid} on {self.host}"
        return f"output {str(self.path)!r} is in use by {holder}; wait for it, or choose another folder"


class OutputNotWritableError(OutputError, OSError):
    """The output folder cannot be read or written. Attributes: `path`, `problem`."""

    def __init__(self, path: Path, problem: OSError) -> None:
        super().__init__(problem.errno, problem.strerror, str(path))
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        if self.problem.errno in _NO_SPACE:
            remedy = 'make room and go on with resume="if-possible": what is finished is kept'
        elif self.problem.errno in _NO_LOCKS and self.path.name == _LOCK_NAME:
            remedy = "its file system has no locks, and a run locks its folder; choose a folder on a local disk"
        elif self.problem.errno in _NO_FURTHER_FILE:
            remedy = "close some, lower max_parallel_requests, or raise the limit (ulimit -n)"
        elif self.problem.errno == errno.ENAMETOOLONG:
            remedy = "choose a shorter name"
        elif self.problem.errno == errno.EIO:
            remedy = "look at the disk, or what else is behind it, or choose a folder on another one"
        else:
            remedy = "choose a folder you may write to"
        return f"output {str(self.path)!r} cannot be written: {self.problem.strerror or self.problem}; {remedy}"


class InputChangedError(TrioSchedError, ValueError):
    """The input of a resumed run is not what the earlier attempt was given. Attributes: `source`, `problem`."""

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        self.problem = problem
        super().__init__(source, problem)

    def __str__(self) -> str:
        return (
            f"{self.source} changed since the earlier attempt: {self.problem}; "
            "give the same rows in the same order, or begin in another folder"
        )
