"""What each kind of check accepts, in which form it is kept, and in which words a value is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import importlib.util
import json
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional, TypedDict, cast

import attrs
import cattrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_sched as ts
from trio_sched._pipeline.outputs import MendedCell, cell_text, keep_cell, read_cell

LONE = "\ud83d"
JSONSCHEMA: Any = importlib.import_module("jsonschema")  # It has no types.


@attrs.define
class ByAttrs:
    title: str
    score: int = attrs.field(validator=attrs.validators.ge(0))
    tags: list[str] = attrs.field(factory=list[str])
    # In the quotes of a postponed annotation `X | None` needs Python 3.10, which is what cattrs evaluates it with.
    note: Optional[str] = None  # noqa: UP045


class TextMood(str, enum.Enum):
    GOOD = "good"


class Level(enum.IntEnum):
    LOW = 1


@attrs.define
class Inner:
    at: dt.datetime


@attrs.define
class Outer:
    inner: Inner
    score: int = attrs.field(converter=int)
    share: float
    mood: TextMood
    level: Level
    pair: tuple[int, str]
    some: set[str]
    by_name: dict[str, Inner]


class ByMsgspec(msgspec.Struct):
    title: str
    score: int
    tags: list[str] = []
    note: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        if self.score < 0:
            raise ValueError("'score' must be >= 0")


class ByPydantic(pydantic.BaseModel):
    title: str
    score: int = pydantic.Field(ge=0, strict=True)
    tags: list[str] = []
    note: Optional[str] = None  # noqa: UP045


@dataclasses.dataclass
class ByDataclass:
    title: str
    score: int
    tags: list[str] = dataclasses.field(default_factory=list[str])
    note: Optional[str] = None  # noqa: UP045

    def __post_init__(self) -> None:
        if self.score < 0:
            raise ValueError("'score' must be >= 0")


class ByTypedDict(TypedDict):
    title: str
    score: int
    tags: list[str]
    note: Optional[str]  # noqa: UP045


SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "score": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"$ref": "#/$defs/note"},
    },
    "required": ["title", "score"],
    "$defs": {"note": {"type": ["string", "null"]}},
}
CLASSES: list[type] = [ByAttrs, ByMsgspec, ByPydantic, ByDataclass]
CHECKS: list[Any] = [*CLASSES, ByTypedDict, SCHEMA]
NAMES = ["attrs", "msgspec", "pydantic", "dataclass", "TypedDict", "schema"]

GOOD: dict[str, object] = {"title": "t", "score": 3, "tags": ["a", "b"], "note": None}


def same(row: object) -> object:
    return row


def keeps(check: Any, value: object) -> object:
    """What is kept of a value. Raises what rejects the row."""
    column = ts.column(needs=["a"], name="c", attempts=1, check=check)(same)
    rule = column.keeping
    try:
        (cell,) = rule.keep(column.outputs, value)
    except (ts.TryAgain, ts.MalformedOutputError) as refusal:
        raise rule.rejection("c", refusal) from refusal.__cause__
    return read_cell(cell)


def words(check: Any, value: object) -> str:
    """The reason for which a value is refused by its check."""
    with pytest.raises(ts.AttemptsSpentError) as caught:
        keeps(check, value)
    assert caught.value.kind == "check_failed"
    assert caught.value.__cause__ is not None
    return caught.value.reason


# Classes and schemas.


def as_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
@pytest.mark.parametrize("form", [json.dumps, as_bytes, dict], ids=["text", "bytes", "dict"])
def test_text_is_parsed_and_plain_values_are_taken_as_they_are(check: object, form: Callable[[object], object]) -> None:
    assert json.dumps(keeps(check, form(GOOD))) == json.dumps(GOOD)


@pytest.mark.parametrize("check", CLASSES, ids=NAMES[:4])
def test_an_object_of_the_class_itself_is_taken(check: type) -> None:
    assert keeps(check, check(**GOOD)) == GOOD


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
@pytest.mark.parametrize(
    "wrong",
    [
        {"title": "t"},
        {"title": "t", "score": "high"},
        {"title": None, "score": 3},
        {"title": 3, "score": 3},
        {"title": "t", "score": 3.5},
        {"title": "t", "score": True},
        {"title": "t", "score": 3, "tags": "ab"},
        {"title": "t", "score": 3, "tags": {"a": "b"}},
        {"title": "t", "score": 3, "tags": ["a", None]},
        {"title": "t", "score": 3, "note": 4},
        [GOOD],
        "text",
        None,
    ],
    ids=repr,
)
def test_nothing_passes_that_the_fields_do_not_say(check: object, wrong: object) -> None:
    if isinstance(wrong, dict):
        # A TypedDict wants all of them.
        wrong = {"tags": [], "note": None, **cast("dict[str, object]", wrong)}
    assert words(check, json.dumps(wrong))
    assert words(check, wrong)


@pytest.mark.parametrize("check", [*CLASSES, SCHEMA], ids=[*NAMES[:4], "schema"])
def test_validators_are_asked_and_say_why(check: object) -> None:
    reason = words(check, {"title": "t", "score": -1})
    assert "score" in reason
    assert "0" in reason
    assert "\n" not in reason


def test_the_words_of_each() -> None:
    wrong = '{"score": "high", "tags": ["a", 3]}'
    assert words(ByAttrs, wrong) == (
        "required field missing @ $.title; expected int, got str @ $.score; expected str, got int @ $.tags[1]"
    )
    assert words(ByMsgspec, wrong) == "Expected `int`, got `str` - at `$.score`"
    assert words(ByPydantic, wrong) == (
        "title: Field required; score: Input should be a valid integer; tags.1: Input should be a valid string"
    )
    assert words(SCHEMA, '{"title": "t", "score": "high"}') == "'high' is not of type 'integer' at $.score"
    for check in (ByAttrs, ByMsgspec, SCHEMA):
        assert words(check, "Sure! Here it is.").startswith("it is no JSON: ")
    assert words(ByPydantic, "Sure! Here it is.").startswith("the value: Invalid JSON: ")
    assert words(ByAttrs, "[1]") == "expected an object, got list"


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
@pytest.mark.parametrize(
    "text", [f'"cut {LONE}"', '"cut \\ud83d"', '"cut \\uD83D"'], ids=["raw", "escaped", "upper case"]
)
def test_half_a_letter_costs_no_answer(check: object, text: str) -> None:
    kept = keeps(check, f'{{"title": {text}, "score": 3, "tags": [], "note": null}}')
    assert kept == {"title": "cut \N{REPLACEMENT CHARACTER}", "score": 3, "tags": [], "note": None}


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"title": ' + '[{"\\ud83d": ' * 50_000], ids=["lists", "with half a letter"]
)
def test_an_answer_that_is_nested_too_deeply_is_refused(check: object, text: str) -> None:
    assert words(check, text)


def test_a_field_of_attrs_may_convert_and_hold_any_of_the_usual_types() -> None:
    plain = {
        "inner": {"at": "2026-01-02T03:04:05"},
        "score": 7,
        "share": 1.0,
        "mood": "good",
        "level": 1,
        "pair": [1, "a"],
        "some": ["a"],
        "by_name": {"x": {"at": "2026-01-02T03:04:05"}},
    }
    assert keeps(Outer, json.dumps(plain | {"score": "7", "share": 1})) == plain
    no_inner: dict[str, object] = {"x": {}}
    wrongs: dict[str, object] = {"mood": "bad", "level": 2, "pair": "ab", "share": "1", "by_name": no_inner}
    for name, wrong in wrongs.items():
        assert f"$.{name}" in words(Outer, json.dumps(plain | {name: wrong}))


def test_a_schema_about_text_gets_the_text_itself() -> None:
    assert keeps({"type": "string", "maxLength": 4}, "7") == "7"
    assert words({"type": "string", "maxLength": 4}, "12345") == "'12345' is too long at $"
    assert keeps({"type": ["string", "null"]}, None) is None
    assert keeps({"enum": ["yes", "no"]}, "yes") == "yes"
    assert words({"enum": ["yes", "no"]}, "maybe") == "'maybe' is not one of ['yes', 'no'] at $"
    assert keeps({"const": "yes"}, "yes") == "yes"
    assert keeps({"enum": ["yes", 1]}, "1") == 1
    assert keeps({"type": "integer"}, "1") == 1
    assert keeps({"minimum": 0}, "1") == 1
    assert words({"required": ["a"]}, '{"b": 1}') == "'a' is a required property at $"


def test_a_schema_reads_nothing_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ts.CheckError, match=r"example\.org"):
        keeps({"$ref": "https://example.org/schema.json"}, "{}")


def test_what_is_no_schema_is_told_at_the_declaration() -> None:
    with pytest.raises(
        ts.PipelineError, match=r"^check of column 'c' is no JSON schema: 'text' is not valid .* at \$.type$"
    ):
        keeps({"type": "text"}, "")


def test_a_schema_without_the_extra_is_told_at_the_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    with pytest.raises(
        ts.MissingExtraError, match=r"^jsonschema is not installed; run: pip install 'trio_sched\[schema\]'$"
    ):
        keeps({"type": "object"}, "{}")


class Unknown:
    def __init__(self, value: object) -> None:
        pass


@pydantic.dataclasses.dataclass
class PydanticDataclass:
    score: int


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (3, "a function of the value, a pydantic, msgspec or attrs class"),
        (Unknown, "a function of the value, a pydantic, msgspec or attrs class"),
        (ByMsgspec("t", 3), "a function of the value, a pydantic, msgspec or attrs class"),
        (
            list[ByMsgspec],
            r"a class or a function; for a type like this one write pydantic.TypeAdapter\(...\).validate_json",
        ),
        (PydanticDataclass, "a class or a function; for a type like this one write"),
    ],
    ids=["int", "a class", "an object", "a type", "pydantic dataclass"],
)
def test_what_is_no_check_is_told_at_the_declaration(check: object, expected: str) -> None:
    with pytest.raises(ts.InvalidTypeError, match=rf"^check of column 'c' must be {expected}.*, got "):
        keeps(check, None)


def test_a_class_with_a_field_that_cannot_be_read_is_told_at_the_declaration() -> None:
    class Odd(msgspec.Struct):
        either: list[int] | tuple[int, int]

    with pytest.raises(
        ts.PipelineError, match=r"^check of column 'c' cannot use Odd: .*; mend the types of its fields"
    ):
        keeps(Odd, None)


# Functions.


def decoded(text: str) -> object:
    return msgspec.json.decode(text, type=ByMsgspec)


def objects(value: dict[str, Any]) -> object:
    return [ByPydantic(**value), {"attrs": ByAttrs(**value)}]


def others(value: int) -> object:
    return {"at": dt.date(2026, 1, 2), "id": uuid.UUID(int=value), "sum": Decimal("1.50")}


def nothing(value: object) -> None:
    return None


def unkeepable(value: object) -> object:
    return object()


class Mood(enum.Enum):
    GOOD = "good"


@pytest.mark.parametrize(
    ("check", "value", "kept"),
    [
        (int, "7", 7),
        (float, "7.5", 7.5),
        (Mood, "good", "good"),
        (pydantic.TypeAdapter(list[ByPydantic]).validate_json, json.dumps([GOOD]), [GOOD]),
        (decoded, json.dumps(GOOD), GOOD),
        (objects, GOOD, [GOOD, {"attrs": GOOD}]),
        (others, 1, {"at": "2026-01-02", "id": "00000000-0000-0000-0000-000000000001", "sum": "1.50"}),
        (nothing, 1, None),
    ],
)
def test_the_plain_form_of_what_a_function_returns_is_kept(check: object, value: object, kept: object) -> None:
    assert keeps(check, value) == kept


def test_a_function_gets_the_value_as_it_was_returned() -> None:
    model = ByPydantic(title="t", score=3)
    seen: list[object] = []
    keeps(seen.append, model)
    assert seen == [model]
    assert seen[0] is model


def structured(value: Mapping[str, Any]) -> ByAttrs:
    return cattrs.structure(value, ByAttrs)


def raising(error: BaseException) -> Callable[[object], object]:
    def check(value: object) -> object:
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("too long"), "too long"),
        (AssertionError("too\n  long\x07"), "too long?"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 5_000), "x" * 299 + "\N{HORIZONTAL ELLIPSIS}"),
        (JSONSCHEMA.ValidationError("no schema of mine"), "no schema of mine"),
    ],
    ids=["ValueError", "AssertionError", "no words", "long", "jsonschema"],
)
def test_a_refusal_is_told_in_the_words_of_the_check(error: Exception, reason: str) -> None:
    assert words(raising(error), 1).startswith(reason)


def test_a_validation_error_of_cattrs_is_told_field_by_field() -> None:
    assert words(structured, {"title": "t"}) == "required field missing @ $.score"


def test_an_assertion_without_words_is_told_by_its_line(tmp_path: Path) -> None:
    # In a module that pytest does not rewrite, as no user's is.
    (tmp_path / "plain_asserts.py").write_text("def check(value):\n    assert 0 <= value <= 10\n    return value\n")
    spec = importlib.util.spec_from_file_location("plain_asserts", tmp_path / "plain_asserts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert words(module.check, 11) == "AssertionError: assert 0 <= value <= 10"


class UnspeakableError(ValueError):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_error_that_cannot_be_read_refuses_as_well() -> None:
    assert words(raising(UnspeakableError()), 1) == "UnspeakableError"


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), RuntimeError("c"), ZeroDivisionError()], ids=repr)
def test_any_other_error_is_a_bug_of_the_check(error: Exception) -> None:
    with pytest.raises(ts.CheckError, match=r"^check of column 'c' raised ") as caught:
        keeps(raising(error), 1)
    assert caught.value.__cause__ is error
    assert caught.value.column == "c"


def test_a_check_may_try_again_itself() -> None:
    with pytest.raises(ts.AttemptsSpentError, match="asked to be made again: because") as caught:
        keeps(raising(ts.TryAgain("because")), 1)
    assert caught.value.kind == "try_again"


def test_a_check_that_returns_what_cannot_be_kept_is_malformed_output() -> None:
    with pytest.raises(ts.MalformedOutputError, match="column 'c' returned an object that is not JSON"):
        keeps(unkeepable, 1)


# Plain forms and halves of letters, without a check.


class Response:
    """Like an SDK's, of another version: its dump takes no mode."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, object]:
        return self.fields


