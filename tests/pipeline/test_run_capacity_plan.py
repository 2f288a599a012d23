"""The capacity plan of a run: every value with its source, and the maxima that were observed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._capacity import CapacityValue
from trio_sched.lowlevel import inline

MODEL = ts.Model("here", "model", max_parallel_requests=2)


def test_a_value_is_missing_for_a_reason_or_the_plan_cannot_be_made() -> None:
    with pytest.raises(ts.InvalidValueError, match="missing_reason"):
        CapacityValue[int](None, "default")
    with pytest.raises(ts.InvalidValueError, match="missing_reason"):
        CapacityValue(1, "default", missing_reason="nobody knows")


def test_values_say_their_source_and_maxima_what_was_used(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    def number(span: ts.RowSpan) -> list[int]:
        return list(range(span.start, span.start + span.count))

    async def ask(value: int) -> int:
        await trio.sleep(1)
        return value

    @ts.column(needs=["number"], model=MODEL)
    async def called(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(ask, row["number"])

    async def main() -> None:
        config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=3)
        result = await ts.run([number, called], records=10, output=tmp_path / "out", config=config, blocking=inline)
        configured, seen = result.capacity_plan.configured, result.capacity_plan.observed_maxima
        assert configured.buffer_size == CapacityValue(2, "run_config")
        assert configured.submission_capacity == CapacityValue(1024, "default")
        groups = configured.row_group_admission
        assert groups.concurrency == CapacityValue(3, "run_config")
        assert (groups.target, groups.observed_target, groups.observed_in_flight) == (3, 3, 3)
        assert sum(groups.blocked_reasons.values()) > 0
        assert configured.transport_pool_limits.value is None
        assert configured.transport_pool_limits.missing_reason is not None
        assert seen.row_groups_in_flight == 3
        assert max(seen.request_in_flight_by_resource.values()) == 2
        assert max(seen.provider_model_aggregate_in_flight.values()) == 2
        document = json.loads((tmp_path / "out" / "capacity_plan.json").read_text())
        assert document["configured"]["row_group_admission"]["blocked_reasons"] == dict(groups.blocked_reasons)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
