"""The harness' end of a worker process."""

from __future__ import annotations

import json
import subprocess
import threading
from types import TracebackType
from typing import Any

from typing_extensions import Self

from benchmarks.candidates import Candidate
from benchmarks.errors import BenchmarkError, WorkloadFailedError
from benchmarks.workloads.outcome import Json

__all__ = ["RefusedByWorkerError", "WorkerProcess"]

PATIENCE_SECONDS = 1_800.0


class RefusedByWorkerError(BenchmarkError):
    """The candidate has not got what the workload needs."""


class WorkerProcess:
    """A worker of one candidate, from `with` to its end. It works only while a request is under way."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self._process = subprocess.Popen(
            [candidate.python, "-m", "benchmarks.worker"],
            cwd=candidate.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self._process.kill()
        self._process.communicate()

    def prepare(self, workload: str, params: dict[str, Json]) -> dict[str, Any]:
        """Let it prepare a workload; what it runs on."""
        runtime: dict[str, Any] = self._ask({"do": "prepare", "workload": workload, "params": params})["runtime"]
        return runtime

    def iterate(self, *, warm_up: bool) -> dict[str, Any]:
        """Let it run one iteration."""
        return self._ask({"do": "iterate", "warm_up": warm_up})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE_SECONDS, self._process.kill)
        watchdog.start()
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        name = self.candidate.name
        if not line:
            code = self._process.wait()
            raise WorkloadFailedError(f"the worker of {name} ended with {code}, or took over {PATIENCE_SECONDS:g} s")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise RefusedByWorkerError(answer["refused"])
        if "failed" in answer:
            raise WorkloadFailedError(f"the workload failed at {name}:\n{answer['failed']}")
        return answer
