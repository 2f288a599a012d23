"""The OpenAI wire format: request bodies in, response bodies out, nothing served and nothing decided.

Only what a rehearsal needs is read. Sampling parameters (`temperature`, `max_tokens`, `tools`, ...) are accepted and
ignored. `created` is always 0: a clock would make the same request have two answers. A chat may be streamed, as events
of one word each; embeddings may not, because a client that asked for a stream cannot use what it would get.

A refusal has the status, headers and body of the provider that is rehearsed. Some providers name the moment at which to
come back, so a refusal is written with the wall clock's time passed in.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Final, TypeAlias, cast

import attrs

from trio_sched._errors import shown
from trio_sched._events.records import JsonValue
from trio_sched._rehearsal.answers import chat_answer, embedding
from trio_sched._rehearsal.provider import Accepted, Refused
from trio_sched._rehearsal.script import HintPlace, Phase, RehearsalScript
from trio_sched._util import counted, parse_json

__all__ = [
    "ChatRequest",
    "EmbeddingRequest",
    "ModelRequest",
    "RefusalReply",
    "WireError",
    "error_body",
    "model_list",
    "refusal_reply",
    "stream_of",
]

_compact = json.JSONEncoder(separators=(",", ":")).encode

_MOST_CHOICES = 128
_MOST_DIMENSIONS = 4096
_MOST_INPUTS = 2048
_LAST_SECOND = 253402300799
"""The end of the year 9999, beyond which there is no date."""


class WireError(Exception):
    """A request that no provider would take: a 400 whose body names the parameter. Never leaves the server."""

    def __init__(self, param: str, expected: str) -> None:
        super().__init__(param, expected)
        self.param = param
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.param} must be {self.expected}"


@attrs.frozen
class ChatRequest:
    """The body of `POST /chat/completions`."""

    model: str
    messages: tuple[tuple[str, str], ...]
    choices: int = 1
    wants_json: bool = False
    stream: bool = False
    stream_usage: bool = False

    @classmethod
    def parse(cls, body: bytes) -> ChatRequest:
        """Read a body, or raise `WireError`."""
        fields = _fields(body)
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise WireError("messages", "a non-empty list of messages")
        response_format, options = fields.get("response_format"), fields.get("stream_options")
        return cls(
            _text(fields, "model"),
            tuple(_message(index, message) for index, message in enumerate(messages)),
            _count(fields, "n", 1, _MOST_CHOICES),
            isinstance(response_format, dict) and response_format.get("type") in ("json_object", "json_schema"),
            bool(fields.get("stream")),
            isinstance(options, dict) and bool(options.get("include_usage")),
        )

    def answer(self, script: RehearsalScript, *, empty: bool = False) -> bytes:
        """The response body. empty: without a single choice."""
        answers = [] if empty else self._answers(script)
        return _dump(
            {
                "id": "chatcmpl-rehearsal",
                "object": "chat.completion",
                "created": 0,
                "model": self.model,
                "choices": [
                    {
                        "index": index,
                        "message": {"role": "assistant", "content": answer, "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                    for index, answer in enumerate(answers)
                ],
                "usage": self._usage(answers),
            }
        )

    def events(self, script: RehearsalScript, *, empty: bool = False) -> list[bytes]:
        """The events of the response as a stream: one for each word, at least two in all. empty: without one choice."""
        answers = [] if empty else self._answers(script)
        events: list[bytes] = []
        for index, answer in enumerate(answers):
            events.append(self._event([{"index": index, "delta": {"role": "assistant"}, "finish_reason": None}]))
            events += [
                self._event([{"index": index, "delta": {"content": word}, "finish_reason": None}])
                for word in re.findall(r"\S+\s*", answer)
            ]
            events.append(self._event([{"index": index, "delta": {}, "finish_reason": "stop"}]))
        if self.stream_usage or empty:
            events.append(self._event([], usage=self._usage(answers)))
        return [*events, b"data: [DONE]\n\n"]

    def _event(self, choices: list[JsonValue], **fields: JsonValue) -> bytes:
        chunk: dict[str, JsonValue] = {
            "id": "chatcmpl-rehearsal",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.model,
            "choices": choices,
            **fields,
        }
        return b"data: %s\n\n" % _dump(chunk)

    def _answers(self, script: RehearsalScript) -> list[str]:
        return [
            chat_answer(self.model, self.messages, seed=script.seed, choice=choice, wants_json=self.wants_json)
            for choice in range(self.choices)
        ]

    def _usage(self, answers: Sequence[str]) -> JsonValue:
        return _usage(sum(_tokens(text) for _, text in self.messages), sum(map(_tokens, answers)))


@attrs.frozen
class EmbeddingRequest:
    """The body of `POST /embeddings`. An input given as tokens is embedded as the text of its numbers."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    base64: bool = False

    @classmethod
    def parse(cls, body: bytes) -> EmbeddingRequest:
        """Read a body, or raise `WireError`."""
        fields = _fields(body)
        if fields.get("stream"):
            raise WireError("stream", "false or absent: embeddings are not streamed")
        encoding = fields.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise WireError("encoding_format", f"'float' or 'base64', got {shown(encoding)}")
        dimensions = None if fields.get("dimensions") is None else _count(fields, "dimensions", 1, _MOST_DIMENSIONS)
        return cls(_text(fields, "model"), _inputs(fields.get("input")), dimensions, encoding == "base64")

    def answer(self, script: RehearsalScript, *, empty: bool = False) -> bytes:
        """The response body. empty: without a single embedding."""
        dimensions = self.dimensions or script.dimensions
        inputs = () if empty else self.inputs
        vectors = [embedding(self.model, text, dimensions, seed=script.seed) for text in inputs]
        return _dump(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": self._encoded(vector)}
                    for index, vector in enumerate(vectors)
                ],
                "model": self.model,
                "usage": _usage(sum(map(_tokens, self.inputs)), None),
            }
        )

    def _encoded(self, vector: bytes) -> JsonValue:
        if self.base64:
            return base64.b64encode(vector).decode("ascii")
        return list(struct.unpack(f"<{len(vector) // 4}f", vector))


