from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.candidates import Candidate, open_candidate
from benchmarks.errors import UsageError, WorkloadFailedError
from benchmarks.processes import RefusedByWorkerError, WorkerProcess
from benchmarks.worker import Worker
from benchmarks.workloads.outcome import Outcome, Params, RefusedError, Run

IMPORTS: Params = {"interpreters": 1}


def workload(monkeypatch: pytest.MonkeyPatch, run: Run) -> Worker:
    """A worker that has prepared `run`."""
    module = ModuleType("sample_workload")

    def prepare(_params: Params) -> Run:
        return run

    setattr(module, "prepare", prepare)  # noqa: B010
    monkeypatch.setitem(sys.modules, "sample_workload", module)
    worker = Worker()
    answer = worker.answer({"do": "prepare", "workload": "sample_workload", "params": {}})
    assert "runtime" in answer
    return worker


def test_an_iteration_is_answered_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = workload(monkeypatch, lambda warm_up: Outcome(1.5, {"step_us": 2.0}, {"warm_up": warm_up}))
    answer = json.loads(json.dumps(worker.answer({"do": "iterate", "warm_up": True})))
    assert answer["outcome"]["wall_time_seconds"] == 1.5
    assert answer["outcome"]["metrics"] == {"step_us": 2.0}
    assert answer["outcome"]["counts"] == {"warm_up": True}
    assert answer["peak_memory_bytes"] >= 0
    assert answer["calibration_seconds"] > 0


def test_what_a_candidate_has_not_got_is_a_refusal() -> None:
    answer = Worker().answer({"do": "prepare", "workload": "benchmarks.workloads.missing", "params": {}})
    assert answer == {"refused": "ModuleNotFoundError: No module named 'benchmarks.workloads.missing'"}


def test_a_workload_may_refuse_and_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_warm_up: bool) -> Outcome:
        raise RefusedError("not here")

    def fail(_warm_up: bool) -> Outcome:
        raise ImportError("a fault, not a refusal, once it runs")

    assert workload(monkeypatch, refuse).answer({"do": "iterate", "warm_up": False}) == {"refused": "not here"}
    answer = workload(monkeypatch, fail).answer({"do": "iterate", "warm_up": False})
    assert "a fault, not a refusal, once it runs" in str(answer["failed"])


@pytest.fixture
def floor(tmp_path: Path) -> Candidate:
    return open_candidate("floor", tmp_path)


def test_a_process_of_its_own_runs_the_workload(floor: Candidate) -> None:
    with WorkerProcess(floor) as worker:
        runtime = worker.prepare("benchmarks.workloads.imports_floor", dict(IMPORTS))
        assert "trio" in runtime
        assert worker.iterate(warm_up=False)["outcome"]["counts"] == {"imports": 1}


def test_a_process_says_what_it_cannot_do(floor: Candidate) -> None:
    with WorkerProcess(floor) as worker:
        with pytest.raises(RefusedByWorkerError, match=r"^ModuleNotFoundError: No module named 'data_designer'$"):
            worker.prepare("benchmarks.peers.engine_requests", {})
        with pytest.raises(WorkloadFailedError, match=r"^the workload failed at floor:\nTraceback"):
            worker.prepare("benchmarks.workloads.tasks_floor", {})


def test_a_process_that_ends_is_noticed(floor: Candidate) -> None:
    (floor.folder / "ends.py").write_text("import os\nos._exit(3)\n", encoding="utf-8")
    with WorkerProcess(floor) as worker, pytest.raises(WorkloadFailedError, match=r"^the worker of floor ended with 3"):
        worker.prepare("ends", {})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "nobody",
            (
                r"^there is no candidate 'nobody'; "
                r"there are here, path:FOLDER, ref:COMMIT, peer, floor, asyncio, anyio, aiometer$"
            ),
        ),
        ("ref:no-such-commit", r"^there is no commit called 'no-such-commit' in this repository$"),
        ("path:/", r"^/ is no checkout of this project: it has no folder trio_sched$"),
    ],
)
def test_candidates_that_do_not_exist_are_refused(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_candidate(spec, tmp_path)
