"""A dataset and the troubles of its endpoints, drawn from a seed: outages, floods, keys, quotas, failures and hangs.

What strikes a call follows from the seed, the call's key, and the time. A failure is the row's own where no attempt can
end otherwise: a request that is wrong, or one that an endpoint never answers although it answers others. Of the latter
there are fewer than stop a run. All else passes, and may cost no row.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio
from outage_samples import ACCESS, KINDS, Kind, Outage, StatusError, part_of

import trio_sched as ts
from trio_sched._request.limit import LimitName
from trio_sched.testing import simulate

__all__ = ["MOST_ATTEMPTS", "Dataset", "Trouble", "draw_dataset"]

MOST_ATTEMPTS: Final = 8
"""Runs until the dataset is complete; the later ones meet no trouble but the rows' own."""

TROUBLED_ATTEMPTS: Final = 3

Row = dict[str, object]


@attrs.frozen
class Trouble:
    """What befalls an endpoint in one attempt. refuses_after: seconds; calls_left: before its quota is used up."""

    outages: tuple[Outage, ...] = ()
    refuses_after: float = math.inf
    calls_left: float = math.inf
    refusal: str = "401"


@attrs.define(eq=False)
class Endpoint:
    """One endpoint in one attempt, or, without `passing`, in a sequential run, in which no time passes.

    wrong: rows whose request is. unanswered: rows that are never answered. passing: share of the keys whose first calls
    fail in a way that passes.
    """

    seed: str
    seconds: float
    timeout: float | None
    wrong: frozenset[str]
    unanswered: Mapping[str, Kind]
    trouble: Trouble
    passing: float | None
    calls: dict[str, int] = attrs.field(factory=dict[str, int])
    _left: float = math.inf
    _started_at: float | None = None

    def __attrs_post_init__(self) -> None:
        self._left = self.trouble.calls_left

    async def call(self, key: str) -> str:
        """One outbound attempt."""
        if self.passing is None:
            if key in self.wrong or key in self.unanswered:
                raise StatusError(400)
            return self.answer(key)
        if self._started_at is None:
            self._started_at = trio.current_time()
        number = self.calls[key] = self.calls.get(key, 0) + 1
        now = trio.current_time() - self._started_at
        seconds = self.seconds * (0.1 + 2 * part_of(self.seed, key, number))
        for outage in self.trouble.outages:
            if outage.begins <= now < outage.ends:
                await self._strike(outage.kind)
            if outage.kind.breaks_calls and now < outage.begins < now + seconds:
                await trio.sleep(outage.begins - now)
                await self._strike(outage.kind)
        if now >= self.trouble.refuses_after or self._left <= 0:
            await trio.sleep(0.05)
            refusal = ACCESS[self.trouble.refusal]()
            raise refusal
        self._left -= 1
        if key in self.wrong:
            await trio.sleep(seconds / 4)
            raise StatusError(400, "the request is wrong")
        if key in self.unanswered:
            await self._strike(self.unanswered[key])
        if part_of(self.seed, key, "passes") < self.passing and number <= 2:
            await self._strike(KINDS[int(part_of(self.seed, key, number, "kind") * len(KINDS))])
        await trio.sleep(seconds)
        return self.answer(key)

    def answer(self, key: str) -> str:
        """What it answers in the end."""
        return f"{self.seed}:{key}"

    async def _strike(self, kind: Kind) -> None:
        # Where nothing bounds an attempt, it must not hang for ever.
        await (KINDS[0] if kind.error is None and self.timeout is None else kind).strike()


@attrs.frozen
class Dataset:
    """The dataset of a seed. troubles: by attempt, of each endpoint. own_timeout: of the columns, in seconds."""

    seed: int
    rows: tuple[Row, ...]
    columns: tuple[int, ...]
    seconds: tuple[float, ...]
    models: tuple[ts.Model, ...]
    timeouts: tuple[float | None, ...]
    wrong: tuple[frozenset[str], ...]
    unanswered: tuple[Mapping[str, Kind], ...]
    passing: float
    troubles: tuple[tuple[Trouble, ...], ...]
    own_timeout: float | None
    config: ts.RunConfig

    def endpoints(self, attempt: int | None) -> list[Endpoint]:
        """The endpoints in an attempt, or in a sequential run."""
        calm = attempt is None or attempt >= len(self.troubles)
        return [
            Endpoint(
                f"{self.seed}/{number}",
                self.seconds[number],
                self.timeouts[number],
                self.wrong[number],
                self.unanswered[number],
                Trouble() if calm or attempt is None else self.troubles[attempt][number],
                # Calls that hang may be all that a short patience sees of an endpoint, run after run.
                None if attempt is None else self.passing * (not calm),
            )
            for number in range(len(self.models))
        ]

    def steps(self, endpoints: Sequence[Endpoint]) -> list[ts.PipelineStep]:
        """Its columns, each of which asks about the row and what the column before has made."""
        return [self._column(place, endpoints[number]) for place, number in enumerate(self.columns)]

    def _column(self, place: int, endpoint: Endpoint) -> ts.Column:
        before = f"c{place - 1}" if place else "topic"
        own_timeout = self.own_timeout

        @ts.column(name=f"c{place}", needs=["topic", before][: 1 + (place > 0)], model=self.models[self.columns[place]])
        async def asked(row: dict[str, str], model: ts.ModelHandle) -> list[str]:
            with trio.fail_after(math.inf if own_timeout is None else own_timeout):
                answer = await model.call(endpoint.call, row["topic"])
            return [answer, str(row[before])]

        return asked

    def run(self, output: Path, attempt: int) -> ts.RunResult:
        """Run it in simulated time, as its given attempt."""
        return simulate(
            self.steps(self.endpoints(attempt)),
            rows=self.rows,
            output=output,
            config=self.config,
            resume="if-possible",
        )