ModelRequest: TypeAlias = "ChatRequest | EmbeddingRequest"


def model_list(models: Sequence[str]) -> bytes:
    """The response body of `GET /models`."""
    entries: list[JsonValue] = [
        {"id": model, "object": "model", "created": 0, "owned_by": "rehearsal"} for model in models
    ]
    return _dump({"object": "list", "data": entries})


def error_body(
    message: str,
    kind: str,
    *,
    param: str | None = None,
    code: str | int | None = None,
    details: Sequence[JsonValue] = (),
) -> bytes:
    """The body of every response that is not a success."""
    error: dict[str, JsonValue] = {"message": message, "type": kind, "param": param, "code": code}
    if details:
        error["details"] = list(details)
    return _dump({"error": error})


def _dump(value: JsonValue) -> bytes:
    return _compact(value).encode("ascii")


def _fields(body: bytes) -> Mapping[str, JsonValue]:
    try:
        value = cast("JsonValue", parse_json(body))
    except ValueError as error:
        raise WireError("the body", f"JSON: {error}") from error
    if not isinstance(value, dict):
        raise WireError("the body", "a JSON object")
    return value


def _text(fields: Mapping[str, JsonValue], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise WireError(name, "a non-empty string")
    return value


def _count(fields: Mapping[str, JsonValue], name: str, default: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise WireError(name, f"an integer from 1 to {most}, got {shown(value)}")
    return value


def _message(index: int, message: JsonValue) -> tuple[str, str]:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise WireError(where, "an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise WireError(f"{where}.role", "a non-empty string")
    if content is None or isinstance(content, str):
        return role, content or ""
    if not isinstance(content, list):
        raise WireError(f"{where}.content", "a string or a list of parts")
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return role, "\n".join(text for text in texts if isinstance(text, str))


def _inputs(value: JsonValue) -> tuple[str, ...]:
    if isinstance(value, str) and value:
        return (value,)
    if isinstance(value, list) and 1 <= len(value) <= _MOST_INPUTS:
        if all(isinstance(item, int) for item in value):
            return (_spell(value),)
        if all(isinstance(item, str | list) and item for item in value):
            return tuple(_spell(item) if isinstance(item, list) else str(item) for item in value)
    raise WireError("input", f"a non-empty string, up to {_MOST_INPUTS} of them, or lists of tokens")


def _spell(tokens: Sequence[JsonValue]) -> str:
    return " ".join(map(str, tokens))


def _tokens(text: str) -> int:
    """Words count as tokens: good enough to be added up."""
    return len(text.split())


def _usage(prompt_tokens: int, completion_tokens: int | None) -> JsonValue:
    usage: dict[str, JsonValue] = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + (completion_tokens or 0),
    }
    if completion_tokens is not None:
        usage["completion_tokens"] = completion_tokens
    return usage


SCRIPTED_FAILURE: Final = "A failure that the script asked for."
GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
"""What gateways send in place of an answer."""


@attrs.frozen
class RefusalReply:
    """The response to a request that was refused; `message` is also in the body."""

    status: int
    headers: Mapping[str, str]
    message: str
    body: bytes


def refusal_reply(provider: str, refused: Refused, wall_now: float) -> RefusalReply:
    """The response of the provider of this name. wall_now: seconds since 1970."""
    phase = refused.phase
    status, seconds = phase.refusal_status, phase.retry_after_seconds
    limited = status == 429
    headers: dict[str, str] = {}
    details: list[JsonValue] = []
    code: str | int | None
    if refused.reason == "quota":
        status, kind, code, seconds = 429, "insufficient_quota", "insufficient_quota", None
        most = counted(phase.quota or 0, "request")
        message = f"You exceeded your current quota: provider {provider} accepts {most} in all"
    elif refused.reason == "key":
        kind, code, seconds = "invalid_request_error", "invalid_api_key", None
        message = f"Incorrect API key provided to provider {provider}: every key is refused"
    else:
        kind, code = ("requests", "rate_limit_exceeded") if limited else ("overloaded_error", None)
        problem = f"Rate limit reached for provider {provider}" if limited else f"Provider {provider} is overloaded"
        message = f"{problem}: {_limit(refused)}"
    message += f" in phase {phase.name}."
    if seconds is not None:
        headers = _hint_headers(phase.retry_after_header, seconds, wall_now)
        if phase.retry_after_header == "message":
            message += f" Please try again in {_duration(seconds)}."
        elif phase.retry_after_header == "retryDelay":
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{_decimal(seconds)}s"}]
    in_body = phase.refusal_form == "body-in-200"
    if in_body and refused.reason not in ("quota", "key"):
        code = status
    body = error_body(message, kind, code=code, details=details)
    return RefusalReply(200 if in_body else status, headers, message, body)


def stream_of(asked: ChatRequest, accepted: Accepted, script: RehearsalScript) -> tuple[list[bytes], bool]:
    """The events of a streamed reply, and whether it ends as it should; a stream that hangs stops in its middle."""
    phase, fate = accepted.phase, accepted.fate
    events = asked.events(script, empty=fate == "malformed" and phase.malformed_form == "empty")
    half = events[: len(events) // 2]
    if fate == "error":
        return [*half, b"data: %s\n\n" % error_reply(phase)[1]], True
    if fate == "hang":
        return half, False
    if fate == "malformed" and phase.malformed_form == "cut":
        return half, False
    if fate == "malformed" and phase.malformed_form == "half":
        return [*half, b'data: {"id":"chatcmpl-rehe\n\n'], True
    return events, True


def error_reply(phase: Phase) -> tuple[int, bytes]:
    """Status and body of a failure that the script asked for."""
    in_body = phase.error_form == "body-in-200"
    code = phase.error_status if in_body else None
    return 200 if in_body else phase.error_status, error_body(SCRIPTED_FAILURE, "server_error", code=code)


def _limit(refused: Refused) -> str:
    phase = refused.phase
    if refused.reason == "concurrency":
        return f"{counted(refused.limit or 0, 'request')} in flight"
    if refused.reason == "rate":
        return f"{phase.requests_per_second:g} requests per second"
    if refused.reason == "window":
        return f"{counted(phase.requests_per_window or 0, 'request')} per {phase.window_seconds:g} seconds"
    return "no request is served"


def _hint_headers(place: HintPlace, seconds: float, wall_now: float) -> dict[str, str]:
    if place == "retry-after":
        return {"retry-after": _decimal(seconds)}
    if place == "retry-after-ms":
        return {"retry-after-ms": _decimal(seconds * 1000)}
    if place == "x-ratelimit-reset-requests":
        return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": _duration(seconds)}
    then = min(math.ceil(wall_now + seconds), _LAST_SECOND)
    date = {"date": formatdate(wall_now, usegmt=True)}
    if place == "retry-after-date":
        return {"retry-after": formatdate(then, usegmt=True), **date}
    if place == "retry-after-epoch":
        return {"retry-after": str(then), **date}
    if place == "anthropic-ratelimit-requests-reset":
        reset = datetime.fromtimestamp(then, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset, **date}
    return {}


def _decimal(number: float) -> str:
    """A number without an exponent, which not every client reads."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    """As OpenAI writes them: "20ms", "1.5s", "1m30s", "1h0m0s"."""
    if 0 < seconds < 1:
        return f"{_decimal(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    if not minutes:
        return f"{_decimal(rest)}s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{_decimal(rest)}s" if hours else f"{minutes}m{_decimal(rest)}s"
