from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._retry_hints import (
    DEFAULT_HINT_CAP_SECONDS,
    HintSource,
    RetryHint,
    body_objects,
    parse_json_body,
    retry_hint,
)

NOON = "Wed, 21 Oct 2015 12:00:00 GMT"
NOON_SECONDS = 1445428800.0


def never_asked() -> float:
    raise AssertionError("wall time was asked for")


@pytest.mark.parametrize(
    ("headers", "seconds", "source"),
    [
        ({"retry-after-ms": "1500"}, 1.5, "retry-after-ms"),
        ({"retry-after-ms": "0.5"}, 0.0005, "retry-after-ms"),
        ({"retry-after": "7"}, 7.0, "retry-after"),
        ({"retry-after": " 7.25 "}, 7.25, "retry-after"),
        ({"retry-after": "+1e1"}, 10.0, "retry-after"),
        ({"retry-after": ".5"}, 0.5, "retry-after"),
        ({"Retry-After": "3"}, 3.0, "retry-after"),
        ({b"RETRY-AFTER": b"3"}, 3.0, "retry-after"),
        ([("Retry-After", "3")], 3.0, "retry-after"),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"9")], 0.25, "retry-after-ms"),
        ({"retry-after": 4}, 4.0, "retry-after"),
        ({"retry-after": 4.5}, 4.5, "retry-after"),
        ([("retry-after", "soon"), ("retry-after", "8")], 8.0, "retry-after"),
    ],
)
def test_a_header_in_any_form(headers: object, seconds: float, source: str) -> None:
    hint = retry_hint(headers, wall_now=never_asked)
    assert hint is not None
    assert (hint.seconds, hint.source) == (seconds, source)


@pytest.mark.parametrize(
    "value",
    [
        "0", "0.0", "-1", "-0", "nan", "NaN", "inf", "Infinity", "-inf", "", " ", "soon", "1_000", "1,5", "0x10",
        "1 2", "٣", "9" * 129, "-1e999", 0, -3, math.nan, math.inf, -math.inf, True, None, [], b"\xff", -(10**400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["retry-after-ms", "retry-after"])
def test_what_is_no_hint(name: str, value: object) -> None:
    assert retry_hint({name: value}, wall_now=lambda: NOON_SECONDS) is None


@pytest.mark.parametrize("value", ["301", "1e300", "1e999", "9" * 128, 10**400, 1e300])
@pytest.mark.parametrize("name", ["retry-after-ms", "retry-after"])
def test_an_excessive_delay_becomes_the_cap(name: HintSource, value: object) -> None:
    if (name, value) == ("retry-after-ms", "301"):
        value = "300001"
    assert retry_hint({name: value}) == RetryHint(DEFAULT_HINT_CAP_SECONDS, name)
    assert retry_hint({name: value}, cap_seconds=2.5) == RetryHint(2.5, name)


def test_milliseconds_come_before_seconds_and_both_before_the_body() -> None:
    headers = {"retry-after-ms": "100", "retry-after": "5"}
    body = {"error": {"details": [{"retryDelay": "9s"}]}}
    assert retry_hint(headers, body) == RetryHint(0.1, "retry-after-ms")
    assert retry_hint({**headers, "retry-after-ms": "0"}, body) == RetryHint(5.0, "retry-after")
    assert retry_hint({"retry-after-ms": "-1", "retry-after": "nan"}, body) == RetryHint(9.0, "retryDelay")


def test_a_date_counts_from_the_date_of_the_same_response() -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2015 12:00:30 GMT", "Date": NOON}
    assert retry_hint(headers, wall_now=never_asked) == RetryHint(30.0, "retry-after-date")


def test_a_date_without_a_date_beside_it_counts_from_wall_time() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2015 12:00:30 GMT"}
    assert retry_hint(headers, wall_now=lambda: NOON_SECONDS + 10) == RetryHint(20.0, "retry-after-date")
    unreadable = {**headers, "date": "today"}
    assert retry_hint(unreadable, wall_now=lambda: NOON_SECONDS) == RetryHint(30.0, "retry-after-date")


def test_a_date_with_an_offset_or_without_a_zone() -> None:
    assert retry_hint({"retry-after": "Wed, 21 Oct 2015 14:00:30 +0200", "date": NOON}) == RetryHint(
        30.0, "retry-after-date"
    )
    assert retry_hint({"retry-after": "Wed, 21 Oct 2015 12:00:30 -0000", "date": NOON}) == RetryHint(
        30.0, "retry-after-date"
    )


@pytest.mark.parametrize(
    ("value", "now"),
    [
        (NOON, NOON_SECONDS),
        (NOON, NOON_SECONDS + 86400),
        ("Wed, 99 Oct 2015 12:00:00 GMT", NOON_SECONDS),
        ("Mon, 01 Jan 0001 00:00:00 +2359", NOON_SECONDS),
        (NOON + " " * 200, 0.0),
        (NOON, math.nan),
        (NOON, -math.inf),
    ],
)
def test_a_date_that_is_no_hint(value: str, now: float) -> None:
    assert retry_hint({"retry-after": value}, wall_now=lambda: now) is None


def test_a_date_far_away_is_capped() -> None:
    assert retry_hint({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", "date": NOON}) == RetryHint(
        DEFAULT_HINT_CAP_SECONDS, "retry-after-date"
    )


GOOGLE: dict[str, object] = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"},
        ],
    }
}