def draw_dataset(seed: int) -> Dataset:
    """Everything that the seed says."""
    rng = random.Random(f"troubles {seed}")
    count = rng.choice((1, 5, 30, 120))
    rows: tuple[Row, ...] = tuple({"topic": f"t{index}"} for index in range(count))
    endpoints = rng.choice((1, 1, 2))
    unanswered = tuple(_draw_unanswered(rng, rows) for _ in range(endpoints))
    timeouts = tuple(rng.choice((None, 10.0, 45.0)) for _ in range(endpoints))
    return Dataset(
        seed=seed,
        rows=rows,
        columns=tuple(rng.randrange(endpoints) for _ in range(rng.choice((1, 1, 2, 3)))),
        seconds=tuple(rng.choice((0.1, 1.0, 3.0)) for _ in range(endpoints)),
        models=tuple(_draw_model(rng, number, timeouts[number]) for number in range(endpoints)),
        timeouts=timeouts,
        wrong=tuple(_draw_rows(rng, rows, rng.choice((0.0, 0.0, 0.1))) for _ in range(endpoints)),
        unanswered=unanswered,
        passing=rng.choice((0.0, 0.05, 0.2)),
        troubles=tuple(
            tuple(_draw_trouble(rng) for _ in range(endpoints)) for _ in range(rng.randint(1, TROUBLED_ATTEMPTS))
        ),
        own_timeout=rng.choice((None, None, 60.0)) if timeouts == (None,) * endpoints else None,
        config=ts.RunConfig(
            buffer_size=rng.choice((1, 3, 10, 100)),
            submission_capacity=rng.choice((8, 1024)),
            # A row that is left alone with an endpoint that never answers it would be waited for without end.
            max_outage_seconds=rng.choice((1800.0 if any(unanswered) else None, 60.0, 1800.0)),
            seed=rng.randrange(1000),
            write_events="none",
        ),
    )


def _draw_model(rng: random.Random, number: int, timeout: float | None) -> ts.Model:
    cap = rng.choice((1, 4, 16, 64))
    limit: LimitName | None = rng.choice((None, None, "aimd", "fixed"))
    if timeout is None:
        return ts.Model("p", f"m{number}", max_parallel_requests=cap, limit=limit)
    return ts.Model("p", f"m{number}", max_parallel_requests=cap, limit=limit, timeout=timeout)


def _draw_rows(rng: random.Random, rows: Sequence[Row], share: float) -> frozenset[str]:
    return frozenset(str(row["topic"]) for row in rows if rng.random() < share)


def _draw_unanswered(rng: random.Random, rows: Sequence[Row]) -> Mapping[str, Kind]:
    """At most one for each endpoint, and none where no other row could show that the endpoint answers."""
    if len(rows) < 5 or rng.random() < 0.6:
        return {}
    return {str(rng.choice(rows)["topic"]): rng.choice(KINDS[:4] + KINDS[6:])}


def _draw_trouble(rng: random.Random) -> Trouble:
    outages: list[Outage] = []
    begins = 0.0
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        begins += rng.choice((0.0, 1.0, 5.0, 30.0)) * rng.random()
        kind = rng.choice((*KINDS, _flood(rng.choice((None, 1, 20, 200)))))
        outages.append(Outage(begins, rng.choice((1.0, 5.0, 20.0, 100.0, 400.0, 4000.0)), kind))
        begins = outages[-1].ends
    refuses = rng.random() < 0.2
    return Trouble(
        outages=tuple(outages),
        refuses_after=rng.choice((0.0, 3.0, 20.0)) if refuses else math.inf,
        calls_left=rng.choice((0, 5, 50)) if rng.random() < 0.15 else math.inf,
        refusal=rng.choice(list(ACCESS)),
    )


def _flood(hint: float | None) -> Kind:
    headers = {} if hint is None else {"retry-after": str(hint)}
    return Kind("429", 0.1, lambda: StatusError(429, "Rate limit reached", headers=headers))
