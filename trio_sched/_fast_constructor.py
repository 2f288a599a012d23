"""Makes frozen attrs values at a third of what their own `__init__` costs.

A frozen class refuses to have its fields set, so its `__init__` sets each by a detour. A value that is made for every
event pays for that eleven times. Here the fields are set in a draft, an object of a class without any rules, and the
finished draft is then given the class that it is meant to have. Python allows that between two classes with the same
slots, as long as neither has one for weak references. The result cannot be told from one that the class itself made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import attrs

__all__ = ["fast_constructor"]

P = ParamSpec("P")
T = TypeVar("T")


def fast_constructor(cls: Callable[P, T]) -> Callable[P, T]:
    """A function that makes a `cls` of the same arguments. For frozen attrs classes with slots, `weakref_slot=False`,
    and without bases, validators, converters, hooks and fields that are given in ways of their own; others are refused
    with a TypeError.
    """
    made = cast("type[attrs.AttrsInstance]", cls)
    fields = attrs.fields(made)
    hooks = {"__attrs_pre_init__", "__attrs_post_init__"} & set(dir(made))
    plain = all(_is_plain(field) for field in fields)
    slots = vars(made).get("__slots__", ())
    if made.__bases__ != (object,) or set(slots) != {field.name for field in fields} or hooks or not plain:
        raise TypeError(f"{made.__qualname__} is not made of its fields alone, in slots of its own")
    names: dict[str, object] = {
        "made": made,
        "draft": type(made.__name__, (), {"__slots__": slots}),
        "absent": attrs.NOTHING,
    }
    arguments: list[str] = []
    lines: list[str] = []
    for field in fields:
        name, default = field.name, field.default
        given = name
        if default is attrs.NOTHING:
            arguments.append(name)
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a function to mypy, a class to Python
            names[f"new_{name}"] = default.factory
            arguments.append(f"{name}=absent")
            given = f"new_{name}() if {name} is absent else {name}"
        else:
            names[f"default_{name}"] = default
            arguments.append(f"{name}=default_{name}")
        lines.append(f"    value.{name} = {given}\n")
    source = (
        f"def make({', '.join(arguments)}):\n"
        f"    value = draft()\n{''.join(lines)}    value.__class__ = made\n    return value\n"
    )
    exec(compile(source, f"<constructor of {made.__name__}>", "exec"), names)  # noqa: S102 - made of field names only
    return cast("Callable[P, T]", names["make"])


def _is_plain(field: Any) -> bool:
    given_plainly = field.init and not field.kw_only and field.alias == field.name
    needs_self = getattr(field.default, "takes_self", False)
    return given_plainly and not needs_self and field.validator is None and field.converter is None
