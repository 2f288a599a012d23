"""`check=`: from what a column's function returned to the value that is kept, or a reason to make it again.

A check is compiled once, where its column is declared. There are three kinds:

- A function gets the value and returns the one to keep. So do `int`, `float`, an enum and their like.
- A class validates it: a pydantic model, a msgspec Struct, an attrs class, a dataclass or a `TypedDict`. Text goes to
  the class's JSON parser, any other value to its validation of plain values. Nothing is converted on the way that its
  fields do not ask for: cattrs by itself would make "None" of a null where there should be text, and 7 of 7.9.
- A JSON schema (a dict; extra `schema`). Text is read as JSON first, unless the schema is about text itself.

A check refuses a value by `ValueError`, `AssertionError` or a validation error, whoever's it is. Its column is made
again then, as if it had raised `TryAgain` with these words. Any other exception is a bug of the check, a `CheckError`.
What is kept is the plain form of what the check returned, as JSON has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import re
import traceback
import typing
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import attrs
import msgspec

from trio_sched._errors import InvalidTypeError, PipelineError, require
from trio_sched._pipeline.errors import AttemptsSpentError, CheckError, MalformedOutputError, TryAgain
from trio_sched._pipeline.outputs import Cell, Outputs, dumped, whole_text
from trio_sched._util import parse_json, printable

__all__ = ["Check", "CheckedValue", "KeepRule", "Refusal", "class_or_schema_check", "is_refusal"]

Check: TypeAlias = "Callable[..., object] | Mapping[str, object]"
"""A function of the value, a class, or a JSON schema."""
CheckedValue: TypeAlias = Callable[[object], object]
Refusal: TypeAlias = TryAgain | MalformedOutputError
"""Why a value is not kept, by the column's own word."""

_KINDS: Final = (
    "a function of the value, a pydantic, msgspec or attrs class, a dataclass, a TypedDict or a JSON schema (a dict)"
)
_FUNCTION_OF_TYPE: Final = (
    "a class or a function; for a type like this one write pydantic.TypeAdapter(...).validate_json"
)
_CALLED: Final = (str, int, float, list, tuple, dict, set, frozenset, Decimal, UUID, Enum)
"""Classes that are functions of the value, since what they make has a plain form."""
_LONGEST_WORDS: Final = 300
_LONGEST_READ: Final = 4_000
"""Letters of a foreign text that are looked at at all."""
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TEXT: Final = (str, bytes, bytearray)
_SCALARS: Final = (str, int, float, bool, type(None))


class _CheckRefusal(TryAgain):
    """A value that its check refused; the cause is what the check raised."""


@attrs.frozen(eq=False)
class KeepRule:
    """What is kept of what a column's function returns, and what becomes of its cell where nothing is.

    attempts: how often the cell is made in all. on_failure: the cells kept after the last attempt that failed; None for
    a row that is rejected. check: makes the value to keep of the one returned.
    """

    attempts: int = 1
    on_failure: tuple[Cell, ...] | None = None
    check: CheckedValue | None = None

    def keep(self, outputs: Outputs, value: object) -> tuple[Cell, ...]:
        """The cells of one row's result. Raises a `Refusal`, or `CheckError` for a bug of the check."""
        if self.check is None:
            return outputs.keep(value)
        column = outputs.own[0]
        try:
            kept = self.check(value)
        except TryAgain:
            raise
        except Exception as error:
            if not _refuses(error):
                raise CheckError(column) from error
            raise _CheckRefusal(_words(error)) from error
        if inspect.isawaitable(kept):
            if inspect.iscoroutine(kept):
                kept.close()
            raise CheckError(column)
        return outputs.keep(_plain(kept))

    def rejection(self, column: str, refusal: Refusal) -> Exception:
        """What rejects a row after the last attempt, whose refusal is given."""
        if isinstance(refusal, MalformedOutputError):
            if self.attempts == 1:
                return refusal
            spent = AttemptsSpentError(column, self.attempts, "malformed_output", f"it returned {refusal.problem}")
        elif isinstance(refusal, _CheckRefusal):
            spent = AttemptsSpentError(column, self.attempts, "check_failed", refusal.reason)
        else:
            spent = AttemptsSpentError(column, self.attempts, "try_again", _line(refusal.reason))
        validator = refusal.__cause__ if isinstance(refusal, _CheckRefusal) else None
        spent.__cause__ = refusal if validator is None else validator
        return spent


