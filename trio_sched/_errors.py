"""All errors of the package: one root, structured fields, messages that say what, which value, and what to do.

`TrioSchedError` is the root. Every subclass keeps the facts of its message as attributes, so a program can act on them
without parsing text. An error for a bad value is also a `ValueError` (and a `TypeError` where the type was wrong), so
it reads as Python users expect.
"""

from __future__ import annotations

__all__ = ["InvalidTypeError", "InvalidValueError", "TrioSchedError"]


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
        return f"{self.field} must be {self.expected}, got {self.value!r}"


class InvalidTypeError(InvalidValueError, TypeError):
    """A field was given a value of the wrong type."""
