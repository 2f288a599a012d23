"""Checks shared by the values of every room: each names the field, the value and the bound.

Two shapes: `check_*(field, value)` for plain code, and attrs validators built from them. A bool is never a number here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import Attribute

from trio_sched._errors import InvalidTypeError, InvalidValueError

K = TypeVar("K")
V = TypeVar("V")


def check_int(field: str, value: object, *, minimum: int) -> int:
    """Return `value` if it is an int of at least `minimum`."""
    expected = "a positive int" if minimum == 1 else f"an int of at least {minimum}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(field, value, expected)
    if value < minimum:
        raise InvalidValueError(field, value, expected)
    return value


def is_finite(number: float) -> bool:
    """Whether a number is finite, as a float too: an int may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def check_finite(field: str, value: object, *, expected: str, accept: Callable[[float], bool]) -> float:
    """Return `value` if it is a finite real number that `accept` takes."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidTypeError(field, value, expected)
    if not is_finite(value) or not accept(value):
        raise InvalidValueError(field, value, expected)
    return value


def check_optional_seconds(field: str, value: object) -> float | None:
    """Return `value` if it is None or a finite number above 0."""
    if value is None:
        return None
    return check_finite(field, value, expected="None or a positive finite number", accept=lambda number: number > 0)


def check_text(field: str, value: object) -> str:
    """Return `value` if it is a non-empty string."""
    if not isinstance(value, str):
        raise InvalidTypeError(field, value, "a non-empty string")
    if not value:
        raise InvalidValueError(field, value, "a non-empty string")
    return value


def positive_int(instance: object, attribute: Attribute[int], value: object) -> None:
    """Attrs validator: an int of at least 1."""
    check_int(_name(instance, attribute), value, minimum=1)


def non_negative_int(instance: object, attribute: Attribute[int], value: object) -> None:
    """Attrs validator: an int of at least 0."""
    check_int(_name(instance, attribute), value, minimum=0)


def optional_positive_int(instance: object, attribute: Attribute[int | None], value: object) -> None:
    """Attrs validator: None, or an int of at least 1."""
    if value is not None:
        check_int(_name(instance, attribute), value, minimum=1)


def positive_finite(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: a finite number above 0."""
    check_finite(
        _name(instance, attribute), value, expected="a positive finite number", accept=lambda number: number > 0
    )


def weight(instance: object, attribute: Attribute[float], value: float) -> None:
    """Attrs validator: a weight in fair order, any positive finite number whose reciprocal is finite too."""
    positive_finite(instance, attribute, value)
    if not math.isfinite(1 / value):
        raise InvalidValueError(
            _name(instance, attribute), value, "a positive finite number whose reciprocal is finite"
        )


def non_negative_finite(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: a finite number of at least 0."""
    check_finite(
        _name(instance, attribute), value, expected="a finite number of at least 0", accept=lambda number: number >= 0
    )


def optional_non_negative_finite(instance: object, attribute: Attribute[float | None], value: object) -> None:
    """Attrs validator: None, or a finite number of at least 0."""
    if value is not None:
        check_finite(
            _name(instance, attribute),
            value,
            expected="None or a finite number of at least 0",
            accept=lambda number: number >= 0,
        )


def optional_finite(instance: object, attribute: Attribute[float | None], value: object) -> None:
    """Attrs validator: None, or a finite number."""
    if value is not None:
        check_finite(_name(instance, attribute), value, expected="None or a finite number", accept=lambda number: True)


def open_unit_interval(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: a finite number strictly between 0 and 1."""
    check_finite(
        _name(instance, attribute),
        value,
        expected="a number strictly between 0 and 1",
        accept=lambda number: 0 < number < 1,
    )


def closed_unit_interval(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: a finite number from 0 to 1."""
    check_finite(
        _name(instance, attribute), value, expected="a number from 0 to 1", accept=lambda number: 0 <= number <= 1
    )


def optional_closed_unit_interval(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: None, or a finite number from 0 to 1."""
    if value is not None:
        check_finite(
            _name(instance, attribute),
            value,
            expected="None or a number from 0 to 1",
            accept=lambda number: 0 <= number <= 1,
        )


def optional_positive_finite(instance: object, attribute: Attribute[float], value: object) -> None:
    """Attrs validator: None, or a finite number above 0."""
    check_optional_seconds(_name(instance, attribute), value)


def text(instance: object, attribute: Attribute[str], value: object) -> None:
    """Attrs validator: a non-empty string."""
    check_text(_name(instance, attribute), value)


def one_of(*options: str | int) -> Callable[[object, Attribute[Any], object], None]:
    """Attrs validator: one of `options`."""
    expected = " or ".join(map(repr, options))

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        # By type as well: True is no 1, and 429.0 no status.
        if not any(type(value) is type(option) and value == option for option in options):
            raise InvalidValueError(_name(instance, attribute), value, expected)

    return validate


def boolean(instance: object, attribute: Attribute[bool], value: object) -> None:
    """Attrs validator: True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(_name(instance, attribute), value, "True or False")


def frozen_mapping(value: Mapping[K, V]) -> Mapping[K, V]:
    """Attrs converter: a read-only copy, so that a value cannot change behind its owner's back."""
    return MappingProxyType(dict(value))


def _name(instance: object, attribute: Attribute[V]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"
