"""How large the house is: `python benchmarks/house.py [TREE]`, of this checkout or of another one.

    $ git worktree add /tmp/before COMMIT
    $ python benchmarks/house.py /tmp/before

Files and lines of the package, words of `plans/`, and the files that one cell, one request and one task admission cycle
enter, as `sys.setprofile` sees them: a file is entered when a function in it is called, the constructors that attrs
makes left out. Everything has happened once before it is looked at, so imports do not count. `--ways` prints these
files as `CONTRIBUTING.md` lists them, `--write` puts them there.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio_sched as ts  # only where it is used: which one that is depends on the tree

HERE: Final = Path(__file__).resolve().parents[1]
WIDTH: Final = 120
SMALL: Final = 100
"""Lines below which a file is called small."""


@contextmanager
def entered(package: Path, until: Path | None = None) -> Iterator[list[str]]:
    """The files of the package whose functions are called in the block, in the order of first entry.

    until: a file; what happens after some rename has made it does not count. Nor do functions that are under way when
    the block begins, and go on in it.
    """
    files: dict[str, None] = {}
    prefix = f"{package}/"

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "c_return" and arg in (os.rename, os.replace) and until is not None and until.exists():
            sys.setprofile(None)
        elif event == "call":
            name = frame.f_code.co_filename
            if name.startswith(prefix) and frame not in under_way and frame.f_code.co_name != "<module>":
                files[name.removeprefix(prefix)] = None

    found: list[str] = []
    under_way = [frame for frame, _ in traceback.walk_stack(None)]
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        found += files


def run_one_row(column: ts.Column, output: Path) -> None:
    """One row, in simulated time and on one thread, so that every run enters the same."""
    import trio.testing

    import trio_sched as ts
    from trio_sched.lowlevel import inline

    async def run() -> None:
        await ts.run([column], rows=[{"number": 1}], output=output, blocking=inline)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def files_of_a_cell(package: Path) -> list[str]:
    """From `run` to the part: one row with one column, without a model."""
    import trio_sched as ts

    @ts.column(needs=["number"])
    async def double(row: Mapping[str, int]) -> int:
        return 2 * row["number"]

    with tempfile.TemporaryDirectory() as folder:
        run_one_row(double, Path(folder, "first"))
        (part,) = Path(folder, "first").rglob("part-*")
        with entered(package, until=Path(folder, "second", part.relative_to(Path(folder, "first")))) as found:
            run_one_row(double, Path(folder, "second"))
    return found


def files_of_a_request(package: Path) -> list[str]:
    """From `call` to the release of the lease, within a running cell."""
    import trio_sched as ts

    found: list[list[str]] = []

    async def answer() -> int:
        return 1

    @ts.column(needs=["number"], model=ts.Model("provider", "model", max_parallel_requests=1))
    async def ask(row: Mapping[str, int], model: ts.ModelHandle) -> int:
        with entered(package) as files:
            reply = await model.call(answer)
        found.append(files)
        return reply

    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):
            run_one_row(ask, Path(folder, name))
    return found[-1]


def files_of_a_task(package: Path) -> list[str]:
    """One task through queue and admission: enqueued, selected, admitted, committed, released."""
    from trio_sched.lowlevel import (
        BoundedBorrowTaskAdmissionPolicyConfig,
        FairTaskQueue,
        SchedulableTask,
        SchedulerResourceRequest,
        Task,
        TaskAdmissionConfig,
        TaskAdmissionController,
        TaskAdmissionLease,
        TaskGroupKey,
        TaskGroupSpec,
        stable_task_id,
    )

    queue = FairTaskQueue()
    admission = TaskAdmissionController(TaskAdmissionConfig(8, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig()))

    def cycle(row: int) -> None:
        task = Task("answer", 0, row, "cell")
        group = TaskGroupSpec(TaskGroupKey("local", ("answer",)))
        queue.enqueue([SchedulableTask(stable_task_id(task), task, group, SchedulerResourceRequest())])
        selection = queue.select_next(admission.is_eligible)
        assert selection is not None
        lease = admission.try_acquire(selection.item, selection.queue_view)
        assert isinstance(lease, TaskAdmissionLease)
        queue.commit(selection)
        with lease:
            pass

    cycle(0)
    with entered(package) as found:
        cycle(1)
    return found


def lines_of(paths: Sequence[Path]) -> list[int]:
    return [path.read_text(encoding="utf-8").count("\n") for path in paths]


def words_of(path: Path) -> int:
    """Words of a page, tables included."""
    return len(path.read_text(encoding="utf-8").split())


def ways(tree: Path) -> dict[str, list[str]]:
    """What a cell, a request and a task admission cycle enter, below the package's folder."""
    package = tree / "trio_sched"
    sys.path.insert(0, str(tree))
    return {
        "cell": files_of_a_cell(package),
        "request": files_of_a_request(package),
        "task admission": files_of_a_task(package),
    }


def by_room(files: Sequence[str]) -> Iterator[str]:
    """A list of files as `CONTRIBUTING.md` has it: a line for each room, both in the order of first entry."""
    rooms: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        rooms.setdefault(folder, []).append(f"`{name.removesuffix('.py')}`")
    for folder, names in rooms.items():
        line = f"- `{folder}/`: {', '.join(names)}" if folder else f"- beside the rooms: {', '.join(names)}"
        yield from textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def table(tree: Path) -> Iterator[str]:
    """The figures, one row each."""
    files = lines_of(sorted((tree / "trio_sched").rglob("*.py")))
    tests = lines_of(sorted((tree / "tests").rglob("*.py")))
    plans = sorted((tree / "plans").glob("*.md"))
    entered_by = ways(tree)
    yield "| figure | |"
    yield "| --- | ---: |"
    yield f"| files of `trio_sched/` | {len(files)} |"
    yield f"| of these below {SMALL} lines | {sum(each < SMALL for each in files)} |"
    yield f"| lines of `trio_sched/` | {sum(files):,} |"
    yield f"| lines of `tests/` | {sum(tests):,} |"
    yield f"| files that a cell enters, from `run` to its part | {len(entered_by['cell'])} |"
    yield f"| files that a request enters, from `call` to its release | {len(entered_by['request'])} |"
    yield f"| files that a task admission cycle enters | {len(entered_by['task admission'])} |"
    yield f"| lines of `plans/` | {sum(lines_of(plans)):,} |"
    yield f"| words of `plans/` | {sum(map(words_of, plans)):,} |"
    for page in ("task-admission.md", "request-admission.md"):
        yield f"| lines of `plans/{page}` | {sum(lines_of([tree / 'plans' / page]))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or with `--json` the files."""
    parser = argparse.ArgumentParser(description="How large the house is.")
    parser.add_argument("tree", nargs="?", type=Path, default=HERE, help="a checkout; by default this one")
    parser.add_argument("--ways", action="store_true", help="print the files that are entered instead of figures")
    parser.add_argument("--write", action="store_true", help="put these into the tree's CONTRIBUTING.md")
    options = parser.parse_args(arguments)
    tree = options.tree.resolve()
    if not (options.ways or options.write):
        print("\n".join(table(tree)))
        return 0
    page = tree / "CONTRIBUTING.md"
    for name, files in ways(tree).items():
        lines = "\n".join([f"<!-- {name} -->", *by_room(files), ""])
        if options.write:
            text, found = re.subn(rf"<!-- {name} -->\n(?:[- ].*\n)*", lines, page.read_text("utf-8"))
            assert found == 1, f"{page} has one list of the files of a {name}"
            page.write_text(text, "utf-8")
        else:
            print(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
