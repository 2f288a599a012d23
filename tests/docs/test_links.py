"""Links in README, docs and plans lead somewhere, and what they claim to be complete is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_blocks import PAGES, ROOT, page_name

import trio_sched
from trio_sched import lowlevel, rehearsal, testing

PLANS = (*sorted((ROOT / "plans").glob("*.md")), *sorted((ROOT / "docs" / "newsfragments").glob("*.md")))
_LINK = re.compile(r"\[[^\]]*\]\((?P<to>[^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NAMED_FILE = re.compile(
    r"`(?P<path>(?:trio_sched|tests|plans|docs|benchmarks)/[\w./-]+\.(?:py|md|puml)|[\w-]+\.md)(?:::\w+)?`"
)
_FRAGMENT = re.compile(r"\d+\.(?:feature|bugfix|doc|removal|misc)(?:\.\d+)?\.md")


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *PLANS], ids=page_name)
def test_relative_links_resolve(page: Path) -> None:
    broken: list[str] = []
    for found in _LINK.finditer(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = found["to"].partition("#")
        if ":" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(found["to"])
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, *PLANS], ids=page_name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    named = {found["path"] for found in _NAMED_FILE.finditer(text)}
    homes = (ROOT, page.parent, ROOT / "plans")
    assert sorted(path for path in named if not any((home / path).exists() for home in homes)) == []


def test_every_page_has_its_place() -> None:
    """Sphinx warns of a page that no table of contents names, and the session fails; this says it without Sphinx."""
    docs = ROOT / "docs"
    named: set[Path] = {docs / "index.md"}
    for page in docs.rglob("index.md"):
        for tree in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            named |= {page.parent / f"{line}.md" for line in tree.splitlines() if line and not line.startswith(":")}
    assert {page for page in PAGES if docs in page.parents} == named


def test_the_reference_has_every_public_name_once() -> None:
    documented: list[str] = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        module = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.split()[-1]
            elif line.startswith(".. auto"):
                documented.append(f"{module}.{line.split()[-1]}")
    public = {f"trio_sched.{name}" for name in trio_sched.__all__ if name != "__version__"}
    for face in (lowlevel, rehearsal, testing):
        elsewhere = {
            id(getattr(home, name))
            for home in (trio_sched, lowlevel, rehearsal)
            if home is not face
            for name in home.__all__
        }
        public |= {
            f"{face.__name__}.{name}"
            for name in face.__all__
            if face is rehearsal or id(getattr(face, name)) not in elsewhere
        }
    assert sorted(documented) == sorted(public)


def test_the_benchmarks_page_has_every_result() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    results = {path.name for path in (ROOT / "benchmarks" / "results").rglob("*.md")}
    assert sorted(name for name in results if name not in page) == []


def test_news_fragments_have_names_that_towncrier_reads() -> None:
    names = {path.name for path in (ROOT / "docs" / "newsfragments").iterdir()} - {"README.md"}
    assert sorted(name for name in names if not _FRAGMENT.fullmatch(name)) == []
