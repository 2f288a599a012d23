"""Values as JSON text: what cattrs and `json` make of it is what was written, for every kind of field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._events.json_text import line_writer, object_text, text_writer
from trio_sched._events.json_value import JsonValue
from trio_sched._resources.identity import RequestDomain


@attrs.frozen
class Inner:
    name: str
    domain: RequestDomain


@attrs.frozen
class Outer:
    kind: Literal["a", "b"]
    text: str | None
    count: int | None
    time: float | None
    inner: Inner | None
    facts: Mapping[str, JsonValue]
    anything: JsonValue


@attrs.frozen
class Snapshot:
    name: str
    facts: dict[str, JsonValue] | None
    mood: Literal["good", "bad"] | None = None


@attrs.define
class About:
    text_: str | None
    count: int | None
    inner: Inner | None
    text: str = attrs.field(default="", init=False)


@attrs.frozen
class Told:
    kind: Literal["a", "b"]
    text_: str | None
    count: int | None
    inner: Inner | None
    reason: str | None


json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.builds(
        Outer,
        kind=st.sampled_from(("a", "b")),
        text=st.none() | st.text(),
        count=st.none() | st.integers(),
        time=st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 10),
        inner=st.none() | st.builds(Inner, st.text(), st.sampled_from(RequestDomain)),
        facts=st.dictionaries(st.text(max_size=5), json_values, max_size=4).map(MappingProxyType),
        anything=json_values,
    )
)
def test_the_text_is_what_json_makes_of_the_fields_that_hold_something(value: Outer) -> None:
    fields = attrs.asdict(value, recurse=False)
    fields["inner"] = None if value.inner is None else attrs.asdict(value.inner)
    fields["facts"] = dict(value.facts)
    for name in ("text", "count", "time", "inner", "facts"):
        if fields[name] is None or fields[name] == {}:
            del fields[name]
    text = text_writer(Outer)(value)
    assert json.loads(text) == fields
    assert list(json.loads(text)) == list(fields)
    assert "\n" not in text


@given(st.lists(st.text(max_size=3), min_size=1, max_size=5))
def test_a_remembered_text_is_never_that_of_another_object(names: list[str]) -> None:
    write = text_writer(Outer)
    for name in names * 500:
        text = write(Outer("a", None, None, None, Inner(name, RequestDomain.CHAT), {}, None))
        assert json.loads(text)["inner"]["name"] == name


@given(
    st.lists(st.floats(0, 3e16) | st.floats(8190, 8200) | st.integers(8190, 8194).map(float), min_size=1, max_size=6)
)
def test_a_time_reads_back_to_the_same_double(times: list[float]) -> None:
    """Also where the same second is told again, before and after others."""
    write = text_writer(Outer)
    for time in [*times, *times, *(math.nextafter(time, 0) for time in times)]:
        text = write(Outer("a", None, None, time, None, {"at": time}, None))
        assert (json.loads(text)["time"], json.loads(text)["facts"]["at"]) == (time, time)


@pytest.mark.parametrize("time", [8192.0, math.nextafter(8193, 0), 99_999.999_999_999_99, 2.0**52 - 0.5, 2.0**53])
def test_a_time_at_the_edge_reads_back_to_the_same_double(time: float) -> None:
    second = float(int(time))
    assert [json.loads(object_text({"at": each}))["at"] for each in (second, time)] == [second, time]


def test_an_empty_mapping_that_may_be_none_is_not_none() -> None:
    write = text_writer(Snapshot)
    assert (write(Snapshot("a", {})), write(Snapshot("a", None))) == ('{"name":"a","facts":{}}', '{"name":"a"}')


def test_a_choice_that_may_be_none_is_left_out_where_it_is() -> None:
    write = text_writer(Snapshot)
    assert write(Snapshot("a", None, "bad")) == '{"name":"a","mood":"bad"}'
    assert write(Snapshot("a", None, None)) == '{"name":"a"}'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="no place in JSON"):
        text_writer(Outer)(Outer("a", None, None, number, None, {}, None))
    with pytest.raises(ValueError, match="no place in JSON"):
        object_text({"number": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        object_text({"numbers": [number]})


abouts = st.builds(
    About,
    st.none() | st.text(),
    st.none() | st.integers(),
    st.none() | st.builds(Inner, st.text(), st.sampled_from(RequestDomain)),
)


@given(abouts, st.lists(st.tuples(st.sampled_from(("a", "b")), st.none() | st.text()), min_size=1, max_size=3))
def test_a_line_of_parts_is_that_of_the_whole(about: About, told: list[tuple[str, str | None]]) -> None:
    """Also for the second line of one subject, whose text is remembered by then."""
    of_parts, of_whole = line_writer(Told, About), text_writer(Told)
    for kind, reason in told:
        assert kind in ("a", "b")
        whole = Told("a" if kind == "a" else "b", about.text_, about.count, about.inner, reason)
        assert of_parts((kind, about, reason)) == of_whole(whole) + "\n"
