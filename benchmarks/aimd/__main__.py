"""Run family 7: print its tables and write them, with all figures, to a folder.

`python -m benchmarks.aimd --out FOLDER` takes some minutes of one core. With `--peer` the peer's controller is put
through the same scenarios, at the same time, in the environment that the harness makes for it. `--sweep` tries other
parameters instead, which takes a quarter of an hour and is needed only where the rule itself changes. `--smoke` takes
seconds: one seed and a short span. All of it is simulated time, so nothing depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.aimd.artifact import ProvidersArtifact, SweepArtifact, providers_artifact, sweep_artifact
from benchmarks.aimd.charts import draw
from benchmarks.aimd.ours import Tuning, controllers, in_simulated_time, rules
from benchmarks.aimd.report import report
from benchmarks.aimd.results import ControlLine, Result, run_scenarios
from benchmarks.aimd.scenarios import FULL, SCENARIOS, SMOKE, Span
from benchmarks.aimd.schema import findings
from benchmarks.aimd.sweep import CHOSEN, Part, Point, grid, neighbourhood, slices, sweep
from benchmarks.artifact import write_artifact
from benchmarks.environments import PEER, ROOT, peer_python
from benchmarks.errors import BenchmarkError, UsageError
from benchmarks.machine import command_line
from benchmarks.plots import require_plotting

__all__ = ["main", "measure_providers", "measure_sweep"]

ALTERNATIVES: Final = {
    "100 successes": Tuning(factor=0.94, successes=100, cooldown=0.25),
    "cooldown 0.5 s": Tuning(factor=0.94, successes=75, cooldown=0.5),
}
SEEDS: Final = 5
SEEDS_OF_THE_PEER: Final = 2
"""Its controller takes some twenty times as long."""
SEEDS_OF_THE_SWEEP: Final[dict[str, int]] = {"grid": 2}
SEEDS_OF_OTHER_PARTS: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write; the exit code: 1 for a fault, 2 for what cannot be asked."""
    try:
        return _run(arguments)
    except BenchmarkError as error:
        print(f"benchmarks.aimd: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one seed and a short span")
    parser.add_argument("--seeds", type=int, help=f"seeds of each scenario, from 1 up; {SEEDS} unless given")
    parser.add_argument("--peer", action="store_true", help="the peer's controller too, in an environment of its own")
    parser.add_argument("--sweep", action="store_true", help="other parameters instead of the chosen ones")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/aimd"), help="folder for artifact and tables")
    options = parser.parse_args(given)
    if options.sweep and (options.peer or options.seeds is not None):
        raise UsageError("--sweep has seeds of its own and no peer: leave --seeds and --peer out")
    if options.seeds is not None and options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {options.seeds}")
    command = command_line(given, "benchmarks.aimd")
    require_plotting()
    span = SMOKE if options.smoke else FULL
    options.out.mkdir(parents=True, exist_ok=True)
    artifact: ProvidersArtifact | SweepArtifact
    if options.sweep:
        path, artifact = options.out / "sweep.json", measure_sweep(span, command)
    else:
        seeds = list(range(1, 1 + (options.seeds or (1 if options.smoke else SEEDS))))
        path = options.out / "aimd.json"
        artifact = measure_providers(span, seeds, command, smoke=options.smoke, peer=options.peer)
    write_artifact(artifact, path)
    if isinstance(artifact, ProvidersArtifact):
        draw(artifact, options.out)
    for file, text in report(path).items():
        file.write_text(text, encoding="utf-8", newline="")
        if file.suffix == ".md":
            print(text)
    faults = list(findings(artifact))
    for fault in faults:
        print(f"FAILED: aimd: {fault}")
    return 1 if faults else 0


def measure_providers(
    span: Span, seeds: Sequence[int], command: Sequence[str], *, smoke: bool, peer: bool
) -> ProvidersArtifact:
    """Put the rule, and what it is compared with, through the scripted providers."""
    peers = [start_peer(peer_python(()), seed, smoke=smoke) for seed in seeds[:SEEDS_OF_THE_PEER]] if peer else []
    try:
        found = {"ours": run_scenarios(rules(CHOSEN), SCENARIOS, seeds, span, tell)}
        if not smoke:
            for name, tuning in ALTERNATIVES.items():
                found[f"ours, {name}"] = run_scenarios(rules(tuning), SCENARIOS, seeds, span, tell)
            found["ours, whole controller"] = in_simulated_time(
                lambda clock: run_scenarios(controllers(CHOSEN, clock), ControlLine.SCENARIOS, seeds, span, tell)
            )
        for process in peers:
            version, results = answer_of(process)
            found.setdefault(f"peer {version}", []).extend(results)
    finally:
        for process in peers:
            process.kill()
    return providers_artifact(found, span, command, peer=PEER[0] if peer else None)


def measure_sweep(span: Span, command: Sequence[str]) -> SweepArtifact:
    """Try other parameters."""
    tunings: dict[Part, list[Tuning]] = {"grid": grid(), "neighbourhood": neighbourhood(), **slices(CHOSEN)}
    seeds = {part: list(range(1, 1 + SEEDS_OF_THE_SWEEP.get(part, SEEDS_OF_OTHER_PARTS))) for part in tunings}
    parts = {part: sweep(of_part, seeds[part], span, tell) for part, of_part in tunings.items()}
    return sweep_artifact(parts, span, seeds, command)


def start_peer(python: str, seed: int, *, smoke: bool) -> subprocess.Popen[str]:
    """Put the peer through the scenarios, in its own environment."""
    command = [python, "-m", "benchmarks.peers.aimd", "--seeds", str(seed), *(["--smoke"] if smoke else [])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def answer_of(peer: subprocess.Popen[str]) -> tuple[str, list[Result]]:
    """The peer's version, and its results."""
    output, _ = peer.communicate()
    if peer.returncode:
        raise BenchmarkError(f"the peer failed with exit code {peer.returncode}")
    answer = json.loads(output)
    return answer["version"], [Result.from_json(result) for result in answer["results"]]


def tell(news: Result | Point) -> None:
    """Progress, to standard error."""
    print(news, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
