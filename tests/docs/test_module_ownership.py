"""The page on ownership lists every module of the package, once, and no other, and says of it what it says itself."""

from __future__ import annotations

import ast
import re

from page_blocks import ROOT

PACKAGE = ROOT / "trio_sched"
LISTED: list[tuple[str, str]] = re.findall(
    r"^\| `([\w/]+\.py)` \| (.*) \|$",
    (ROOT / "plans" / "module-ownership.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_every_module_is_listed_once() -> None:
    assert sorted(module for module, _ in LISTED) == sorted(
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")
    )


def test_every_module_is_said_to_own_what_its_first_sentence_says() -> None:
    assert dict(LISTED) == {module: first_sentence(module) for module, _ in LISTED}


def first_sentence(module: str) -> str:
    words = (ast.get_docstring(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))) or "").split()
    found = re.match(r".*?[.?](?=\s|$)", " ".join(words))
    return found[0].rstrip(".") if found is not None else ""
