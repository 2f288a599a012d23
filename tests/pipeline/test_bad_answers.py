"""Runs in which a provider sends, for a while, what is no answer: no row is lost, and the limit learns from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

import trio_sched as ts
from trio_sched.lowlevel import RequestReleaseOutcome
from trio_sched.testing import simulate

ROWS = [{"n": number} for number in range(120)]
REFUSED = {"message": "Provider returned error", "code": 429}


NO_CHOICES: list[object] = []


def completion(text: str) -> dict[str, object]:
    return {"object": "chat.completion", "choices": [{"message": {"content": text}}]}


class Refused(Exception):
    """As an SDK raises it of HTTP 429."""

    status_code = 429


class APIError(Exception):
    """As the SDKs raise it inside a stream."""

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__("no")
        self.body = body


def raising(make: Callable[[], Exception]) -> Callable[[], object]:
    def step() -> object:
        raise make()

    return step


def run(
    tmp_path: Path, bad: Callable[[], object], *, seconds: tuple[float, float] = (3, 9), judge: Any = None
) -> ts.RunResult:
    """120 rows of which each takes a second to answer, 8 at once; calls that end in the meantime give what is bad."""
    model = ts.Model("p", "m", max_parallel_requests=8, judge=judge)

    async def ask(number: int) -> object:
        await trio.sleep(1)
        return bad() if seconds[0] <= trio.current_time() < seconds[1] else completion(f"text {number}")

    @ts.column(needs=["n"], model=model)
    async def answer(row: Any, model: Any) -> str:
        reply = await model.call(ask, row["n"])
        return str(reply["choices"][0]["message"]["content"])

    return simulate([answer], rows=ROWS, output=tmp_path / "out")


def outcomes(result: ts.RunResult) -> dict[str, int]:
    return {kind: count for each in result.requests.values() for kind, count in each.outcomes.items() if count}


def statistics(result: ts.RunResult) -> list[object]:
    return [{**attrs.asdict(each), "statuses": {}} for each in result.requests.values()]


def check_all_rows(result: ts.RunResult) -> None:
    assert (result.status, result.records, result.dropped) == ("completed", len(ROWS), 0)
    assert {str(row["answer"]) for row in result.rows()} == {f"text {number}" for number in range(len(ROWS))}


@pytest.mark.parametrize(
    "bad",
    [
        lambda: {"error": REFUSED, "user_id": "u"},
        lambda: {**completion(""), "choices": NO_CHOICES, "error": REFUSED},
        raising(lambda: ts.RateLimited()),
        raising(lambda: APIError({"code": "rate_limit_exceeded"})),
        raising(lambda: APIError({"type": "error", "error": {"type": "overloaded_error"}})),
    ],
    ids=["200 with 429", "no choices with 429", "RateLimited", "stream of OpenAI", "stream of Anthropic"],
)
def test_a_refusal_in_any_form_is_what_a_429_is(bad: Callable[[], object], tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", raising(Refused))
    result = run(tmp_path / "other", bad)
    check_all_rows(plain)
    check_all_rows(result)
    assert outcomes(result)["rate_limited"] > 0
    assert outcomes(result) == outcomes(plain)
    assert result.wall_seconds == plain.wall_seconds
    # All but the status itself, which not every form of it says: attempts, the limit's lowest and last, its falls.
    assert statistics(result) == statistics(plain)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: {**completion(""), "choices": NO_CHOICES},
        lambda: {"object": "chat.completion"},
        lambda: {"error": {"message": "boom", "code": 500}},
        lambda: httpx.Response(200, content=b'{"choices": [{"mess').json(),
        lambda: httpx.Response(200, text="<html>Log in</html>").json(),
        lambda: json.loads("<!doctype html>"),
        raising(lambda: APIError({"type": "error", "error": {"type": "api_error"}})),
    ],
    ids=["choices: []", "no choices", "200 with 500", "cut JSON", "HTML", "HTML read by oneself", "stream"],
)
def test_an_answer_that_nobody_can_read_costs_no_row(bad: Callable[[], object], tmp_path: Path) -> None:
    result = run(tmp_path, bad)
    check_all_rows(result)
    assert set(outcomes(result)) == {"success", "provider_failure"}


def test_what_a_judge_calls_a_refusal_costs_no_row(tmp_path: Path) -> None:
    def judge(answer: Any) -> Exception | None:
        return ts.RateLimited(retry_after=2) if "busy" in answer else None

    result = run(tmp_path, lambda: {"busy": True}, judge=judge)
    check_all_rows(result)
    assert set(outcomes(result)) == {"success", "rate_limited"}


def test_what_a_judge_calls_an_outage_costs_no_row(tmp_path: Path) -> None:
    def judge(answer: Any) -> RequestReleaseOutcome | None:
        return RequestReleaseOutcome("provider_failure", None, 500) if "busy" in answer else None

    result = run(tmp_path, lambda: {"busy": True}, judge=judge)
    check_all_rows(result)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: {"error": {"message": "too long", "code": "context_length_exceeded"}}, "ProviderAnswerError"),
        (raising(lambda: APIError({"type": "invalid_request_error"})), "APIError"),
        (lambda: {"answer": "busy"}, "JudgeError"),
    ],
    ids=["200 with a context that is too long", "invalid request in a stream", "a judge that raises"],
)
def test_a_failure_of_the_row_is_asked_for_once(bad: Callable[[], object], error: str, tmp_path: Path) -> None:
    calls = 0

    def once() -> object:
        nonlocal calls
        calls += 1
        return bad()

    def judge(answer: Any) -> None:
        assert "choices" in answer

    result = run(tmp_path, once, seconds=(3, 4), judge=judge)
    (cause,) = result.scheduler.drop_causes
    assert (cause.error_type, cause.rows, result.status) == (error, calls, "completed")
    assert result.records == len(ROWS) - calls
    assert 0 < calls <= 8