def is_refusal(error: object) -> bool:
    """Whether an error is the column's own word."""
    return isinstance(error, TryAgain | MalformedOutputError)


def class_or_schema_check(owner: str, check: Check) -> CheckedValue | None:
    """The check of a class or a JSON schema; None for a function.

    owner: the column, in messages. Raises `InvalidTypeError` for what is no check, `PipelineError` for a class or a
    schema that cannot be used, `MissingExtraError` for a schema without the extra.
    """
    given = cast("object", check)
    if isinstance(given, Mapping):
        return _schema_check(owner, cast("Mapping[str, object]", given))
    if typing.get_origin(given) is not None:
        raise InvalidTypeError(f"check of {owner}", given, _FUNCTION_OF_TYPE)
    if not callable(given):
        raise InvalidTypeError(f"check of {owner}", given, _KINDS)
    return _class_check(owner, given) if isinstance(given, type) else None


def _class_check(owner: str, check: type) -> CheckedValue | None:
    if hasattr(check, "model_validate_json") and hasattr(check, "model_validate"):
        return _pydantic_check(check)
    if hasattr(check, "__pydantic_validator__"):
        raise InvalidTypeError(f"check of {owner}", check, _FUNCTION_OF_TYPE)
    name = check.__name__
    is_typed_dict = type(check).__name__ == "_TypedDictMeta"
    try:
        if attrs.has(check):
            return _attrs_check(check)
        if is_typed_dict or dataclasses.is_dataclass(cast("object", check)) or issubclass(check, msgspec.Struct):
            return _msgspec_check(check)
    except Exception as error:
        raise PipelineError(
            f"check of {owner} cannot use {name}: {_words(error)}; mend the types of its fields, or write a function"
        ) from error
    if issubclass(check, _CALLED):
        return None
    raise InvalidTypeError(f"check of {owner}", cast("object", check), _KINDS)


def _pydantic_check(model: type) -> CheckedValue:
    known_by_shape = cast("Any", model)
    of_json: CheckedValue = known_by_shape.model_validate_json
    of_plain: CheckedValue = known_by_shape.model_validate
    return lambda value: of_json(_json_text(value)) if isinstance(value, _TEXT) else of_plain(value)


def _msgspec_check(shape: type) -> CheckedValue:
    decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(shape)

    def check(value: object) -> object:
        if isinstance(value, _TEXT):
            return _parsed(value, decoder.decode)
        return cast("object", msgspec.convert(_plain(value), shape))

    return check


def _attrs_check(shape: type) -> CheckedValue:
    from cattrs.errors import BaseValidationError
    from cattrs.preconf.msgspec import make_converter

    converter = make_converter(prefer_attrib_converters=True)
    for scalar in (str, bool, int, float):
        converter.register_structure_hook(scalar, partial(_scalar, scalar))
    within: set[object] = set()

    def is_collection(kind: object) -> bool:
        made: object = typing.get_origin(kind) or kind
        if not isinstance(made, type) or kind in within or attrs.has(made) or hasattr(made, "_fields"):
            return False
        return issubclass(made, Collection) and not issubclass(made, Mapping | str | bytes)

    def strict_hook(kind: type) -> Callable[[Any, Any], Any]:
        within.add(kind)
        try:
            hook = converter.get_structure_hook(kind, cache_result=False)
        finally:
            within.discard(kind)

        def structure(value: object, kind: type) -> object:
            if isinstance(value, str | bytes | Mapping):
                raise ValueError(f"expected a list, got {type(cast('object', value)).__name__}")
            return hook(value, kind)

        return structure

    converter.register_structure_hook_factory(is_collection, strict_hook)
    converter.get_structure_hook(shape)

    def check(value: object) -> object:
        plain = _parsed(value) if isinstance(value, _TEXT) else _plain(value)
        if not isinstance(plain, Mapping):
            raise ValueError(f"expected an object, got {_kind(plain)}")
        try:
            return cast("object", converter.structure(plain, shape))
        except BaseValidationError as error:
            raise ValueError(_attrs_words(error)) from error

    return check


def _scalar(scalar: type, value: object, wanted: type) -> object:
    """The value if it is of the type `scalar`. wanted: that, or a subclass such as an enum of its values."""
    given = type(value)
    if given is int and scalar is float:
        value = float(cast("int", value))
    elif given is float and scalar is int and cast("float", value).is_integer():
        value = int(cast("float", value))
    elif given is not scalar:
        raise ValueError(f"expected {scalar.__name__}, got {_kind(value)}")
    return value if wanted is scalar else wanted(value)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _attrs_words(error: Exception) -> str:
    from cattrs.v import transform_error

    def said(leaf: BaseException, kind: type | None) -> str:
        return "required field missing" if isinstance(leaf, KeyError) else f"{leaf}"

    return "; ".join(transform_error(error, format_exception=said))


