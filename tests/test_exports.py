"""The two faces: complete, documented, and the only second home of any name."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

import trio_sched
from trio_sched import lowlevel, rehearsal, testing

PACKAGE = Path(__file__).parent.parent / "trio_sched"
FACES = {"__init__.py", "lowlevel.py", "testing.py", "rehearsal.py"}

FACE_MODULES = [trio_sched, lowlevel, rehearsal, testing]
FACE_NAMES = [face.__name__ for face in FACE_MODULES]
HEAVY = {"attrs", "cattrs", "click", "json", "logging", "msgspec", "pyarrow", "rich", "trio", "trio_sched._pipeline"}

CONTRACT_NAMES = [
    "SchedulingMetadata",
    "SchedulingMetadataError",
    "ColumnGenerator",
    "TaskSchedulingResolver",
    "ResolvedTaskScheduling",
    "TaskGroupKey",
    "TaskGroupSpec",
    "SchedulerResourceKey",
    "SchedulerResourceRequest",
    "SchedulableTask",
    "stable_task_id",
    "Task",
    "SliceRef",
    "TaskTrace",
    "FrontierDelta",
    "CompletionTracker",
    "FairTaskQueue",
    "QueueSelection",
    "QueueView",
    "TaskAdmissionController",
    "TaskAdmissionDecision",
    "TaskAdmissionConfig",
    "TaskAdmissionLease",
    "TaskAdmissionDenied",
    "TaskAdmissionView",
    "TaskAdmissionBlockSummary",
    "ReleaseResult",
    "TaskAdmissionPolicy",
    "TaskAdmissionPolicyDecision",
    "PolicyStateDelta",
    "StrictFairTaskAdmissionPolicy",
    "BoundedBorrowTaskAdmissionPolicy",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "AsyncTaskScheduler",
    "ProviderModelKey",
    "RequestDomain",
    "RequestResourceKey",
    "RequestResourceResolver",
    "ResolvedRequestResource",
    "ProviderModelStaticCap",
    "RequestGroupSpec",
    "RequestEventContext",
    "RequestAdmissionItem",
    "RequestAdmissionDecision",
    "RequestAdmissionController",
    "AdaptiveRequestAdmissionController",
    "RequestAdmissionLease",
    "RequestAdmissionDenied",
    "RequestAdmissionError",
    "RequestReleaseOutcome",
    "RequestFairQueue",
    "RequestWaiter",
    "RequestQueueView",
    "RequestQueueSelection",
    "AdaptiveRequestLimitState",
    "RequestAdmissionPolicy",
    "RequestAdmissionConfig",
    "RequestAdmissionTuningConfig",
    "RequestAdmissionConfigSnapshot",
    "RequestPressureSnapshotProvider",
    "RequestPressureSnapshot",
    "ProviderModelPressureSnapshot",
    "ModelRequestExecutor",
    "CapacityValue",
    "AsyncCapacityPlan",
    "SchedulerAdmissionEvent",
    "SchedulerAdmissionEventSink",
    "RequestAdmissionEvent",
    "RequestAdmissionEventSink",
    "InMemoryAdmissionEventSink",
    "RuntimeCorrelation",
    "RuntimeCorrelationProvider",
]


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_all_is_sorted_and_exists(face: ModuleType) -> None:
    names = cast("list[str]", vars(face)["__all__"])
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(face, name)] == []


def declared_for_checkers(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Names by home, as the imports under `if TYPE_CHECKING` say."""
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {str(node.module): tuple(alias.name for alias in node.names) for node in imports}


def handed_out(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Names by home, as the table says that is used at run time."""
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_names"
    )
    table = cast("dict[str, str]", ast.literal_eval(call.args[1]))
    return {home: tuple(names.split()) for home, names in table.items()}


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_a_face_says_the_same_to_checkers_and_at_run_time(face: ModuleType) -> None:
    tree = ast.parse(Path(str(face.__file__)).read_text(encoding="utf-8"))
    assert handed_out(tree) == declared_for_checkers(tree)
    names = {name for names in handed_out(tree).values() for name in names}
    assert names == set(cast("list[str]", vars(face)["__all__"])) - {"__version__"}


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_a_name_that_a_face_lacks_is_an_attribute_error(face: ModuleType) -> None:
    with pytest.raises(AttributeError, match=rf"^module '{face.__name__}' has no attribute 'colunm'$"):
        _ = face.colunm


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_dir_names_everything_before_it_was_used(face: ModuleType) -> None:
    program = f"import {face.__name__} as face; print(sorted(set(face.__all__) - set(dir(face))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_dir_names_nothing_that_a_face_does_not_hand_out(face: ModuleType) -> None:
    assert [
        name
        for name in set(dir(face)) - set(face.__all__)
        if not name.startswith("_") and not isinstance(getattr(face, name), ModuleType)
    ] == []


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_importing_a_face_imports_nothing_that_is_not_used(face: ModuleType) -> None:
    program = f"import sys, {face.__name__}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", CONTRACT_NAMES)
def test_contract_names_are_at_hand(name: str) -> None:
    assert name in lowlevel.__all__


@pytest.mark.parametrize("face", FACE_MODULES, ids=FACE_NAMES)
def test_everything_public_says_what_it_is(face: ModuleType) -> None:
    names = cast("list[str]", vars(face)["__all__"])
    things: dict[str, object] = {name: getattr(face, name) for name in names}
    silent = [
        name
        for name, thing in things.items()
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and not inspect.getdoc(thing)
    ]
    assert silent == []


def test_a_module_exports_only_what_it_defines() -> None:
    borrowed: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        if path.parent == PACKAGE and path.name in FACES:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        borrowed.extend(f"{path.name}: {name}" for name in getattr(module, "__all__", []) if name in imported)
    assert borrowed == []
