"""A process that makes a dataset and kills itself on the way, with SIGKILL, at a moment counted in its own steps.

Started once, it reads one JSON object per line, forks a child for each, and prints how the child ended. A step is a
step of a Trio task, or the beginning or end of a system call that changes a file. So a moment is a number, and the same
number is the same moment as far as the child is deterministic. There are also named moments: `half` (in the middle of
writing a file), `before_rename` and `after_rename`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Literal, ParamSpec, TypeVar

import attrs
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import inline

P = ParamSpec("P")
T = TypeVar("T")

RECORDS = 41
BUFFER_SIZE = 4
Moment = Literal["step", "half", "before_rename", "after_rename"]


@attrs.frozen
class Attempt:
    """What a child does. at: at which step, or at which of the named moments, it dies; 0 lets it live."""

    output: str
    source: Literal["scratch", "iterable", "jsonl"]
    format: Literal["jsonl", "parquet"] = "jsonl"
    threads: bool = False
    moment: Moment = "step"
    at: int = 0


class Killer:
    """Counts moments and kills the process at the one that was asked for."""

    def __init__(self, moment: Moment, at: int) -> None:
        self.counts = dict.fromkeys(("step", "half", "before_rename", "after_rename"), 0)
        self._moment = moment
        self._at = at
        self._lock = Lock()

    def reached(self, moment: Moment) -> bool:
        """Count a moment; whether it is the one to die at."""
        with self._lock:
            self.counts[moment] += 1
            return moment == self._moment and self.counts[moment] == self._at

    def die_at(self, moment: Moment) -> None:
        """Count a moment, and die if it is the one."""
        if self.reached(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[P, T]) -> Callable[P, T]:
        """A system call with a step before it and one after it."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            self.die_at("step")
            result = function(*args, **kwargs)
            self.die_at("step")
            return result

        return call

    def install(self) -> None:
        """Put steps around the system calls that change files."""
        write, replace = os.write, os.replace

        def dying_write(descriptor: int, content: memoryview) -> int:
            if self.reached("half"):
                write(descriptor, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(descriptor, content)

        def dying_replace(source: Path, target: Path) -> None:
            self.die_at("before_rename")
            replace(source, target)
            self.die_at("after_rename")

        calls: dict[str, Callable[..., object]] = {
            "write": dying_write,
            "replace": dying_replace,
            "open": os.open,
            "fsync": os.fsync,
            "mkdir": os.mkdir,
            "rename": os.rename,
            "unlink": os.unlink,
        }
        for name, function in calls.items():
            setattr(os, name, self.around(function))


class CountSteps(trio.abc.Instrument):
    """Counts each step of a task."""

    def __init__(self, killer: Killer) -> None:
        self._killer = killer

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._killer.die_at("step")


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    await trio.sleep(0.001 * random.Random(span.start).random())
    return list(range(span.start, span.start + span.count))


@ts.column(needs=["number"])
async def kept(row: dict[str, int]) -> int:
    await trio.sleep(0.001 * random.Random(row["number"]).random())
    if row["number"] % 7 == 3:
        raise LookupError
    return row["number"] * 2


@ts.column(needs=["number", "kept"])
async def nested(row: dict[str, int]) -> dict[str, object]:
    return {"of": row["number"], "text": "é" * (row["kept"] % 50)}


def input_rows() -> Iterator[dict[str, int]]:
    return ({"number": n} for n in range(RECORDS))


def run(attempt: Attempt) -> ts.RunResult:
    """Make the dataset, or go on with it, and die if so asked."""
    killer = Killer(attempt.moment, attempt.at)
    output = Path(attempt.output)
    config = ts.RunConfig(buffer_size=BUFFER_SIZE, max_concurrent_row_groups=3, format=attempt.format)
    blocking = None if attempt.threads else inline
    source = output.with_suffix(".rows.jsonl") if attempt.source == "jsonl" else input_rows()

    async def main() -> ts.RunResult:
        if attempt.source == "scratch":
            return await ts.run(
                [number, kept, nested],
                records=RECORDS,
                output=output,
                config=config,
                resume="if-possible",
                blocking=blocking,
            )
        return await ts.run(
            [kept, nested], rows=source, output=output, config=config, resume="if-possible", blocking=blocking
        )

    clock = None if attempt.threads else trio.testing.MockClock(autojump_threshold=0)
    killer.install()
    result = trio.run(main, clock=clock, instruments=[CountSteps(killer)])
    output.with_suffix(".steps.json").write_text(json.dumps(killer.counts), encoding="utf-8")
    return result


def serve() -> None:
    """Fork a child for each line of input and print its exit code, -9 for one that was killed."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                result = run(Attempt(**json.loads(line)))
                code = 0 if not result.leaks else 3
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
