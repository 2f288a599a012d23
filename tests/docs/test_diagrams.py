"""The diagrams of the specification are drawn, and drawn from what their source says now."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "plans" / "diagrams"
STYLE = (FOLDER / "style.puml").read_text(encoding="utf-8")
SOURCES = dict(
    re.findall(
        r"^@startuml ([\w-]+)\n(.*?)^@enduml$",
        (FOLDER / "trio_sched.puml").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)


def test_there_are_six_and_no_others() -> None:
    assert len(SOURCES) == 6
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(SOURCES)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_an_image_is_drawn_from_its_source(name: str) -> None:
    image = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    drawn_from = hashlib.sha256((STYLE + SOURCES[name]).encode()).hexdigest()
    assert f"<!-- drawn from {drawn_from} -->" in image, "run nox -s diagrams"
