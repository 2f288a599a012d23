"""A whole pipeline out of one integer: one to six columns of every kind, processors, models, and rows that fail.

What a cell holds follows from its row alone, so that the same steps, with a book of no faults, also make the sequential
reference. A function knows its row by `n`, which every column needs.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio
from fuzzed_faults import Burst, Endpoint, FaultBook, ServerError

import trio_sched as ts
from trio_sched._request.limit import LimitChoice
from trio_sched.lowlevel import RequestDomain

__all__ = ["Calls", "FuzzedPipeline", "Row", "build_steps", "draw_pipeline"]

Row: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["from_scratch", "cell", "batch", "sync", "sync_batch"]
Stage: TypeAlias = Literal["pre-batch", "post-batch"]
Flaw: TypeAlias = Literal["raises", "server", "malformed"]

NUMBER: Final = "n"
"""The column that numbers the rows."""

_KINDS: Final[tuple[Kind, ...]] = ("cell", "cell", "cell", "batch", "sync", "sync_batch", "from_scratch")
_STAGES: Final[tuple[Stage, ...]] = ("pre-batch", "post-batch")
_FLAWS: Final[tuple[Flaw, ...]] = ("raises", "server", "malformed")
_DOMAINS: Final = (RequestDomain.CHAT, RequestDomain.EMBEDDING)


@attrs.frozen
class Residue:
    """The rows whose number leaves `rest` when divided by `modulus`."""

    modulus: int
    rest: int

    def has(self, n: int) -> bool:
        return n % self.modulus == self.rest


@attrs.frozen
class FuzzedColumn:
    """One column. fails: rows that it cannot make, and how that shows. skips: rows that its skip rule leaves out."""

    name: str
    kind: Kind
    needs: tuple[str, ...]
    outputs: tuple[str, ...]
    side_effects: tuple[str, ...]
    ordered: bool
    models: tuple[int, ...]
    fails: Residue | None
    flaw: Flaw
    skips: Residue | None
    skip_with_needs: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return (*(self.outputs or (self.name,)), *self.side_effects)


@attrs.frozen
class FuzzedProcessor:
    """One processor. removes: the rows that it removes; outputs: a column that it adds."""

    name: str
    stage: Stage
    removes: Residue | None
    outputs: tuple[str, ...]
    is_async: bool


@attrs.frozen
class FuzzedPipeline:
    """A pipeline that can be built any number of times. input_rows: whether `n` comes from rows that are given.

    is_in_order: columns stand behind what they need, from scratch first, so that they are written in this very order.
    """

    seed: int
    input_rows: bool
    is_in_order: bool
    columns: tuple[FuzzedColumn, ...]
    processors: tuple[FuzzedProcessor, ...]
    models: tuple[ts.Model, ...]
    endpoints: tuple[Endpoint, ...]

    @property
    def runs_out_of_quota(self) -> bool:
        return any(endpoint.quota is not None for endpoint in self.endpoints)

    def under(self, limit: LimitChoice) -> FuzzedPipeline:
        """The same with every model under that rule."""
        return attrs.evolve(self, models=tuple(attrs.evolve(model, limit=limit) for model in self.models))


@attrs.define(eq=False)
class Calls:
    """What functions were called with. ordered: row numbers by ordered column. removed: by processors."""

    ordered: dict[str, list[int]] = attrs.field(factory=dict[str, "list[int]"])
    removed: set[int] = attrs.field(factory=set[int])


def draw_pipeline(rng: random.Random, seed: int) -> FuzzedPipeline:
    """The pipeline of a seed."""
    models = _draw_models(rng)
    input_rows = rng.random() < 0.4
    columns: list[FuzzedColumn] = []
    known = ["n", "given"] if input_rows else ["n"]
    for index in range(rng.randint(1, 6)):
        column = _draw_column(rng, f"c{index}", known, len(models))
        columns.append(column)
        known += column.columns
    if not input_rows:
        columns.insert(0, _plain_root(rng))
    is_in_order = rng.random() < 0.5
    if is_in_order:
        columns.sort(key=lambda column: column.kind != "from_scratch")
    else:
        rng.shuffle(columns)
    stages = rng.choices(_STAGES, k=rng.choice((0, 0, 1, 2, 3)))
    processors = [_draw_processor(rng, f"p{index}", stage) for index, stage in enumerate(stages)]
    endpoints = tuple(_draw_endpoint(rng) for _ in models)
    return FuzzedPipeline(seed, input_rows, is_in_order, tuple(columns), tuple(processors), models, endpoints)


def _draw_models(rng: random.Random) -> tuple[ts.Model, ...]:
    count = rng.randint(0, 2)
    shares_endpoint = rng.random() < 0.5
    return tuple(
        ts.Model(
            "here",
            "one" if shares_endpoint else f"m{index}",
            max_parallel_requests=rng.choice((1, 2, 3, 8)),
            domain=_DOMAINS[index],
            timeout=None,
        )
        for index in range(count)
    )


def _draw_endpoint(rng: random.Random) -> Endpoint:
    bursts: list[Burst] = []
    for _ in range(rng.choice((0, 0, 1, 3))):
        start = rng.uniform(0, 60)
        hint = rng.choice((None, 0.25, 2.0, 45.0))
        bursts.append(Burst(start, start + rng.choice((1, 10, 100)), hint))
    return Endpoint(tuple(bursts), quota=rng.randint(0, 12) if rng.random() < 0.04 else None)


def _plain_root(rng: random.Random) -> FuzzedColumn:
    fails = _draw_residue(rng, 0.15)
    return FuzzedColumn("n", "from_scratch", (), (), (), rng.random() < 0.2, (), fails, "raises", None, True)


def _draw_column(rng: random.Random, name: str, known: Sequence[str], models: int) -> FuzzedColumn:
    kind = rng.choice(_KINDS)
    needs = () if kind == "from_scratch" else ("n", *rng.sample(known[1:], k=min(len(known) - 1, rng.randint(0, 2))))
    takes_models = kind in ("cell", "batch") and models and rng.random() < 0.7
    several = rng.random() < 0.25
    return FuzzedColumn(
        name=name,
        kind=kind,
        needs=needs,
        outputs=(name, f"{name}b") if several else (),
        side_effects=(f"{name}s",) if rng.random() < 0.15 else (),
        ordered=rng.random() < 0.15,
        models=tuple(rng.sample(range(models), k=rng.randint(1, models))) if takes_models else (),
        fails=_draw_residue(rng, 0.25),
        flaw=rng.choice(_FLAWS),
        skips=_draw_residue(rng, 0.2) if kind != "from_scratch" else None,
        skip_with_needs=rng.random() < 0.7,
    )


def _draw_processor(rng: random.Random, name: str, stage: Stage) -> FuzzedProcessor:
    outputs = (name,) if stage == "post-batch" and rng.random() < 0.5 else ()
    return FuzzedProcessor(name, stage, _draw_residue(rng, 0.6), outputs, rng.random() < 0.6)


def _draw_residue(rng: random.Random, share: float) -> Residue | None:
    if rng.random() >= share:
        return None
    modulus = rng.choice((1, 2, 5, 5, 11))
    return Residue(modulus, rng.randrange(modulus))


def build_steps(pipeline: FuzzedPipeline, book: FaultBook, calls: Calls, buffer_size: int) -> list[ts.PipelineStep]:
    """The steps, with functions that note themselves in `calls` and meet the faults of `book`."""
    return [
        *(_Functions(column, pipeline, book, calls, buffer_size).column() for column in pipeline.columns),
        *(_processor(processor, book, calls) for processor in pipeline.processors),
    ]


class _Functions:
    """The functions of one column."""

    def __init__(
        self, column: FuzzedColumn, pipeline: FuzzedPipeline, book: FaultBook, calls: Calls, buffer_size: int
    ) -> None:
        self._column = column
        self._pipeline = pipeline
        self._book = book
        self._calls = calls
        self._buffer_size = buffer_size

    def column(self) -> ts.Column:
        column = self._column
        common: dict[str, Any] = {
            "outputs": column.outputs,
            "side_effect_columns": column.side_effects,
            "ordered": column.ordered,
            "name": column.name,
        }
        if column.models:
            common["model"] = [self._pipeline.models[index] for index in column.models]
        if column.kind == "from_scratch":
            return ts.from_scratch_column(**common)(self._from_scratch)
        common |= {"needs": column.needs, "skip_with_needs": column.skip_with_needs}
        if column.skips is not None:
            common["skip_when"] = self._is_skipped
            common["skip_value"] = dict.fromkeys(column.columns, "skipped") if self._is_mapping else "skipped"
        match column.kind:
            case "cell":
                return ts.column(**common)((self._cell, self._cell_of_one, self._cell_of_two)[len(column.models)])
            case "sync":
                return ts.column(**common)(self._sync_cell)
            case "batch":
                batches = (self._batch, self._batch_of_one, self._batch_of_two)
                return ts.batch_column(**common)(batches[len(column.models)])
            case _:
                return ts.batch_column(**common)(self._sync_batch)

    async def _cell(self, row: Row) -> object:
        return await self._make_cell(row)

    async def _cell_of_one(self, row: Row, one: ts.ModelHandle) -> object:
        return await self._make_cell(row, one)

    async def _cell_of_two(self, row: Row, one: ts.ModelHandle, two: ts.ModelHandle) -> object:
        return await self._make_cell(row, one, two)

    async def _batch(self, rows: list[Row]) -> object:
        return await self._make_batch(rows)

    async def _batch_of_one(self, rows: list[Row], one: ts.ModelHandle) -> object:
        return await self._make_batch(rows, one)

    async def _batch_of_two(self, rows: list[Row], one: ts.ModelHandle, two: ts.ModelHandle) -> object:
        return await self._make_batch(rows, one, two)

    async def _from_scratch(self, span: ts.RowSpan) -> object:
        self._note(span.start)
        key = f"{self._column.name} {span.start}"
        await self._book.pass_time(key)
        await self._book.meet(key)
        made = [self._made({"n": span.start + offset, "seed": span.seed}) for offset in range(span.count)]
        if self._column.name == NUMBER:
            return [each if isinstance(each, Exception) else span.start + offset for offset, each in enumerate(made)]
        return made

    def _sync_cell(self, row: Row) -> object:
        self._note(row["n"])
        self._book.meet_now(f"{self._column.name} {row['n']}")
        return self._result(row)

    def _sync_batch(self, rows: list[Row]) -> object:
        self._note(rows[0]["n"])
        self._book.meet_now(f"{self._column.name} {rows[0]['n'] // self._buffer_size}")
        return [self._made(row) for row in rows]

    async def _make_cell(self, row: Row, *handles: ts.ModelHandle) -> object:
        self._note(row["n"])
        key = f"{self._column.name} {row['n']}"
        result = await self._ask(key, handles, lambda: self._result(row))
        row.clear()
        return result

    async def _make_batch(self, rows: list[Row], *handles: ts.ModelHandle) -> object:
        self._note(rows[0]["n"])
        key = f"{self._column.name} {rows[0]['n'] // self._buffer_size}"
        made = [self._made(row) for row in rows]
        await self._ask(key, handles, lambda: None)
        rows.reverse()
        return made

    async def _ask(self, key: str, handles: Sequence[ts.ModelHandle], answer: Any) -> object:
        """The answer of the first model; two are asked at once."""
        book = self._book

        async def answered() -> object:
            return answer()

        if not handles:
            await book.pass_time(key)
            await book.meet(key)
            return answer()
        answers: list[object] = []

        async def ask(handle: ts.ModelHandle, endpoint: Endpoint) -> None:
            answers.append(await handle.call(book.call, endpoint, key, answered))

        endpoints = [self._pipeline.endpoints[index] for index in self._column.models]
        if len(handles) == 1 or book.is_off:
            await ask(handles[0], endpoints[0])
        else:
            async with trio.open_nursery() as nursery:
                for handle, endpoint in zip(handles, endpoints, strict=True):
                    nursery.start_soon(ask, handle, endpoint)
        return answers[0]

    @property
    def _is_mapping(self) -> bool:
        return bool(self._column.outputs or self._column.side_effects)

    def _is_skipped(self, row: Row) -> bool:
        assert self._column.skips is not None
        return self._column.skips.has(row["n"])

    def _note(self, n: int) -> None:
        if self._column.ordered:
            self._calls.ordered.setdefault(self._column.name, []).append(n)

    def _result(self, row: Row) -> object:
        """The cell of a row, or the error of one that fails."""
        made = self._made(row)
        if isinstance(made, Exception):
            raise made
        return made

    def _made(self, row: Row) -> object:
        """The same for functions of many rows: an error stands in the place of the cell."""
        column = self._column
        if column.fails is not None and column.fails.has(row["n"]):
            if column.flaw == "malformed" and not self._book.is_off:
                return object()
            # Of a model's call, only an error of its own is the row's where nobody else calls the endpoint.
            is_server = column.flaw == "server" and not column.models
            return ServerError() if is_server else LookupError(column.name)
        text = json.dumps([column.name, row], sort_keys=True)
        return self._shaped(hashlib.sha256(text.encode()).hexdigest()[: 3 + row["n"] % 5])

    def _shaped(self, value: object) -> object:
        column = self._column
        if not self._is_mapping:
            return value
        made = {name: [value, place] for place, name in enumerate(column.outputs or (column.name,))}
        return made if self._leaves_out_side_effect(value) else {**made, column.side_effects[0]: value}

    def _leaves_out_side_effect(self, value: object) -> bool:
        return not self._column.side_effects or str(value) < "4"


def _processor(spec: FuzzedProcessor, book: FaultBook, calls: Calls) -> ts.Processor:
    def processed(rows: list[Row]) -> list[Row | None]:
        removed = {row["n"] for row in rows if spec.removes is not None and spec.removes.has(row["n"])}
        calls.removed |= removed
        return [
            None if row["n"] in removed else dict.fromkeys(spec.outputs, place) if spec.outputs else row
            for place, row in enumerate(rows)
        ]

    async def slowly(rows: list[Row]) -> list[Row | None]:
        await book.pass_time(f"{spec.name} {rows[0]['n'] if rows else None}")
        return processed(rows)

    function = slowly if spec.is_async else processed
    if spec.stage == "pre-batch":
        return ts.pre_batch_processor(name=spec.name)(function)
    return ts.post_batch_processor(name=spec.name, outputs=spec.outputs)(function)
