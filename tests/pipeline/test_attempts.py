"""A column's own word: how often its cells are made, and what becomes of a row that has nothing to keep."""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import attrs
import pytest
import trio
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_samples import Row, number, run_and_cancel, simulate

import trio_sched as ts
from trio_sched.testing import ScriptedProvider
from trio_sched.testing import simulate as simulate_run

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

CONFIG = ts.RunConfig(stop_error_rate=None, write_events=False)


class LimitedError(Exception):
    """A rate limit, which says nothing about the row."""

    status_code = 429


def only_cause(result: ts.RunResult) -> tuple[str, str, int, str]:
    (cause,) = result.scheduler.drop_causes
    return cause.column, cause.error_type, cause.rows, str(cause.first_error)


def short(value: object) -> object:
    if len(str(value)) > 5:
        raise ValueError("it is longer than 5 letters")
    return value


# Cell by cell.


@pytest.mark.parametrize("is_async", [True, False])
def test_a_cell_is_made_again_as_often_as_its_column_says(tmp_path: Path, is_async: bool) -> None:
    calls: list[Row] = []

    def made(row: Row) -> object:
        calls.append(dict(row))
        row["number"] = None  # What it was given is its own, each time.
        if len(calls) < 3:
            raise ts.TryAgain("not yet")
        return "made"

    async def made_async(row: Row) -> object:
        return made(row)

    column = ts.column(needs=["number"], name="c", attempts=3)(made_async if is_async else made)
    result = simulate([number, column], tmp_path / "out", records=1)
    assert [row["c"] for row in result.rows()] == ["made"]
    assert calls == [{"number": 0}] * 3


def test_after_the_last_attempt_the_row_is_rejected_with_the_last_reason(tmp_path: Path) -> None:
    reasons = itertools.count(1)

    @ts.column(needs=["number"], attempts=2)
    async def score(row: Row) -> int:
        if row["number"] == 1:
            raise ts.TryAgain(f"reason\n{next(reasons)}\x1b[2J")
        return 5

    result = simulate([number, score], tmp_path / "out", records=3)
    assert [row["number"] for row in result.rows()] == [0, 2]
    (cause,) = result.scheduler.drop_causes
    error = cause.first_error
    assert isinstance(error, ts.AttemptsSpentError)
    assert (error.column, error.attempts, error.kind, error.reason) == ("score", 2, "try_again", "reason 2?[2J")
    assert isinstance(error.__cause__, ts.TryAgain)
    assert str(error) == (
        "column 'score' has nothing to keep after 2 attempts: it asked to be made again: reason 2?[2J"
    )
    assert result.summary().count("reason 2") == 1


def test_without_attempts_try_again_rejects_and_says_what_is_missing(tmp_path: Path) -> None:
    calls: list[object] = []

    @ts.column(needs=["number"])
    async def score(row: Row) -> int:
        calls.append(row)
        raise ts.TryAgain

    result = simulate([number, score], tmp_path / "out", records=1)
    assert only_cause(result)[3] == (
        "column 'score' has nothing to keep after 1 attempt: it asked to be made again: without a reason; "
        "attempts=3 of the column would do that"
    )
    assert len(calls) == 1


