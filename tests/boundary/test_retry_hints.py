from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

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
        ({"retry-after": "30, 20"}, 30.0, "retry-after"),
        ({"retry-after": "0, 20"}, 20.0, "retry-after"),
        ({"retry-after-ms": "500, 20"}, 0.5, "retry-after-ms"),
        ({"retry-after": "30s"}, 30.0, "retry-after"),
        ({"retry-after": "1m30s"}, 90.0, "retry-after"),
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


LATER = "Wed, 21 Oct 2015 12:00:20 GMT"


@pytest.mark.parametrize(
    "value", ["1445428820", 1445428820, "1445428820.0", "1445428820000", "2015-10-21T12:00:20Z", LATER, b"1445428820"]
)
@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Retry-After", "retry-after-date"),
        ("X-RateLimit-Reset", "x-ratelimit-reset"),
        ("anthropic-ratelimit-requests-reset", "anthropic-ratelimit"),
        ("RateLimit-Reset", "ratelimit"),
    ],
)
def test_a_moment_counts_from_the_date_of_the_response_or_wall_time(
    name: str, source: HintSource, value: object
) -> None:
    assert retry_hint({name: value, "date": NOON}, wall_now=never_asked) == RetryHint(20.0, source)
    assert retry_hint({name: value}, wall_now=lambda: NOON_SECONDS + 5) == RetryHint(15.0, source)
    assert retry_hint({name: value}, wall_now=lambda: NOON_SECONDS + 20) is None
    assert retry_hint({name: value}, wall_now=lambda: NOON_SECONDS + 1e6) is None
    assert retry_hint({name: value}, wall_now=lambda: NOON_SECONDS - 1e6) == RetryHint(300.0, source)
    assert retry_hint({name: value}, wall_now=lambda: math.nan) is None


