"""What users test their pipelines with: the scripted provider and runs in simulated time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

import trio_sched as ts
from trio_sched.lowlevel import classify_exception, judge_exception
from trio_sched.testing import (
    InMemoryAdmissionEventSink,
    Latency,
    Phase,
    RehearsalScript,
    ScriptedProvider,
    ScriptedProviderError,
    simulate,
)

PHASES = (
    Phase(latency=Latency(mean=60.0, sigma=0.3), max_in_flight=24, retry_after_seconds=30.0),
    Phase(name="low", after_accepted=100, latency=Latency(mean=60.0), max_in_flight=6, retry_after_seconds=30.0),
)


def pipeline(provider: ScriptedProvider) -> list[ts.PipelineStep]:
    model = ts.Model("scripted", "any", max_parallel_requests=32)

    @ts.column(needs=["topic"], model=model)
    async def question(row: dict[str, str], model: ts.ModelHandle) -> str:
        return await model.call(provider.chat, [("user", f"Write a question about {row['topic']}")])

    @ts.column(needs=["question"])
    def length(row: dict[str, str]) -> int:
        return len(row["question"])

    return [question, length]


def test_an_hour_of_rate_limits_costs_no_row(tmp_path: Path) -> None:
    provider, sink = ScriptedProvider(RehearsalScript(phases=PHASES)), InMemoryAdmissionEventSink()
    rows = [{"topic": f"topic {number}"} for number in range(300)]
    result = simulate(pipeline(provider), rows=rows, output=tmp_path / "a", event_sink=sink)
    assert result.records == 300
    assert provider.counters.answered == 300
    assert provider.counters.by_phase["low"].refused["concurrency"] > 0
    assert provider.counters.in_flight == 0
    assert result.wall_seconds > 1_800
    assert {event.event_kind for event in sink.request_events} >= {"request_rate_limited", "request_limit_decreased"}


def test_a_simulated_run_repeats_exactly(tmp_path: Path) -> None:
    rows = [{"topic": f"topic {number}"} for number in range(120)]
    first, second = (
        simulate(pipeline(ScriptedProvider(RehearsalScript(phases=PHASES))), rows=rows, output=tmp_path / name)
        for name in "ab"
    )
    assert first.data_hash() == second.data_hash()
    assert first.wall_seconds == second.wall_seconds


def test_simulate_raises_what_run_raises(tmp_path: Path) -> None:
    with pytest.raises(ts.PipelineError, match="needs either rows or records"):
        simulate([], output=tmp_path / "a")


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms"])
async def test_a_refusal_reads_like_an_sdks(autojump_clock: trio.testing.MockClock, header: str) -> None:
    phase = Phase(
        requests_per_second=0.01,
        retry_after_seconds=2.5,
        retry_after_header="retry-after" if header == "retry-after" else "retry-after-ms",
        refusal_seconds=1.0,
    )
    provider = ScriptedProvider(RehearsalScript(phases=(phase,)))
    assert await provider.serve(lambda: 7) == 7
    before = trio.current_time()
    with pytest.raises(
        ScriptedProviderError, match=r"^429: .*: 0\.01 requests per second in phase steady\.$"
    ) as caught:
        await provider.serve(lambda: 7)
    assert trio.current_time() - before == pytest.approx(1.0)
    outcome = classify_exception(caught.value)
    assert (outcome.kind, outcome.retry_after_seconds) == ("rate_limited", 2.5)


@pytest.mark.parametrize(
    ("phase", "status", "seconds"),
    [
        (Phase(refuse_all=True, retry_after_header="retryDelay", retry_after_seconds=2.5), 429, 2.5),
        (Phase(refuse_all=True, retry_after_header="retry-after-date", retry_after_seconds=2.5), 429, 3.0),
        (Phase(refuse_all=True, refusal_status=529, retry_after_seconds=None), 529, None),
    ],
)
async def test_floods_and_outages_read_like_an_sdks(
    autojump_clock: trio.testing.MockClock, phase: Phase, status: int, seconds: float | None
) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(phase,)))
    with pytest.raises(ScriptedProviderError) as caught:
        await provider.serve(lambda: 7)
    outcome = classify_exception(caught.value)
    assert (outcome.kind, outcome.provider_status) == ("rate_limited", status)
    assert outcome.retry_after_seconds == seconds


async def test_a_refusal_in_the_body_of_a_success_says_so(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(refuse_all=True, refusal_form="body-in-200"),)))
    with pytest.raises(ScriptedProviderError) as caught:
        await provider.serve(lambda: 7)
    assert caught.value.status_code == 200
    body = cast("dict[str, dict[str, object]]", caught.value.body)
    assert body["error"]["code"] == 429


@pytest.mark.parametrize(
    ("phase", "status"),
    [(Phase(error_share=1.0), 500), (Phase(malformed_share=1.0), 502), (Phase(bad_request_share=1.0), 400)],
)
async def test_failures_read_like_a_providers(
    autojump_clock: trio.testing.MockClock, phase: Phase, status: int
) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(phase,)))
    with pytest.raises(ScriptedProviderError) as caught:
        await provider.chat([("user", "hello")])
    assert caught.value.status_code == status
    assert classify_exception(caught.value).kind == "provider_failure"
    assert sum(provider.counters.failed.values()) == 1


async def test_a_provider_that_is_unreachable_is_a_broken_connection(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(unreachable=True, refusal_seconds=3.0),)))
    started = trio.current_time()
    with pytest.raises(
        ConnectionRefusedError, match=r"^provider scripted is unreachable, as its script says$"
    ) as caught:
        await provider.chat([("user", "hello")])
    assert trio.current_time() - started == 3.0
    assert classify_exception(caught.value).kind == "provider_failure"


async def test_keys_and_quotas_are_refused_for_good(autojump_clock: trio.testing.MockClock) -> None:
    for phase, exhausted in (
        (Phase(refuse_all=True, refusal_status=401), None),
        (Phase(quota=0), "insufficient_quota"),
    ):
        with pytest.raises(ScriptedProviderError) as caught:
            await ScriptedProvider(RehearsalScript(phases=(phase,))).chat([("user", "hello")])
        verdict = judge_exception(caught.value)
        assert (verdict.outcome.blame, verdict.exhausted) == ("access", exhausted)


@pytest.mark.parametrize("form", ["status", "body-in-200"])
async def test_an_error_has_the_status_that_the_script_says(autojump_clock: trio.testing.MockClock, form: Any) -> None:
    phase = Phase(error_share=1.0, error_status=504, error_form=form)
    with pytest.raises(ScriptedProviderError) as caught:
        await ScriptedProvider(RehearsalScript(phases=(phase,))).chat([("user", "hello")])
    assert caught.value.status_code == (504 if form == "status" else 200)
    body = cast("dict[str, dict[str, object]]", caught.value.body)
    assert body["error"]["code"] == (None if form == "status" else 504)


async def test_a_restart_resets_the_calls_in_flight_and_refuses_those_that_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    restart = Phase(name="again", after_seconds=10.0, gone_seconds=25.0, latency=Latency(mean=1.0))
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(latency=Latency(mean=4.0)), restart)))
    ends: list[tuple[float, str]] = []
    started = trio.current_time()

    async def call(at: float) -> None:
        await trio.sleep(at)
        try:
            await provider.chat([("user", "hello")])
            ends.append((trio.current_time() - started, "answered"))
        except ConnectionError as error:
            ends.append((trio.current_time() - started, type(error).__name__))

    async with trio.open_nursery() as nursery:
        for at in (0.0, 6.0, 6.5, 10.0, 34.9, 35.0):
            nursery.start_soon(call, at)
    reset, refused = "ConnectionResetError", "ConnectionRefusedError"
    assert sorted(ends) == [
        (4.0, "answered"),
        (10.0, refused),
        (10.0, reset),
        (10.0, "answered"),
        (34.9, refused),
        (36.0, "answered"),
    ]
    assert provider.counters.in_flight == 0


async def test_a_phase_that_starts_by_number_resets_the_calls_in_flight_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    gone = Phase(name="gone", after_requests=2, unreachable=True)
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(hang_share=1.0), gone)))
    ends: list[str] = []

    async def call() -> None:
        try:
            await provider.chat([("user", "hello")])
        except ConnectionError as error:
            ends.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(ends) == ["ConnectionRefusedError", "ConnectionResetError", "ConnectionResetError"]
    assert provider.counters.failed == {"hang": 2}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"malformed_share": 1.0, "malformed_form": "reset"}, ConnectionResetError),
        ({"error_share": 1.0, "error_form": "body-in-200", "error_status": 429}, ScriptedProviderError),
        ({"refuse_all": True}, ScriptedProviderError),
    ],
)
async def test_a_stream_goes_wrong_in_its_middle(
    autojump_clock: trio.testing.MockClock, fields: dict[str, Any], error: type[Exception]
) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(latency=Latency(mean=6.0), **fields),)))
    got: list[str] = []
    started = trio.current_time()

    async def read() -> None:
        async for word in provider.stream([("user", "Explain coroutine objects and nurseries.")]):
            got.extend([word])

    with pytest.raises(error):
        await read()
    assert bool(got) == ("refuse_all" not in fields)
    assert trio.current_time() - started == (0.0 if "refuse_all" in fields else pytest.approx(6.0))
    assert provider.counters.in_flight == 0


async def test_a_stream_is_the_answer_word_by_word(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider()
    messages = [("user", "Explain coroutine objects and nurseries.")]
    words = [word async for word in provider.stream(messages)]
    assert "".join(words) == await provider.chat(messages)
    assert len(words) > 5
    assert provider.counters.answered == 2


async def test_a_call_that_hangs_ends_when_its_caller_gives_up(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(hang_share=1.0),)))
    with trio.move_on_after(10) as scope:
        await provider.chat([("user", "hello")])
    assert scope.cancelled_caught
    assert (provider.counters.failed, provider.counters.in_flight) == ({"hang": 1}, 0)


async def test_a_call_that_is_cancelled_gives_its_slot_back(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(latency=Latency(mean=5.0)),)))
    with trio.move_on_after(1):
        await provider.chat([("user", "hello")])
    assert (provider.counters.abandoned, provider.counters.in_flight) == (1, 0)


async def test_answers_depend_on_what_is_asked_and_on_the_seed(autojump_clock: trio.testing.MockClock) -> None:
    first, second = ScriptedProvider(), ScriptedProvider(RehearsalScript(seed=1))
    messages = [("user", "structured concurrency and nurseries")]
    assert await first.chat(messages) == await first.chat(messages) == await ScriptedProvider().chat(messages)
    assert await first.chat(messages) != await second.chat(messages)
    vector = await first.embed("structured concurrency")
    assert len(vector) == 16
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)


async def test_another_script_can_take_over(autojump_clock: trio.testing.MockClock) -> None:
    provider = ScriptedProvider()
    provider.replace_script(RehearsalScript(phases=(Phase(name="down", error_share=1.0),)))
    assert repr(provider) == "<ScriptedProvider 'scripted' in phase 'down'>"
    with pytest.raises(ScriptedProviderError):
        await provider.serve(lambda: None)
