"""No part has a second name: what is in the table of `plans/migration-and-cleanup.md` is nowhere else.

The first column of the table lists identifiers in backquotes, where `*` stands for more letters, and phrases in quotes,
which may be broken over lines. A term is a name or a phrase that a removed mechanism had to itself, never a word of
plain English. Names of files count as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("trio_sched", "tests", "plans", "docs", "benchmarks", ".ci")
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "noxfile.py", "pyproject.toml")
TEXT = {"", ".cfg", ".css", ".html", ".js", ".md", ".puml", ".py", ".rst", ".svg", ".toml", ".txt"}
TABLE = "plans/migration-and-cleanup.md"
EXEMPT = {TABLE, "tests/test_vocabulary.py"}
NOT_OURS = re.compile(r"__pycache__|/vendor/|^benchmarks/(?:peers|race/clients|results/.*\.svg$)")

OF_OTHERS = re.compile(r"throttl|semaphore", re.IGNORECASE)
"""Words for which others have their uses: a candidate of the benchmarks is one, an error of a provider is named so."""
CANDIDATES = re.compile(r"^benchmarks/|^tests/benchmarks/|^docs/(?:benchmarks|comparison)\.md$")
PROVIDER_ERROR = re.compile(r'"\w*Throttl\w*"')


def read_terms(page: str) -> dict[str, re.Pattern[str]]:
    """The terms of the table, each with what finds it."""
    first_column = "\n".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE))
    return {term: pattern_of(term) for term in re.findall(r'`[^`]+`|"[^"]+"', first_column)}


def pattern_of(term: str) -> re.Pattern[str]:
    if term.startswith('"'):
        return re.compile(r"\b" + r"[\s#>]+".join(map(re.escape, term.strip('"').split())) + r"\b", re.IGNORECASE)
    name = term.strip("`")
    start, end = (r"(?<!\w)" if name[0].isalnum() else "", r"(?!\w)" if name[-1].isalnum() else "")
    return re.compile(start + re.escape(name).replace(r"\*", r"\w*") + end)


TERMS = read_terms((ROOT / TABLE).read_text(encoding="utf-8"))


def texts() -> Iterator[tuple[str, str]]:
    """Every text that people read, with its name."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths.extend(path for path in (ROOT / folder).rglob("*") if path.suffix in TEXT and path.is_file())
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if name not in EXEMPT and not NOT_OURS.search(name):
            yield name, path.read_text(encoding="utf-8")


def violations(name: str, text: str) -> list[str]:
    """Where a text, or its name, uses a term that it may not use."""
    in_text = [f"{name}:{text.count(chr(10), 0, at) + 1}: {term}" for at, term in uses(name, text)]
    return [f"{name}: {term}" for _, term in uses(name, name)] + in_text


def uses(name: str, text: str) -> Iterator[tuple[int, str]]:
    for pattern in TERMS.values():
        for use in pattern.finditer(text):
            is_of_others = CANDIDATES.search(name) or PROVIDER_ERROR.fullmatch(text[use.start() - 1 : use.end() + 1])
            if not (OF_OTHERS.search(use[0]) and is_of_others):
                yield use.start(), use[0]


def test_the_gate_sees_the_tree() -> None:
    seen = {name for name, _ in texts()}
    assert seen >= {
        "README.md",
        "CONTRIBUTING.md",
        ".ci/run",
        "trio_sched/__init__.py",
        "plans/diagrams/components.svg",
    }
    assert seen >= {"trio_sched/_observe/report/page.js", "docs/newsfragments/README.md", "benchmarks/__main__.py"}


def test_no_term_is_used() -> None:
    assert [line for name, text in texts() for line in violations(name, text)] == []


@pytest.mark.parametrize("term", sorted(TERMS))
def test_a_term_is_found_in_text_code_and_names(term: str) -> None:
    word = term.strip('`"').replace("*", "x")
    assert violations("docs/x.md", f"first\nsome {word} here") == [f"docs/x.md:2: {word}"]
    assert violations("trio_sched/x.py", f'"""Of a {word}."""') == [f"trio_sched/x.py:1: {word}"]
    if term.startswith("`"):
        assert violations(f"tests/{word}.py", "") == [f"tests/{word}.py: {word}"]
    else:
        broken = word.replace(" ", "\n    # ", 1)
        assert violations("trio_sched/x.py", f"    # {broken}") == [f"trio_sched/x.py:1: {broken}"]


def test_others_keep_their_names() -> None:
    assert violations("benchmarks/control/candidates.py", "a trio.Semaphore, a throttle") == []
    assert violations("docs/benchmarks.md", "| semaphore with SDK retries |") == []
    assert violations("trio_sched/_classify.py", 'code == "ThrottlingException"') == []
    assert violations("trio_sched/_classify.py", "# throttling") == ["trio_sched/_classify.py:1: throttling"]
    assert violations("docs/index.md", "a semaphore") == ["docs/index.md:1: semaphore"]
    assert violations("docs/benchmarks.md", "is_llm_bound") == ["docs/benchmarks.md:1: is_llm_bound"]


def test_a_term_is_an_identifier_or_a_phrase() -> None:
    """One word in quotes would be a word of plain English."""
    assert [term for term in TERMS if term.startswith('"') and " " not in term] == []
