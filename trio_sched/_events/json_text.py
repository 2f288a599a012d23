"""Writes values as JSON text, for attrs classes by functions that are made from their fields.

`text_writer(cls)` is the one place that knows how a frozen attrs class becomes JSON: an object with its fields in
order, by their annotations. The function is generated once per class, since going over the fields anew for every event
costs ten times what the text itself does. A field that holds another attrs class is written by that class's function,
and its text is remembered for the object: thousands of events carry the same correlation, resource key or snapshot.

*Times.* The search for the shortest digits of a time is the dearest part of a small event. So a time of the run's clock
is told with twelve decimals, made of whole numbers: from 8192 seconds on, doubles are further apart than that, so it
reads back to the same double. (Trio's clock starts at some random time later than that.)

What cattrs makes of the text is equal to what was written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache, lru_cache
from json.encoder import encode_basestring
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import attrs

from trio_sched._events.json_value import JsonValue

__all__ = ["line_writer", "object_text", "text_writer"]

T = TypeVar("T")

_MOST_REMEMBERED: Final = 4096

_LEAST_SECOND: Final = 8192
"""From here on half the distance between two doubles, 2^-40, is more than half a unit of the twelfth decimal."""
_LAST_SECOND: Final = 2**53 - 1
"""Doubles above have no fraction."""

# dict: snapshots hold read-only mappings, which JSON does not know.
_any_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict).encode


def object_text(values: Mapping[str, JsonValue]) -> str:
    """A JSON object. Raises ValueError for a number that JSON does not know."""
    parts: list[str] = []
    for key, value in values.items():
        kind = type(value)
        if kind is float:
            text = _float_text(cast("float", value))
        elif kind is str:
            text = encode_basestring(cast("str", value))
        elif kind is int:
            text = repr(value)
        elif value is None:
            text = "null"
        else:
            text = _any_text(value)
        parts.append(_key_text(key) + text)
    return "{" + ",".join(parts) + "}"


@lru_cache(maxsize=_MOST_REMEMBERED)
def _key_text(key: str) -> str:
    return encode_basestring(key) + ":"


@cache
def text_writer(cls: type[T]) -> Callable[[T], str]:
    """The function that writes a `cls` as JSON text. Raises ValueError for a number that JSON does not know.

    A field that may be None is left out where it is None, and an empty mapping is left out too: together they would be
    half of most texts.
    """
    fields = _fields(cls)
    names: dict[str, object] = {}
    text = _parts(fields, names)
    return _made(cls, f"{_reads(fields)}    return f'''{{{{{text}}}}}'''\n", names)


def line_writer(cls: type[Any], subject: type[Any]) -> Callable[[Any], str]:
    """The function that writes a `cls` as a line, given as a tuple of its fields in which one value, a `subject`,
    stands for all fields that `cls` has of it. Their text is made once and kept in the subject's `text`.
    """
    fields, common = _fields(cls), _fields(subject)
    first = fields.index(common[0])
    before, after = fields[:first], fields[first + len(common) :]
    assert [*before, *common, *after] == fields, f"{cls.__name__} does not have the fields of {subject.__name__}"
    names: dict[str, object] = {}
    text = _parts(common, names, comma=",", remembers=False)
    told = _made(subject, f"{_reads(common)}    text = value.text = f'''{text}'''\n    return text\n", names)
    names = {"told": told}
    text = _parts(before, names) + "{subject.text or told(subject)}" + _parts(after, names, comma=",")
    parts = ", ".join([name for name, _ in before] + ["subject"] + [name for name, _ in after])
    return _made(cls, f"    {parts} = value\n    return f'''{{{{{text}}}}}\n'''\n", names)


def _fields(cls: type[Any]) -> list[tuple[str, Any]]:
    """The fields that a `cls` is made of, with their annotations."""
    hints = get_type_hints(cls)
    return [(field.name, hints[field.name]) for field in attrs.fields(cls) if field.init]


def _reads(fields: list[tuple[str, Any]]) -> str:
    return "".join(f"    {name} = value.{name}\n" for name, _ in fields)


def _parts(fields: list[tuple[str, Any]], names: dict[str, object], *, comma: str = "", remembers: bool = True) -> str:
    """What an f-string says of the fields; what it calls is put into `names`. comma: before the first of them.
    remembers: whether texts and numbers are remembered, as they will come back.
    """
    parts: list[str] = []
    for name, hint in fields:
        # Each part brings the comma before it, once there is surely something in front of that.
        part, always = _part(name, hint, f'{comma}"{name}":', names, remembers)
        assert comma or always, f"{name} comes first and may be left out"
        comma = ","
        parts.append(part)
    return "".join(parts)


def _made(cls: type[Any], body: str, names: dict[str, object]) -> Callable[[Any], str]:
    """The function of `value` with this body."""
    known = {"string": encode_basestring, "float_": _float_text, "object_": object_text, "any_": _any_text, **names}
    # Made of field names only.
    exec(compile(f"def write(value):\n{body}", f"<JSON text of {cls.__name__}>", "exec"), known)  # noqa: S102
    return cast("Callable[[Any], str]", known["write"])


def _part(name: str, hint: Any, told: str, names: dict[str, object], remembers: bool) -> tuple[str, bool]:
    """What an f-string says of the field `name`, after `told`, and whether that is always something."""
    optional = False
    if get_origin(hint) in (Union, UnionType):
        kinds = [each for each in get_args(hint) if each is not NoneType]
        if len(kinds) > 1:
            return f"{told}{{any_({name})}}", True
        optional, hint = True, kinds[0]
    origin: Any = get_origin(hint) or hint
    if origin is Literal:
        texts = {each: told + encode_basestring(each) for each in get_args(hint)}
        names[f"{name}_texts"] = {**texts, None: ""} if optional else texts
        return f"{{{name}_texts[{name}]}}", not optional
    is_text = _is(origin, str | Enum)
    if remembers and (is_text or (origin is int and optional)):
        names[f"{name}_texts"] = _Texts(told, encode_basestring if is_text else repr)
        return f"{{{name}_texts[{name}]}}", not optional
    if isinstance(origin, type) and attrs.has(cast("type[Any]", origin)):
        names[f"{name}_remembered"], names[f"{name}_made"] = _memory(origin, told)
        return f"{{({name}_remembered(id({name})) or {name}_made({name}))[1]}}", not optional
    if _is(origin, Mapping):
        kept = f"{name} is not None" if optional else name
        return f"{{f'{told}{{object_({name})}}' if {kept} else ''}}", False
    call = "string" if is_text else {float: "float_"}.get(origin, "any_")
    expression = name if origin is int else f"{call}({name})"
    if optional:
        return f"{{f'{told}{{{expression}}}' if {name} is not None else ''}}", False
    return f"{told}{{{expression}}}", True


def _is(hint: object, kinds: type | UnionType) -> bool:
    return isinstance(hint, type) and issubclass(hint, kinds)


class _Texts(dict[object, str]):
    """The texts of the latest values of a field, each after `told`, and nothing for None: a task's names come back in
    each of its events.
    """

    def __init__(self, told: str, write: Callable[[Any], str]) -> None:
        super().__init__()
        self._told = told
        self._write = write

    def __missing__(self, value: object) -> str:
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        text = self[value] = "" if value is None else self._told + self._write(value)
        return text


@cache
def _memory(
    cls: Any, told: str
) -> tuple[Callable[[int], tuple[object, str] | None], Callable[[object], tuple[object, str]]]:
    """The texts of the latest objects of `cls`, as in `_Texts`: how to look one up by id, and how to make it.

    Frozen objects only, as a text is made once; by id, as it costs more to compare them than to write them. The object
    is kept with its text, so its id is nobody else's.
    """
    write: Callable[[Any], str] = text_writer(cls)
    remembered: dict[int, tuple[object, str]] = {}

    def made(value: object) -> tuple[object, str]:
        if len(remembered) >= _MOST_REMEMBERED:
            remembered.clear()
        text = remembered[id(value)] = (value, "" if value is None else told + write(value))
        return text

    return remembered.get, made


def _float_text(value: float) -> str:
    """One instant is told by many values, and the next is mostly within the same second: both are known without a
    search for digits.
    """
    global _last_time  # noqa: PLW0603 - one for all classes, as an event and its snapshot share their instant
    known, text, second, digits = _last_time  # read at once: another thread may write
    if value is known:
        return text
    passed = value - second
    if 0.0 <= passed < 1.0:
        text = "%s%012d" % (digits, passed * 1e12 + 0.5)  # noqa: UP031 - other ways take a third longer
        _last_time = (value, text, second, digits)
        return text
    if not value:
        return "0.0"
    if not math.isfinite(value):
        raise ValueError(f"{value!r} has no place in JSON")
    text = repr(value)
    if _LEAST_SECOND <= value <= _LAST_SECOND:
        _last_time = (value, text, float(int(value)), f"{int(value)}.")
    return text


_last_time: tuple[object, str, float, str] = (None, "", math.nan, "")
"""The latest time, its text, its whole seconds, and their text."""
