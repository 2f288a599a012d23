"""Putting candidates through scenarios, in one process or in two; the peer at the same time, in its own environment."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from benchmarks.control.candidates import PEER, client_factory, scenarios_of, seeds_of
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.worlds import Measures, play
from benchmarks.environments import ROOT, peer_python
from benchmarks.errors import BenchmarkError

__all__ = ["Run", "run_all"]


@dataclass(frozen=True)
class Run:
    """One candidate at one scenario, with each of its seeds."""

    candidate: str
    scenario: str
    seeds: tuple[int, ...]
    measures: tuple[Measures, ...]


def run_all(
    candidates: Sequence[str], scenarios: Sequence[str], seeds: tuple[int, ...], *, processes: int = 1
) -> Iterator[Run]:
    """Every candidate at every scenario, in this order however many processes there are; the peer last."""
    jobs = [(name, scenario, seeds_of(name, seeds)) for name in candidates if name != PEER for scenario in scenarios]
    with contextlib.ExitStack() as stack:
        runs_of_peer = (
            stack.enter_context(_peer(scenarios_of(PEER, scenarios), seeds_of(PEER, seeds)))
            if PEER in candidates
            else None
        )
        if processes == 1:
            yield from map(_run, jobs)
        else:
            pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
            yield from stack.enter_context(pool).map(_run, jobs)
        if runs_of_peer is not None:
            yield from runs_of_peer()


def _run(job: tuple[str, str, tuple[int, ...]]) -> Run:
    candidate, scenario, seeds = job
    make, world = client_factory(candidate), SCENARIOS[scenario].world
    return Run(candidate, scenario, seeds, tuple(play(world, make, seed, scenario) for seed in seeds))


@contextlib.contextmanager
def _peer(scenarios: Sequence[str], seeds: tuple[int, ...]) -> Iterator[Callable[[], Iterator[Run]]]:
    """The peer's process, which ends with the context; what is yielded waits for its runs."""
    arguments = ("--seeds", *map(str, seeds), "--", *scenarios)
    command = [peer_python(()), "-m", "benchmarks.peers.control", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output)

        def runs() -> Iterator[Run]:
            if process.wait():
                raise BenchmarkError(f"the peer failed with exit code {process.returncode}")
            output.seek(0)
            for scenario, line in zip(scenarios, output, strict=True):
                yield Run(PEER, scenario, seeds, tuple(json.loads(line)))

        try:
            yield runs
        finally:
            process.kill()
            process.wait()
