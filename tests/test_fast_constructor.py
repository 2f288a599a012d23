"""What a fast constructor makes cannot be told from what the class makes itself."""

from __future__ import annotations

import copy
import inspect
import pickle

import attrs
import pytest

from trio_sched._fast_constructor import fast_constructor


@attrs.frozen(weakref_slot=False)
class Point:
    x: int
    y: int = 2
    names: list[str] = attrs.field(factory=list[str])


make_point = fast_constructor(Point)


def test_it_is_of_the_class_and_equal() -> None:
    made = make_point(1, 3, ["a"])
    assert type(made) is Point
    assert made == Point(1, 3, ["a"])
    assert repr(made) == repr(Point(1, 3, ["a"]))
    assert make_point(x=1, y=3, names=["a"]) == made


def test_defaults_are_those_of_the_class_and_shared_by_nobody() -> None:
    one, other = make_point(1), make_point(1)
    assert one == Point(1)
    assert one.names is not other.names


def test_it_is_frozen() -> None:
    made = make_point(1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, "x", 2)  # noqa: B010 - a type checker would refuse the plain form
    with pytest.raises(AttributeError):
        object.__setattr__(made, "other", 2)


def test_it_can_be_copied_pickled_and_evolved() -> None:
    made = make_point(1, 3, ["a"])
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert attrs.evolve(made, x=2) == Point(2, 3, ["a"])


def test_wrong_arguments_are_refused_as_by_any_function() -> None:
    assert list(inspect.signature(make_point).parameters) == ["x", "y", "names"]
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        inspect.signature(make_point).bind()


@attrs.frozen
class WithWeakReferences:
    x: int


@attrs.frozen(slots=False)
class WithoutSlots:
    x: int


@attrs.frozen(weakref_slot=False)
class Validated:
    x: int = attrs.field(validator=attrs.validators.ge(0))


@attrs.frozen(weakref_slot=False)
class Converted:
    x: int = attrs.field(converter=int)


@attrs.frozen(weakref_slot=False)
class Hooked:
    x: int

    def __attrs_post_init__(self) -> None:
        raise AssertionError


@attrs.frozen(weakref_slot=False)
class Derived(Point):
    z: int = 0


@attrs.frozen(weakref_slot=False)
class Computed:
    x: int = attrs.field(init=False, default=0)


@attrs.frozen(weakref_slot=False)
class GivenByName:
    x: int = attrs.field(kw_only=True)


@attrs.frozen(weakref_slot=False)
class GivenByAnotherName:
    _x: int


@attrs.frozen(weakref_slot=False)
class MadeOfOthers:
    x: int
    y: int = attrs.field(default=attrs.Factory(lambda self: self.x, takes_self=True))


@pytest.mark.parametrize(
    "cls",
    [
        WithWeakReferences,
        WithoutSlots,
        Validated,
        Converted,
        Hooked,
        Derived,
        Computed,
        GivenByName,
        GivenByAnotherName,
        MadeOfOthers,
    ],
)
def test_a_class_that_does_more_than_hold_its_fields_is_refused(cls: type[object]) -> None:
    with pytest.raises(TypeError, match=f"^{cls.__name__} is not made of its fields alone, in slots of its own$"):
        fast_constructor(cls)
