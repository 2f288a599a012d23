"""The world that a simulated pipeline runs in: its providers, its work, and the record of when what was done.

Every candidate brings its own clock and its own sleep; the world itself needs the standard library alone. How long a
call takes, how often a cell calls, and what is answered depend on the cell alone, never on when it is asked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

from benchmarks.workloads.samples import quantile
from benchmarks.workloads.simulated_pipelines import ColumnSpec, PipelineSpec, ProviderSpec

__all__ = ["Attempt", "BrokenError", "Call", "RefusedCallError", "UnmakeableError", "World"]

Attempt: TypeAlias = Callable[[], Awaitable[str]]
"""Makes one outbound attempt."""
Call: TypeAlias = Callable[[Attempt], Awaitable[str]]
"""Makes one model call, in as many attempts as it takes."""

REFUSAL_SECONDS: Final = 0.05
"""How long it takes a provider to say no."""
BROKEN_ROWS: Final = 5
"""Every how many-th row is a broken one, where a provider breaks any."""


class RefusedCallError(Exception):
    """HTTP 429, in the form that SDKs give it."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__("refused")
        self.status_code = 429
        self.retry_after = retry_after
        self.headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}


class BrokenError(Exception):
    """HTTP 503 without a hint."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.status_code = 503


class UnmakeableError(ValueError):
    """A cell that cannot be made."""


class World:
    """One run of one pipeline."""

    def __init__(
        self, spec: PipelineSpec, now: Callable[[], float], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self.spec = spec
        self._now = now
        self._sleep = sleep
        self._start = now()
        self.ended = 0.0
        self._cells_of_row: Counter[int] = Counter()
        self._attempts_of_cell: Counter[tuple[str, str]] = Counter()
        self.row_seconds: dict[int, float] = {}
        self.in_flight: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.busy_seconds: dict[str, float] = dict.fromkeys(spec.providers, 0.0)

    @property
    def seconds(self) -> float:
        """Simulated seconds since the start."""
        return self._now() - self._start

    def end(self) -> None:
        """The run is over; to be called while its clock still goes."""
        self.ended = self.seconds

    # The work of columns

    async def make_root(self, column: ColumnSpec, start: int, count: int) -> list[object]:
        """The cells of a column that is made from scratch."""
        await self._sleep(column.seconds * count)
        return [f"{column.name} {row}" for row in range(start, start + count)]

    async def make_cell(self, column: ColumnSpec, source: object, call: Call | None) -> str:
        """One cell out of the one it needs; `call` makes one model call in the candidate's way, if it needs one."""
        name, row = f"{column.name} of {source}", row_of(source)
        if fails_at(column, row):
            raise UnmakeableError(name)
        if column.model is None or call is None:
            await self._sleep(column.seconds)
            answers = [name]
        else:
            answers = [
                await call(partial(self.attempt, column.model, f"{name} {number}", row))
                for number in range(calls_of(column, name))
            ]
        self._cells_of_row[row] += 1
        if self._cells_of_row[row] == self.spec.cells:
            self.row_seconds[row] = self.seconds
        return f"{column.name} {row} {digest(answers)}"

    async def attempt(self, model: str, prompt: str, row: int) -> str:
        """One outbound attempt."""
        provider = self.spec.providers[model]
        self.attempts[model] += 1
        self.in_flight[model] += 1
        self.peak[model] = max(self.peak[model], self.in_flight[model])
        try:
            return await self._answer(model, provider, prompt, row)
        finally:
            self.in_flight[model] -= 1

    async def _answer(self, model: str, provider: ProviderSpec, prompt: str, row: int) -> str:
        refusals = provider.refusals
        if refusals is not None and refusals.start <= self.seconds < refusals.end:
            await self._sleep(REFUSAL_SECONDS)
            self.refused[model] += 1
            raise RefusedCallError(refusals.retry_after)
        if provider.broken_attempts and row % BROKEN_ROWS == 0:
            self._attempts_of_cell[model, prompt] += 1
            if self._attempts_of_cell[model, prompt] <= provider.broken_attempts:
                await self._sleep(REFUSAL_SECONDS)
                raise BrokenError
        seconds = provider.seconds * (0.5 + share_of(model, prompt))
        await self._sleep(seconds)
        self.busy_seconds[model] += seconds
        self.answered[model] += 1
        return f"{model} answers {prompt}"

    # What came of it

    def metrics(self) -> dict[str, float]:
        """What the records and the providers say, in simulated seconds."""
        ended = self.ended
        done = sorted(self.row_seconds.values())
        found = {"simulated_seconds": ended}
        if done:
            found["first_record_seconds"] = done[0]
            found["half_of_records_seconds"] = done[(len(done) - 1) // 2]
            found["row_completion_p95_seconds"] = quantile(done, 0.95)
        for model, provider in self.spec.providers.items():
            found[f"utilisation[{model}]"] = self.busy_seconds[model] / (provider.cap * ended) if ended else 0.0
        return found

    def counts(self) -> dict[str, int]:
        """How many attempts there were, and what came of them."""
        return {
            "outbound_attempts": self.attempts.total(),
            "answered_attempts": self.answered.total(),
            "refused_attempts": self.refused.total(),
            "records_made": len(self.row_seconds),
            "calls_above_cap": sum(max(0, peak - self.spec.providers[name].cap) for name, peak in self.peak.items()),
        }

    def can_be_made(self, row: int) -> bool:
        """Whether no column fails at the row."""
        return not any(fails_at(column, row) for column in self.spec.columns)


def fails_at(column: ColumnSpec, row: int) -> bool:
    """Whether a column cannot make a row."""
    return column.fails > 0 and row % column.fails == column.fails // 2


def calls_of(column: ColumnSpec, name: str) -> int:
    """How many calls a cell makes."""
    if column.calls == "zero to four":
        return int(share_of("calls", name) * 5)
    return 1 if column.calls == "one" else 0


def row_of(source: object) -> int:
    """The row that a cell belongs to."""
    return int(str(source).split(" ")[1])


def share_of(*parts: str) -> float:
    """A number from 0 to below 1 that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(" ".join(parts).encode()).digest()[:6], "big") / 2**48


def digest(parts: list[str]) -> str:
    """A short hash of some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
