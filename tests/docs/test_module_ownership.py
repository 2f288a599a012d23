"""The page on ownership lists every module of the package, once, and no other."""

from __future__ import annotations

import re

from page_blocks import ROOT


def test_every_module_is_listed_once() -> None:
    page = (ROOT / "plans" / "module-ownership.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE)
    package = ROOT / "trio_sched"
    assert sorted(listed) == sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
