"""Run family 7: print its tables and write them, with all figures, to a folder.

`python -m benchmarks.aimd --out FOLDER` takes some minutes of one core. `--smoke` takes seconds: one seed, a short
span, the control line and every scripted provider, no sweep. With `--peer` the peer's controller is put through the
same scenarios, at the same time, in the environment that the harness makes for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.aimd.artifact import ROOT, Run, summary, write
from benchmarks.aimd.ours import Tuning, controllers, in_simulated_time, rules
from benchmarks.aimd.results import ControlLine, Result, run_scenarios
from benchmarks.aimd.scenarios import FULL, SCENARIOS, SMOKE
from benchmarks.aimd.sweep import CHOSEN, Point, grid, neighbourhood, slices, sweep
from benchmarks.environments import peer_python

__all__ = ["main"]

ALTERNATIVES: Final = {
    "100 successes": Tuning(factor=0.94, successes=100, cooldown=0.25),
    "cooldown 0.5 s": Tuning(factor=0.94, successes=75, cooldown=0.5),
}


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one seed, a short span, no sweep")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per point, from 1 up")
    parser.add_argument("--peer", action="store_true", help="the peer's controller too, in an environment of its own")
    parser.add_argument("--out", type=Path, help="folder for aimd.json, summary.md and sweep.md")
    options = parser.parse_args(arguments)
    seeds = [1] if options.smoke else list(range(1, options.seeds + 1))
    run = Run(SMOKE if options.smoke else FULL, seeds)
    peer = start_peer(peer_python(()), seeds[:2], smoke=options.smoke) if options.peer else None
    run.candidates["ours"] = run_scenarios(rules(CHOSEN), SCENARIOS, seeds, run.span, tell)
    if not options.smoke:
        for name, tuning in ALTERNATIVES.items():
            run.candidates[f"ours, {name}"] = run_scenarios(rules(tuning), SCENARIOS, seeds, run.span, tell)
        run.candidates["ours, whole controller"] = in_simulated_time(
            lambda clock: run_scenarios(controllers(CHOSEN, clock), ControlLine.SCENARIOS, seeds, run.span, tell)
        )
        run.slices = {
            parameter: sweep(tunings, seeds[:3], run.span, tell) for parameter, tunings in slices(CHOSEN).items()
        }
        run.neighbourhood = sweep(neighbourhood(), seeds[:3], run.span, tell)
        run.points = sweep(grid(), seeds[:2], run.span, tell)
    if peer is not None:
        run.peer_version, results = answer_of(peer)
        run.candidates[f"peer {run.peer_version}"] = results
    print(summary(run))
    if options.out is not None:
        write(run, options.out)


def start_peer(python: str, seeds: list[int], *, smoke: bool) -> subprocess.Popen[str]:
    """Put the peer through the scenarios, in its own environment."""
    command = [python, "-m", "benchmarks.peers.aimd", "--seeds", *map(str, seeds), *(["--smoke"] if smoke else [])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def answer_of(peer: subprocess.Popen[str]) -> tuple[str, list[Result]]:
    """The peer's version, and its results."""
    output, _ = peer.communicate()
    if peer.returncode:
        sys.exit(f"the peer failed with exit code {peer.returncode}")
    answer = json.loads(output)
    return answer["version"], [Result.from_json(result) for result in answer["results"]]


def tell(news: Result | Point) -> None:
    """Progress, to standard error."""
    print(news, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
