"""Writes values as JSON text, for attrs classes by functions that are made from their fields.

`text_writer(cls)` is the one place that knows how a frozen attrs class becomes JSON: an object with its fields in
order, by their annotations. The function is generated once per class, since going over the fields anew for every event
costs ten times what the text itself does. A field that holds another attrs class is written by that class's function,
and its text is remembered for the object: thousands of events carry the same correlation, resource key or snapshot.

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

__all__ = ["object_text", "text_writer"]

T = TypeVar("T")

_MOST_REMEMBERED: Final = 1024

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
    names: dict[str, object] = {
        "string": encode_basestring,
        "float_": _float_text,
        "object_": object_text,
        "any_": _any_text,
    }
    hints = get_type_hints(cls)
    fields = [(field.name, hints[field.name]) for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls))]
    gets = ", ".join(f"value.{name}" for name, _ in fields)
    parts: list[str] = []
    surely = False
    for name, hint in fields:
        kept, expression = _expression(name, hint, names)
        # Each part brings the comma before it, once there is surely something in front of that.
        told = f'{"," if surely else ""}"{name}":'
        if kept is None:
            parts.append(f"{told}{{{expression}}}")
            surely = True
        else:
            assert surely, f"{cls.__name__} begins with a field that may be left out"
            parts.append(f"{{f'{told}{{{expression}}}' if {kept} else ''}}")
    source = (
        f"def write(value):\n    {', '.join(name for name, _ in fields)}, = {gets},\n"
        f"    return f'''{{{{{''.join(parts)}}}}}'''\n"
    )
    exec(compile(source, f"<JSON text of {cls.__name__}>", "exec"), names)  # noqa: S102 - made of field names only
    return cast("Callable[[T], str]", names["write"])


def _expression(name: str, hint: Any, names: dict[str, object]) -> tuple[str | None, str]:
    """When the field `name` is written, None for always, and the expression that writes it.

    What the expression calls is put into `names`.
    """
    if get_origin(hint) in (Union, UnionType):
        kinds = [each for each in get_args(hint) if each is not NoneType]
        if len(kinds) == 1:
            return f"{name} is not None", _expression(name, kinds[0], names)[1]
        return None, f"any_({name})"
    origin = get_origin(hint) or hint
    if origin is Literal:
        names[f"{name}_texts"] = {each: encode_basestring(each) for each in get_args(hint)}
        return None, f"{name}_texts[{name}]"
    if isinstance(origin, type) and issubclass(origin, str | Enum):
        return None, f"string({name})"
    if origin is int:
        return None, name
    if origin is float:
        return None, f"float_({name})"
    if isinstance(origin, type) and attrs.has(origin):
        names[f"{name}_text"] = _remembering(text_writer(origin))
        return None, f"{name}_text({name})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return name, f"object_({name})"
    return None, f"any_({name})"


def _remembering(write: Callable[[T], str]) -> Callable[[T], str]:
    """`write`, with the texts of the latest objects remembered. Frozen objects only: a text is made once."""
    remembered: dict[int, tuple[T, str]] = {}

    def text(value: T) -> str:
        known = remembered.get(id(value))
        if known is not None:
            return known[1]
        made = write(value)
        if len(remembered) >= _MOST_REMEMBERED:
            remembered.clear()
        # The object is kept with its text, so its id is nobody else's.
        remembered[id(value)] = (value, made)
        return made

    return text


def _float_text(value: float) -> str:
    """One instant is told by many values, and nothing has passed in most of them: both are known without a search for
    digits, which costs more than all the rest of a small event.
    """
    global _last_float  # noqa: PLW0603 - one for all classes, as an event and its snapshot share their instant
    if not value:
        return "0.0"
    known, text = _last_float  # read at once: another thread may write
    if value is known:
        return text
    if not math.isfinite(value):
        raise ValueError(f"{value!r} has no place in JSON")
    text = repr(value)
    _last_float = (value, text)
    return text


_last_float = (math.nan, "")
