"""Run family 9: real clients over real HTTP, one after the other, at one provider; print the tables and write them.

`python -m benchmarks.race --out FOLDER` writes race.json, race.csv and summary.md there, again after every round. Each
client runs in an environment of its own, made below .nox unless it is there. `--checkout` lets this project's
clients of another checkout or commit run beside those of this one, such as `--checkout ref:HEAD~1`.
`--smoke` takes seconds: a few rows, short phases, and only clients that need no environment.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import HARNESS_VERSION, environments
from benchmarks.artifact import Environment, JsonObject, six_digits, write_artifact
from benchmarks.errors import BenchmarkError, UsageError
from benchmarks.machine import command_line, load_average, machine, noise
from benchmarks.race.artifact import RACE_ID, SCENARIO_VERSION, SCHEMA_VERSION, Point, RaceArtifact, RaceIteration
from benchmarks.race.deriving import derive
from benchmarks.race.processes import ProviderProcess, run_client
from benchmarks.race.racers import BOUND, RACERS, SMOKE, Entrant, entrants
from benchmarks.race.report import report
from benchmarks.race.schema import LEAST_ROUNDS, findings
from benchmarks.race.script import Phase, Script
from benchmarks.worker import calibrate

__all__ = ["main"]


@attrs.frozen
class Course:
    """What everybody runs. rate_requests: with how many the provider's own rate is measured."""

    rows: int
    call_seconds: float
    phases: tuple[Phase, ...]
    caps: tuple[int, ...]
    hints: tuple[float, ...]
    rounds: int
    rate_requests: int

    def script(self, hint_seconds: float) -> Script:
        """The provider with that hint."""
        return Script(self.call_seconds, hint_seconds, self.phases)


FULL: Final = Course(1_000, 0.3, (Phase(10, 24), Phase(10, 8), Phase(0, 24)), (32, 128), (1.0,), LEAST_ROUNDS, 20_000)
BRIEF: Final = Course(40, 0.02, (Phase(0.2, 8), Phase(0.2, 4), Phase(0, 8)), (12,), (0.05,), 1, 640)
PATIENCE_SECONDS: Final = 240.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write; the exit code: 1 for a fault, 2 for what cannot be asked."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except BenchmarkError as error:
        print(f"benchmarks.race: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(given: Sequence[str]) -> int:
    options = _parser().parse_args(given)
    course = _course(options)
    names = options.clients or (SMOKE if options.smoke else list(RACERS))
    checkouts = ["here", *(each if ":" in each else f"path:{each}" for each in options.checkout)]
    options.out.mkdir(parents=True, exist_ok=True)
    environments.WORKSPACE.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{RACE_ID}.json"
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir=environments.WORKSPACE, prefix="race-") as scratch, ProviderProcess() as there:
        runners = entrants(names, checkouts, Path(scratch), smoke=options.smoke)
        rate = there.highest_rate(course.rate_requests)
        runtimes: dict[str, JsonObject] = {}
        found: list[RaceIteration] = []
        for index in range(course.rounds):
            found += _round(index, course, runners, there, options.patience, runtimes, len(found))
            artifact = _artifact(found, course, runners, runtimes, rate, given, smoke=options.smoke)
            write_artifact(artifact, path)
            faults = [*findings(artifact)]
    for file, text in report(path).items():
        file.write_text(text, encoding="utf-8", newline="")
        if file.suffix == ".md":
            print(text)
    for fault in faults:
        print(f"FAILED: race: {fault}")
    return 1 if faults else 0


def _round(
    index: int,
    course: Course,
    runners: Sequence[Entrant],
    provider: ProviderProcess,
    patience: float,
    runtimes: dict[str, JsonObject],
    before: int,
) -> Iterator[RaceIteration]:
    """Every client once at every point; who begins is drawn anew at each."""
    rng = random.Random(index)
    for place, point in enumerate(itertools.product(course.hints, course.caps)):
        for turn, entrant in enumerate(rng.sample(runners, len(runners))):
            order = before + place * len(runners) + turn
            found, runtime = _iterate(entrant, course, point, provider, patience, index, order)
            runtimes.update({entrant.name: runtime} if runtime else {})
            yield found


