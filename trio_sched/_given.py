"""Which settings somebody chose, and which are defaults: two that are equal cannot be told apart afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

import attrs

__all__ = ["records_given"]

T = TypeVar("T")


def records_given(cls: type[T]) -> type[T]:
    """Decorator of an attrs class: its field `given` (`init=False`) names the fields that the constructor was handed.

    A copy by `attrs.evolve` was handed all of them. Validation that depends on it goes into `validate_given(self)`.
    """
    made = cast("Callable[..., None]", cls.__init__)
    fields = attrs.fields(cast("type[attrs.AttrsInstance]", cls))
    positional = [field.name for field in fields if field.init and not field.kw_only]
    validate = cast("Callable[[T], None] | None", getattr(cls, "validate_given", None))

    @functools.wraps(made)
    def init(self: T, *args: object, **kwargs: object) -> None:
        made(self, *args, **kwargs)
        # Past the guard of a frozen class, as its own constructor goes.
        object.__setattr__(self, "given", frozenset((*positional[: len(args)], *kwargs)))
        if validate is not None:
            validate(self)

    type.__setattr__(cls, "__init__", init)
    return cls