@pytest.mark.parametrize(
    ("headers", "seconds", "source"),
    [
        ({"x-ratelimit-reset": "30"}, 30.0, "x-ratelimit-reset"),
        ({"x-ratelimit-reset": 30}, 30.0, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-after": "0.5"}, 0.5, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-requests": "1s"}, 1.0, "x-ratelimit-reset"),
        ({b"X-RateLimit-Reset-Requests": b"12ms"}, 0.012, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-tokens": "2m0s"}, 120.0, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 300.0, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 300.0, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-tokens-minute": "11.5"}, 11.5, "x-ratelimit-reset"),
        ({"x-ratelimit-reset-tokens": "1s, 3s"}, 3.0, "x-ratelimit-reset"),
        ([("x-ratelimit-reset-tokens", "1s"), ("x-ratelimit-reset-tokens", "3s")], 3.0, "x-ratelimit-reset"),
        ({"anthropic-ratelimit-requests-reset": "2015-10-21T12:00:01Z"}, 1.0, "anthropic-ratelimit"),
        ({"anthropic-ratelimit-tokens-reset": "2015-10-21T12:00:02Z"}, 2.0, "anthropic-ratelimit"),
        ({"anthropic-ratelimit-input-tokens-reset": "2015-10-21T12:00:03Z"}, 3.0, "anthropic-ratelimit"),
        ({"Anthropic-RateLimit-Output-Tokens-Reset": "2015-10-21T14:00:04+02:00"}, 4.0, "anthropic-ratelimit"),
        ({"ratelimit-reset": "30"}, 30.0, "ratelimit"),
        ({"ratelimit": '"default";r=0;t=30'}, 30.0, "ratelimit"),
        ({"RateLimit": '"default"; r=0; t=30'}, 30.0, "ratelimit"),
        ({"ratelimit": '"a,b;r=5";r=0;t=30'}, 30.0, "ratelimit"),
        ({"ratelimit": '"burst";r=0;t=3, "day";r=0;t=30, "hour";r=9;t=60'}, 30.0, "ratelimit"),
        ({"ratelimit": "default;t=30"}, 30.0, "ratelimit"),
        ({"ratelimit": "limit=9, remaining=0, reset=30"}, 30.0, "ratelimit"),
        ({"ratelimit": "limit=9,remaining=0,reset=30"}, 30.0, "ratelimit"),
    ],
)
def test_a_reset_header(headers: object, seconds: float, source: HintSource) -> None:
    hint = retry_hint(headers, wall_now=lambda: NOON_SECONDS)
    assert hint is not None
    assert hint.seconds == pytest.approx(seconds)
    assert hint.source == source


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-reset-requests": "0"},
        {"x-ratelimit-reset-requests": "0s"},
        {"x-ratelimit-reset-requests": "-1s"},
        {"x-ratelimit-reset-requests": "nan"},
        {"x-ratelimit-reset-requests": ""},
        {"x-ratelimit-reset-requests": None},
        {"x-ratelimit-reset-requests": ["5"]},
        {"x-ratelimit-resets": "5"},
        {"x-ratelimit-remaining": "0"},
        {"x-ratelimit-limit-requests": "5"},
        {"anthropic-ratelimit-unified-reset": "1445428830"},
        {"anthropic-ratelimit-reset": "5"},
        {"anthropic-ratelimit-requests-limit": "5"},
        {"ratelimit-policy": '"default";q=100;w=60'},
        {"ratelimit-reset-requests": "5"},
        {"ratelimit": '"default";r=0'},
        {"ratelimit": '"default";r=0;t=x'},
        {"ratelimit": '"default";r=0;t=-3'},
        {"ratelimit": ",;=,"},
        {"ratelimit": None},
    ],
)
def test_a_reset_header_that_is_no_hint(headers: object) -> None:
    assert retry_hint(headers, wall_now=lambda: NOON_SECONDS) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "1m"}, 60.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "5000"}, 2.0),
        ({"x-ratelimit-remaining-requests": "10", "x-ratelimit-remaining-tokens": "0"}, 60.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"}, 60.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "-7"}, 60.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "many"}, 60.0),
        ({"x-ratelimit-remaining-tokens": "5000"}, 2.0),
        ({"x-ratelimit-remaining-tokens": "5000, 0"}, 60.0),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-remaining-tokens": "1"}, None),
        ({"x-ratelimit-remaining": "5"}, 60.0),
        ({"anthropic-ratelimit-tokens-remaining": "5000"}, 60.0),
    ],
)
def test_a_reset_applies_where_nothing_remains(headers: dict[str, str], seconds: float | None) -> None:
    resets = {"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "1m"}
    hint = retry_hint({**headers, **resets}, wall_now=never_asked)
    assert (None if hint is None else hint.seconds) == seconds


@pytest.mark.parametrize(
    ("reset", "remaining"),
    [
        ("x-ratelimit-reset", "x-ratelimit-remaining"),
        ("x-ratelimit-reset-after", "x-ratelimit-remaining"),
        ("x-ratelimit-reset-tokens-minute", "x-ratelimit-remaining-tokens-minute"),
        ("anthropic-ratelimit-output-tokens-reset", "anthropic-ratelimit-output-tokens-remaining"),
        ("ratelimit-reset", "ratelimit-remaining"),
    ],
)
def test_what_remains_is_said_beside_the_reset(reset: str, remaining: str) -> None:
    assert retry_hint({reset: "5", remaining: "1"}) is None
    hint = retry_hint({reset: "5"})
    assert hint is not None
    assert retry_hint({reset: "5", remaining: "0"}) == hint


def test_the_longest_reset_of_all_families() -> None:
    headers = {
        "x-ratelimit-reset-requests": "2s",
        "anthropic-ratelimit-tokens-reset": "2015-10-21T12:00:09Z",
        "ratelimit": '"default";r=0;t=5',
        "date": NOON,
    }
    assert retry_hint(headers) == RetryHint(9.0, "anthropic-ratelimit")
    assert retry_hint({**headers, "ratelimit-reset": "11"}) == RetryHint(11.0, "ratelimit")


def test_what_is_explicit_comes_before_headers_headers_before_the_body_and_fields_before_words() -> None:
    body = {"error": {"message": "try again in 40s", "details": [{"retryDelay": "30s"}]}}
    words = {"error": {"message": "try again in 40s"}}
    said = "Please retry in 50s"
    headers = {"x-ratelimit-reset": "20", "retry-after": "10", "retry-after-ms": "5000"}
    assert retry_hint(headers, body, messages=[said]) == RetryHint(5.0, "retry-after-ms")
    del headers["retry-after-ms"]
    assert retry_hint(headers, body, messages=[said]) == RetryHint(10.0, "retry-after")
    dated = {**headers, "retry-after": LATER, "date": NOON}
    assert retry_hint(dated, body, messages=[said]) == RetryHint(20.0, "retry-after-date")
    del headers["retry-after"]
    assert retry_hint(headers, body, messages=[said]) == RetryHint(20.0, "x-ratelimit-reset")
    assert retry_hint({}, body, messages=[said]) == RetryHint(30.0, "retryDelay")
    assert retry_hint({}, words, messages=[said]) == RetryHint(40.0, "message")
    assert retry_hint({}, {}, messages=[said]) == RetryHint(50.0, "message")


def test_what_does_not_refuse_has_no_hint_but_retry_after() -> None:
    body = {"error": {"message": "try again in 40s", "details": [{"retryDelay": "30s"}]}}
    headers = {"x-ratelimit-reset": "20", "ratelimit-reset": "20"}
    assert retry_hint(headers, body, messages=["retry in 5s"], refused=False) is None
    for name, value, source in (
        ("retry-after-ms", "7000", "retry-after-ms"),
        ("retry-after", "7", "retry-after"),
        ("retry-after", "2015-10-21T12:00:07Z", "retry-after-date"),
    ):
        hint = retry_hint({**headers, name: value, "date": NOON}, body, refused=False)
        assert hint is not None
        assert (hint.seconds, hint.source) == (7.0, source)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-5 on tokens per min. Please try again in 12.3s. Visit https://x.test", 12.3),
        ("Please try again in 6m0s.", 300.0),
        ("try again in 250ms", 0.25),
        ("Try again in 1m30s", 90.0),
        ("Requests have exceeded call rate limit. Please retry after 26 seconds.", 26.0),
        ("Quota exceeded for metric: x, limit: 5\nPlease retry in 31.5s.", 31.5),
        ("retry in 1 minute and 5 seconds", 65.0),
        ("RETRY AFTER 20 SECONDS", 20.0),
        ("try again in 0s, or try again in 4s", 4.0),
        ("please try again later", None),
        ("please try again in a few seconds", None),
        ("retry after 20", None),
        ("retry after -5s", None),
        ("retry in 0s", None),
        ("a country in 5s", None),
        ("retry in  5s", None),
        ("ERROR 429: 12.3s", None),
        ("x" * 4096 + "retry in 5s", None),
        ("x" * 4090 + " retry in 5s", None),
        ("", None),
    ],
)
def test_a_hint_in_words(message: str, seconds: float | None) -> None:
    expected = None if seconds is None else RetryHint(seconds, "message")
    assert retry_hint({}, {"error": {"message": message}}) == expected
    assert retry_hint({}, [{"Error": {"Message": message}}]) == expected
    assert retry_hint({}, {"error": message}) == expected
    assert retry_hint({}, {"detail": message}) == expected
    assert retry_hint({}, messages=[message]) == expected
    assert retry_hint({}, {"error": {"prompt": message}}) is None


