"""The OpenAI wire format: request bodies in, response bodies out, nothing served and nothing decided.

Only what a rehearsal needs is read. Sampling parameters (`temperature`, `max_tokens`, `tools`, ...) are accepted and
ignored; `stream` is refused, because a client that asked for a stream cannot use what it would get. `created` is always
0: a clock would make the same request have two answers.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import attrs

from trio_sched._events.records import JsonValue
from trio_sched._rehearsal.answers import chat_answer, embedding
from trio_sched._rehearsal.script import RehearsalScript

__all__ = ["ChatRequest", "EmbeddingRequest", "ModelRequest", "WireError", "error_body", "model_list"]

_compact = json.JSONEncoder(separators=(",", ":")).encode

_MOST_CHOICES = 128
_MOST_DIMENSIONS = 4096
_MOST_INPUTS = 2048


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

    @classmethod
    def parse(cls, body: bytes) -> ChatRequest:
        """Read a body, or raise `WireError`."""
        fields = _fields(body)
        messages = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            raise WireError("messages", "a non-empty list of messages")
        response_format = fields.get("response_format")
        return cls(
            _text(fields, "model"),
            tuple(_message(index, message) for index, message in enumerate(messages)),
            _count(fields, "n", 1, _MOST_CHOICES),
            isinstance(response_format, dict) and response_format.get("type") in ("json_object", "json_schema"),
        )

    def answer(self, script: RehearsalScript) -> bytes:
        """The response body."""
        answers = [
            chat_answer(self.model, self.messages, seed=script.seed, choice=choice, wants_json=self.wants_json)
            for choice in range(self.choices)
        ]
        prompt_tokens = sum(_tokens(text) for _, text in self.messages)
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
                "usage": _usage(prompt_tokens, sum(map(_tokens, answers))),
            }
        )


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
        encoding = fields.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise WireError("encoding_format", f"'float' or 'base64', got {encoding!r}")
        dimensions = None if fields.get("dimensions") is None else _count(fields, "dimensions", 1, _MOST_DIMENSIONS)
        return cls(_text(fields, "model"), _inputs(fields.get("input")), dimensions, encoding == "base64")

    def answer(self, script: RehearsalScript) -> bytes:
        """The response body."""
        dimensions = self.dimensions or script.dimensions
        vectors = [embedding(self.model, text, dimensions, seed=script.seed) for text in self.inputs]
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
        value = cast("JsonValue", json.loads(body))
    except ValueError as error:
        raise WireError("the body", f"JSON: {error}") from error
    if not isinstance(value, dict):
        raise WireError("the body", "a JSON object")
    if value.get("stream"):
        raise WireError("stream", "false or absent: the rehearsal provider does not stream")
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
        raise WireError(name, f"an integer from 1 to {most}, got {value!r}")
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
    """Words stand in for tokens: good enough to be added up."""
    return len(text.split())


def _usage(prompt_tokens: int, completion_tokens: int | None) -> JsonValue:
    usage: dict[str, JsonValue] = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + (completion_tokens or 0),
    }
    if completion_tokens is not None:
        usage["completion_tokens"] = completion_tokens
    return usage