def test_an_object_with_model_dump_is_kept_as_its_plain_form() -> None:
    model = ByPydantic(title="t", score=3)
    plain: dict[str, object] = {"title": "t", "score": 3, "tags": [], "note": None}
    assert read_cell(keep_cell("c", model)) == plain
    assert read_cell(keep_cell("c", {"a": [model, Response(inner=model)]})) == {"a": [plain, {"inner": plain}]}


def test_of_several_outputs_an_object_with_model_dump_is_the_mapping() -> None:
    column = ts.column(needs=["a"], outputs=["title", "score"], side_effect_columns=["tags", "note"])(same)
    cells = column.keeping.keep(column.outputs, ByPydantic(title="t", score=3))
    assert [read_cell(cell) for cell in cells] == ["t", 3, [], None]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (ByPydantic, r"a ModelMetaclass that is not JSON \(Object of type ModelMetaclass"),
        (Response(a={1}), r"a Response that is not JSON \(Object of type set"),
        (Response(a={1: 2}), r"a Response that is not JSON \(its model_dump failed: TypeError.'the key 1 of"),
        (ByMsgspec("t", 3), r"a ByMsgspec that is not JSON \(Object of type ByMsgspec"),
    ],
    ids=["a class", "a set in it", "a key in it", "no model_dump"],
)
def test_a_plain_form_that_is_no_json_is_malformed(value: object, problem: str) -> None:
    with pytest.raises(ts.MalformedOutputError, match=rf"^column 'c' returned {problem}"):
        keep_cell("c", value)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (f"cut {LONE}", "cut \N{REPLACEMENT CHARACTER}"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),
        (
            [LONE, {f"a{LONE}": "\ude00"}],
            ["\N{REPLACEMENT CHARACTER}", {"a\N{REPLACEMENT CHARACTER}": "\N{REPLACEMENT CHARACTER}"}],
        ),
        ({LONE: 1, "\udc00": 2}, {"\N{REPLACEMENT CHARACTER}": 2}),
    ],
    ids=["cut", "two halves", "nested", "two keys become one"],
)
def test_half_a_letter_becomes_the_replacement_character(value: object, kept: object) -> None:
    cell = keep_cell("c", value)
    assert isinstance(cell, MendedCell)
    assert read_cell(cell) == kept
    assert cell_text(cell) == json.dumps(kept, ensure_ascii=False)


@given(st.lists(st.one_of(st.text(st.characters(categories=["Cs"]), max_size=3), st.text(max_size=3))).map("".join))
def test_any_text_can_be_kept_and_only_halves_change(text: str) -> None:
    cell = keep_cell("c", text)
    read = read_cell(cell)
    assert isinstance(read, str)
    assert cell_text(cell).encode()
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert [letter if not "\ud800" <= letter <= "\udfff" else "\N{REPLACEMENT CHARACTER}" for letter in whole] == list(
        read
    )
    assert isinstance(cell, MendedCell) == any("\ud800" <= letter <= "\udfff" for letter in text)