def test_words_are_searched_only_so_far() -> None:
    said = "retry in 5s"
    assert retry_hint({}, messages=[""] * 15 + [said]) == RetryHint(5.0, "message")
    assert retry_hint({}, messages=[""] * 16 + [said]) is None


class HostileMapping(Mapping[str, object]):
    def __getitem__(self, name: str) -> object:
        raise RuntimeError(name)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no names for you")

    def __len__(self) -> int:
        raise RuntimeError("no length for you")


class HostileDict(dict[str, object]):
    def get(self, name: str, default: object = None) -> object:
        raise RuntimeError(name)


class HostileInt(int):
    def __float__(self) -> float:
        raise RuntimeError("no number for you")


class Pretender:
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize("kind", [HostileMapping, HostileDict, HostileInt, Pretender, Hostile])
def test_foreign_values_cannot_raise(kind: type[object]) -> None:
    nasty = kind()
    for name in ("retry-after-ms", "retry-after", "date", "x-ratelimit-reset", "x-ratelimit-remaining", "ratelimit"):
        retry_hint({name: nasty, "x-ratelimit-reset": "5"})
    assert retry_hint(nasty) is None
    assert retry_hint({}, nasty) is None
    assert retry_hint({}, {"error": nasty}) is None
    assert retry_hint({}, {"retryDelay": nasty, "message": nasty}) is None
    assert retry_hint({}, {"error": [nasty]}) is None


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from([
        "1", "12.5s", "1e999", "nan", NOON, LATER, "6m0s", "1445428820", "1445428820000", "2015-10-21T12:00:20Z",
        '"default";r=0;t=30', "limit=9, remaining=0, reset=30", "try again in 12.5s", "retry after 1e999 seconds",
    ])
    | st.floats().map(str) | st.integers().map(str)
    | st.datetimes().map(lambda date: date.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    | st.datetimes().map(lambda date: date.isoformat() + "Z")
)  # fmt: skip
names = (
    st.sampled_from(["retry-after-ms", "Retry-After", b"retry-after", "date", "ratelimit", "ratelimit-reset", "x"])
    | st.builds("{}-{}{}".format, st.just("x-ratelimit"), st.sampled_from(["reset", "remaining"]), st.just("-tokens"))
    | st.builds("anthropic-ratelimit-tokens-{}".format, st.sampled_from(["reset", "remaining"]))
    | st.text()
)
headers = st.none() | st.dictionaries(names, scalars) | st.lists(st.tuples(names, scalars)) | scalars
bodies = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "details", "retryDelay", "seconds", "nanos", "message", "x"]), inner
        )
    ),
    max_leaves=20,
)


@given(
    headers,
    bodies,
    st.lists(st.text()),
    st.booleans(),
    st.floats(min_value=1e-3, max_value=1e6),
    st.floats(),
)
def test_a_hint_is_finite_positive_and_capped_or_nothing(
    headers: object, body: object, messages: list[str], refused: bool, cap: float, now: float
) -> None:
    hint = retry_hint(headers, body, messages=messages, refused=refused, cap_seconds=cap, wall_now=lambda: now)
    assert hint is None or 0 < hint.seconds <= cap
    assert hint is None or refused or hint.source.startswith("retry-after")


@given(st.floats(min_value=0.001, max_value=299))
def test_a_plain_number_of_seconds_comes_back_as_it_is(seconds: float) -> None:
    assert retry_hint({"retry-after": repr(seconds)}) == RetryHint(seconds, "retry-after")


@given(st.integers(min_value=1, max_value=200), st.integers(min_value=-(10**6), max_value=10**6))
def test_clock_skew_cancels_out(wait: int, skew: int) -> None:
    from email.utils import formatdate

    sent = NOON_SECONDS + skew
    headers = {"date": formatdate(sent, usegmt=True), "retry-after": formatdate(sent + wait, usegmt=True)}
    assert retry_hint(headers, wall_now=never_asked) == RetryHint(float(wait), "retry-after-date")
