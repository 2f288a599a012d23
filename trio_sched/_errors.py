"""The root of all errors, and those that more than one room raises; the others are defined beside what raises them.

A message says what was wrong, which value, and what to do. `TrioSchedError` is the root. Every subclass keeps the facts
of its message as attributes, so a program can act on them without parsing text. An error for a bad value is also a
`ValueError` (and a `TypeError` where the type was wrong), so it reads as Python users expect.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable

__all__ = [
    "CycleError",
    "DuplicateColumnError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingExtraError",
    "PipelineError",
    "TrioSchedError",
    "UnknownNameError",
    "require",
    "shown",
]

_LONGEST_VALUE = 2_000
"""Letters of a value in a message; it may be a whole file."""


class TrioSchedError(Exception):
    """Root of every error raised by trio_sched."""


class InvalidValueError(TrioSchedError, ValueError):
    """A field was given a value outside what it accepts.

    Attributes: `field` (name of the field or parameter), `value` (what was given), `expected` (what is accepted).
    """

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(field, value, expected)
        self.field = field
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.field} must be {self.expected}, got {shown(self.value)}"


class InvalidTypeError(InvalidValueError, TypeError):
    """A field was given a value of the wrong type."""


class PipelineError(TrioSchedError, ValueError):
    """A pipeline that cannot run as written; found before anything runs."""


class UnknownNameError(PipelineError):
    """A name that nothing defines. Attributes: `what`, `name`, `used_by`, `known` (sorted), `nearest` (or None)."""

    def __init__(self, what: str, name: str, *, used_by: str, known: Iterable[str]) -> None:
        self.what = what
        self.name = name
        self.used_by = used_by
        self.known: tuple[str, ...] = tuple(sorted(known))
        close = difflib.get_close_matches(name, self.known, n=1)
        self.nearest: str | None = close[0] if close else None
        super().__init__(what, name, used_by, self.known)

    def __str__(self) -> str:
        known = ", ".join(map(repr, self.known)) or "none"
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else f"; known: {known}"
        return f"{self.used_by} names the {self.what} {self.name!r}, which does not exist{hint}"


class DuplicateColumnError(PipelineError):
    """Two owners of one column. Attributes: `column`, `owners`."""

    def __init__(self, column: str, owners: Iterable[str]) -> None:
        self.column = column
        self.owners: tuple[str, ...] = tuple(owners)
        super().__init__(column, self.owners)

    def __str__(self) -> str:
        owners = " and ".join(self.owners)
        return f"column {self.column!r} is made twice, by {owners}; rename one of them"


class CycleError(PipelineError):
    """Columns that need each other in a circle. Attribute: `path`, the columns in order, the first again at the end."""

    def __init__(self, path: Iterable[str]) -> None:
        self.path: tuple[str, ...] = tuple(path)
        super().__init__(self.path)

    def __str__(self) -> str:
        return f"columns need each other in a circle: {' <- '.join(self.path)}; remove one of these needs"


class MissingExtraError(TrioSchedError, ImportError):
    """A part of the package was used whose optional dependencies are not installed.

    Attributes: `extra` (the name to install), `missing` (the module that could not be imported).
    """

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(extra, missing)
        self.extra = extra
        self.missing = missing

    def __str__(self) -> str:
        return f"{self.missing} is not installed; run: pip install 'trio_sched[{self.extra}]'"


def shown(value: object, *, longest: int = _LONGEST_VALUE) -> str:
    """The `repr` of a value in a message, cut after `longest` letters."""
    try:
        text = repr(value)
    except Exception:
        # Python writes no ints of too many digits, and nothing nested too deeply; objects may do as they like.
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def require(extra: str, *modules: str) -> None:
    """Raise `MissingExtraError` unless all `modules`, which `extra` installs, can be imported."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(extra, error.name or extra) from error
