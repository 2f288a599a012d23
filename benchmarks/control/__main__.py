"""Run family 7: limits against scripted providers.

    python -m benchmarks.control --out FOLDER         the half that is reported: artifact, tables and chart
    python -m benchmarks.control --out FOLDER --candidates evidence --keep FOLDER/control.json
                                                      the same of one candidate, with the others as they were
    python -m benchmarks.control --smoke              one provider of each line that asks something, and one seed
    python -m benchmarks.control --half tune --compact
                                                      for whoever works on a rule: one line for each provider

The first takes a quarter of an hour of two cores, the last a minute and a half of one. `--factory MODULE:CALLABLE` adds
a rule, which the callable makes of the effective maximum and the time. All of it is simulated time, so nothing depends
on what else the machine does.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.artifact import write_artifact
from benchmarks.control.acceptance import LINES, Verdict, judge, summed_up
from benchmarks.control.artifact import ControlArtifact, control_artifact, read
from benchmarks.control.candidates import JUDGED, PEER, WHO, client_factory
from benchmarks.control.charts import draw
from benchmarks.control.compact import compact_line
from benchmarks.control.report import report
from benchmarks.control.running import Run, run_all
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.schema import check_file, findings
from benchmarks.control.split import HALVES, SEEDS, SPLIT, Half
from benchmarks.errors import BenchmarkError, UsageError
from benchmarks.machine import command_line
from benchmarks.plots import require_plotting

__all__ = ["main"]

LEFT_OUT_OF_SMOKE: Final = ("sdk-2", PEER)
"""One is refused most of its calls, which takes as long as all others together; one needs its own environment."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print, write; the exit code: 1 for a fault, 2 for what cannot be asked."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except BenchmarkError as error:
        print(f"benchmarks.control: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _run(given: Sequence[str]) -> int:
    options = _parser().parse_args(given)
    half: Half = options.half
    if options.seeds is not None and options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {options.seeds}")
    seeds = SEEDS[half][: 1 if options.smoke else options.seeds]
    names = _scenarios(half, options.scenarios, smoke=options.smoke)
    if options.compact:
        chosen = [*(options.candidates or "").split(","), *options.factory]
        return _compact([name for name in chosen if name] or [JUDGED], names, seeds, options.processes)
    if half != "report":
        raise UsageError("what is written down is the half 'report'; use --compact with the other one")
    require_plotting()
    everybody = [name for name in WHO if not (options.smoke and name in LEFT_OUT_OF_SMOKE)]
    candidates = options.candidates.split(",") if options.candidates else everybody
    for name in (name for name in (*candidates, *options.factory) if name != PEER):
        client_factory(name)
    kept = None if options.keep is None else _kept(options.keep)
    runs = run_all([*candidates, *options.factory], names, seeds, processes=options.processes)
    artifact = control_artifact(_told(runs), half, command_line(given, "benchmarks.control"), kept=kept)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "control.json"
    write_artifact(artifact, path)
    draw(artifact, options.out)
    for file, text in report(path).items():
        file.write_text(text, encoding="utf-8", newline="")
        if file.suffix == ".md":
            print(text)
    faults = list(findings(artifact))
    for fault in faults:
        print(f"FAILED: control: {fault}")
    return 1 if faults else 0


def _scenarios(half: Half, pattern: str, *, smoke: bool) -> list[str]:
    """Those of a half whose name, or line, the pattern fits, line by line; for smoke the shortest of each that asks."""
    names = [
        name
        for line in LINES
        for name in SPLIT[half]
        if SCENARIOS[name].group == line and (fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(line, pattern))
    ]
    if not names:
        raise UsageError(f"no scenario and no line of the half {half!r} is called {pattern!r}")
    if not smoke:
        return names
    lines = dict.fromkeys(SCENARIOS[name].group for name in names if LINES[SCENARIOS[name].group].bounds)
    return [
        min((name for name in names if SCENARIOS[name].group == line), key=lambda name: SCENARIOS[name].world.calls)
        for line in lines
    ]


def _kept(path: Path) -> ControlArtifact:
    """An artifact that others' figures are taken from."""
    faults = check_file(path)
    if faults:
        raise UsageError(f"{path.name} cannot be kept from: {faults[0]}")
    return read(path)


def _told(runs: Iterator[Run]) -> Iterator[Run]:
    """Progress, to standard error."""
    for run in runs:
        print(run.candidate, run.scenario, file=sys.stderr, flush=True)
        yield run


def _compact(candidates: Sequence[str], names: Sequence[str], seeds: tuple[int, ...], processes: int) -> int:
    """Mean, and the worst seed in brackets, of each scenario; at the end how many keep each line."""
    width = max(map(len, names))
    for candidate in candidates:
        counts: dict[str, dict[Verdict, int]] = {}
        print(f"# {candidate}")
        for run in run_all([candidate], names, seeds, processes=processes):
            line = LINES[SCENARIOS[run.scenario].group]
            if line.group not in counts:
                asked = ", ".join(f"{each.measure} {each.value:g}" for each in line.bounds)
                print(f"## {line.group}{': ' if asked else ''}{asked}")
            found = summed_up(run.measures)
            verdict = judge(line, found)
            of_line = counts.setdefault(line.group, {})
            of_line[verdict] = of_line.get(verdict, 0) + 1
            print(compact_line(run.scenario, found, verdict, width), flush=True)
        print("## lines")
        for group, verdicts in counts.items():
            print(f"{group:<{width}} | {', '.join(f'{count} {verdict}' for verdict, count in verdicts.items())}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--half", choices=HALVES, default="report", help="of scenarios and seeds; constants are chosen on tune alone")
    add("--candidates", metavar="NAMES", help=f"separated by commas; all unless given: {', '.join(WHO)}")
    add("--factory", action="append", default=[], metavar="MODULE:CALLABLE", help="makes a rule of (cap, now)")
    add("--scenarios", default="*", metavar="GLOB", help="names of scenarios, or of lines")
    add("--seeds", type=int, help="how many of the five of that half; others than the judged get fewer")
    add("--processes", type=int, choices=(1, 2), default=1)
    add("--smoke", action="store_true", help="one scenario of each line, one seed, fewer candidates")
    add("--keep", type=Path, metavar="ARTIFACT", help="an earlier run, for the candidates that are not named")
    add("--compact", action="store_true", help=f"one line for each scenario, nothing written; {JUDGED} unless given")
    add("--out", type=Path, default=Path("out/benchmarks/control"), help="folder for artifact, tables and chart")
    return parser


if __name__ == "__main__":
    sys.exit(main())