def _iterate(
    entrant: Entrant, course: Course, point: Point, provider: ProviderProcess, patience: float, index: int, order: int
) -> tuple[RaceIteration, JsonObject | None]:
    hint, cap = point
    load, calibration = load_average(), calibrate()
    provider.reset(course.script(hint))
    ended = run_client(entrant, provider.base_url, cap, course.rows, patience)
    figures = provider.figures(ended=ended.fault is not None)
    said: dict[str, Any] = ended.said or {}
    finished = int(said.get("rows_finished", figures.rows_finished))
    found = RaceIteration(
        candidate=entrant.name,
        hint_seconds=hint,
        cap=cap,
        index=index,
        order=order,
        fault=ended.fault,
        rows_finished=finished,
        rows_lost=course.rows - finished,
        wall_seconds=six_digits(ended.wall_seconds),
        processor_seconds=six_digits(said["processor_seconds"]) if said else None,
        peak_memory_megabytes=six_digits(said["peak_memory_megabytes"]) if said else None,
        load=None if load is None else six_digits(load),
        calibration_seconds=six_digits(calibration),
        provider=figures,
    )
    print(
        f"round {index + 1}, hint {hint:g} s, cap {cap}, {entrant.name}: utilisation {figures.utilisation:.3f}, "
        f"refused {found.refused_share:.1%}, lost {found.rows_lost}, {found.wall_seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return found, JsonObject(said["runtime"]) if said else None


def _artifact(
    found: Sequence[RaceIteration],
    course: Course,
    runners: Sequence[Entrant],
    runtimes: dict[str, JsonObject],
    rate: float,
    given: Sequence[str],
    *,
    smoke: bool,
) -> RaceArtifact:
    iterations = tuple(found)
    ours = [each.name for each in runners if each.racer.ours]
    judged = [each for each in runners if each.judged]
    steadiness = noise([each.calibration_seconds for each in iterations], iterations[0].load, load_average())
    return RaceArtifact(
        scenario_id=RACE_ID,
        artifact_schema_version=SCHEMA_VERSION,
        scenario_version=SCENARIO_VERSION,
        harness_version=HARNESS_VERSION,
        baseline_sha=next((each.sha for each in runners if each.name == BOUND), None),
        candidate_sha=judged[0].sha if judged else None,
        inputs=JsonObject(
            {
                "smoke": smoke,
                "rows": course.rows,
                "calls_per_row": 2,
                "rounds": 1 + max(each.index for each in found),
                "judged": [each.name for each in judged],
                "ours": ours,
                "bound": BOUND,
            }
        ),
        provider_script={f"hint {hint:g} s": JsonObject(course.script(hint).to_json()) for hint in course.hints},
        provider_rate=six_digits(rate),
        clock_script=JsonObject({"clock": "real"}),
        capacity_plan=JsonObject({"max_parallel_requests": list(course.caps)}),
        iterations=iterations,
        derived_metrics=derive(
            iterations, judged=[each.name for each in judged], ours=ours, bound=BOUND, noise=steadiness
        ),
        environment=Environment(machine(), runtimes, command_line(given, "benchmarks.race")),
        candidate_shas={each.name: each.sha for each in runners},
    )


def _course(options: argparse.Namespace) -> Course:
    course = BRIEF if options.smoke else FULL
    wanted = {
        "rounds": options.runs,
        "rows": options.rows,
        "caps": tuple(options.caps or ()) or None,
        "hints": tuple(options.hint or ()) or None,
    }
    for name, value in wanted.items():
        if value is not None and not all(each > 0 for each in (value if isinstance(value, tuple) else (value,))):
            raise UsageError(f"{name} must be above 0, not {value}")
    return attrs.evolve(course, **{name: value for name, value in wanted.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("out/benchmarks/race"), help="folder for artifact and tables")
    add("--runs", type=int, help=f"rounds; {LEAST_ROUNDS} unless given, which is the least for an artifact")
    add("--caps", type=int, nargs="+", help=f"calls at once that clients are told; {FULL.caps} unless given")
    add("--hint", type=float, nargs="+", help="seconds of `retry-after`; 1 unless given")
    add("--rows", type=int, help=f"{FULL.rows} unless given")
    add("--clients", nargs="+", metavar="NAME", help=f"all unless given: {', '.join(RACERS)}")
    add("--checkout", action="append", default=[], metavar="FOLDER", help="or ref:COMMIT, again for more")
    add("--patience", type=float, default=PATIENCE_SECONDS, help="seconds after which a client is ended")
    add("--smoke", action="store_true", help="few rows, short phases, only clients that need no environment")
    return parser


if __name__ == "__main__":
    sys.exit(main())
