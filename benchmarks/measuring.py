"""The run itself: candidates in processes of their own, taking turns iteration by iteration.

Points of one block run together. In each round every candidate runs every point of the block once; candidates of one
point run directly after each other, so that the two sides of a ratio meet the same machine, and who begins is drawn
anew each time. Only one process works at any moment. In smoke, where counts take the place of times, the candidate
under judgement runs alone, with as many workers at the same time as there are processors.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import attrs

from benchmarks.artifact import Iteration, JsonObject, Skipped, TimelineEntry, converter, six_digits
from benchmarks.candidates import Candidate
from benchmarks.errors import UsageError
from benchmarks.inputs import Inputs
from benchmarks.processes import RefusedByWorkerError, WorkerProcess
from benchmarks.scenarios.scenario import Point, Scenario

__all__ = ["Measurements", "measure"]


@attrs.define
class Measurements:
    """What a run brought back."""

    iterations: list[Iteration] = attrs.field(factory=list[Iteration])
    skipped: list[Skipped] = attrs.field(factory=list[Skipped])
    runtimes: dict[str, JsonObject] = attrs.field(factory=dict[str, JsonObject])
    capacity_plan: JsonObject | None = None
    judged: str = ""

    def take(self, name: str, point: Point, index: int, answer: dict[str, Any]) -> None:
        """Keep what one iteration answered, and the capacity plan of the candidate under judgement."""
        self.iterations.append(_iteration(name, point, index, len(self.iterations), answer))
        if name == self.judged:
            self.capacity_plan = answer["outcome"]["capacity_plan"]


def measure(
    scenario: Scenario,
    points: Sequence[Point],
    candidates: Sequence[Candidate],
    inputs: Inputs,
    *,
    smoke: bool,
    progress: Callable[[str], None],
) -> Measurements:
    """Run every point at every candidate; the first candidate is the one under judgement."""
    if candidates[0].kind not in scenario.workloads:
        raise UsageError(f"{candidates[0].name} has no workload for scenario {scenario.scenario_id!r}")
    found = Measurements(judged=candidates[0].name)
    rounds = scenario.iterations if inputs.iterations is None else inputs.iterations
    if smoke:
        progress(f"{scenario.scenario_id}: counted at {len(points)} points")
        _count(scenario, points, candidates[0], inputs, rounds, found)
        return found
    rng = random.Random(inputs.seed)
    for block, members in itertools.groupby(
        sorted(points, key=lambda point: str(scenario.block(point))), scenario.block
    ):
        of_block = tuple(members)
        progress(f"{scenario.scenario_id}: {block if block is not None else 'all points'}, {len(of_block)} points")
        with ExitStack() as stack:
            teams = [
                (point, workers)
                for point in of_block
                if (workers := _team(scenario, point, candidates, inputs, stack, found))
            ]
            for _ in range(inputs.warm_ups):
                for _, workers in teams:
                    for worker in workers:
                        worker.iterate(warm_up=True)
            for index in range(rounds):
                for point, workers in teams:
                    for worker in rng.sample(workers, len(workers)):
                        found.take(worker.candidate.name, point, index, worker.iterate(warm_up=False))
                progress(f"  iteration {index + 1} of {rounds}")
    return found


def _count(
    scenario: Scenario, points: Sequence[Point], candidate: Candidate, inputs: Inputs, rounds: int, found: Measurements
) -> None:
    """Run every point the given number of times, with a worker for each processor, each for its part of the points."""
    workload = scenario.workloads[candidate.kind]
    workers = min(len(points), os.cpu_count() or 1)

    def count(part: Sequence[Point]) -> list[list[dict[str, Any]]]:
        answers: list[list[dict[str, Any]]] = []
        with WorkerProcess(candidate) as worker:
            for point in part:
                runtime = worker.prepare(workload, scenario.params(inputs, point, True))
                found.runtimes[candidate.name] = JsonObject(runtime)
                answers.append([worker.iterate(warm_up=False) for _ in range(rounds)])
        return answers

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(count, [points[first::workers] for first in range(workers)]))
    for place, point in enumerate(points):
        for index, answer in enumerate(parts[place % workers][place // workers]):
            found.take(candidate.name, point, index, answer)


def _team(
    scenario: Scenario,
    point: Point,
    candidates: Sequence[Candidate],
    inputs: Inputs,
    stack: ExitStack,
    found: Measurements,
) -> list[WorkerProcess]:
    """A prepared worker for every candidate that runs this point."""
    workers: list[WorkerProcess] = []
    for candidate in candidates:
        reason = scenario.skips(candidate.kind, point)
        workload = scenario.workloads.get(candidate.kind)
        if workload is None:
            reason = f"{candidate.name} has no workload for this scenario"
        if reason is None and workload is not None:
            worker = stack.enter_context(WorkerProcess(candidate))
            try:
                runtime = worker.prepare(workload, scenario.params(inputs, point, False))
            except RefusedByWorkerError as refusal:
                if candidate is candidates[0]:
                    raise
                reason = str(refusal)
            else:
                found.runtimes[candidate.name] = JsonObject(runtime)
                workers.append(worker)
        if reason is not None:
            found.skipped.append(Skipped(candidate.name, JsonObject(dict(point)), reason))
    return workers


def _iteration(candidate: str, point: Point, index: int, order: int, answer: dict[str, Any]) -> Iteration:
    """One iteration. Only the first keeps its excerpt of a timeline; what is derived from it is kept of all."""
    outcome = answer["outcome"]
    return Iteration(
        candidate=candidate,
        point=JsonObject(dict(point)),
        index=index,
        order=order,
        wall_time_seconds=six_digits(outcome["wall_time_seconds"]),
        cpu_time_seconds=six_digits(answer["cpu_time_seconds"]),
        peak_memory_bytes=answer["peak_memory_bytes"],
        calibration_seconds=six_digits(answer["calibration_seconds"]),
        metrics={name: six_digits(value) for name, value in outcome["metrics"].items()},
        counts=outcome["counts"],
        timeline=tuple(converter().structure(entry, TimelineEntry) for entry in outcome["timeline"] if index == 0),
        final_task_snapshot=outcome["final_task_snapshot"],
        final_request_snapshot=outcome["final_request_snapshot"],
        output_hashes=outcome["output_hashes"],
    )
