"""The pipelines of families 2 to 5, as data: what depends on what, who calls which model, and what goes wrong when.

Times are seconds on the simulated clock. Every candidate builds the same pipeline from the same data, so rows, calls
and durations are the same for all of them, and what differs is only who runs when.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

__all__ = ["PIPELINES", "Calls", "ColumnSpec", "PipelineSpec", "ProviderSpec", "Refusals"]

Calls: TypeAlias = Literal["none", "one", "zero to four"]

SIZES: Final = {
    "records": "records",
    "buffer_size": "buffer_size",
    "row_group_concurrency": "row_groups_at_once",
    "task_capacity": "task_capacity",
}
"""The sizes that a run may give otherwise, as the command line and as a pipeline calls them."""


@dataclass(frozen=True)
class Refusals:
    """From `start` to `end` every call is refused; retry_after: the pause that the refusal asks for, or None."""

    start: float
    end: float
    retry_after: float | None


@dataclass(frozen=True)
class ProviderSpec:
    """One endpoint. cap: the most calls at once. Calls take `seconds` on average, evenly spread by half of it."""

    cap: int
    seconds: float
    refusals: Refusals | None = None
    broken_attempts: int = 0
    """How often the calls of a broken row fail before they succeed; 0 breaks no row."""


@dataclass(frozen=True)
class ColumnSpec:
    """One column. Without `needs` it is made from scratch, a row group at a time, and `seconds` are those of a row.

    model: the endpoint that its cells call, as often as `calls` says. fails: every how many-th row cannot be made; 0
    is none.
    """

    name: str
    needs: tuple[str, ...] = ()
    model: str | None = None
    calls: Calls = "none"
    seconds: float = 0.0
    fails: int = 0


@dataclass(frozen=True)
class PipelineSpec:
    """One pipeline. cancel_after: the run is cancelled then; None lets it end."""

    columns: tuple[ColumnSpec, ...]
    providers: Mapping[str, ProviderSpec]
    records: int
    buffer_size: int
    row_groups_at_once: int
    task_capacity: int
    cancel_after: float | None = None

    @property
    def cells(self) -> int:
        """How many cells one row has that are tasks of their own."""
        return sum(bool(column.needs) for column in self.columns)

    @property
    def roots(self) -> tuple[str, ...]:
        """The columns that are made from scratch."""
        return tuple(column.name for column in self.columns if not column.needs)

    def changed(self, params: Mapping[str, Any]) -> PipelineSpec:
        """The pipeline with the sizes that `params` give, and with their providers in place of its own."""
        sizes: dict[str, Any] = {field: params[name] for name, field in SIZES.items() if params.get(name) is not None}
        providers = {
            name: ProviderSpec(**{**each, "refusals": each["refusals"] and Refusals(**each["refusals"])})
            for name, each in params["provider_script"].items()
        }
        return replace(self, providers=providers, **sizes)

    def provider_script(self) -> dict[str, Any]:
        """The providers as JSON."""
        return {name: asdict(each) for name, each in self.providers.items()}


def _model(name: str, needs: str, model: str, calls: Calls = "one", fails: int = 0) -> ColumnSpec:
    return ColumnSpec(name, (needs,), model, calls, fails=fails)


def _chain(model: str, *names: str, fails: int = 0) -> tuple[ColumnSpec, ...]:
    """A root, and columns that each need the one before."""
    sources = ("root", *names)
    return (
        ColumnSpec("root"),
        *(_model(name, source, model, fails=fails) for source, name in zip(sources, names, strict=False)),
    )


def _pipeline(
    columns: tuple[ColumnSpec, ...],
    providers: Mapping[str, ProviderSpec],
    *,
    records: int = 120,
    buffer_size: int = 20,
    row_groups_at_once: int = 4,
    task_capacity: int = 256,
    cancel_after: float | None = None,
) -> PipelineSpec:
    return PipelineSpec(
        columns, providers, records, buffer_size, row_groups_at_once, task_capacity, cancel_after=cancel_after
    )


ONE: Final = {"model": ProviderSpec(cap=16, seconds=1.0)}

HEAVY_ROOT: Final = _pipeline(
    (
        ColumnSpec("root", seconds=0.5),
        ColumnSpec("clean", ("root",), seconds=0.1),
        ColumnSpec("label", ("clean",), seconds=0.1),
    ),
    {},
    records=320,
    buffer_size=10,
    row_groups_at_once=16,
    task_capacity=8,
)
"""Ten rows of the root take five seconds and one unit, and more row groups are admitted than there are units."""

PIPELINES: Final[Mapping[str, PipelineSpec]] = {
    # Family 2
    "heavy root": HEAVY_ROOT,
    # Family 3
    "success": _pipeline(_chain("model", "first", "second"), ONE, records=60),
    "failure": _pipeline(_chain("model", "first", "second", fails=7), ONE, records=60),
    "cancellation": _pipeline(_chain("model", "first", "second"), ONE, records=60, cancel_after=3.0),
    "salvage": _pipeline(
        _chain("model", "first", "second"),
        {"model": ProviderSpec(16, 1.0, Refusals(2.0, 6.0, retry_after=1.0), broken_attempts=6)},
        records=60,
    ),
    # Family 4
    "less work than capacity": _pipeline(
        _chain("model", "first", "second"), {"model": ProviderSpec(cap=64, seconds=1.0)}, records=40
    ),
    "more work than capacity": _pipeline(_chain("model", "first", "second"), ONE, records=240, buffer_size=40),
    "unequal groups": _pipeline(
        (ColumnSpec("root"), _model("brief", "root", "quick"), _model("long", "root", "slow")),
        {"quick": ProviderSpec(cap=8, seconds=0.2), "slow": ProviderSpec(cap=8, seconds=4.0)},
    ),
    "one endpoint for all": _pipeline(
        (ColumnSpec("root"), *(_model(name, "root", "model") for name in ("first", "second", "third"))),
        ONE,
        records=160,
        buffer_size=40,
    ),
    # Family 5
    "narrow chain": _pipeline(_chain("model", "first", "second", "third", "fourth"), ONE),
    "wide independent roots": _pipeline(
        (
            *(ColumnSpec(f"root{index}", seconds=0.02) for index in range(4)),
            *(_model(f"cell{index}", f"root{index}", f"model{index}") for index in range(4)),
        ),
        {f"model{index}": ProviderSpec(cap=8, seconds=1.0) for index in range(4)},
    ),
    "generate to judge": _pipeline(
        (ColumnSpec("root"), _model("answer", "root", "generator"), _model("score", "answer", "judge")),
        {"generator": ProviderSpec(cap=16, seconds=2.0), "judge": ProviderSpec(cap=8, seconds=0.5)},
    ),
    "heavy root to model": _pipeline(
        (ColumnSpec("root", seconds=0.25), _model("first", "root", "model"), _model("second", "first", "model")), ONE
    ),
    "zero to four calls": _pipeline(
        (
            ColumnSpec("root"),
            _model("first", "root", "model", "zero to four"),
            _model("second", "first", "model", "zero to four"),
        ),
        ONE,
    ),
    "cooldown of one provider": _pipeline(
        (ColumnSpec("root"), _model("refused", "root", "limited"), _model("other", "root", "free")),
        {
            "limited": ProviderSpec(16, 1.0, Refusals(3.0, 15.0, retry_after=5.0)),
            "free": ProviderSpec(cap=16, seconds=1.0),
        },
    ),
}
