"""The contract's table of promises names tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CONTRACTS = (TESTS.parent / "plans" / "contracts.md").read_text(encoding="utf-8")


def promises() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every promise of the table with its tests: file and name."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in CONTRACTS.partition("| of | promise | held by |")[2].splitlines()[2:]:
        _, promise, held_by = line.strip("| ").split(" | ")
        tests: list[tuple[str, str]] = []
        for file, name in re.findall(r"`([\w/.]*)::(\w+)`", held_by):
            tests.append((file or tests[-1][0], name))
        found.append((promise, tests))
    return found


@cache
def names_in(file: str) -> frozenset[str]:
    """What a test file defines at its top."""
    names: set[str] = set()
    for node in ast.parse((TESTS / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return frozenset(names)


@pytest.mark.parametrize(("promise", "tests"), promises())
def test_every_promise_is_held_by_tests_that_exist(promise: str, tests: list[tuple[str, str]]) -> None:
    assert tests, promise
    missing = [f"{file}::{name}" for file, name in tests if name not in names_in(file)]
    assert not missing


def test_the_table_speaks_of_every_stage() -> None:
    stages = {line.split(" | ")[0].strip("| ") for line in CONTRACTS.partition("| of |")[2].splitlines()[2:]}
    assert stages >= {
        "metadata",
        "queue",
        "task admission",
        "scheduler",
        "request admission",
        "boundary",
        "capacity",
        "events",
    }
