"""The diagrams of the specification name what is in the code, and are drawn from what their source says now."""

from __future__ import annotations

import ast
import hashlib
import html
import importlib
import inspect
import re
from functools import cache
from pathlib import Path

import attrs
import pytest
from diagram_source import DIAGRAMS, FOLDER, STYLE, Diagram, Link, Node, read_diagram
from page_blocks import ROOT
from test_import_layers import PACKAGE, imports, module_name, room

CLASSES = ("task-admission", "request-admission", "support-contracts")
ROOMS = ("components", "issue-map")
HIDDEN = "-[hidden]->"


@cache
def homes() -> dict[str, list[str]]:
    """Every class of the package, by name, with the modules that define one."""
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(module_name(path))
    return found


@cache
def words_of(module: str) -> frozenset[str]:
    """The identifiers that a module uses."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return frozenset(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def class_named(name: str) -> type:
    """The class that a diagram names. LookupError: there is none, or several."""
    if "." in name:
        module, _, name = name.rpartition(".")
    elif len(homes().get(name, ())) == 1:
        module = homes()[name][0]
    else:
        raise LookupError(f"{name} is the name of {homes().get(name, 'no class')}")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise LookupError(f"{module}.{name} is no class")
    return found


def faults_of_member(cls: type, member: str) -> list[str]:
    """What is wrong with `method(parameter, ...) : Result`, or with `attribute, attribute`, as members of `cls`."""
    call = re.fullmatch(r"(?P<name>\w+)\((?P<parameters>[\w, ]*)\)(?: : (?P<result>\w+))?", member)
    if call is None:
        return [f"{cls.__name__} has no {name!r}" for name in member.split(", ") if not has_attribute(cls, name)]
    method = getattr(cls, call["name"], None)
    if not inspect.isfunction(method):
        return [f"{cls.__name__} has no method {call['name']!r}"]
    signature = inspect.signature(method)
    drawn = [name for name in call["parameters"].split(", ") if name]
    faults: list[str] = []
    if drawn != [name for name in signature.parameters if name in drawn]:
        faults.append(f"{cls.__name__}.{call['name']} takes {signature}")
    results = re.findall(r"\w+", str(signature.return_annotation))
    if call["result"] is not None and call["result"] not in results:
        faults.append(f"{cls.__name__}.{call['name']} does not return {call['result']}")
    return faults


def has_attribute(cls: type, name: str) -> bool:
    fields = attrs.fields_dict(cls) if attrs.has(cls) else {}
    return (
        hasattr(cls, name) or name in fields or any(name in vars(each).get("__annotations__", ()) for each in cls.mro())
    )


def faults_of_classes(diagram: Diagram) -> list[str]:
    """What is wrong with a diagram of classes: names, members, who implements whom, who knows whom."""
    faults: list[str] = []
    classes: dict[str, type] = {}
    for alias, node in diagram.nodes.items():
        try:
            classes[alias] = class_named(node.lines[0])
        except LookupError as error:
            faults.append(str(error))
            continue
        faults += [fault for member in node.members for fault in faults_of_member(classes[alias], member)]
        if (node.kind == "interface") != bool(getattr(classes[alias], "_is_protocol", False)):
            faults.append(f"{alias} is drawn as a {node.kind}")
    for link in diagram.links:
        if link.arrow != HIDDEN and link.start in classes and link.end in classes:
            faults += faults_of_link(link, classes[link.start], classes[link.end])
    return faults


def faults_of_link(link: Link, start: type, end: type) -> list[str]:
    if link.arrow == "<|..":
        public = [name for name in vars(start) if not name.startswith("_")]
        return [f"{end.__name__} lacks {name!r} of {start.__name__}" for name in public if not has_attribute(end, name)]
    modules = [module for module in (start.__module__, end.__module__) if module.startswith("trio_sched.")]
    # Of what is others', a trio.CapacityLimiter, the name is enough.
    if len(modules) < 2 or any({start.__name__, end.__name__} <= words_of(module) for module in modules):
        return []
    return [f"neither {start.__name__} nor {end.__name__} knows the other"]


def faults_of_messages(diagram: Diagram) -> list[str]:
    """What is wrong with a diagram of messages: who takes part, which method is called, what class the answer is of."""
    faults: list[str] = []
    classes: dict[str, type] = {}
    for alias, node in diagram.nodes.items():
        name = "".join(line for line in node.lines if not line.startswith("("))
        if name[0].isupper():
            try:
                classes[alias] = class_named(name)
            except LookupError as error:
                faults.append(str(error))
    for link in diagram.links:
        called = re.fullmatch(r"\w+\([\w, ]*\)", link.label)
        if called and link.end in classes:
            faults += faults_of_member(classes[link.end], link.label)
        elif called or (re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+", link.label) and link.label not in homes()):
            faults.append(f"{link.label!r} is the name of no class")
    return faults


def rooms_of(node: Node) -> list[str]:
    """The folders and modules that the last line of a label names."""
    return node.lines[-1].split(", ")


def places_of(name: str) -> tuple[Path, ...]:
    return (PACKAGE / name, PACKAGE / f"{name}.py", ROOT / name)


def faults_of_rooms(diagram: Diagram) -> list[str]:
    named = [name for node in diagram.nodes.values() for name in rooms_of(node)]
    faults = [f"there is no {name!r}" for name in named if not any(path.exists() for path in places_of(name))]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return faults + [f"{name!r} is not drawn" for name in sorted(folders - set(named))]


def reached(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges, and what they lead to."""
    edges = set(edges)
    while more := {(a, d) for a, b in edges for c, d in edges if b == c} - edges:
        edges |= more
    return edges


