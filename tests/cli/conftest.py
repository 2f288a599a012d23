"""A folder to work in, and modules with pipelines in it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_sched._cli.commands import trio_sched

COUNTER = itertools.count()


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module into the current folder, a fresh one, and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names: list[str] = []

    def write(text: str) -> str:
        names.append(f"pipes_{next(COUNTER)}")
        Path(f"{names[-1]}.py").write_text(text, encoding="utf-8")
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Runs a command line in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(trio_sched, list(arguments))

    return run
