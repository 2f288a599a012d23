"""Imports go one way: a room imports only rooms below it, neither stage knows the other, and there are no cycles."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "trio_sched"

LAYERS: list[set[str]] = [
    {"_version", "_errors", "_validation", "_util", "_lazy", "metadata"},
    {"_resources"},
    {"_events"},
    {"_fair", "_answers", "_classify", "_provider_times", "_retry_hints"},
    {"_task", "_request"},
    {"_clients", "_executor", "_capacity", "_observe"},
    {"_scheduler"},
    {"_pipeline"},
    {"_cli"},
]
FACES = {"__init__", "lowlevel", "testing", "rehearsal"}
ALONE = {"_rehearsal": {"_version", "_errors", "_validation", "_util", "_events", "_rehearsal"}}
ABOVE_ALL = {"_cli": {"_rehearsal"}}
FORBIDDEN = {"_task": {"_request"}, "_request": {"_task"}, "_observe": {"_clients", "_executor", "_task", "_request"}}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports() -> dict[str, set[str]]:
    """Every module of the package with the modules of the package it imports, wherever the import stands."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                targets = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
            for target in targets:
                if target in modules and target != name:
                    found[name].add(target)
    return found


def test_every_room_has_its_layer() -> None:
    rooms = {room(name) for name in imports()}
    assert rooms <= set().union(*LAYERS) | FACES | set(ALONE), "a new room needs its place in LAYERS"


def test_imports_only_go_up_the_list() -> None:
    rank = {name: position for position, layer in enumerate(LAYERS) for name in layer}
    wrong: list[str] = []
    for module, targets in imports().items():
        here = room(module)
        for target in targets:
            there = room(target)
            if here in FACES or here == there or there in ABOVE_ALL.get(here, set()):
                continue
            if here in ALONE:
                allowed = there in ALONE[here]
            else:
                allowed = there in rank and rank[there] <= rank[here] and there not in FORBIDDEN.get(here, set())
            if not allowed:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_cycles() -> None:
    graph = imports()
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module in done:
            return
        for target in sorted(graph[module]):
            visit(target, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())
