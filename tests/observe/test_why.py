"""One scripted scenario for each layer: the view and `why` name the right one, while it limits and afterwards."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import trio
from simulated_runs import RateLimitError, ServerError, mocked

import trio_sched as ts
from trio_sched._observe.layers import Layer, Limit
from trio_sched._observe.view import RuntimeViewBuilder
from trio_sched._observe.why import Explanation, explain, why
from trio_sched.lowlevel import (
    AsyncTaskScheduler,
    BoundedBorrowTaskAdmissionPolicyConfig,
    ColumnGenerator,
    ExecutionGraph,
    Failure,
    FixedRowGroupPlan,
    GraphNode,
    PolicyStateDelta,
    QueueView,
    RowFailure,
    RowGroup,
    SchedulableTask,
    SchedulerAdmissionEvent,
    SchedulerStalledError,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskAdmissionLease,
    TaskAdmissionPolicyDecision,
    TaskAdmissionView,
    TaskSchedulingResolver,
    event_line,
    inline,
    scheduler_event_stream,
)

MODEL = ts.Model("openai", "gpt-5-mini", max_parallel_requests=2)


class Response:
    status_code = 429
    headers: ClassVar = {"retry-after": "12"}


class HintedRateLimitError(RateLimitError):
    response = Response()


@attrs.define(eq=False)
class Scenario:
    """Runs columns into `out`, asks why at `moment` seconds while it goes on, and once more when it is over."""

    columns: list[ts.Column]
    moment: float
    config: ts.RunConfig = attrs.field(factory=lambda: ts.RunConfig(buffer_size=4))
    records: int = 4

    def explain(self, out: Path) -> tuple[Explanation, Explanation]:
        live: list[Explanation] = []

        async def main() -> None:
            builder = RuntimeViewBuilder()

            async def look() -> None:
                await trio.sleep(self.moment)
                live.append(explain(builder, now=trio.current_time()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await ts.run(
                    self.columns,
                    records=self.records,
                    output=out,
                    config=attrs.evolve(self.config, write_events="all"),
                    event_sink=builder,
                    blocking=inline,
                )

        mocked(main)
        return live[0], why(out)


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


@ts.from_scratch_column()
async def heavy(span: ts.RowSpan) -> list[int]:
    await trio.sleep(60)
    return list(range(span.count))


@ts.column(needs=["heavy"])
async def light(row: dict[str, int]) -> int:
    return row["heavy"]


def calling(call: Callable[[], Awaitable[object]], model: ts.Model = MODEL) -> ts.Column:
    @ts.column(needs=["number"], model=model)
    async def answer(row: dict[str, int], handle: ts.ModelHandle) -> None:
        await handle.call(call)

    return answer


async def ten_seconds() -> None:
    await trio.sleep(10)


def assert_named(live: Explanation, after: Explanation, layer: Layer, where: str | None) -> None:
    assert live.state == "running"
    assert live.limit is not None
    assert (live.limit.layer, live.limit.where) == (layer, where)
    assert live.chain
    assert after.state == "completed"
    assert after.limited_by.largest == layer
    assert (after.limit, after.chain) == (None, ())
    for each in (live, after):
        assert json.loads(json.dumps(each.to_json())) == each.to_json()


def test_readiness(tmp_path: Path) -> None:
    live, after = Scenario([heavy, light], 20).explain(tmp_path)
    assert_named(live, after, "readiness", "heavy")
    assert [str(link) for link in live.chain] == [
        "row group 0 waits for column heavy",
        "1 task of column heavy is at work, the oldest for 20.0 s",
    ]


def test_request_admission(tmp_path: Path) -> None:
    live, after = Scenario([number, calling(ten_seconds)], 15, records=8).explain(tmp_path)
    assert_named(live, after, "request_admission", "openai/gpt-5-mini/chat")
    assert [str(link) for link in live.chain] == [
        "row group 0 waits for column answer",
        "2 tasks wait for request admission on openai/gpt-5-mini/chat",
        "2 of 2 of openai/gpt-5-mini/chat in use",
    ]


def test_cooldown(tmp_path: Path) -> None:
    refused: list[None] = []

    async def call() -> None:
        if len(refused) < 2:
            refused.append(None)
            raise HintedRateLimitError

    cautious = attrs.evolve(MODEL, limit="aimd")
    live, after = Scenario([number, calling(call, cautious)], 0.7).explain(tmp_path)
    assert_named(live, after, "cooldown", "openai/gpt-5-mini/chat")
    assert [str(link) for link in live.chain] == [
        "row group 0 waits for column answer",
        "4 tasks wait for request admission on openai/gpt-5-mini/chat",
        "cooling down, 11.3 s left after 2 rate limits (retry-after)",
    ]


def test_a_rate_limit_alone_stops_nobody_and_whoever_waits_for_its_hint_is_named(tmp_path: Path) -> None:
    refused: list[None] = []

    async def call() -> None:
        if len(refused) < 1:
            refused.append(None)
            raise HintedRateLimitError
        await trio.sleep(10)

    live, after = Scenario([number, calling(call)], 0.7).explain(tmp_path)
    assert_named(live, after, "request_admission", "openai/gpt-5-mini/chat")
    assert [str(link) for link in live.chain] == [
        "row group 0 waits for column answer",
        "3 tasks wait for request admission on openai/gpt-5-mini/chat",
        "1 of them was refused, and lets others go first until its retry hint is over",
        "1 of 1 of openai/gpt-5-mini/chat in use, its cap is 2",
    ]
    assert live.limited_by.cooldown == after.limited_by.cooldown == 0


def test_provider(tmp_path: Path) -> None:
    live, after = Scenario([number, calling(ten_seconds)], 4, records=2).explain(tmp_path)
    assert_named(live, after, "provider", "openai/gpt-5-mini/chat")
    assert str(live.chain[-1]) == "2 calls are out at openai/gpt-5-mini/chat, the oldest for 4.0 s"


def test_a_provider_that_fails_is_waited_out(tmp_path: Path) -> None:
    failed: list[None] = []

    async def call() -> None:
        if len(failed) < 3:
            failed.append(None)
            raise ServerError

    config = ts.RunConfig(buffer_size=4, max_attempts=1)
    live, after = Scenario([number, calling(call)], 0.5, config).explain(tmp_path)
    assert_named(live, after, "request_admission", "openai/gpt-5-mini/chat")
    assert [str(link) for link in live.chain][2:] == [
        "its endpoint does not answer: 3 calls in a row failed, the last with HTTP 500, simulated_runs.ServerError"
    ]


def test_completion(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def slow(row: dict[str, int]) -> None:
        await trio.sleep(30)

    live, after = Scenario([number, slow], 10).explain(tmp_path)
    assert_named(live, after, "completion", None)
    assert str(live.chain[-1]) == "4 tasks of column slow are at work, the oldest for 10.0 s"


def test_task_admission(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def slow(row: dict[str, int]) -> None:
        await trio.sleep(30)

    config = ts.RunConfig(buffer_size=4, submission_capacity=1)
    live, after = Scenario([number, slow], 40, config).explain(tmp_path)
    assert_named(live, after, "task_admission", "submission")
    assert [str(link) for link in live.chain[1:]] == [
        "2 tasks wait for task admission on submission",
        "1 of 1 of submission in use",
    ]


class TakesTenSeconds:
    async def run(self, task: Task) -> Sequence[RowFailure]:
        await trio.sleep(10)
        return ()


class NoStore:
    def open(self, row_group: RowGroup) -> None:
        pass

    async def write(self, row_group: RowGroup, living_rows: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()


def scheduler_of_two_columns(admission: TaskAdmissionController, builder: RuntimeViewBuilder) -> AsyncTaskScheduler:
    return AsyncTaskScheduler(
        ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",))]),
        TaskSchedulingResolver({"a": ColumnGenerator(), "b": ColumnGenerator()}),
        TakesTenSeconds(),
        FixedRowGroupPlan(8, 8),
        NoStore(),
        admission=admission,
        classify=lambda _: Failure("non_retryable", "unexpected_exception"),
        events=scheduler_event_stream(builder),
    )


def test_fairness() -> None:
    """A group that may not borrow leaves half of a resource to others, though there are none."""
    builder = RuntimeViewBuilder(request_stream=False)
    live: list[Explanation] = []

    async def main() -> None:
        config = TaskAdmissionConfig(4, bounded_borrow=BoundedBorrowTaskAdmissionPolicyConfig(default_borrow_ceiling=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler_of_two_columns(TaskAdmissionController(config), builder).run)
            await trio.sleep(15)
            live.append(explain(builder, now=trio.current_time()))

    mocked(main)
    assert_named(live[0], explain(builder), "fairness", "b")
    assert [str(link) for link in live[0].chain] == [
        "row group 0 waits for column b",
        "6 tasks wait for their turn on b",
        "there is room, but the order or the admission policy holds them back (borrow_debt)",
    ]


class NeverAgain:
    """Refuses every task of the second column, for ever."""

    def evaluate(
        self, item: SchedulableTask, queue_view: QueueView, admission_view: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        return TaskAdmissionPolicyDecision(item.task_id.endswith("a"), "policy_denial")

    def on_acquire(self, lease: TaskAdmissionLease, decision: TaskAdmissionPolicyDecision) -> PolicyStateDelta:
        return PolicyStateDelta()

    def on_release(self, lease: TaskAdmissionLease) -> PolicyStateDelta:
        return PolicyStateDelta()


def test_an_interrupted_run_is_called_so_everywhere(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def number(span: ts.RowSpan) -> list[int]:
        raise KeyboardInterrupt

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await ts.run([number], records=3, output=tmp_path / "out", blocking=inline)

    mocked(main)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "interrupted"
    explanation = why(tmp_path / "out")
    assert explanation.state == explanation.to_json()["state"] == "interrupted"
    assert "interrupted after 0.0 s" in str(explanation)


def test_a_stalled_run_says_what_it_waited_for() -> None:
    builder = RuntimeViewBuilder(request_stream=False)

    async def main() -> None:
        with pytest.raises(SchedulerStalledError):
            await scheduler_of_two_columns(TaskAdmissionController(policy=NeverAgain()), builder).run()

    mocked(main)
    after = explain(builder)
    assert (after.state, after.limit) == ("failed", Limit("fairness", "b"))
    assert [str(link) for link in after.chain] == [
        "row group 0 waits for column b",
        "8 tasks wait for their turn on b",
        "there is room, but the order or the admission policy holds them back (policy_denial)",
    ]


def test_a_run_that_hangs_and_is_cancelled_says_where_it_hung(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def stuck(row: dict[str, int]) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        with trio.move_on_after(100):
            await ts.run([number, stuck], records=3, output=tmp_path, blocking=inline)

    mocked(main)
    after = why(tmp_path)
    assert after.state == "interrupted"
    assert [str(link) for link in after.chain] == [
        "row group 0 waits for column stuck",
        "3 tasks of column stuck are at work, the oldest for 100.0 s",
    ]
    assert str(after).splitlines()[:2] == [
        " ← ".join(map(str, after.chain)),
        "interrupted after 100.0 s; its progress was limited by",
    ]


def test_files_without_any_event_explain_nothing_and_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    events = tmp_path / "events"
    events.mkdir()
    (events / "scheduler.jsonl").write_text("")
    (events / "request.jsonl").write_text('{\n\n[1]\nnull\n"selected"\n{}')
    assert str(why(tmp_path)).splitlines() == [
        "events/batches.log is missing: whether events are missing is not known",
        "events/request.jsonl: line 1 is no event; what follows it is left out",
        "not known to have ended; its events cover 0.0 s",
    ]


@pytest.mark.parametrize(
    ("process", "state"),
    [
        ({"pid": 2**22 + 1, "host": platform.node()}, "killed"),
        ({"pid": os.getpid(), "host": platform.node()}, "running"),
        ({"pid": 2**22 + 1, "host": "another"}, "running"),
        (None, "running"),
    ],
)
def test_a_killed_run_is_known_by_its_process(tmp_path: Path, process: object, state: str) -> None:
    """No process has a number above 2**22, the most that Linux allows."""
    events = tmp_path / "events"
    events.mkdir()
    (events / "scheduler.jsonl").write_text(event_line(SchedulerAdmissionEvent("scheduler_job_started", 1.0, 1)))
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "process": process}))
    explained = why(tmp_path)
    assert (explained.state, explained.to_json()["state"]) == (state, state)
