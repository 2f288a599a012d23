from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import trio_sched as ts
from trio_sched._answers import (
    ProviderAnswerError,
    check_judge,
    gives_objects,
    judge_answer,
    look_at_answer,
    looks_like_markup,
)
from trio_sched._classify import judge_exception
from trio_sched._resources.request import RequestReleaseOutcome

RATE_LIMITED = {"message": "Provider returned error", "code": 429, "metadata": {"raw": "error code: 1015"}}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
COMPLETION = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


def verdict_of(answer: object, *, due: bool = False) -> tuple[str, str] | None:
    error = judge_answer(answer, due=due)
    if error is None:
        return None
    outcome = judge_exception(error).outcome
    return outcome.kind, outcome.blame


PACE = ("rate_limited", "pace")
UNREADABLE = ("provider_failure", "endpoint")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": RATE_LIMITED, "user_id": "u"}, PACE),
        ({"error": {"message": "no", "code": "rate_limit_exceeded"}}, PACE),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"}, PACE),
        ({"error": {"message": "busy", "code": 503}}, ("provider_failure", "pace")),
        ({"error": {"message": "boom"}}, UNREADABLE),
        ({"error": {"code": 502, "message": "Bad gateway"}}, UNREADABLE),
        ({"error": {"code": 400, "message": "too long"}}, ("provider_failure", "row")),
        ({"error": {"code": 401, "message": "No auth credentials found"}}, ("provider_failure", "access")),
        ({"error": {"code": "context_length_exceeded", "message": "m"}}, ("provider_failure", "row")),
        ({**COMPLETION, "choices": []}, UNREADABLE),
        ({**COMPLETION, "choices": None}, UNREADABLE),
        ({"object": "text_completion"}, UNREADABLE),
        ({**COMPLETION, "choices": [], "error": RATE_LIMITED}, PACE),
        ({**COMPLETION, "choices": [], "error": "overloaded"}, UNREADABLE),
        ({**COMPLETION, "choices": [{"finish_reason": "error", "error": RATE_LIMITED}]}, PACE),
        ({"object": "response", "status": "failed", "id": "r", "model": "m", "error": {"code": "server_error"}},
         UNREADABLE),
        ({"object": "response", "status": "failed", "id": "r", "error": {"code": "rate_limit_exceeded"}}, PACE),
        (SimpleNamespace(error=RATE_LIMITED, choices=None), PACE),
        (SimpleNamespace(error=SimpleNamespace(code="slow_down", message="no"), content=None), PACE),
        (SimpleNamespace(object="chat.completion", choices=[]), UNREADABLE),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(answer: object, expected: tuple[str, str]) -> None:
    assert verdict_of(answer) == expected


