"""The wire formats of OpenAI and Anthropic: request bodies in, response bodies out, nothing served, nothing decided.

Only what a rehearsal needs is read. Sampling parameters (`temperature`, `max_tokens`, `tools`, ...) are accepted and
ignored. `created` is always 0: a clock would make the same request have two answers. A chat may be streamed, as events
of one word each; embeddings may not, because a client that asked for a stream cannot use what it would get.

The two formats are two dialects: one script, one answer to one question, and an error by the name that each has for it.

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
from typing import ClassVar, Final, Literal, TypeAlias, cast

import attrs

from trio_sched._errors import shown
from trio_sched._events.records import JsonValue
from trio_sched._rehearsal.answers import chat_answer, embedding
from trio_sched._rehearsal.provider import Accepted, Refused
from trio_sched._rehearsal.script import HintPlace, Phase, RehearsalScript
from trio_sched._util import counted, parse_json

__all__ = [
    "ChatRequest",
    "Dialect",
    "EmbeddingRequest",
    "MessagesRequest",
    "ModelRequest",
    "RefusalReply",
    "StreamedRequest",
    "WireError",
    "error_body",
    "failure_body",
    "model_list",
    "refusal_reply",
    "stream_of",
]

Dialect: TypeAlias = Literal["openai", "anthropic"]

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

    dialect: ClassVar[Dialect] = "openai"
    half_an_event: ClassVar[bytes] = b'data: {"id":"chatcmpl-rehe\n\n'
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

    def error_event(self, body: bytes) -> bytes:
        """An error in the middle of a stream."""
        return b"data: %s\n\n" % body

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
class MessagesRequest:
    """The body of Anthropic's `POST /messages`."""

    dialect: ClassVar[Dialect] = "anthropic"
    half_an_event: ClassVar[bytes] = b'event: content_block_delta\ndata: {"type":"content_blo\n\n'
    model: str
    messages: tuple[tuple[str, str], ...]
    stream: bool = False

    @classmethod
    def parse(cls, body: bytes) -> MessagesRequest:
        """Read a body, or raise `WireError`."""
        fields = _fields(body)
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise WireError("messages", "a non-empty list of messages")
        most = fields.get("max_tokens")
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise WireError("max_tokens", f"a positive integer, got {shown(most)}")
        told = [_message(index, message) for index, message in enumerate(messages)]
        system = fields.get("system")
        if system:
            told.insert(0, _message(0, {"role": "system", "content": system}))
        return cls(_text(fields, "model"), tuple(told), bool(fields.get("stream")))

    def answer(self, script: RehearsalScript, *, empty: bool = False) -> bytes:
        """The response body. empty: without content."""
        text = self._answer(script)
        content: list[JsonValue] = [] if empty else [{"type": "text", "text": text}]
        return _dump(self._message(content, "end_turn", 0 if empty else _tokens(text)))

    def events(self, script: RehearsalScript, *, empty: bool = False) -> list[bytes]:
        """The events of the response as a stream: one for each word. empty: without content."""
        text = self._answer(script)
        events = [self._event("message_start", message=self._message([], None, 1))]
        if not empty:
            events.append(self._event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
            events += [
                self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
                for word in re.findall(r"\S+\s*", text)
            ]
            events.append(self._event("content_block_stop", index=0))
        end: JsonValue = {"stop_reason": "end_turn", "stop_sequence": None}
        usage: JsonValue = {"output_tokens": 0 if empty else _tokens(text)}
        return [*events, self._event("message_delta", delta=end, usage=usage), self._event("message_stop")]

    def error_event(self, body: bytes) -> bytes:
        """An error in the middle of a stream."""
        return b"event: error\ndata: %s\n\n" % body

    def _event(self, kind: str, **fields: JsonValue) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (kind.encode("ascii"), _dump({"type": kind, **fields}))

    def _answer(self, script: RehearsalScript) -> str:
        return chat_answer(self.model, self.messages, seed=script.seed)

    def _message(self, content: list[JsonValue], stop_reason: str | None, output_tokens: int) -> JsonValue:
        return {
            "id": "msg_rehearsal",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": sum(_tokens(text) for _, text in self.messages),
                "output_tokens": output_tokens,
            },
        }


@attrs.frozen
class EmbeddingRequest:
    """The body of `POST /embeddings`. An input given as tokens is embedded as the text of its numbers."""

    dialect: ClassVar[Dialect] = "openai"
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