def _schema_check(owner: str, schema: Mapping[str, object]) -> CheckedValue:
    require("schema", "jsonschema", "jsonschema_specifications")
    jsonschema = cast("Any", importlib.import_module("jsonschema"))
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise PipelineError(f"check of {owner} is no JSON schema: {_schema_words(error)}") from error
    # With a registry of what is installed: the default one reads references to elsewhere from the network.
    registry: object = cast("Any", importlib.import_module("jsonschema_specifications")).REGISTRY
    validator = kind(schema, registry=registry)
    about_text = _is_about_text(schema)

    def check(value: object) -> object:
        given = _parsed(value) if isinstance(value, _TEXT) and not about_text else _plain(value)
        worst = jsonschema.exceptions.best_match(validator.iter_errors(given))
        if worst is not None:
            raise ValueError(_schema_words(worst)) from worst
        return given

    return check


def _is_about_text(schema: Mapping[str, object]) -> bool:
    """Whether what a schema accepts is text: by its type, or by the values that it lists."""
    wanted = schema.get("type")
    if wanted is not None:
        kinds = cast("list[object]", wanted) if isinstance(wanted, list) else [wanted]
        return "string" in kinds and all(each in ("string", "null") for each in kinds)
    values = schema.get("enum", [schema.get("const")])
    listed = cast("list[object]", values) if isinstance(values, list) else []
    return any(isinstance(each, str) for each in listed) and all(isinstance(each, str | None) for each in listed)


def _schema_words(error: Any) -> str:
    path: str = error.json_path
    return f"{error.message} at {path}"


def _json_text(text: str | bytes | bytearray) -> str | bytes:
    """What a strict JSON parser takes of a text: halves of surrogate pairs, also escaped ones, become U+FFFD."""
    if not isinstance(text, str):
        return bytes(text)
    text = whole_text(text)
    if _ESCAPED_SURROGATE.search(text):
        with contextlib.suppress(ValueError):
            text = whole_text(json.dumps(parse_json(text), ensure_ascii=False))
    return text


def _parsed(text: str | bytes | bytearray, decode: Callable[[str | bytes], object] = msgspec.json.decode) -> object:
    try:
        return decode(_json_text(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(value: object) -> object:
    """A value as JSON has it, where it has a plain form: a model, a Struct, a dataclass, an enum, a date and such."""
    if type(value) in _SCALARS:
        return value
    try:
        # By itself msgspec would order the fields of an attrs class by name.
        given = attrs.asdict(cast("attrs.AttrsInstance", value)) if attrs.has(type(value)) else value
        return cast("object", msgspec.to_builtins(given, enc_hook=dumped))
    except Exception:
        # It has none. Whoever keeps the value says so.
        return value


def _refuses(error: Exception) -> bool:
    """Whether a check raised this about the value rather than by mistake."""
    # The errors of msgspec are ValueErrors only in its later versions.
    if isinstance(error, ValueError | AssertionError | msgspec.DecodeError):
        return True
    # Those of jsonschema and cattrs are no ValueErrors; either may be there or not.
    return not {"ValidationError", "BaseValidationError"}.isdisjoint(_names(error))


def _names(error: Exception) -> list[str]:
    return [each.__name__ for each in type(error).__mro__]


def _words(error: Exception) -> str:
    """What a validator says, in one line."""
    try:
        said = _said(error)
    except Exception:
        said = ""
    return _line(said) or type(error).__name__


def _said(error: Exception) -> str:
    found = cast("object", getattr(error, "errors", None))
    if callable(found) and hasattr(error, "error_count"):
        # Pydantic's text has an address for every field; this is its message for each, with the place.
        problems = cast("list[dict[str, Any]]", found())
        return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}" for each in problems)
    if type(error) is msgspec.DecodeError:
        return f"it is no JSON: {error}"
    if "BaseValidationError" in _names(error):
        return _attrs_words(error)
    said = str(error)
    if said or error.__traceback__ is None:
        return said
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return f"{type(error).__name__}: {line}" if line.startswith("assert") else ""


def _line(text: str) -> str:
    return printable(" ".join(text[:_LONGEST_READ].split()), longest=_LONGEST_WORDS)
