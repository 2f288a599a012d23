"""The command line.

python -m benchmarks                       the points of the budget table: this checkout, the peer, the floor
python -m benchmarks full                  every point of every axis
python -m benchmarks smoke                 counts instead of times, twice, this checkout alone
python -m benchmarks results               everything that is committed: all scenarios, family 7, and their tables
python -m benchmarks tables                the tables of benchmarks/results, docs and plans from the artifacts there
python -m benchmarks check FILE...         whether artifacts are complete and true to themselves
python -m benchmarks --against COMMIT      this checkout against a commit; fails where it became slower
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks import HARNESS_VERSION, environments
from benchmarks.artifact import ARTIFACT_SCHEMA_VERSION, Artifact, Environment, JsonObject, write_artifact
from benchmarks.candidates import GRAMMAR, open_candidate
from benchmarks.control.__main__ import main as control
from benchmarks.deriving import derive
from benchmarks.errors import BenchmarkError, UsageError
from benchmarks.inputs import MEASURED_ITERATIONS, Inputs, Value
from benchmarks.machine import command_line, load_average, machine, noise
from benchmarks.measuring import measure
from benchmarks.plots import require_plotting
from benchmarks.reports import write_report
from benchmarks.scenarios import ALL, Scenario
from benchmarks.schema import check_file, findings
from benchmarks.tables import DOCUMENTS, RESULTS, Results, make_again

__all__ = ["main"]

PROFILES = ("budgets", "full", "smoke", "results", "tables", "check")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def _run(given: Sequence[str]) -> int:
    options = _parser().parse_args(given)
    if options.profile == "check":
        return _check([Path(name) for name in options.files])
    if options.files:
        raise UsageError(f"{options.profile} takes no files, but {options.files[0]} was given")
    plots = options.profile != "smoke" and not options.without_plots
    if plots:
        require_plotting()
    if options.profile == "tables":
        return _make_tables(plots=plots)
    results = options.profile == "results"
    if results:
        options.profile = "budgets"
    if options.output is None:
        options.output = RESULTS if results else Path("out/benchmarks")
    inputs = _inputs(options)
    names = options.scenario or list(ALL)
    scenarios = [_scenario(name) for name in names]
    for scenario in scenarios:
        if not scenario.points(options.profile, inputs):
            raise UsageError(
                f"no point of scenario {scenario.scenario_id!r} has those axes in the profile {options.profile}"
            )
    inputs.output.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for scenario in scenarios:
        try:
            failed += _measure(scenario, options.profile, inputs, given, plots=plots)
        except UsageError:
            raise
        except BenchmarkError as error:
            # The others are worth having all the same.
            failed.append(f"{scenario.scenario_id}: {error}")
    if results and not options.scenario and control(["--out", str(inputs.output / "control")]):
        failed.append("control: see above")
    if inputs.output.resolve() == RESULTS:
        _make_tables(plots=plots)
    for name in failed:
        print(f"FAILED: {name}")
    return 1 if failed else 0


def _make_tables(*, plots: bool) -> int:
    """Make what is made from the artifacts of `benchmarks/results`, and say what changed."""
    for path in make_again(Results(RESULTS), DOCUMENTS, plots=plots):
        print(f"{path.relative_to(environments.ROOT)}: made again")
    return 0


def _measure(scenario: Scenario, profile: str, inputs: Inputs, given: Sequence[str], *, plots: bool) -> list[str]:
    """Run one scenario, write its artifact, print its summary; what failed."""
    environments.WORKSPACE.mkdir(parents=True, exist_ok=True)
    inputs = scenario.chosen(inputs)
    specs = dict.fromkeys((inputs.candidate, inputs.baseline, *(inputs.beside or ())))
    with tempfile.TemporaryDirectory(dir=environments.WORKSPACE, prefix="run-") as scratch:
        candidates = [open_candidate(spec, Path(scratch), peer_needs=scenario.peer_needs) for spec in specs]
        before = load_average()
        found = measure(
            scenario,
            scenario.points(profile, inputs),
            candidates,
            inputs,
            smoke=profile == "smoke",
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
    named = dict(zip(specs, candidates, strict=True))
    recorded: dict[str, object] = {
        **inputs.recorded(profile),
        "baseline": named[inputs.baseline].name,
        "candidate": candidates[0].name,
        **({"remark": scenario.remark} if scenario.remark and profile != "smoke" else {}),
    }
    steadiness = noise([each.calibration_seconds for each in found.iterations], before, load_average())
    artifact = Artifact(
        scenario_id=scenario.scenario_id,
        artifact_schema_version=ARTIFACT_SCHEMA_VERSION,
        scenario_version=scenario.version,
        harness_version=HARNESS_VERSION,
        baseline_sha=named[inputs.baseline].sha,
        candidate_sha=candidates[0].sha,
        inputs=JsonObject(recorded),
        provider_script=_provider_script(scenario, profile, inputs),
        clock_script=None if scenario.clock_script is None else JsonObject(dict(scenario.clock_script(inputs))),
        capacity_plan=found.capacity_plan,
        iterations=tuple(found.iterations),
        derived_metrics=derive(
            scenario.scenario_id,
            found.iterations,
            inputs=recorded,
            skipped=found.skipped,
            noise=steadiness,
        ),
        environment=Environment(machine(), found.runtimes, command_line(given)),
        candidate_shas={candidate.name: candidate.sha for candidate in candidates},
    )
    name = f"{scenario.scenario_id}-{profile}"
    path = inputs.output / f"{name}.json"
    write_artifact(artifact, path)
    print(write_report(path, plots=plots))
    return [f"{name}: {finding}" for finding in findings(artifact)] + [
        f"{name}: budget {verdict.budget_id} missed: {verdict.value:.3g} instead of {verdict.claim}"
        for verdict in artifact.derived_metrics.budgets
        if verdict.binding and verdict.verdict == "refuted" and verdict.value is not None
    ]


def _check(files: Sequence[Path]) -> int:
    if not files:
        raise UsageError("check needs at least one file")
    faults = {path: check_file(path) for path in files}
    for path, of_file in faults.items():
        print(f"{path.name}: {'complete' if not of_file else f'{len(of_file)} faults'}")
        for fault in of_file:
            print(f"  {fault}")
    return 1 if any(faults.values()) else 0


def _scenario(name: str) -> Scenario:
    if name not in ALL:
        raise UsageError(f"there is no scenario {name!r}; there are {', '.join(ALL)}")
    return ALL[name]


def _provider_script(scenario: Scenario, profile: str, inputs: Inputs) -> JsonObject | None:
    """What the providers do, by point, where the scenario has such."""
    script = scenario.provider_script
    if script is None:
        return None
    points = scenario.points(profile, inputs)
    return JsonObject({", ".join(map(str, point.values())): script(inputs, point) for point in points})


def _inputs(options: argparse.Namespace) -> Inputs:
    if (options.iterations is not None and options.iterations < 1) or options.warm_ups < 0:
        raise UsageError("--iterations must be at least 1, and --warm-ups at least 0")
    inputs = Inputs(
        baseline=options.baseline if options.against is None else f"ref:{options.against}",
        candidate=options.candidate,
        beside=tuple(options.beside) if options.beside else () if options.against else None,
        against=options.against,
        axes=dict(map(_axis, options.axis)),
        warm_ups=options.warm_ups,
        iterations=options.iterations,
        seed=options.seed,
        output=options.output,
        records=options.records,
        buffer_size=options.buffer_size,
        row_group_concurrency=options.row_group_concurrency,
        task_capacity=options.task_capacity,
        latency=dict(map(_latency, options.latency)) or None,
        provider_script=options.provider_script,
        clock_script=options.clock_script,
    )
    if options.profile == "smoke":
        return attrs.evolve(inputs, baseline=inputs.candidate, beside=(), against=None, iterations=2, warm_ups=0)
    return inputs


def _axis(text: str) -> tuple[str, tuple[Value, ...]]:
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--axis takes NAME=VALUE,VALUE, not {text!r}")
    return name, tuple(int(value) if value.lstrip("-").isdigit() else value for value in values.split(","))


def _latency(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"--latency takes KNOB=SECONDS, not {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("profile", nargs="?", choices=PROFILES, default="budgets")
    add("files", nargs="*", help="artifacts, for check")
    add("--scenario", action="append", help=f"which scenario, again for more; all unless given: {', '.join(ALL)}")
    add("--candidate", default="here", help=f"who is judged: {GRAMMAR}")
    add("--baseline", default="peer", help="who it is judged against")
    add("--against", metavar="COMMIT", help="the same with a commit as baseline, and with gates on time")
    add("--beside", action="append", help="who else takes part, again for more; unless given, the scenario's choice")
    add("--axis", action="append", default=[], metavar="NAME=VALUES", help="values of one axis, such as groups=1,8")
    add("--warm-ups", type=int, default=1)
    add("--iterations", type=int, help=f"{MEASURED_ITERATIONS} unless a scenario says otherwise")
    add("--seed", type=int, default=0, help="of the order in which candidates take turns")
    add("--output", type=Path, help="out/benchmarks unless given; results go to benchmarks/results")
    add("--without-plots", action="store_true", help="no charts in the summary; smoke never has any")
    add("--records", type=int)
    add("--buffer-size", type=int)
    add("--row-group-concurrency", type=int)
    add("--task-capacity", type=int)
    add("--latency", action="append", default=[], metavar="KNOB=SECONDS")
    add("--provider-script", type=Path)
    add("--clock-script", type=Path)
    return parser