def test_the_plain_failures_of_a_column_are_what_they_were(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def score(row: Row) -> float:
        return math.nan

    assert only_cause(simulate([number, score], tmp_path / "out", records=2))[:3] == (
        "score",
        "MalformedOutputError",
        2,
    )


def test_malformed_output_counts_as_an_attempt(tmp_path: Path) -> None:
    values = iter([math.nan, math.nan, 1.5])

    @ts.column(needs=["number"], attempts=3)
    async def score(row: Row) -> float:
        return next(values)

    @ts.column(needs=["number"], attempts=2, outputs=["a", "b"])
    async def pair(row: Row) -> object:
        return {"a": 1}

    result = simulate([number, score], tmp_path / "out", records=1)
    assert [row["score"] for row in result.rows()] == [1.5]
    result = simulate([number, pair], tmp_path / "pair", records=1)
    assert only_cause(result) == (
        "a",
        "AttemptsSpentError",
        1,
        "column 'a' has nothing to keep after 2 attempts: it returned a dict in which ['b'] is missing",
    )
    assert isinstance(result.scheduler.drop_causes[0].first_error.__cause__, ts.MalformedOutputError)


def test_a_check_sees_what_was_returned_and_makes_what_is_kept(tmp_path: Path) -> None:
    def doubled_again(value: dict[str, int]) -> int:
        return value["a"] * 2

    @ts.column(needs=["number"], check=doubled_again)
    async def doubled(row: dict[str, int]) -> object:
        return {"a": row["number"]}

    result = simulate([number, doubled], tmp_path / "out", records=3)
    assert [row["doubled"] for row in result.rows()] == [0, 2, 4]


def test_a_check_gives_three_attempts_and_its_words(tmp_path: Path) -> None:
    calls: list[object] = []

    @ts.column(needs=["number"], check=short)
    async def text(row: Row) -> str:
        calls.append(row)
        return "far too long"

    result = simulate([number, text], tmp_path / "out", records=1)
    assert len(calls) == 3
    (cause,) = result.scheduler.drop_causes
    assert isinstance(cause.first_error, ts.AttemptsSpentError)
    assert cause.first_error.kind == "check_failed"
    assert isinstance(cause.first_error.__cause__, ValueError)
    assert str(cause.first_error) == (
        "column 'text' has nothing to keep after 3 attempts: its check refused the value: it is longer than 5 letters"
    )


def test_of_several_outputs_a_check_sees_the_whole(tmp_path: Path) -> None:
    def swapped(value: Mapping[str, object]) -> object:
        assert set(value) == {"a", "b"}
        return {"a": value["b"], "b": value["a"], "aside": "checked"}

    @ts.column(needs=["number"], outputs=["a", "b"], side_effect_columns=["aside"], check=swapped)
    async def pair(row: Row) -> object:
        return {"a": 1, "b": 2}

    result = simulate([number, pair], tmp_path / "out", records=1)
    assert [(row["a"], row["b"], row["aside"]) for row in result.rows()] == [(2, 1, "checked")]


def test_a_bug_of_the_check_rejects_the_row_at_once(tmp_path: Path) -> None:
    calls: list[object] = []

    def broken(value: dict[str, object]) -> object:
        return value["score"]

    @ts.column(needs=["number"], check=broken, on_failure=0)
    async def text(row: Row) -> object:
        calls.append(row)
        return {}

    result = simulate([number, text], tmp_path / "out", records=1)
    assert len(calls) == 1
    column, error_type, rows, words = only_cause(result)
    assert (column, error_type, rows) == ("text", "CheckError", 1)
    assert words == (
        "check of column 'text' raised KeyError('score'); it must return the value to keep, "
        "or refuse the value by ValueError, AssertionError or TryAgain"
    )
    assert isinstance(result.scheduler.drop_causes[0].first_error.__cause__, KeyError)


def test_a_check_that_returns_something_to_await_is_a_bug_and_warns_of_nothing(tmp_path: Path) -> None:
    async def later() -> int:
        return 1

    def awaits(value: object) -> object:
        return later()

    @ts.column(needs=["number"], check=awaits)
    async def text(row: Row) -> str:
        return "text"

    assert "returned something to await" in only_cause(simulate([number, text], tmp_path / "out", records=1))[3]


@pytest.mark.parametrize(
    ("options", "on_failure", "held"),
    [
        ({}, None, {"c": None}),
        ({}, {"a": []}, {"c": {"a": []}}),
        ({"outputs": ["c", "d"]}, {"d": 1, "c": 2}, {"c": 2, "d": 1}),
        ({"outputs": ["c", "d"]}, None, {"c": None, "d": None}),
        ({"side_effect_columns": ["d"]}, {"c": 2}, {"c": 2, "d": None}),
    ],
)
@pytest.mark.parametrize("word", ["raise", "check", "malformed"])
def test_on_failure_is_kept_instead(
    tmp_path: Path, options: dict[str, list[str]], on_failure: object, held: Row, word: str
) -> None:
    decorate: Any = ts.column

    async def fail(row: Row) -> object:
        if row["number"] != 1:
            return dict.fromkeys(held, "good") if options else "good"
        if word == "raise":
            raise ts.TryAgain
        return math.nan

    def refuse_nan(value: object) -> object:
        if isinstance(value, float):
            raise AssertionError
        return value

    checked = {"check": refuse_nan} if word == "check" else {}
    column = decorate(needs=["number"], name="c", on_failure=on_failure, **checked, **options)(fail)
    result = simulate([number, column], tmp_path / "out", records=3)
    assert [row for row in result.rows() if row["number"] == 1] == [{"number": 1, **held}]
    assert (result.records, result.dropped) == (3, 0)
    assert result.fallback_cells == {"c": 1}
    assert "on_failure   of column 'c' is in 1 cell, which had nothing else to keep" in result.summary()


def test_what_needs_a_cell_that_failed_sees_on_failure_and_rejected_rows_do_not_count(tmp_path: Path) -> None:
    @ts.column(needs=["number"], on_failure="none")
    async def first(row: Row) -> object:
        raise ts.TryAgain

    @ts.column(needs=["first", "number"])
    async def second(row: Row) -> object:
        if row["number"] == 0:
            raise LookupError
        return row["first"]

    result = simulate([number, first, second], tmp_path / "out", records=3)
    assert [row["second"] for row in result.rows()] == ["none", "none"]
    assert result.fallback_cells == {"first": 2}


def test_on_failure_does_not_cover_what_is_no_word_of_the_column(tmp_path: Path) -> None:
    @ts.column(needs=["number"], on_failure="none", attempts=5)
    async def broken(row: Row) -> object:
        raise LookupError

    assert only_cause(simulate([number, broken], tmp_path / "out", records=1))[1] == "LookupError"


def test_every_attempt_calls_the_model_under_admission_and_one_bad_answer_costs_one_row(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    model = ts.Model("p", "m", max_parallel_requests=16)

    def good(value: object) -> object:
        if value == "always bad":
            raise AssertionError("it is bad")
        return value

    @ts.column(needs=["topic"], model=model, check=good)
    async def answer(row: dict[str, str], handle: ts.ModelHandle) -> object:
        await handle.call(provider.chat, [("user", row["topic"])])
        return row["topic"]

    rows = [{"topic": "always bad" if index == 120 else f"topic {index}"} for index in range(250)]
    result = simulate_run([answer], rows=rows, output=tmp_path / "out", config=ts.RunConfig(write_events=False))
    assert (result.records, result.dropped, result.status) == (249, 1, "completed")
    assert only_cause(result)[3].endswith("after 3 attempts: its check refused the value: it is bad")
    assert provider.counters.answered == 249 + 3
    assert result.requests[model.resource].attempts == 249 + 3


@pytest.mark.parametrize("where", ["call", "request"])
def test_a_word_within_a_model_call_has_the_whole_cell_made_again(tmp_path: Path, where: str) -> None:
    model = ts.Model("p", "m")
    calls: list[str] = []

    async def complete(prompt: str) -> str:
        await trio.sleep(1)
        calls.append(prompt)
        if len(calls) == 2:
            raise ts.TryAgain("it was cut")
        return prompt

    @ts.column(needs=["number"], model=model, attempts=2)
    async def answer(row: Row, handle: ts.ModelHandle) -> str:
        first = await handle.call(complete, "first")
        if where == "call":
            return first + await handle.call(complete, "second")
        async with handle.request():
            return first + await complete("second")

    result = simulate([number, answer], tmp_path / "out", records=1)
    assert [row["answer"] for row in result.rows()] == ["firstsecond"]
    assert calls == ["first", "second", "first", "second"]


def test_an_error_group_of_words_is_one_word_and_a_failure_beside_it_decides(tmp_path: Path) -> None:
    calls: dict[object, int] = defaultdict(int)
    beside: list[list[Exception]] = [
        [ts.TryAgain("too")],
        [LimitedError()],
        [LookupError()],
        [LimitedError(), LookupError()],
    ]

    @ts.column(needs=["number"], attempts=2)
    async def several(row: dict[str, int]) -> object:
        calls[row["number"]] += 1
        raise ExceptionGroup("several", [ts.TryAgain("again"), *beside[row["number"]]])

    result = simulate([number, several], tmp_path / "out", records=4)
    assert calls == {0: 2, 1: 2, 2: 1, 3: 1}
    causes = {cause.error_type: cause.rows for cause in result.scheduler.drop_causes}
    assert causes == {"AttemptsSpentError": 2, "ExceptionGroup": 2}


def test_a_cell_that_is_made_again_for_ever_can_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        cancel = trio.Event()
        calls = itertools.count()

        @ts.column(needs=["number"], attempts=10**9)
        async def busy(row: Row) -> object:
            if next(calls) == 40:
                cancel.set()
            raise ts.TryAgain

        with trio.fail_after(30):
            await run_and_cancel([number, busy], tmp_path / "out", cancel)

    trio.run(main)


# Many rows at once.


def test_a_batch_is_made_again_as_a_whole_and_only_rows_that_still_fail_are_rejected(tmp_path: Path) -> None:
    calls: list[int] = []

    @ts.batch_column(needs=["number"], check=short)
    async def texts(rows: list[Row]) -> list[object]:
        calls.append(len(rows))
        rows[0]["number"] = None
        return ["far too long" if row["number"] == 2 else f"c{len(calls)}" for row in rows]

    result = simulate([number, texts], tmp_path / "out", records=4)
    assert calls == [4, 4, 4]
    assert [(row["number"], row["texts"]) for row in result.rows()] == [(0, "c3"), (1, "c3"), (3, "c3")]
    assert only_cause(result)[:3] == ("texts", "AttemptsSpentError", 1)


def test_values_of_a_batch_are_those_of_one_call_and_the_call_that_lost_least_counts(tmp_path: Path) -> None:
    made: list[list[object]] = [["b", math.nan, "b"], ["a", math.nan, math.nan], [math.nan, "c", math.nan]]
    calls = iter(made)

    @ts.batch_column(needs=["number"], attempts=3, on_failure="none")
    async def texts(rows: list[Row]) -> object:
        return next(calls)

    result = simulate([number, texts], tmp_path / "out", records=3)
    assert [row["texts"] for row in result.rows()] == ["b", "none", "b"]
    assert result.fallback_cells == {"texts": 1}


@pytest.mark.parametrize("kind", ["batch", "from_scratch"])
def test_a_word_about_all_rows_is_one_about_each(tmp_path: Path, kind: str) -> None:
    steps: list[ts.PipelineStep] = [number]
    if kind == "batch":

        @ts.batch_column(needs=["number"], attempts=2)
        async def listed(rows: list[Row]) -> object:
            raise ts.TryAgain("all of them")

        steps.append(listed)
    else:

        @ts.from_scratch_column(attempts=2, name="listed")
        async def scratched(span: ts.RowSpan) -> object:
            raise ts.TryAgain("all of them")

        steps.append(scratched)
    result = simulate(steps, tmp_path / "out", records=3)
    assert only_cause(result) == (
        "listed",
        "AttemptsSpentError",
        3,
        "column 'listed' has nothing to keep after 2 attempts: it asked to be made again: all of them",
    )


def test_a_from_scratch_column_is_checked_row_by_row(tmp_path: Path) -> None:
    calls = itertools.count(1)

    @ts.from_scratch_column(check=int, on_failure=-1)
    async def root(span: ts.RowSpan) -> list[object]:
        call = next(calls)
        return ["1", "x" if call < 3 else "2", "y"]

    result = simulate([root], tmp_path / "out", records=3)
    assert [row["root"] for row in result.rows()] == [1, 2, -1]


def test_a_rate_limit_in_the_place_of_a_value_costs_no_attempt(tmp_path: Path) -> None:
    calls = itertools.count(1)

    @ts.batch_column(needs=["number"], check=short, attempts=2)
    async def texts(rows: list[Row]) -> list[object]:
        call = next(calls)
        return [["far too long", LimitedError(), "fine"][call - 1], f"c{call}"]

    result = simulate([number, texts], tmp_path / "out", records=2)
    assert [row["texts"] for row in result.rows()] == ["fine", "c3"]


def test_other_errors_in_the_place_of_a_value_have_nothing_made_again(tmp_path: Path) -> None:
    calls = itertools.count(1)

    @ts.batch_column(needs=["number"], attempts=5, on_failure="none", check=short)
    async def texts(rows: list[Row]) -> list[object]:
        assert next(calls) == 1
        return [LookupError("mine"), "fine"]

    result = simulate([number, texts], tmp_path / "out", records=2)
    assert [row["texts"] for row in result.rows()] == ["fine"]
    assert only_cause(result)[1] == "LookupError"


# Any sequence of outcomes, beside a simple model.

Outcome: TypeAlias = Literal["value", "bad", "nan", "again", "limited", "bug"]
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(("value", "bad", "nan", "again", "limited", "bug"))
BAD = "bad"


def good(value: object) -> object:
    if value == BAD:
        raise ValueError(BAD)
    return value


def act(outcome: Outcome, value: str) -> object:
    """What a function does for an outcome."""
    match outcome:
        case "value":
            return value
        case "bad":
            return BAD
        case "nan":
            return math.nan
        case "again":
            raise ts.TryAgain
        case "limited":
            raise LimitedError
        case "bug":
            raise LookupError


def in_place(outcome: Outcome, value: str) -> object:
    try:
        return act(outcome, value)
    except Exception as error:
        return error


def expected_of_cell(script: Sequence[Outcome], attempts: int, fallback: bool) -> tuple[int, str | None]:
    """How often the cell is made, and what is kept; None for a row that is rejected. After the script all is well."""
    spent = 0
    for calls, outcome in enumerate([*script, "value"], 1):
        if outcome == "value":
            return calls, f"call {calls}"
        if outcome == "bug":
            return calls, None
        spent += outcome != "limited"
        if spent == attempts:
            return calls, "fallback" if fallback else None
    raise AssertionError("unreachable")


@given(
    scripts=st.lists(st.lists(OUTCOMES, max_size=6), min_size=1, max_size=12),
    attempts=st.integers(1, 4),
    fallback=st.booleans(),
)
@settings(max_examples=share_of_profile(0.5))
def test_calls_and_cells_are_those_of_a_simple_model(
    scripts: list[list[Outcome]], attempts: int, fallback: bool
) -> None:
    calls: dict[int, int] = defaultdict(int)
    on_failure = "fallback" if fallback else attrs.NOTHING

    @ts.column(needs=["number"], check=good, attempts=attempts, on_failure=on_failure)
    async def c(row: dict[str, int]) -> object:
        script = scripts[row["number"]]
        calls[row["number"]] += 1
        made = calls[row["number"]]
        return act(script[made - 1] if made <= len(script) else "value", f"call {made}")

    expected = [expected_of_cell(script, attempts, fallback) for script in scripts]
    with tempfile.TemporaryDirectory() as folder:
        result = simulate_run([number, c], records=len(scripts), output=Path(folder) / "out", config=CONFIG)
        kept = {cast("int", row["number"]): row["c"] for row in result.rows()}
    assert [calls[index] for index in range(len(scripts))] == [made for made, _ in expected]
    assert kept == {index: cell for index, (_, cell) in enumerate(expected) if cell is not None}
    fallbacks = sum(cell == "fallback" for _, cell in expected)
    assert result.fallback_cells == ({"c": fallbacks} if fallbacks else {})
    assert result.dropped == len(scripts) - len(kept)


Whole: TypeAlias = Literal["again", "limited", "bug", "short"]
Round: TypeAlias = "Whole | list[Outcome]"


def expected_of_batch(script: Sequence[Round], rows: int, attempts: int, fallback: bool) -> tuple[int, dict[int, str]]:
    """How often the batch is made, and what is kept of which rows."""
    spent = 0
    best: list[Outcome] = []
    number_of_best = 0
    for calls, each in enumerate([*script, cast("list[Outcome]", ["value"] * rows)], 1):
        if each == "bug":
            return calls, {}
        if each == "limited" or "limited" in each:
            best = []  # The task runs again, and only remembers what it spent.
            continue
        outcomes = each if isinstance(each, list) else cast("list[Outcome]", ["again"] * rows)
        refused = sum(outcome in ("bad", "nan", "again") for outcome in outcomes)
        if not best or refused <= sum(outcome in ("bad", "nan", "again") for outcome in best):
            best, number_of_best = outcomes, calls
        spent += refused > 0
        if not refused or spent == attempts:
            kept: dict[int, str] = {}
            for row, outcome in enumerate(best):
                if outcome == "value":
                    kept[row] = f"call {number_of_best}"
                elif outcome != "bug" and fallback:
                    kept[row] = "fallback"
            return calls, kept
    raise AssertionError("unreachable")


@given(data=st.data(), rows=st.integers(1, 4), attempts=st.integers(1, 4), fallback=st.booleans())
@settings(max_examples=share_of_profile(0.5))
def test_a_batch_is_made_as_a_simple_model_says(data: st.DataObject, rows: int, attempts: int, fallback: bool) -> None:
    of_all: st.SearchStrategy[Round] = st.sampled_from(("again", "limited", "bug", "short"))
    of_each: st.SearchStrategy[Round] = st.lists(OUTCOMES, min_size=rows, max_size=rows)
    script = data.draw(st.lists(st.one_of(of_each, of_each, of_all), max_size=6))
    calls = itertools.count(1)
    made = 0
    on_failure = "fallback" if fallback else attrs.NOTHING

    @ts.batch_column(needs=["number"], check=good, attempts=attempts, on_failure=on_failure)
    async def c(given: list[Row]) -> object:
        nonlocal made
        made = next(calls)
        each = script[made - 1] if made <= len(script) else cast("list[Outcome]", ["value"] * rows)
        if each == "short":
            return ["value"] * (rows + 1)
        if not isinstance(each, list):
            return act(each, "")
        return [in_place(outcome, f"call {made}") for outcome in each]

    with tempfile.TemporaryDirectory() as folder:
        result = simulate_run([number, c], records=rows, output=Path(folder) / "out", config=CONFIG)
        kept = {row["number"]: row["c"] for row in result.rows()}
    assert (made, kept) == expected_of_batch(script, rows, attempts, fallback)


# What a declaration may not say, and where the word is no word.


@pytest.mark.parametrize("decorate", [ts.column, ts.batch_column, ts.from_scratch_column])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"attempts": 0}, ts.InvalidValueError, r"^attempts of column 'c' must be a positive int, got 0$"),
        ({"attempts": True}, ts.InvalidTypeError, r"^attempts of column 'c' must be a positive int, got True$"),
        ({"attempts": 1.0}, ts.InvalidTypeError, r"^attempts of column 'c' must be a positive int, got 1.0$"),
        ({"on_failure": {1}}, ts.PipelineError, r"^on_failure of column 'c' is a set that is not JSON .*; give JSON"),
        (
            {"on_failure": 1, "outputs": ["c", "d"], "name": None},
            ts.PipelineError,
            r"^on_failure of column 'c' is an int instead of a mapping; give a mapping with 'c', 'd'$",
        ),
        (
            {"check": "Review"},
            ts.InvalidTypeError,
            r"^check of column 'c' must be a function of the value, .* or a JSON schema \(a dict\), got 'Review'$",
        ),
        ({"check": trio.sleep}, ts.PipelineError, r"^check of column 'c' must be a sync function, got <function sleep"),
        ({"check": lambda: 1}, ts.PipelineError, r"^check of column 'c' calls its function with 1 arguments \(value\)"),
    ],
)
def test_a_wrong_declaration_names_column_and_value(
    decorate: Callable[..., Callable[[Callable[[object], object]], ts.Column]],
    options: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    needs = {} if decorate is ts.from_scratch_column else {"needs": ["number"]}
    with pytest.raises(error, match=words):
        decorate(**{"name": "c", **needs, **options})(lambda value: value)


def test_a_word_in_a_processor_ends_the_run_and_says_where_it_may_be(tmp_path: Path) -> None:
    @ts.pre_batch_processor()
    def early(rows: list[Row]) -> list[Row]:
        raise ts.TryAgain("why")

    with pytest.raises(ts.ProcessorError, match=r"it raised TryAgain\('why'\), which only a column's function or its"):
        simulate([number, early], tmp_path / "out", records=1)


def test_a_word_in_a_skip_rule_rejects_and_says_where_it_may_be(tmp_path: Path) -> None:
    def asks(row: Row) -> bool:
        raise ts.TryAgain("why")

    @ts.column(needs=["number"], skip_when=asks, attempts=3)
    async def never(row: Row) -> object:
        raise AssertionError

    column, error_type, _, words = only_cause(simulate([number, never], tmp_path / "out", records=1))
    assert (column, error_type) == ("never", "SkipRuleError")
    assert "raised TryAgain('why'), which only a column's function or its check may raise" in words