StreamedRequest: TypeAlias = "ChatRequest | MessagesRequest"
ModelRequest: TypeAlias = "ChatRequest | MessagesRequest | EmbeddingRequest"


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
    """The body of OpenAI's responses that are no success."""
    error: dict[str, JsonValue] = {"message": message, "type": kind, "param": param, "code": code}
    if details:
        error["details"] = list(details)
    return _dump({"error": error})


_ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI_CODES: Final[Mapping[int, str]] = {
    401: "invalid_api_key",
    403: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
}


def failure_body(
    dialect: Dialect,
    status: int,
    message: str,
    *,
    param: str | None = None,
    in_200: bool = False,
    code: str | None = None,
    details: Sequence[JsonValue] = (),
) -> bytes:
    """The body of a response that is no success. in_200: it has to say its status itself. code: in place of its own."""
    if dialect == "anthropic":
        own = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        failure: dict[str, JsonValue] = {"type": code or own, "message": message}
        if details:
            failure["details"] = list(details)
        return _dump({"type": "error", "error": failure, "request_id": "req_rehearsal"})
    if status == 429:
        kind = "requests"
    elif status in (503, 529):
        kind = "overloaded_error"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    named = status if in_200 else _OPENAI_CODES.get(status)
    return error_body(message, code or kind, param=param, code=code or named, details=details)


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


def refusal_reply(provider: str, refused: Refused, wall_now: float, dialect: Dialect = "openai") -> RefusalReply:
    """The response of the provider of this name. wall_now: seconds since 1970."""
    phase = refused.phase
    status, seconds = phase.refusal_status, phase.retry_after_seconds
    in_200 = says_status = phase.refusal_form == "body-in-200"
    headers: dict[str, str] = {}
    details: list[JsonValue] = []
    code: str | None = None
    sent: int = status
    if refused.reason == "quota":
        # Each says it in its own way, and neither with a hint.
        sent, code = (402, "billing_error") if dialect == "anthropic" else (429, "insufficient_quota")
        seconds, says_status = None, False
        most = counted(phase.quota or 0, "request")
        message = f"You exceeded your current quota: provider {provider} accepts {most} in all"
    elif refused.reason == "key":
        seconds, says_status = None, False
        if status == 404:
            message = f"The model does not exist or you do not have access to it: provider {provider} has none"
        else:
            message = f"Incorrect API key provided to provider {provider}: every key is refused"
    else:
        limited = status == 429
        problem = f"Rate limit reached for provider {provider}" if limited else f"Provider {provider} is overloaded"
        message = f"{problem}: {_limit(refused)}"
    message += f" in phase {phase.name}."
    if seconds is not None:
        headers = _hint_headers(phase.retry_after_header, seconds, wall_now)
        if phase.retry_after_header == "message":
            message += f" Please try again in {_duration(seconds)}."
        elif phase.retry_after_header == "retryDelay":
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{_decimal(seconds)}s"}]
    body = failure_body(dialect, sent, message, in_200=says_status, code=code, details=details)
    return RefusalReply(200 if in_200 else sent, headers, message, body)


def stream_of(asked: StreamedRequest, accepted: Accepted, script: RehearsalScript) -> tuple[list[bytes], bool]:
    """The events of a streamed reply, and whether it ends as it should; a stream that hangs stops in its middle."""
    phase, fate = accepted.phase, accepted.fate
    events = asked.events(script, empty=fate == "malformed" and phase.malformed_form == "empty")
    half = events[: len(events) // 2]
    if fate == "error":
        return [*half, asked.error_event(error_reply(phase, asked.dialect)[1])], True
    if fate == "hang":
        return half, False
    if fate == "malformed" and phase.malformed_form in ("cut", "reset"):
        return half, False
    if fate == "malformed" and phase.malformed_form == "half":
        return [*half, asked.half_an_event], True
    return events, True


def error_reply(phase: Phase, dialect: Dialect = "openai") -> tuple[int, bytes]:
    """Status and body of a failure that the script asked for."""
    in_200 = phase.error_form == "body-in-200"
    body = failure_body(dialect, phase.error_status, SCRIPTED_FAILURE, in_200=in_200, code=phase.error_code)
    return 200 if in_200 else phase.error_status, body


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