@pytest.mark.parametrize(
    "body",
    [
        GOOGLE,
        [GOOGLE],
        GOOGLE["error"],
        {"retryDelay": "12.5s"},
        {"retryDelay": "12.5S"},
        {"retryDelay": "12.5"},
        {"retryDelay": 12.5},
        {"retryDelay": {"seconds": "12", "nanos": 500000000}},
        {"retryDelay": {"seconds": 12.5}},
        {"error": {"retryDelay": "0s", "details": ({"retryDelay": "nans"}, {"retryDelay": "12.5s"})}},
    ],
)
def test_a_delay_in_the_body(body: object) -> None:
    assert retry_hint(None, body) == RetryHint(12.5, "retryDelay")
    assert retry_hint({"retry-after": "0"}, json.loads(json.dumps(body))) == RetryHint(12.5, "retryDelay")


@pytest.mark.parametrize(
    "delay", ["", "s", "ss", "1m", "-5s", "0s", "infs", "nan", None, True, [], {}, {"seconds": "x"}, {"nanos": -1}]
)
def test_a_delay_in_the_body_that_is_none(delay: object) -> None:
    assert retry_hint({}, {"error": {"retryDelay": delay}}) is None


def test_a_body_is_searched_only_so_deep_and_so_wide() -> None:
    deep: dict[str, object] = {"retryDelay": "1s"}
    for _ in range(10):
        deep = {"error": deep}
    assert retry_hint({}, deep) is None
    loop: dict[str, object] = {}
    loop["error"] = loop
    assert retry_hint({}, loop) is None
    assert len(body_objects([dict[str, object]() for _ in range(1000)])) == 64


def test_json_bodies() -> None:
    assert parse_json_body(b'{"a": 1}') == {"a": 1}
    assert parse_json_body('{"a": 1}') == {"a": 1}
    for nothing in (None, 5, b"", b"<html>", "[" * 60000, b'"' + b"x" * 70000 + b'"', b"\xff\xfe\x00"):
        assert parse_json_body(nothing) is None


class Hostile:
    """Headers whose every use raises."""

    def items(self) -> object:
        raise RuntimeError("no headers for you")


class HalfHostile:
    def items(self) -> Iterator[tuple[str, str]]:
        yield "retry-after", "2"
        raise RuntimeError("no more headers for you")


def test_foreign_headers_cannot_raise() -> None:
    assert retry_hint(Hostile()) is None
    assert retry_hint(HalfHostile()) == RetryHint(2.0, "retry-after")
    assert retry_hint("retry-after: 5") is None
    assert retry_hint(5) is None
    assert retry_hint([("retry-after",)]) is None


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from(["1", "12.5s", "1e999", "nan", NOON, "Wed, 21 Oct 2015 12:00:30 GMT"])
    | st.floats().map(str) | st.integers().map(str)
    | st.datetimes().map(lambda date: date.strftime("%a, %d %b %Y %H:%M:%S GMT"))
)  # fmt: skip
names = st.sampled_from(["retry-after-ms", "Retry-After", b"retry-after", "date", "x"]) | st.text()
headers = st.none() | st.dictionaries(names, scalars) | st.lists(st.tuples(names, scalars)) | scalars
bodies = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["error", "details", "retryDelay", "seconds", "nanos", "x"]), inner)
    ),
    max_leaves=20,
)


@given(headers, bodies, st.floats(min_value=1e-3, max_value=1e6), st.floats())
def test_a_hint_is_finite_positive_and_capped_or_nothing(headers: object, body: object, cap: float, now: float) -> None:
    hint = retry_hint(headers, body, cap_seconds=cap, wall_now=lambda: now)
    assert hint is None or 0 < hint.seconds <= cap


@given(st.floats(min_value=0.001, max_value=299))
def test_a_plain_number_of_seconds_comes_back_as_it_is(seconds: float) -> None:
    assert retry_hint({"retry-after": repr(seconds)}) == RetryHint(seconds, "retry-after")


@given(st.integers(min_value=1, max_value=200), st.integers(min_value=-(10**6), max_value=10**6))
def test_clock_skew_cancels_out(wait: int, skew: int) -> None:
    from email.utils import formatdate

    sent = NOON_SECONDS + skew
    headers = {"date": formatdate(sent, usegmt=True), "retry-after": formatdate(sent + wait, usegmt=True)}
    assert retry_hint(headers, wall_now=never_asked) == RetryHint(float(wait), "retry-after-date")
