"""The demo's evidence is able to fail: each doctored event file is found out."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trio_sched.lowlevel import (
    RequestAdmissionEvent,
    RequestPressureSnapshot,
    RequestResourceKey,
    SchedulerAdmissionEvent,
    event_line,
)

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "demo_evidence.py"
A = RequestResourceKey("a", "writer", "chat")
B = RequestResourceKey("b", "judge", "embedding")


@pytest.fixture(scope="module")
def demo_evidence() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_evidence", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def request(kind: Any, resource: RequestResourceKey, attempt: str, outcome: str | None = None) -> RequestAdmissionEvent:
    return RequestAdmissionEvent(kind, 0.0, 0, None, attempt, 1, resource, resource, outcome)


def limit(value: int, resource: RequestResourceKey = A) -> RequestAdmissionEvent:
    snapshot = RequestPressureSnapshot(0.0, 0, resource, 32, value, 0, 0, 0, None, 0.0, None, 0, None, {})
    kind: Any = "request_limit_decreased"
    return RequestAdmissionEvent(kind, 0.0, 0, None, None, None, resource, resource, None, snapshot)


def call(resource: RequestResourceKey, attempt: str) -> list[RequestAdmissionEvent]:
    return [
        request("request_wait_started", resource, attempt),
        request("request_wait_completed", resource, attempt),
        request("request_lease_acquired", resource, attempt),
        request("request_lease_released", resource, attempt, "success"),
    ]


def task(kind: Any, task_id: str, resource: str = "endpoint:b/judge") -> SchedulerAdmissionEvent:
    return SchedulerAdmissionEvent(kind, 0.0, 0, None, task_id, None, 1, resource)


GOOD_REQUESTS = [*call(A, "1"), limit(8), *call(A, "2"), limit(20), *call(A, "3"), *call(B, "4")]
GOOD_TASKS = [
    task("ready_enqueued", "x"),
    task("task_lease_acquired", "x"),
    task("task_completed", "x"),
    task("task_lease_released", "x"),
]


def holds(
    module: ModuleType,
    folder: Path,
    requests: Sequence[RequestAdmissionEvent] = GOOD_REQUESTS,
    tasks: Sequence[SchedulerAdmissionEvent] = GOOD_TASKS,
) -> bool:
    (folder / "events").mkdir()
    (folder / "events" / "request.jsonl").write_text("".join(map(event_line, requests)), encoding="utf-8")
    (folder / "events" / "scheduler.jsonl").write_text("".join(map(event_line, tasks)), encoding="utf-8")
    caps = {"a/writer": {"value": {"cap": 32}}, "b/judge": {"value": {"cap": 2}}}
    limits = {"endpoint:b/judge": 2}
    plan = {"provider_model_static_caps": caps, "task_resource_limits": {"value": limits}}
    (folder / "capacity_plan.json").write_text(json.dumps({"configured": plan}), encoding="utf-8")
    return bool(module.read_evidence(folder, range(1, 3)).holds())


def test_good_files_hold(demo_evidence: ModuleType, tmp_path: Path) -> None:
    assert holds(demo_evidence, tmp_path)


def test_a_request_of_b_may_wait_while_its_own_limit_is_in_use(demo_evidence: ModuleType, tmp_path: Path) -> None:
    wait = [request("request_wait_started", B, "9"), *GOOD_REQUESTS, *call(B, "9")]
    assert holds(demo_evidence, tmp_path, requests=[limit(1, B), request("request_lease_acquired", B, "8"), *wait])


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([*call(A, "1"), *call(A, "2"), limit(20), *call(A, "3")], id="the limit never fell"),
        pytest.param([limit(8), limit(20), *call(A, "1"), *call(A, "2")], id="it fell before the low phase"),
        pytest.param([*call(A, "1"), limit(8), *call(A, "2")], id="it never came back"),
        pytest.param([*GOOD_REQUESTS, request("request_rate_limited", A, "9")], id="too many were refused"),
        pytest.param([*GOOD_REQUESTS, request("request_wait_started", B, "9")], id="a request of B waits for ever"),
        pytest.param(
            [request("request_wait_started", B, "9"), *GOOD_REQUESTS, request("request_wait_completed", B, "9")],
            id="a request of B waits while B has room",
        ),
    ],
)
def test_doctored_requests_are_found_out(
    demo_evidence: ModuleType, tmp_path: Path, requests: list[RequestAdmissionEvent]
) -> None:
    assert not holds(demo_evidence, tmp_path, requests=requests)


@pytest.mark.parametrize(
    "tasks",
    [
        pytest.param([*GOOD_TASKS, task("ready_enqueued", "y")], id="a task of B stays queued"),
        pytest.param([task("ready_enqueued", "y"), *GOOD_TASKS, task("task_lease_acquired", "y")], id="one waits"),
    ],
)
def test_doctored_tasks_are_found_out(
    demo_evidence: ModuleType, tmp_path: Path, tasks: list[SchedulerAdmissionEvent]
) -> None:
    assert not holds(demo_evidence, tmp_path, tasks=tasks)
