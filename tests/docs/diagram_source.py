"""What the diagrams of `plans/` say, read from their PlantUML source: which names, which members, which arrows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

__all__ = ["DIAGRAMS", "FOLDER", "STYLE", "Diagram", "Link", "Node", "read_diagram"]

FOLDER: Final = Path(__file__).parents[2] / "plans" / "diagrams"
STYLE: Final = (FOLDER / "style.puml").read_text(encoding="utf-8")

_NODE = re.compile(
    r'(?P<kind>rectangle|class|interface|participant|package)\s+(?:"(?P<label>[^"]+)"|(?P<name>[\w.]+))'
    r"(?:\s+as\s+(?P<alias>\w+))?(?:\s+#\w+)?(?P<opens>\s*\{)?"
)
_LINK = re.compile(r"(?P<start>\w+) (?P<arrow>[-.<>*|]+|-\[hidden\]->) (?P<end>\w+)(?: : (?P<label>.+))?")
_NOTE = re.compile(r"note (?:right of|left of|over) \w+ : (?P<text>.+)")
_SILENT = re.compile(r"(?:hide|skinparam|activate|deactivate|left to right)\b.*|'.*|\}?")


@attrs.frozen
class Node:
    """Something drawn. lines: its label. members: of a class, one a line."""

    kind: str
    lines: tuple[str, ...]
    members: list[str] = attrs.field(factory=list[str])


@attrs.frozen
class Link:
    """An arrow between two nodes, by their names in the source."""

    start: str
    arrow: str
    end: str
    label: str = ""


@attrs.frozen
class Diagram:
    """One diagram. texts: everything in it that is written."""

    source: str
    nodes: dict[str, Node] = attrs.field(factory=dict[str, Node])
    links: list[Link] = attrs.field(factory=list[Link])
    texts: list[str] = attrs.field(factory=list[str])


def read_diagram(source: str) -> Diagram:
    """Read a diagram. Raises ValueError of a line that is not understood."""
    diagram = Diagram(source)
    inside: Node | None = None
    for line in map(str.strip, source.splitlines()):
        if inside is not None and line != "}":
            inside.members.append(line)
            diagram.texts.append(line)
        elif found := _NODE.fullmatch(line):
            lines = tuple((found["label"] or found["name"]).split("\\n"))
            node = Node(found["kind"], lines)
            diagram.texts.extend(lines)
            if node.kind != "package":
                diagram.nodes[found["alias"] or found["name"]] = node
                inside = node if found["opens"] else None
        elif found := _LINK.fullmatch(line):
            diagram.links.append(Link(found["start"], found["arrow"], found["end"], found["label"] or ""))
            diagram.texts.extend((found["label"] or "").split("\\n") if found["label"] else ())
        elif found := _NOTE.fullmatch(line):
            diagram.texts.extend(found["text"].split("\\n"))
        elif line.startswith("title "):
            diagram.texts.append(line.removeprefix("title "))
        elif _SILENT.fullmatch(line):
            inside = None
        else:
            raise ValueError(f"not understood: {line!r}")
    return diagram


DIAGRAMS: Final[dict[str, Diagram]] = {
    name: read_diagram(text)
    for name, text in re.findall(
        r"^@startuml ([\w-]+)\n(.*?)^@enduml$",
        (FOLDER / "trio_sched.puml").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
}
"""By name."""