def faults_of_arrows(diagram: Diagram) -> list[str]:
    """What is wrong with a diagram of imports: an arrow that no import follows, an import that follows no arrows."""
    place = {name: alias for alias, node in diagram.nodes.items() for name in rooms_of(node)}
    found = {
        (place[room(module)], place[room(target)])
        for module, targets in imports().items()
        for target in targets
        if room(module) in place and room(target) in place
    }
    drawn = {(link.start, link.end) for link in diagram.links if link.arrow != HIDDEN}
    faults = [f"{start} does not import {end}" for start, end in sorted(drawn - found)]
    allowed = reached(drawn) | {(alias, alias) for alias in diagram.nodes}
    return faults + [f"{start} imports {end}" for start, end in sorted(found - allowed)]


def faults_of_image(diagram: Diagram, image: str) -> list[str]:
    """What is wrong with an image: what it says or connects is not what the source says or connects."""
    faults: list[str] = []
    drawn = sorted(html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", image))
    written = sorted(diagram.texts)
    faults += [f"{text!r} is not in both" for text in sorted(set(drawn) ^ set(written))]
    if drawn != written and not faults:
        faults.append("something is there once too often")
    if "participant" not in {node.kind for node in diagram.nodes.values()}:
        arrows = set(re.findall(r'<path[^>]* id="([^"]+)"', image))
        said = {link_id(link) for link in diagram.links if link.arrow != HIDDEN}
        faults += [f"the arrow {html.unescape(each)} is not in both" for each in sorted(arrows ^ said)]
    return faults


def link_id(link: Link) -> str:
    """As PlantUML names an arrow in an image."""
    return html.escape(f"{link.start}{'->' if link.arrow.endswith('>') else '<-'}{link.end}")


def faults_of_names(name: str, diagram: Diagram) -> list[str]:
    """What is wrong with the names of a diagram."""
    if name in CLASSES:
        return faults_of_classes(diagram)
    if name in ROOMS:
        return faults_of_rooms(diagram) + (faults_of_arrows(diagram) if name == "components" else [])
    return faults_of_messages(diagram)


def image_of(name: str) -> str:
    return (FOLDER / f"{name}.svg").read_text(encoding="utf-8")


def test_there_are_six_and_no_others() -> None:
    assert len(DIAGRAMS) == 6
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(DIAGRAMS) == {*CLASSES, *ROOMS, "runtime-sequence"}


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_names_and_arrows_are_those_of_the_code(name: str) -> None:
    assert faults_of_names(name, DIAGRAMS[name]) == []


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_an_image_is_drawn_from_its_source(name: str) -> None:
    image = image_of(name)
    assert faults_of_image(DIAGRAMS[name], image) == [], "run nox -s diagrams"
    drawn_from = hashlib.sha256((STYLE + DIAGRAMS[name].source).encode()).hexdigest()
    assert f"<!-- drawn from {drawn_from} -->" in image, "run nox -s diagrams"


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("task-admission", "select_next(", "choose(", "FairTaskQueue has no method 'choose'"),
        ("task-admission", "class FairOrder", "class FairLine", "FairLine is the name of no class"),
        ("task-admission", "resources, borrowed", "amounts", "TaskAdmissionLease has no 'amounts'"),
        ("task-admission", "(item, queue_view) :", "(queue_view, item) :", "TaskAdmissionController.try_acquire takes"),
        ("task-admission", ": QueueSelection", ": Task", "FairTaskQueue.select_next does not return Task"),
        ("request-admission", "<|.. AimdLimit", "<|.. FairOrder", "FairOrder lacks 'current_limit' of RequestLimit"),
        ("request-admission", "Core *-- Domain", "FairOrder *-- Domain", "neither FairOrder nor DomainState knows"),
        ("runtime-sequence", "commit(selection)", "take(selection)", "FairTaskQueue has no method 'take'"),
        ("runtime-sequence", "loop : TaskAdmissionLease", "loop : TaskLease", "'TaskLease' is the name of no class"),
        ("components", "_observe", "_views", "there is no '_views'"),
        ("components", "task --> fair", "task --> request", "task does not import request"),
        ("components", "boundary --> request", "", "boundary imports request"),
        ("issue-map", "_rehearsal", "_pipeline", "'_rehearsal' is not drawn"),
    ],
)
def test_another_name_or_arrow_is_a_fault(name: str, old: str, new: str, fault: str) -> None:
    source = DIAGRAMS[name].source
    assert old in source
    changed = read_diagram(source.replace(old, new))
    assert any(each.startswith(fault) for each in faults_of_names(name, changed)), faults_of_names(name, changed)
    assert faults_of_image(changed, image_of(name)) != []


def test_what_is_not_understood_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^not understood: 'actor User'$"):
        read_diagram("actor User")
