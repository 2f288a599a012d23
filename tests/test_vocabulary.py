"""No part has a second name: the words that were given up stay out of code, docs, plans and tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("trio_sched", "tests", "plans", "docs", "benchmarks")
FILES = ("README.md", "CHANGELOG.md", "noxfile.py", "pyproject.toml")
TEXT = {".py", ".md", ".toml", ".rst", ".puml", ".txt", ".cfg", ".html"}
EXEMPT = {"plans/migration-and-cleanup.md", "tests/test_vocabulary.py"}
EXEMPT_FOLDERS = ("benchmarks/peers/", "benchmarks/race/clients/")
# A provider's own name of an error is not ours to choose.
ALLOWED = dict.fromkeys(
    ("trio_sched/_classify.py", "tests/boundary/test_provider_codes.py"), re.compile(r'"ThrottlingException"')
)
BANNED = re.compile(r"throttl|llm_wait|schedulinghint|trackingsemaphore|semaphore|is_llm_bound", re.IGNORECASE)


def texts() -> Iterator[tuple[str, str]]:
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths.extend(path for path in (ROOT / folder).rglob("*") if path.suffix in TEXT)
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and name not in EXEMPT and not name.startswith(EXEMPT_FOLDERS):
            yield name, path.read_text(encoding="utf-8")


def violations(name: str, text: str) -> list[str]:
    lines = (ALLOWED[name].sub("", text) if name in ALLOWED else text).splitlines()
    return [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if BANNED.search(line)]


def test_the_gate_sees_the_tree() -> None:
    assert {"README.md", "trio_sched/__init__.py"} <= {name for name, _ in texts()}


def test_banned_words_stay_out() -> None:
    assert [line for name, text in texts() for line in violations(name, text)] == []


@pytest.mark.parametrize("word", ["Throttled", "llm_wait", "SchedulingHint", "trio.Semaphore", "is_llm_bound"])
def test_the_gate_can_fail(word: str) -> None:
    assert violations("x.py", f"first\nsome {word} here") == [f"x.py:2: some {word} here"]


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_the_name_of_a_provider_is_allowed_where_codes_are_and_no_other_word(name: str) -> None:
    assert violations(name, 'x\n"ThrottlingException",') == []
    assert violations("trio_sched/_retry_hints.py", '"ThrottlingException"') != []
    assert violations(name, "Throttling") != []
