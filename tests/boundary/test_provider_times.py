from __future__ import annotations

import math
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._provider_times import duration, leading_duration, moment, number, plain_text, readings, unix_time

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
number_texts = st.integers().map(str) | st.floats().map(str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        (" 7.25 ", 7.25),
        ("+1e1", 10.0),
        (".5", 0.5),
        (b"-3", -3.0),
        (bytearray(b"4"), 4.0),
        (4.5, 4.5),
        ("1e999", math.inf),
        (10**400, math.inf),
        (-(10**400), None),
        (True, None),
        (math.nan, None),
        (math.inf, None),
        ("nan", None),
        ("inf", None),
        ("1_0", None),
        ("٣", None),
        ("9" * 129, None),
        (None, None),
        ([], None),
    ],
)
def test_a_number(value: object, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (0.0, None),
        (86400.0, None),
        (1e9, None),
        (1e9 + 1, 1e9 + 1),
        (4070908820.0, 4070908820.0),
        (1e11, 1e11),
        (2e11, None),
        (1e12, None),
        (4070908820500.0, 4070908820.5),
        (1e14, 1e11),
        (2e14, None),
        (math.inf, None),
        (-4070908820.0, None),
    ],
)
def test_a_number_that_is_a_moment(quantity: float, expected: float | None) -> None:
    assert unix_time(quantity) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1s", 1.0),
        (" 1s ", 1.0),
        (b"1s", 1.0),
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1m", 60.0),
        ("1d", 86400.0),
        ("1d2h", 93600.0),
        ("1S", 1.0),
        ("20 seconds", 20.0),
        ("1 second", 1.0),
        ("5 secs", 5.0),
        ("1 minute and 5 seconds", 65.0),
        ("1 minute, 5 seconds", 65.0),
        ("1 hour, and 1 min", 3660.0),
        ("2 hrs", 7200.0),
        ("2 days", 172800.0),
        ("350 milliseconds", 0.35),
        ("350 msecs", 0.35),
        ("", None),
        ("5", None),
        ("s", None),
        ("-5s", None),
        ("1m 5", None),
        ("5s6m", None),
        ("5s5s", None),
        ("5s.", None),
        ("5sx", None),
        ("5 fortnights", None),
        ("1e3s", None),
        ("nans", None),
        ("9" * 21 + "s", None),
        ("1s" + " " * 127, None),
        (5, None),
        (None, None),
    ],
)
def test_a_duration(value: object, expected: float | None) -> None:
    assert duration(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in 12.3s.", 12.3),
        ("in 6m0s, or later", 360.0),
        ("in 20 seconds. Please", 20.0),
        ("in 1m and some", 60.0),
        ("in a while", None),
        ("in 5", None),
        ("in", None),
    ],
)
def test_a_duration_at_a_place_of_a_text(text: str, expected: float | None) -> None:
    assert leading_duration(text, 2) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:20Z", 20.0),
        ("1970-01-01t00:00:20z", 20.0),
        ("1970-01-01 00:00:20", 20.0),
        ("1970-01-01T00:00:20.25Z", 20.25),
        ("1970-01-01T00:00:20.123456789Z", 20.123456789),
        ("1970-01-01T02:00:20+02:00", 20.0),
        (b"1970-01-01T00:00:20Z", 20.0),
        ("Thu, 01 Jan 1970 00:00:20 GMT", 20.0),
        ("Thu, 01 Jan 1970 02:00:20 +0200", 20.0),
        ("Thu, 01 Jan 1970 00:00:20 -0000", 20.0),
        ("1970-01-32T00:00:20Z", None),
        ("1970-01-01T25:00:20Z", None),
        ("1970-01-01T00:00:20Zulu", None),
        ("0001-01-01T00:00:00+23:59", -62135683140.0),
        ("1970-01-01T00:00:20+99:99", None),
        ("Thu, 99 Jan 1970 00:00:20 GMT", None),
        ("20", None),
        ("", None),
        (" " * 129, None),
        (20, None),
        (None, None),
    ],
)
def test_a_moment(value: object, expected: float | None) -> None:
    assert moment(value) == expected


def test_fields_that_were_joined_are_read_apart() -> None:
    assert list(readings("30, 20")) == ["30, 20", "30", "20"]
    assert list(readings(b"30, 20")) == [b"30, 20", "30", "20"]
    assert list(readings("1,5")) == ["1,5"]
    assert list(readings(7)) == [7]
    assert len(list(readings(", " * 65))) == 1


@given(scalars | number_texts)
def test_nothing_raises_and_nothing_is_nan(value: object) -> None:
    for read in (number, duration, moment):
        found = read(value)
        assert found is None or not math.isnan(found)
    quantity = number(value)
    then = None if quantity is None else unix_time(quantity)
    assert then is None or 1e9 < then <= 1e11
    assert isinstance(plain_text(value), str)
    assert next(readings(value)) is value


@given(st.integers(0, 99), st.integers(0, 59), st.floats(0, 59.999).map(lambda seconds: round(seconds, 3)))
def test_what_go_prints_is_read_back(hours: int, minutes: int, seconds: float) -> None:
    assert duration(f"{hours}h{minutes}m{seconds}s") == pytest.approx(hours * 3600 + minutes * 60 + seconds)


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_what_python_prints_as_iso_time_is_read_back(when: datetime) -> None:
    assert moment(when.isoformat() + "Z") == pytest.approx(when.replace(tzinfo=timezone.utc).timestamp(), abs=1e-3)