class Completion:
    """Named as in the SDKs."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class ChatCompletionChunk(SimpleNamespace):
    """Named as in the SDKs."""


LEGAL: list[object] = [
    None,
    "",
    "hello",
    "<!DOCTYPE html><html>a page that a model was asked for</html>",
    b"<html>",
    7,
    [],
    {},
    COMPLETION,
    {**COMPLETION, "error": None},
    {**COMPLETION, "error": RATE_LIMITED},
    {**COMPLETION, "choices": [{**CHOICE, "finish_reason": "content_filter", "message": {"content": None}}]},
    {**COMPLETION, "choices": [{**CHOICE, "message": {"content": None, "refusal": "I will not."}}]},
    {**COMPLETION, "choices": [{**CHOICE, "message": {"content": None, "tool_calls": [{"id": "1"}]}}]},
    {**COMPLETION, "choices": [CHOICE, {"error": RATE_LIMITED}]},
    {"object": "chat.completion.chunk", "choices": []},
    {"object": "list", "data": [{"embedding": [0.1]}]},
    {"object": "list", "data": []},
    {"question": "Which?", "choices": []},
    {"error": "the sentence has none"},
    {"error": None},
    {"error": {}},
    {"error": {"kind": "spelling"}},
    {"error": ["a", "b"]},
    {"error": {"message": "a wrong word", "code": 1}, "sentence": "x"},
    {"error": {"message": "a wrong word"}, "text": None, "score": 0},
    {"object": "response", "status": "completed", "error": None, "output": [{}]},
    {"object": "response", "status": "incomplete", "output": []},
    {1: 2, "error": RATE_LIMITED},
    SimpleNamespace(error=RATE_LIMITED),
    SimpleNamespace(error=RATE_LIMITED, data=[1]),
    SimpleNamespace(error=ValueError("mine"), content=None),
    SimpleNamespace(error=None, content=None),
    SimpleNamespace(choices=[]),
    ChatCompletionChunk(choices=[]),
    MagicMock(),
    object(),
]


@pytest.mark.parametrize("answer", LEGAL)
def test_a_legal_answer_is_never_refused(answer: object) -> None:
    assert judge_answer(answer) is None


def test_a_completion_is_known_by_the_name_of_its_class() -> None:
    assert verdict_of(Completion(choices=[])) == UNREADABLE
    assert verdict_of(Completion()) == UNREADABLE
    assert verdict_of(Completion(choices=None, error=RATE_LIMITED)) == PACE
    assert verdict_of(Completion(choices=[CHOICE])) is None


def test_text_where_an_object_is_due() -> None:
    assert verdict_of("<!doctype html><p>Log in</p>", due=True) == UNREADABLE
    assert verdict_of("", due=True) == UNREADABLE
    error = judge_answer("<html>\n<title>Log in</title>" + "x" * 1000, model="openai/m", due=True)
    assert str(error).startswith(
        "openai/m answered with a page of HTML or XML that is no JSON, where an object is due; is the base URL of the "
        "client right?: <html>?<title>Log in</title>xxx"
    )
    assert len(str(error)) < 400
    assert "answered with text that is no JSON" in str(judge_answer("busy", due=True))


@pytest.mark.parametrize(
    "text", ["<html>", " \n<!DOCTYPE html>", "<?xml version='1.0'?>", b"<HTML>", "<body class='x'>"]
)
def test_markup(text: object) -> None:
    assert looks_like_markup(text)


@pytest.mark.parametrize("text", ["", "a <html>", "<answer>", "<3", b"", None, 5, '{"a": "<html>"}', "<headline>"])
def test_no_markup(text: object) -> None:
    assert not looks_like_markup(text)


def test_what_the_provider_said_is_kept_bounded_and_printable() -> None:
    hostile = "\x1b]0;title\x07" + "x" * 5000
    error = judge_answer({"error": {"message": hostile, "code": 429, "type": hostile}}, model="openrouter/m")
    assert isinstance(error, ProviderAnswerError)
    assert (error.model, error.status) == ("openrouter/m", 429)
    assert error.code is not None
    assert error.message is not None
    for text in (str(error), error.code, error.message):
        assert text.isprintable()
        assert len(text) < 1200
    plain = judge_answer({"error": {"message": "Provider returned error", "code": 429}}, model="openrouter/m")
    assert str(plain) == "openrouter/m answered with an error instead of a result (status 429): Provider returned error"
    named = judge_answer({"error": {"message": "no", "code": "slow_down"}}, model="p/m")
    assert str(named) == "p/m answered with an error instead of a result (code slow_down): no"


def test_a_hint_in_the_answer_counts() -> None:
    error = judge_answer({"error": {"code": 429, "message": "x", "details": [{"retryDelay": "9s"}]}})
    assert error is not None
    assert judge_exception(error).outcome.retry_after_seconds == 9.0
    words = judge_answer({"error": {"code": 429, "message": "Please try again in 7.5s."}})
    assert words is not None
    assert judge_exception(words).outcome.retry_after_seconds == 7.5


def test_a_used_up_quota_in_an_answer() -> None:
    error = judge_answer({"error": {"code": 402, "message": "Insufficient credits"}})
    assert error is not None
    assert judge_exception(error).exhausted == "payment_required"


class Hostile:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


names = st.sampled_from(["error", "choices", "content", "object", "status", "code", "message", "type", "data", "id"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Hostile)
    | st.sampled_from(["chat.completion", "response", "failed", 429]),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner)
    | st.dictionaries(names, inner).map(lambda fields: Completion(**fields))
    | st.dictionaries(names, inner).map(lambda fields: SimpleNamespace(**fields)),
    max_leaves=12,
)  # fmt: skip


@given(values, st.booleans())
def test_any_answer_can_be_looked_at(answer: object, due: bool) -> None:
    error = judge_answer(answer, due=due)
    if error is not None:
        verdict = judge_exception(error)
        assert verdict.outcome.kind in {"rate_limited", "provider_failure"}
        assert str(error).isprintable()


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.integers())))
def test_flat_data_of_an_author_is_an_answer(data: dict[str, object]) -> None:
    assert judge_answer(data) is None or data.get("object") in {"chat.completion", "text_completion"}


# Which functions give objects.


class AsyncAPIResource:
    """Named as in the SDKs."""

    async def create(self) -> Completion:
        return Completion()

    async def transcribe(self) -> Completion | str:
        return ""

    async def unsaid(self) -> Completion:
        return Completion()

    async def anything(self) -> Any:
        return ""


del AsyncAPIResource.unsaid.__annotations__["return"]


async def of_an_author() -> Completion:
    return Completion()


def test_which_functions_give_objects() -> None:
    resource = AsyncAPIResource()
    assert gives_objects(resource.create)
    assert gives_objects(functools.partial(functools.partial(resource.create)))
    assert gives_objects(trio.to_thread.run_sync, (resource.create,))
    assert gives_objects(functools.partial(trio.to_thread.run_sync, resource.create))
    for other in (
        resource.transcribe,
        resource.unsaid,
        resource.anything,
        of_an_author,
        SimpleNamespace(create=of_an_author).create,
        Hostile(),
        None,
    ):
        assert not gives_objects(other)
    assert not gives_objects(trio.to_thread.run_sync)
    assert not gives_objects(trio.to_thread.run_sync, (of_an_author,))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_which_methods_of_an_sdk_give_objects(name: str) -> None:
    sdk: Any = pytest.importorskip(name)
    client = (sdk.AsyncOpenAI if name == "openai" else sdk.AsyncAnthropic)(api_key="none")
    if name == "openai":
        chat = client.chat.completions
        objects = [chat.create, client.completions.create, client.embeddings.create]
        objects += [client.images.generate, client.moderations.create]
        if hasattr(chat, "parse"):  # The oldest SDKs have neither.
            objects += [chat.parse, client.responses.create, client.responses.parse]
        texts = [client.audio.transcriptions.create, client.files.retrieve_content]
    else:
        objects = [client.messages.create, client.messages.count_tokens]
        texts = []
    assert [method.__qualname__ for method in objects if not gives_objects(method)] == []
    assert [method.__qualname__ for method in texts if gives_objects(method)] == []


# What an author says.


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, -math.inf])
def test_a_wait_that_is_none(value: float) -> None:
    with pytest.raises(
        ts.InvalidValueError, match=r"^RateLimited\.retry_after must be None or a finite number of at least 0, got "
    ) as caught:
        ts.RateLimited(retry_after=value)
    assert not isinstance(caught.value, ts.InvalidTypeError)


@pytest.mark.parametrize("value", ["20", True, b"2", [], {}])
def test_a_wait_of_the_wrong_type(value: object) -> None:
    with pytest.raises(ts.InvalidTypeError, match=r"^RateLimited\.retry_after must be None or a finite number"):
        ts.RateLimited(retry_after=cast("float", value))


def test_a_message_of_the_wrong_type() -> None:
    with pytest.raises(ts.InvalidTypeError, match=r"^RateLimited\.message must be a string, got 5$"):
        ts.RateLimited(message=cast("str", 5))


def test_what_rate_limited_says() -> None:
    assert str(ts.RateLimited()) == "the provider had no room"
    assert str(ts.RateLimited(20)) == "the provider had no room and asked to come back in 20 s"
    assert str(ts.RateLimited(0.5, "busy\n")) == "the provider had no room and asked to come back in 0.5 s: busy?"
    assert isinstance(ts.RateLimited(), ts.TrioSchedError)
    error = ts.RateLimited(2, "x")
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.retry_after, same.message) == (2, "x")


# What a judge says.


def saying(said: object) -> Callable[[object], object]:
    """A judge that says the same of every answer."""

    def judge(answer: object) -> object:
        return said

    return judge


def raised_for(judge: Callable[..., object], answer: object = "hello") -> Exception | None:
    try:
        look_at_answer(answer, model="p/m", judge=cast("Any", judge))
    except Exception as error:
        return error
    return None


def test_a_judge_that_says_that_an_answer_is_one() -> None:
    seen: list[object] = []
    assert raised_for(seen.append) is None
    assert seen == ["hello"]
    assert raised_for(saying(RequestReleaseOutcome("success"))) is None


def test_a_judge_that_returns_an_exception() -> None:
    error = ts.RateLimited(3)
    assert raised_for(saying(error)) is error
    bug = ValueError("x")
    assert raised_for(saying(bug)) is bug


def test_a_judge_that_raises_rate_limited() -> None:
    error = ts.RateLimited(3)

    def judge(answer: object) -> None:
        raise error

    assert raised_for(judge) is error


def test_a_judge_that_returns_an_outcome() -> None:
    outcome = RequestReleaseOutcome("provider_failure", None, 500)
    error = raised_for(saying(outcome))
    assert isinstance(error, ts.ProviderAnswerError)
    assert error.outcome is outcome
    assert str(error) == "p/m gave an answer that its judge calls provider_failure"


def test_a_judge_that_returns_something_else() -> None:
    for said in ("rate_limited", True, 429, ts.RateLimited, KeyboardInterrupt()):
        error = raised_for(saying(said))
        assert isinstance(error, ts.InvalidTypeError)
        assert str(error) == (
            f"what the judge of p/m returned must be None, a RequestReleaseOutcome or an exception, got {said!r}"
        )
        assert judge_exception(error).outcome.blame == "row"
    cancelled = raised_for(saying(RequestReleaseOutcome("local_cancelled")))
    assert isinstance(cancelled, ts.InvalidValueError)


async def an_async_judge(answer: object) -> None:
    """Never asked."""


def test_a_judge_that_returns_a_coroutine() -> None:
    error = raised_for(saying(an_async_judge(None)))
    assert isinstance(error, ts.InvalidTypeError)


def test_a_judge_that_raises() -> None:
    def judge(answer: Any) -> None:
        raise KeyError(answer)

    error = raised_for(judge)
    assert isinstance(error, ts.JudgeError)
    assert isinstance(error.cause, KeyError)
    assert error.__cause__ is error.cause
    assert str(error) == (
        "the judge of p/m raised KeyError; mend it, or return None, a RequestReleaseOutcome or an exception for "
        "answers of this kind"
    )
    verdict = judge_exception(error)
    assert (verdict.outcome.kind, verdict.outcome.blame) == ("unexpected_exception", "row")


def test_a_judge_that_is_interrupted() -> None:
    def judge(answer: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_answer("hello", model="p/m", judge=judge)


def test_the_judge_comes_after_the_default_look() -> None:
    error = raised_for(saying(ValueError("asked")), {"error": RATE_LIMITED})
    assert isinstance(error, ts.ProviderAnswerError)


class Stream:
    def __aiter__(self) -> object:
        raise NotImplementedError


class StreamManager:
    async def __aenter__(self) -> None:
        """Opens it."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Closes it."""


@pytest.mark.parametrize("stream", [Stream(), StreamManager()])
def test_a_judge_is_not_asked_about_an_open_stream(stream: object) -> None:
    assert raised_for(saying(ValueError("asked")), stream) is None


class AsyncCallable:
    async def __call__(self, answer: object) -> None:
        """Never asked."""


@pytest.mark.parametrize("judge", [5, "judge", an_async_judge, functools.partial(an_async_judge), AsyncCallable()])
def test_what_is_no_judge(judge: object) -> None:
    with pytest.raises(
        ts.InvalidTypeError, match=r"^Model\.judge of p/m must be None or a function of the response that returns "
    ):
        ts.Model("p", "m", judge=cast("Any", judge))


def test_what_is_a_judge() -> None:
    def judge(answer: object) -> None:
        """Says nothing."""

    for each in (None, judge, functools.partial(judge), len):
        check_judge("judge", each)
    assert ts.Model("p", "m", judge=judge).judge is judge
    assert ts.Model("p", "m").judge is None
