"""The capacity plan of a run: every value with its source, and the maxima that were observed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast, get_args

import attrs
import httpx
import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched._capacity import CallCeiling, CapacityValue, CapacityValueSource, plain, plan_lines
from trio_sched._pipeline.capacity import plan_run
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched.lowlevel import AsyncCapacityPlan, InMemoryAdmissionEventSink, inline
from trio_sched.testing import simulate

HERE = ProviderModelKey("here", "model")
CHAT = RequestResourceKey("here", "model", RequestDomain.CHAT)
INITIAL = "request_admission_config.initial_limits"


async def ask(value: int) -> int:
    await trio.sleep(1)
    return value


@ts.from_scratch_column()
def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


def calling(*models: ts.Model) -> list[Any]:
    """A from-scratch column, and one column for each of the models."""

    def column(index: int, model: ts.Model) -> object:
        @ts.column(needs=["number"], model=model, name=f"called{index}")
        async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
            return await handle.call(ask, row["number"])

        return called

    return [number, *(column(*each) for each in enumerate(models))]


def planned(*models: ts.Model, config: ts.RunConfig | None = None) -> AsyncCapacityPlan:
    return plan_run(calling(*models), records=10, config=config)


@attrs.frozen
class LimitedTuning(ts.RequestAdmissionTuningConfig):
    """A tuning that brings limits along."""

    initial: dict[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])
    clamps: dict[RequestResourceKey, int] = attrs.field(factory=dict[RequestResourceKey, int])

    def with_limits(self, **_: Any) -> RequestAdmissionConfig:
        return super().with_limits(initial_limits=self.initial, max_limit_clamps=self.clamps)


def sources_in(document: Any) -> set[str]:
    """The sources of all values in a plan, as JSON."""
    if not isinstance(document, dict):
        return set()
    values = cast("dict[str, Any]", document)
    within = {source for value in values.values() for source in sources_in(value)}
    return within | {values["source"]} if "missing_reason" in values else within


def test_a_value_is_missing_for_a_reason_or_the_plan_cannot_be_made() -> None:
    with pytest.raises(ts.InvalidValueError, match="missing_reason"):
        CapacityValue[int](None, "default")
    with pytest.raises(ts.InvalidValueError, match="missing_reason"):
        CapacityValue(1, "default", missing_reason="nobody knows")


def test_a_missing_value_is_not_handed_out_as_one() -> None:
    assert CapacityValue(3, "default").required == 3
    with pytest.raises(ts.InvalidValueError, match=r"^CapacityValue.value must be there, but is missing: nobody knows"):
        _ = CapacityValue[int](None, "default", missing_reason="nobody knows").required


SETTINGS = {"buffer_size": 100, "max_concurrent_row_groups": 4, "submission_capacity": 1024}


def of_setting(plan: AsyncCapacityPlan, name: str) -> CapacityValue[int]:
    if name == "max_concurrent_row_groups":
        return plan.configured.row_group_admission.concurrency
    found: CapacityValue[int] = getattr(plan.configured, name)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_comes_from_the_run_config_or_is_the_default(name: str) -> None:
    default = SETTINGS[name]
    assert of_setting(planned(), name) == CapacityValue(default, "default")
    chosen = ts.RunConfig(**{name: 3})  # type: ignore[arg-type]  # an int setting
    assert of_setting(planned(config=chosen), name) == CapacityValue(3, "run_config")
    equal = ts.RunConfig(**{name: default})  # type: ignore[arg-type]  # an int setting
    assert of_setting(planned(config=equal), name) == CapacityValue(default, "run_config")
    others = ts.RunConfig(**{other: value for other, value in SETTINGS.items() if other != name})  # type: ignore[arg-type]  # int settings
    assert of_setting(planned(config=others), name).source == "default"


def test_the_adaptive_rule_is_given_as_a_whole() -> None:
    assert planned().configured.request_admission_config.source == "default"
    given = planned(config=ts.RunConfig(request_admission=ts.RequestAdmissionTuningConfig())).configured
    assert given.request_admission_config.source == "run_config"
    assert given.request_admission_config.required.successes_until_increase == 75


def test_row_groups_open_within_a_bound_of_rows_unless_their_number_is_given() -> None:
    row_groups = planned().configured.row_group_admission
    assert (row_groups.mode, row_groups.target) == ("adaptive", 4)
    assert row_groups.max_admitted_rows == CapacityValue(10_000, "engine_internal_config")
    chosen = planned(config=ts.RunConfig(max_admitted_rows=30, buffer_size=20)).configured.row_group_admission
    assert (chosen.mode, chosen.max_admitted_rows) == ("adaptive", CapacityValue(30, "run_config"))
    fixed = planned(config=ts.RunConfig(max_concurrent_row_groups=4)).configured.row_group_admission
    assert (fixed.mode, fixed.target) == ("fixed", 4)
    assert fixed.max_admitted_rows.missing_reason == (
        "rows in flight are bounded by the row groups in flight times the buffer size"
    )


@pytest.mark.parametrize(
    ("cap", "settings", "batch", "rows"),
    [
        (64, {}, False, 10_000),
        (5_000, {}, False, 20_000),
        (64, {}, True, 10_000),
        (2_000, {}, True, 200_000),
        (2, {"buffer_size": 4_000}, False, 16_000),
    ],
)
def test_the_rows_in_flight_follow_the_caps_and_the_buffer_size(
    cap: int, settings: dict[str, int], batch: bool, rows: int
) -> None:
    model = ts.Model("here", "model", max_parallel_requests=cap)

    @ts.batch_column(needs=["number"], model=model)
    async def batched(rows: list[dict[str, int]], handle: ts.ModelHandle) -> list[int]:
        return [row["number"] for row in rows]

    steps = [number, batched] if batch else calling(model)
    config = ts.RunConfig(**settings)  # type: ignore[arg-type]  # int settings
    plan = plan_run(steps, records=10, config=config).configured
    assert plan.row_group_admission.max_admitted_rows.value == rows
    assert plan.call_ceilings == {HERE: CallCeiling(cap, f"max_parallel_requests={cap}")}
    assert plan.submission_capacity == CapacityValue(max(1024, 2 * cap + 512), "default")


@pytest.mark.parametrize(
    ("cap", "settings", "expected"),
    [
        (
            100,
            {"max_concurrent_row_groups": 3, "buffer_size": 20},
            (60, "max_concurrent_row_groups=3 of buffer_size=20 rows"),
        ),
        (100, {"max_concurrent_row_groups": 5, "buffer_size": 20}, (100, "max_parallel_requests=100")),
        (100, {"max_admitted_rows": 50, "buffer_size": 20}, (40, "max_admitted_rows=50")),
        (
            100,
            {"max_admitted_rows": 50, "buffer_size": 20, "max_concurrent_row_groups": 9},
            (40, "max_admitted_rows=50"),
        ),
        (100, {"max_admitted_rows": 50}, (100, "max_parallel_requests=100")),
        (100, {"submission_capacity": 30}, (30, "submission_capacity=30")),
    ],
)
def test_the_plan_names_the_ceiling_that_binds_and_the_run_warns_of_it(
    cap: int, settings: dict[str, int], expected: tuple[int, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = ts.RunConfig(**settings)  # type: ignore[arg-type]  # int settings
    steps = calling(ts.Model("here", "model", max_parallel_requests=cap))
    ceiling = CallCeiling(*expected)
    assert plan_run(steps, records=10, config=config).configured.call_ceilings == {HERE: ceiling}
    caplog.clear()
    result = simulate(steps, records=400, output=tmp_path, config=config)
    assert result.capacity_plan.observed_maxima.provider_model_aggregate_in_flight[HERE] <= ceiling.calls
    warned = [each.getMessage() for each in caplog.records]
    calls, bound_by = expected
    told = f"here/model can have {calls} calls in flight, of max_parallel_requests=100, with one call a task: bound by "
    assert warned == ([] if calls == cap else [told + bound_by])


def test_a_pool_and_an_ordered_column_are_ceilings_too(caplog: pytest.LogCaptureFixture) -> None:
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=7))
    pooled = ts.Model("here", "model", client=client, max_parallel_requests=8)
    assert planned(pooled).configured.call_ceilings == {HERE: CallCeiling(7, "the clients' connection pools of 7")}
    assert len(caplog.records) == 1

    @ts.column(needs=["number"], model=ts.Model("here", "model", max_parallel_requests=8), ordered=True)
    async def in_turn(row: dict[str, int], handle: ts.ModelHandle) -> int:
        return 1

    ceiling = plan_run([number, in_turn], records=10).configured.call_ceilings[HERE]
    assert (ceiling.calls, ceiling.bound_by) == (1, "ordered columns, which make one cell at a time")
    assert len(caplog.records) == 1, "somebody wanted it so"


def test_the_ceiling_is_a_line_of_the_plan() -> None:
    document = cast("dict[str, Any]", plain(planned(ts.Model("here", "model", max_parallel_requests=9))))
    (line,) = [line for line in plan_lines(document) if line.name.startswith("call ceilings")]
    assert (line.name, line.value, line.source) == (
        "call ceilings: here/model",
        "9",
        "bound by max_parallel_requests=9",
    )


def test_nothing_hidden_keeps_a_high_cap_from_being_used(tmp_path: Path) -> None:
    model = ts.Model("here", "model", max_parallel_requests=1_300, limit="fixed")
    result = simulate(calling(model), records=3_000, output=tmp_path, config=ts.RunConfig(write_events=False))
    seen = result.capacity_plan.observed_maxima
    assert seen.provider_model_aggregate_in_flight == {HERE: 1_300}
    assert result.wall_seconds == 3
    assert 13 <= seen.row_groups_in_flight <= 30


def test_a_run_with_a_low_cap_opens_no_more_row_groups_than_its_calls_call_for(tmp_path: Path) -> None:
    model = ts.Model("here", "model", max_parallel_requests=8)
    result = simulate(calling(model), records=3_000, output=tmp_path)
    assert result.capacity_plan.observed_maxima.row_groups_in_flight <= 5


@pytest.mark.parametrize("last", [False, True])
def test_an_endpoint_whose_name_looks_like_an_alias_keeps_its_own_cap(*, last: bool) -> None:
    again = [ts.Model("here", "model", max_parallel_requests=cap) for cap in (9, 3)]
    numbered = ts.Model("here", "model#2", max_parallel_requests=5)
    caps = planned(*((*again, numbered) if last else (numbered, *again))).configured.provider_model_static_caps
    assert {str(endpoint): cap.required.cap for endpoint, cap in caps.items()} == {"here/model": 3, "here/model#2": 5}
    assert len({alias for cap in caps.values() for alias in cap.required.aliases}) == 3


def test_names_of_one_endpoint_share_the_smallest_cap_and_each_is_kept() -> None:
    wide, narrow = (ts.Model("here", "model", max_parallel_requests=cap) for cap in (9, 3))
    other = ts.Model("there", "model", max_parallel_requests=5)
    configured = planned(wide, narrow, other).configured
    cap = configured.provider_model_static_caps[HERE]
    assert cap.source == "model_metadata"
    assert cap.required.cap == 3
    assert cap.required.merge_rule == "min_same_endpoint"
    assert dict(cap.required.raw_caps) == {"here/model": 9, "here/model#2": 3}
    assert cap.required.aliases == ("here/model", "here/model#2")
    assert configured.request_resources == CapacityValue(
        (CHAT, RequestResourceKey("there", "model", RequestDomain.CHAT)), "model_metadata"
    )
    limits = {str(key): limit for key, limit in configured.task_resource_limits.required.items()}
    assert limits == {"endpoint:here/model": 6, "endpoint:there/model": 10, "local:threads": 40}
    assert configured.task_resource_limits.source == "engine_internal_config"


def test_domains_of_one_endpoint_share_its_cap_and_begin_with_it() -> None:
    chat = ts.Model("here", "model", max_parallel_requests=6)
    embedding = ts.Model("here", "model", domain=RequestDomain.EMBEDDING, max_parallel_requests=4)
    configured = planned(chat, embedding).configured
    assert [str(key) for key in configured.request_resources.required] == [
        "here/model/chat",
        "here/model/embedding",
    ]
    assert list(configured.provider_model_static_caps) == [HERE]
    assert {limit.value for limit in configured.request_domain_initial_limits.values()} == {4}


def test_a_cap_that_nobody_asked_for_is_a_default() -> None:
    def source(*models: ts.Model) -> str:
        return planned(*models).configured.provider_model_static_caps[HERE].source

    silent = ts.Model("here", "model")
    assert source(silent) == "default"
    assert source(ts.Model("here", "model", max_parallel_requests=64)) == "model_metadata"
    # The smallest is what counts, whoever asked for it.
    assert source(silent, ts.Model("here", "model", max_parallel_requests=65)) == "default"
    assert source(silent, ts.Model("here", "model", max_parallel_requests=63)) == "model_metadata"


@pytest.mark.parametrize(
    ("initial", "clamp", "expected"),
    [
        (None, None, CapacityValue(8, "model_metadata", fallback_from=INITIAL)),
        (5, None, CapacityValue(5, "run_config")),
        (8, None, CapacityValue(8, "run_config")),
        (None, 3, CapacityValue(3, "run_config", fallback_from=INITIAL)),
        (2, 3, CapacityValue(2, "run_config")),
        (5, 3, CapacityValue(3, "run_config")),
        (50, None, CapacityValue(8, "model_metadata")),
        (None, 50, CapacityValue(8, "model_metadata", fallback_from=INITIAL)),
    ],
    ids=["nothing", "initial", "as the cap", "clamp", "both", "clamped", "above the cap", "a clamp above the cap"],
)
def test_request_config_lowers_the_cap_of_the_metadata_and_never_raises_it(
    tmp_path: Path, initial: int | None, clamp: int | None, expected: CapacityValue[int]
) -> None:
    tuning = LimitedTuning(
        initial={} if initial is None else {CHAT: initial}, clamps={} if clamp is None else {CHAT: clamp}
    )
    steps = calling(ts.Model("here", "model", max_parallel_requests=8))
    config = ts.RunConfig(request_admission=tuning)
    plan = simulate(steps, records=20, output=tmp_path, config=config).capacity_plan
    assert plan.configured.request_domain_initial_limits[CHAT] == expected
    # And request admission itself went by it.
    assert plan.observed_maxima.request_in_flight_by_resource == {CHAT: expected.value}
    assert plan.runtime_snapshot.request_domain_current_limits == {CHAT: expected.value}
    assert plan.runtime_snapshot.request_domain_effective_max == {CHAT: min(8, clamp or 8)}


def test_pools_of_clients_are_told_endpoint_by_endpoint() -> None:
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=7))
    plan = planned(ts.Model("here", "model", client=client), ts.Model("there", "model"))
    assert plan.configured.transport_pool_limits == {
        HERE: CapacityValue(7, "adapter_config"),
        ProviderModelKey("there", "model"): CapacityValue(
            None, "adapter_config", missing_reason="the model was declared without its client"
        ),
    }
    assert plan.observed_maxima.transport_pool_utilization.missing_reason is not None


def test_threads_are_the_engines_own_or_the_callers(tmp_path: Path) -> None:
    threads = planned().configured.worker_threads
    assert threads.files == CapacityValue(8, "engine_internal_config")
    assert threads.sync_columns == CapacityValue(40, "engine_internal_config")
    brought = simulate([number], records=1, output=tmp_path / "simulated").capacity_plan.configured.worker_threads
    assert brought.files == brought.sync_columns
    assert brought.files == CapacityValue(
        None, "dataset_builder", missing_reason="the run was given its own way to do blocking work"
    )

    async def main() -> None:
        result = await ts.run([number], records=1, output=tmp_path / "threads")
        assert result.capacity_plan.configured.worker_threads == threads

    trio.run(main)


def test_open_files_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resource: Any = pytest.importorskip("resource")
    limits: list[tuple[int, int]] = [(256, 4096)]

    def getrlimit(_: int) -> tuple[int, int]:
        return limits[-1]

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert planned().configured.open_files == CapacityValue(256, "environment")
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert planned().configured.open_files == CapacityValue(None, "environment", missing_reason="unlimited")


def test_every_source_has_values_and_only_benchmarks_override(tmp_path: Path) -> None:
    tuned = ts.RunConfig(buffer_size=2)
    run = simulate(
        calling(ts.Model("here", "model", max_parallel_requests=2)), records=1, output=tmp_path, config=tuned
    )
    assert sources_in(plain(run.capacity_plan)) | sources_in(plain(planned())) == set(get_args(CapacityValueSource)) - {
        "benchmark_override"
    }


def test_maxima_are_what_the_events_show(tmp_path: Path) -> None:
    sink = InMemoryAdmissionEventSink()
    models = [ts.Model("here", "model", max_parallel_requests=2), ts.Model("there", "model", max_parallel_requests=3)]
    config = ts.RunConfig(buffer_size=3, max_concurrent_row_groups=3)

    @ts.column(needs=["number"], model=models[0])
    async def twice(row: dict[str, int], handle: ts.ModelHandle) -> int:
        async def once() -> None:
            await handle.call(ask, row["number"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(once)
            nursery.start_soon(once)
        return row["number"]

    seen = simulate(
        [*calling(*models), twice], records=12, output=tmp_path / "out", config=config, event_sink=sink
    ).capacity_plan.observed_maxima
    in_flight, waiting, limits = Counter[str](), Counter[str](), Counter[str]()
    for event in sink.request_events:
        pressure, key = event.pressure_snapshot, str(event.request_resource_key)
        if pressure is None:
            continue
        in_flight[key] = max(in_flight[key], pressure.in_flight_count)
        waiting[key] = max(waiting[key], pressure.waiters)
        limits[key] = max(limits[key], pressure.current_limit)
    running, most, row_groups, most_row_groups = 0, 0, 0, 0
    for kind in [event.event_kind for event in sink.scheduler_events]:
        running += {"task_lease_acquired": 1, "task_lease_released": -1}.get(kind, 0)
        most = max(most, running)
        row_groups += {"row_group_admitted": 1, "row_group_checkpointed": -1}.get(kind, 0)
        most_row_groups = max(most_row_groups, row_groups)
    told: Any = plain(seen)
    assert told["request_in_flight_by_resource"] == dict(in_flight) == {"here/model/chat": 2, "there/model/chat": 3}
    assert told["request_waiters_by_resource"] == dict(waiting)
    # Or one could stand for the other.
    assert waiting["here/model/chat"] > in_flight["here/model/chat"]
    assert told["request_domain_current_limits"] == dict(limits)
    assert told["provider_model_aggregate_in_flight"] == {"here/model": 2, "there/model": 3}
    assert told["task_leases_by_resource"]["submission"] == most
    assert told["task_leases_by_resource"]["endpoint:here/model"] == 4
    assert told["row_groups_in_flight"] == most_row_groups == 3
    assert sum(told["queued_tasks_by_group"].values()) > 0


def test_row_groups_tell_their_target_and_what_they_waited_for(tmp_path: Path) -> None:
    config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=3)
    result = simulate(calling(ts.Model("here", "model")), records=10, output=tmp_path / "out", config=config)
    groups = result.capacity_plan.configured.row_group_admission
    assert (groups.target, groups.observed_target, groups.observed_in_flight) == (3, 3, 3)
    assert sum(groups.blocked_reasons.values()) > 0
    document = json.loads((tmp_path / "out" / "capacity_plan.json").read_text())
    assert document["configured"]["row_group_admission"]["blocked_reasons"] == dict(groups.blocked_reasons)


def test_the_plan_is_there_before_during_and_after_a_run(tmp_path: Path) -> None:
    output, model = tmp_path / "out", ts.Model("here", "model", max_parallel_requests=2)
    config = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=3)
    meanwhile: list[Any] = []

    @ts.column(needs=["called0"])
    async def reading(row: dict[str, int]) -> int:
        meanwhile.append(json.loads((output / "capacity_plan.json").read_text()))
        return row["called0"]

    steps = [*calling(model), reading]
    before: Any = plain(plan_run(steps, records=10, config=config))
    result = simulate(steps, records=10, output=output, config=config)
    after = json.loads((output / "capacity_plan.json").read_text())
    assert after == plain(result.capacity_plan)
    # Threads are the one thing that a simulation brings by itself.
    del before["configured"]["task_resource_limits"]["value"]["local:threads"]
    for document in (before, after, meanwhile[0]):
        del document["configured"]["worker_threads"]
    assert before == meanwhile[0]
    assert before["observed_maxima"]["row_groups_in_flight"] == 0
    for document in (before, after):
        del document["configured"]["row_group_admission"]
    assert before["configured"] == after["configured"]
    assert after["observed_maxima"]["row_groups_in_flight"] == 3


def test_a_run_that_fails_tells_what_it_used(tmp_path: Path) -> None:
    async def rows() -> None:
        def broken() -> Any:
            yield {"number": 1}
            yield {"number": 2}
            raise OSError("the source is gone")

        with pytest.raises(OSError, match="the source is gone"):
            await ts.run(
                calling(ts.Model("here", "model"))[1:],
                rows=broken(),
                output=tmp_path / "out",
                config=ts.RunConfig(buffer_size=1),
                blocking=inline,
            )

    trio.run(rows, clock=trio.testing.MockClock(autojump_threshold=0))
    document = json.loads((tmp_path / "out" / "capacity_plan.json").read_text())
    assert document["observed_maxima"]["row_groups_in_flight"] > 0


def test_a_missing_value_without_a_safe_fallback_stops_the_run_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_self: RequestResourceResolver, _endpoint: ProviderModelKey) -> None:
        return None

    monkeypatch.setattr(RequestResourceResolver, "static_cap", unknown)
    sink = InMemoryAdmissionEventSink()
    expected = r"^provider_model_static_caps\[here/model\] must be known for every endpoint in use, got None"
    with pytest.raises(ts.InvalidValueError, match=expected):
        simulate(calling(ts.Model("here", "model")), records=3, output=tmp_path / "out", event_sink=sink)
    assert not sink.scheduler_events
    assert not any(event.event_kind == "request_lease_acquired" for event in sink.request_events)
    assert not list((tmp_path / "out" / "data").iterdir())
    assert not (tmp_path / "out" / "capacity_plan.json").exists()
    with pytest.raises(ts.InvalidValueError, match=expected):
        planned(ts.Model("here", "model"))


def test_the_plan_is_in_the_trace_and_in_the_report(tmp_path: Path) -> None:
    simulate(
        calling(ts.Model("here", "model_1", max_parallel_requests=2)),
        records=4,
        output=tmp_path,
        config=ts.RunConfig(submission_capacity=1024, write_events="all"),
    )
    document = json.loads((tmp_path / "capacity_plan.json").read_text())
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace["otherData"]["capacity_plan"] == document
    assert set(document) == {"configured", "runtime_snapshot", "observed_maxima"}
    report = (tmp_path / "report.html").read_text()
    for cells in (
        ("configured", "submission capacity", "1024", "run config"),
        ("configured", "row group admission: max admitted rows", "10000", "engine internal config"),
        ("configured", "call ceilings: here/model_1", "2", "bound by max_parallel_requests=2"),
        ("configured", "transport pool limits: here/model_1", "none: the model was declared without its client", ""),
        ("configured", "request domain initial limits: here/model_1/chat", "2", "model metadata, in place of"),
        ("observed maxima", "request in flight by resource", "here/model_1/chat: 2", ""),
    ):
        (row,) = [line for line in report.replace("<tr>", "\n<tr>").splitlines() if f">{cells[1]}<" in line]
        assert all(cell in row for cell in cells), row
