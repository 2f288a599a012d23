"""Answers are functions of what is asked, and fit what was asked for."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections import Counter

import pytest

from trio_sched._rehearsal.answers import chat_answer, embedding

PASSAGE = "Coroutine objects are awaitable objects. A coroutine's execution can be controlled by calling __await__."


def ask(text: str, *, seed: int = 0) -> str:
    return chat_answer("m", [("user", text)], seed=seed)


def vector(text: str, dimensions: int = 16, *, model: str = "m", seed: int = 0) -> tuple[float, ...]:
    return struct.unpack(f"<{dimensions}f", embedding(model, text, dimensions, seed=seed))


def product(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def test_the_answer_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from trio_sched._rehearsal.answers import chat_answer, embedding;"
        "print(chat_answer('m', [('user', sys.argv[1])]), embedding('m', sys.argv[1], 8).hex())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code, PASSAGE], env=environment, capture_output=True, check=True)
    assert other.stdout.decode().strip() == f"{ask(PASSAGE)} {embedding('m', PASSAGE, 8).hex()}"


def test_the_answer_depends_on_model_messages_choice_and_seed() -> None:
    answers = {
        chat_answer("m", [("user", PASSAGE)]),
        chat_answer("n", [("user", PASSAGE)]),
        chat_answer("m", [("system", "Be brief."), ("user", PASSAGE)]),
        chat_answer("m", [("user", PASSAGE)], choice=1),
        chat_answer("m", [("user", PASSAGE)], seed=1),
    }
    assert len(answers) == 5


def test_a_statement_is_made_of_words_of_the_prompt() -> None:
    assert "coroutine" in " ".join(ask(PASSAGE, seed=seed) for seed in range(5)).lower()


@pytest.mark.parametrize("instruction", ["Write one question about this text.", "Ask a hard question about it."])
def test_who_is_instructed_to_ask_asks(instruction: str) -> None:
    assert chat_answer("m", [("system", instruction), ("user", PASSAGE)]).endswith("?")
    assert ask(f"{instruction}\n{PASSAGE}").endswith("?")


def test_who_is_asked_a_question_does_not_ask_back() -> None:
    assert not ask(f"Answer this question: what is a coroutine? {PASSAGE}").endswith("?")


def test_a_judge_scores_from_one_to_five_equally_often() -> None:
    system = ("system", "You are a judge. Reply with JSON: a score from 1 to 5, and a reason.")
    verdicts = [json.loads(chat_answer("m", [system, ("user", f"answer {number}")])) for number in range(500)]
    assert all(set(verdict) == {"score", "reason"} for verdict in verdicts)
    scores = Counter(verdict["score"] for verdict in verdicts)
    assert set(scores) == {1, 2, 3, 4, 5}
    assert min(scores.values()) > 60


def test_a_json_response_format_makes_a_judge() -> None:
    assert set(json.loads(chat_answer("m", [("user", PASSAGE)], wants_json=True))) == {"score", "reason"}


def test_words_alone_make_no_judge() -> None:
    assert not ask("The json module encodes objects.").startswith("{")
    assert not ask("The score of a game.").startswith("{")
    assert not ask("The json module has names with underscores.").startswith("{")


@pytest.mark.parametrize("text", ["", "a", "\ud800", "word " * 5000])
def test_any_text_has_an_answer_and_a_vector(text: str) -> None:
    assert ask(text)
    assert math.hypot(*vector(text)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 16, 1536])
def test_a_vector_has_the_length_one_and_the_dimensions_asked_for(dimensions: int) -> None:
    assert math.hypot(*vector(PASSAGE, dimensions)) == pytest.approx(1, abs=1e-6)


def test_a_vector_depends_on_text_model_and_seed() -> None:
    assert len({vector("x"), vector("y"), vector("x", model="n"), vector("x", seed=1)}) == 4
    assert vector("a b") != vector("b a")


def test_texts_that_share_words_point_in_similar_directions() -> None:
    near = product(vector("the coroutine awaits a future", 256), vector("the coroutine awaits a task", 256))
    far = product(vector("the coroutine awaits a future", 256), vector("integers have unlimited precision", 256))
    assert near > 0.6 > 0.3 > far
