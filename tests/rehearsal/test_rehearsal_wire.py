"""The OpenAI wire format, without a wire."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
from typing import Any

import pytest

from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.wire import ChatRequest, EmbeddingRequest, WireError, error_body, model_list

SCRIPT = RehearsalScript()
MESSAGES = [{"role": "user", "content": "Explain coroutine objects."}]


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode())


def embeddings(**fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest.parse(json.dumps({"model": "e", "input": "text", **fields}).encode())


def test_a_chat_completion_has_the_shape_of_one() -> None:
    reply = json.loads(chat().answer(SCRIPT))
    choice = reply["choices"][0]
    content = choice["message"]["content"]
    words = len(content.split())
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "m"
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop"
    assert content
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": words, "total_tokens": 3 + words}


def test_the_same_request_has_the_same_bytes_for_an_answer() -> None:
    assert chat().answer(SCRIPT) == chat().answer(SCRIPT)
    assert chat().answer(SCRIPT) != chat().answer(RehearsalScript(seed=1))


def test_several_choices_differ() -> None:
    choices = json.loads(chat(n=3).answer(SCRIPT))["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) == 3


def test_content_may_be_parts_or_missing() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url"}, {"type": "text", "text": "two"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    assert chat(messages=messages).messages == (("user", "one\ntwo"), ("assistant", ""))


def test_a_json_response_format_is_noticed() -> None:
    assert not chat(response_format={"type": "text"}).wants_json
    assert chat(response_format={"type": "json_object"}).wants_json
    assert chat(response_format={"type": "json_schema", "json_schema": {}}).wants_json


def test_what_a_rehearsal_has_no_use_for_is_ignored() -> None:
    assert chat(temperature=0.1, max_tokens=3, stream=False, tools=[]) == chat()


def test_both_encodings_carry_the_same_numbers() -> None:
    floats = json.loads(embeddings(encoding_format="float").answer(SCRIPT))["data"][0]["embedding"]
    encoded = json.loads(embeddings(encoding_format="base64").answer(SCRIPT))["data"][0]["embedding"]
    assert list(struct.unpack("<16f", base64.b64decode(encoded))) == floats


def test_dimensions_come_from_the_request_or_else_from_the_script() -> None:
    def dimensions(request: EmbeddingRequest, script: RehearsalScript) -> int:
        return len(json.loads(request.answer(script))["data"][0]["embedding"])

    assert dimensions(embeddings(), SCRIPT) == 16
    assert dimensions(embeddings(), RehearsalScript(dimensions=8)) == 8
    assert dimensions(embeddings(dimensions=4), RehearsalScript(dimensions=8)) == 4


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([1, 2], ("1 2",)),
        ([[1, 2], [3]], ("1 2", "3")),
    ],
)
def test_inputs_are_texts_or_tokens(given: object, inputs: tuple[str, ...]) -> None:
    request = embeddings(input=given)
    assert request.inputs == inputs
    assert [entry["index"] for entry in json.loads(request.answer(SCRIPT))["data"]] == list(range(len(inputs)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": None}, "model must be a non-empty string"),
        ({"model": ""}, "model must be a non-empty string"),
        ({"messages": []}, "messages must be a non-empty list of messages"),
        ({"messages": "hello"}, "messages must be a non-empty list of messages"),
        ({"messages": ["hello"]}, "messages[0] must be an object with role and content"),
        ({"messages": [{"content": "x"}]}, "messages[0].role must be a non-empty string"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be a string or a list of parts"),
        ({"n": 0}, "n must be an integer from 1 to 128, got 0"),
        ({"n": True}, "n must be an integer from 1 to 128, got True"),
    ],
)
def test_a_bad_chat_request_is_refused_by_parameter(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=f"^{re.escape(message)}$"):
        chat(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "input must be a non-empty string, up to 2048 of them, or lists of tokens"),
        ({"input": []}, "input must be a non-empty string, up to 2048 of them, or lists of tokens"),
        ({"input": ["one", ""]}, "input must be a non-empty string, up to 2048 of them, or lists of tokens"),
        ({"input": {"text": 1}}, "input must be a non-empty string, up to 2048 of them, or lists of tokens"),
        ({"dimensions": 0}, "dimensions must be an integer from 1 to 4096, got 0"),
        ({"stream": True}, "stream must be false or absent: embeddings are not streamed"),
        ({"encoding_format": "hex"}, "encoding_format must be 'float' or 'base64', got 'hex'"),
    ],
)
def test_a_bad_embedding_request_is_refused_by_parameter(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=f"^{re.escape(message)}$"):
        embeddings(**fields)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(WireError, match=r"^the body must be "):
        ChatRequest.parse(body)


def test_models_and_errors_have_their_shapes() -> None:
    models = json.loads(model_list(("one", "two")))
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]] == ["one", "two"]
    assert json.loads(error_body("text", "kind", param="p", code="c")) == {
        "error": {"message": "text", "type": "kind", "param": "p", "code": "c"}
    }
    assert json.loads(error_body("text", "kind", code=429, details=({"a": 1},))) == {
        "error": {"message": "text", "type": "kind", "param": None, "code": 429, "details": [{"a": 1}]}
    }


@pytest.mark.parametrize("depth", [50, 300, 600, 900, 950, 980, 1000, 100_000])
@pytest.mark.parametrize(
    "field", ["messages", "model", "n", "response_format", "input", "dimensions", "encoding_format"]
)
def test_a_body_that_is_nested_deeply_is_read_or_refused_at_any_depth(depth: int, field: str) -> None:
    good = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "x"}
    for nested in ("[" * depth + "]" * depth, '{"a": ' * depth + "1" + "}" * depth):
        body = json.dumps({**good, field: "here"}).replace('"here"', nested).encode()
        for parse in (ChatRequest.parse, EmbeddingRequest.parse):
            with contextlib.suppress(WireError):
                parse(body)
