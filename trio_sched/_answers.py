"""What an answer says that raised nothing: that it is one, or that it is an error in the clothes of a success.

Gateways and providers send errors with HTTP 200, pages of HTML where JSON is due, and results without a result. Their
SDKs return all of that. Counted as a success, it raises the limit in the middle of an overload, and the column fails
afterwards at something that is not there. So `ModelHandle.call` looks at every answer while its attempt still holds the
lease, and raises `ProviderAnswerError` for what is no answer. `_classify.py` judges that by the code that the provider
gave, and without one as an answer that cannot be read.

A legal answer is never refused, so only what cannot be one is looked at:

================================================  =================================================================
answer                                            no answer if
================================================  =================================================================
a mapping with `error`                            the error is an object with a code, type, status or message, and
                                                  everything else in the mapping is its envelope, as `type` or
                                                  `request_id` (a mapping with other data in it is the author's)
an object with `error`                            the same error, or words in an object of an SDK, and none of the
                                                  fields in which results stand has anything in it
a chat or text completion                         its `choices` are missing, None or empty, or each of them carries
                                                  an `error` as above (OpenRouter)
a `Message` of an SDK                             its `content` is missing or None (an empty list is legal)
a response of the Responses API                   its status is `failed` and it has an `error`
text from a method of an SDK that gives objects   always: the SDK passes on what it could not read
================================================  =================================================================

A completion is known by `object`, or by the name of its class. Not looked at are chunks and open streams, texts and
bytes of an author's own function (a model may have been asked for a page of HTML), embeddings and images without an
`error`, completions blocked by a filter, refusals and tool calls: these have `choices`.

No SDK is imported: their classes are known by name, and the methods that give objects by what they are annotated with.

`RateLimited` is how an author says that an answer was a refusal, `Model(judge=)` is asked after all of the above.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Final, TypeAlias, cast

import trio

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError
from trio_sched._resources.request import RequestReleaseOutcome
from trio_sched._util import printable

__all__ = [
    "AnswerJudge",
    "JudgeError",
    "ProviderAnswerError",
    "RateLimited",
    "check_judge",
    "gives_objects",
    "is_open_stream",
    "judge_answer",
    "look_at_answer",
    "looks_like_markup",
]

AnswerJudge: TypeAlias = Callable[..., RequestReleaseOutcome | Exception | None]
"""What `Model(judge=)` takes: a function of the response."""

_LONGEST_WORDS: Final = 500
_MARKUP: Final = re.compile(r"\s*<(?:!doctype|!--|\?xml|(?:html|head|body)\b)", re.IGNORECASE)
_TEXT: Final = re.compile(r"\bstr\b|(?<!\[)\b(?:Any|object)\b")
_ENVELOPE: Final = frozenset(
    {
        "code", "error", "requestId", "request_id", "status", "statusCode", "status_code", "success", "timestamp",
        "trace_id", "type", "user_id",
    }
)  # fmt: skip
_RESULTS: Final = (
    "choices", "content", "output", "output_text", "data", "text", "candidates", "embeddings", "embedding", "results",
    "outputs", "message", "response", "completion", "generated_text",
)  # fmt: skip
_ERROR_FIELDS: Final = ("code", "message", "type", "status")
_COMPLETIONS: Final = frozenset({"ChatCompletion", "Completion"})
_COMPLETION_OBJECTS: Final = frozenset({"chat.completion", "text_completion"})
_RESOURCES: Final = frozenset({"AsyncAPIResource", "SyncAPIResource"})
_JUDGED: Final = "None, a RequestReleaseOutcome or an exception"


class RateLimited(TrioSchedError):  # noqa: N818  # an author says what is so, and did nothing wrong
    """The provider had no room for this attempt. Raise it in what is given to `model.call`, or in a judge.

    The attempt counts as a rate limit, for the endpoint's limit as for the row, and is made again. retry_after: when
    the provider wants to see it again, in seconds, or None where it did not say.

    Attributes: `retry_after`, `message`. Raises `InvalidValueError` for a time that is negative, NaN or infinite.
    """

    def __init__(self, retry_after: float | None = None, message: str = "") -> None:
        if retry_after is not None:
            check.check_finite(
                "RateLimited.retry_after",
                retry_after,
                expected="None or a finite number of at least 0",
                accept=lambda seconds: seconds >= 0,
            )
        if not isinstance(cast("object", message), str):
            raise InvalidTypeError("RateLimited.message", message, "a string")
        super().__init__(retry_after, message)
        self.retry_after = retry_after
        self.message = message

    def __str__(self) -> str:
        hint = "" if self.retry_after is None else f" and asked to come back in {self.retry_after:g} s"
        return f"the provider had no room{hint}{_words(self.message)}"


class ProviderAnswerError(TrioSchedError):
    """A provider's answer raised nothing and is none: an error sent as a success, or what nobody can read.

    Attributes: `model` (who answered), `reason` (why it is no answer), `status`, `code` and `message` (what the
    provider said, each None where it said nothing; the message on one line and cut), `body` (all of it, for hints),
    `outcome` (what a judge made of it, else None).
    """

    def __init__(
        self,
        model: str,
        reason: str,
        *,
        status: int | None = None,
        code: str | None = None,
        message: str | None = None,
        body: object = None,
        outcome: RequestReleaseOutcome | None = None,
    ) -> None:
        super().__init__(model, reason)
        self.model = model
        self.reason = reason
        self.status = status
        self.code = code
        self.message = message
        self.body = body
        self.outcome = outcome

    def __str__(self) -> str:
        said = ", ".join(
            f"{name} {value}" for name, value in (("status", self.status), ("code", self.code)) if value is not None
        )
        return f"{self.model} {self.reason}{f' ({said})' if said else ''}{_words(self.message)}"


class JudgeError(TrioSchedError):
    """`Model(judge=)` raised, which is a bug of the judge. Attributes: `model`, `cause` (what it raised)."""

    def __init__(self, model: str, cause: Exception) -> None:
        super().__init__(model, cause)
        self.model = model
        self.cause = cause

    def __str__(self) -> str:
        kind = type(self.cause).__name__
        return f"the judge of {self.model} raised {kind}; mend it, or return {_JUDGED} for answers of this kind"


def check_judge(field: str, value: object) -> None:
    """Raise `InvalidTypeError` unless `value` is None or a plain function."""
    expected = f"None or a function of the response that returns {_JUDGED}"
    if value is not None and not callable(value):
        raise InvalidTypeError(field, value, expected)
    if _is_async(value) or _is_async(getattr(value, "__call__", None)):  # noqa: B004  # its method, not whether it has one
        raise InvalidTypeError(field, value, f"{expected}, and no async one: it is asked while the lease is held")


def _is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def look_at_answer(answer: object, *, model: str, judge: AnswerJudge | None = None, due: bool = False) -> None:
    """Raise what an answer says, if it is no success. due: whether an object is due, as `gives_objects` says.

    A judge is asked about answers, not about streams that are still open.
    """
    error: Exception | None = judge_answer(answer, model=model, due=due)
    if error is None and judge is not None and not is_open_stream(answer):
        error = _ask(judge, answer, model)
    if error is not None:
        raise error


def _ask(judge: AnswerJudge, answer: object, model: str) -> Exception | None:
    try:
        said = cast("object", judge(answer))
    except RateLimited as error:
        return error
    except Exception as error:
        raise JudgeError(model, error) from error
    if said is None or isinstance(said, Exception):
        return said
    field = f"what the judge of {model} returned"
    if not isinstance(said, RequestReleaseOutcome):
        if inspect.iscoroutine(said):
            said.close()  # Nobody will await it, and Python need not warn of that as well.
        raise InvalidTypeError(field, said, _JUDGED)
    if said.kind == "success":
        return None
    if said.kind == "local_cancelled":
        raise InvalidValueError(field, said, f"{_JUDGED}, and no cancellation")
    return ProviderAnswerError(model, f"gave an answer that its judge calls {said.kind}", outcome=said)


def is_open_stream(answer: object) -> bool:
    """Whether an answer is a stream that nobody has read: something to iterate over, or to open."""
    kind = type(answer)
    return hasattr(kind, "__aiter__") or (hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"))


def judge_answer(answer: object, *, model: str = "the provider", due: bool = False) -> ProviderAnswerError | None:
    """The error that an answer is, or None for an answer. Raises nothing, whatever it is given.

    due: an object is due, so text is none.
    """
    try:
        if answer is None or isinstance(answer, int | float | bytes | bytearray | list | tuple):
            return None
        if isinstance(answer, str):
            return _text_for_an_object(model, answer) if due else None
        if isinstance(answer, Mapping):
            return _judge_mapping(model, dict(cast("Mapping[object, object]", answer)))
        return _judge_object(model, answer)
    except Exception:
        # A foreign object that cannot be looked at says nothing; whoever uses it will see.
        return None


def _text_for_an_object(model: str, text: str) -> ProviderAnswerError:
    what = "a page of HTML or XML" if looks_like_markup(text) else "text"
    remedy = "is the base URL of the client right?"
    return ProviderAnswerError(
        model, f"answered with {what} that is no JSON, where an object is due; {remedy}", message=_said(text[:200])
    )


def _judge_mapping(model: str, fields: Mapping[object, object]) -> ProviderAnswerError | None:
    error = fields.get("error")
    kind = fields.get("object")
    if _is_error(error):
        given = {name for name, value in fields.items() if value is not None and value != []}
        if given <= _ENVELOPE or (kind == "response" and fields.get("status") == "failed"):
            return _carried(model, error)
    if isinstance(kind, str) and kind in _COMPLETION_OBJECTS:
        return _judge_choices(model, fields.get("choices"), error)
    return None


def _judge_object(model: str, answer: object) -> ProviderAnswerError | None:
    names = {cls.__name__ for cls in type(answer).__mro__}
    of_sdk = _is_of_sdk(type(answer))
    kind = getattr(answer, "object", None)
    error = getattr(answer, "error", None)
    is_error = _is_error(error) or (of_sdk and isinstance(error, str) and error != "")
    if is_error and kind == "response" and getattr(answer, "status", None) == "failed":
        return _carried(model, error)
    if is_error:
        results = [cast("object", getattr(answer, name)) for name in _RESULTS if hasattr(answer, name)]
        if (of_sdk or results) and not any(results):
            return _carried(model, error)
    if not _COMPLETIONS.isdisjoint(names) or (isinstance(kind, str) and kind in _COMPLETION_OBJECTS):
        return _judge_choices(model, getattr(answer, "choices", None), error)
    if of_sdk and "Message" in names and getattr(answer, "content", None) is None:
        return ProviderAnswerError(model, "answered with a message that has no content")
    return None


def _is_of_sdk(kind: type) -> bool:
    """Whether a class is one of the `types` of an SDK, all of which derive from its own `BaseModel`."""
    package, _, module = kind.__module__.partition(".")
    return module.split(".")[0] == "types" and any(
        cls.__name__ == "BaseModel" and cls.__module__.partition(".")[0] == package for cls in kind.__mro__
    )


def _judge_choices(model: str, choices: object, error: object) -> ProviderAnswerError | None:
    if choices is None or (isinstance(choices, list | tuple) and not choices):
        if _is_error(error) or (isinstance(error, str) and error):
            return _carried(model, error)
        return ProviderAnswerError(model, "answered with a completion that has no choices")
    if isinstance(choices, list | tuple):
        errors = [_field(choice, "error") for choice in cast("list[object]", choices)]
        if all(map(_is_error, errors)):
            return _carried(model, errors[0])
    return None


def _is_error(value: object) -> bool:
    """Whether a value is an error as providers write it: an object with at least one of the usual fields."""
    if value is None or isinstance(value, str | bytes | int | float | list | tuple | BaseException):
        return False
    return any(_field(value, name) not in (None, "") for name in _ERROR_FIELDS)


def _field(owner: object, name: str) -> object:
    if isinstance(owner, Mapping):
        return cast("Mapping[str, object]", owner).get(name)
    return cast("object", getattr(owner, name, None))


def _carried(model: str, error: object) -> ProviderAnswerError:
    """The error of an answer that carries one."""
    if isinstance(error, str):
        facts: dict[str, object] = {"message": error}
    elif isinstance(error, Mapping):
        facts = dict(cast("Mapping[str, object]", error))
    else:
        facts = {name: _field(error, name) for name in (*_ERROR_FIELDS, "metadata", "details")}
    code = facts.get("code")
    named = next((each for each in (code, facts.get("type"), facts.get("status")) if isinstance(each, str)), None)
    is_status = isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599
    return ProviderAnswerError(
        model,
        "answered with an error instead of a result",
        status=int(cast("int", code)) if is_status else None,
        code=None if named is None else printable(named, longest=_LONGEST_WORDS),
        message=_said(facts.get("message")),
        body={"error": facts},
    )


def _said(text: object) -> str | None:
    return printable(text, longest=_LONGEST_WORDS) if isinstance(text, str) and text else None


def _words(message: str | None) -> str:
    return f": {printable(message, longest=_LONGEST_WORDS)}" if message else ""


def looks_like_markup(text: object) -> bool:
    """Whether a text or body begins as a page of HTML or XML does."""
    if isinstance(text, bytes):
        text = text[:_LONGEST_WORDS].decode("latin-1")
    return isinstance(text, str) and _MARKUP.match(text) is not None


def gives_objects(function: object, args: tuple[object, ...] = ()) -> bool:
    """Whether a function is a method of an SDK that never gives text, so that text from it is what it could not read.

    args: with what it is called, as a blocking method is called through a function for threads.
    """
    try:
        while isinstance(function, functools.partial):
            partial = cast("functools.partial[object]", function)
            function, args = partial.func, (*partial.args, *args)
        if function is trio.to_thread.run_sync and args:
            return gives_objects(args[0])
        if not isinstance(function, MethodType):
            return False
        if _RESOURCES.isdisjoint(cls.__name__ for cls in type(function.__self__).__mro__):
            return False
        gives: object = getattr(function, "__annotations__", {}).get("return")
        said = gives if isinstance(gives, str) else getattr(gives, "__name__", "")
        return isinstance(said, str) and said != "" and _TEXT.search(said) is None
    except Exception:
        # As in `judge_answer`.
        return False
