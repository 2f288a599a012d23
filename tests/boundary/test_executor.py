from __future__ import annotations

import math
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError
from trio_sched._executor import (
    ModelRequest,
    ModelRequestExecutor,
    ModelTimeoutError,
    QuotaExhaustedError,
    RequestRetryConfig,
    settled_after,
)
from trio_sched._request.attempt import refuse_nested_admission
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.endpoint import Answers, ClosedReason
from trio_sched._request.leases import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionLease,
)
from trio_sched._request.pressure import RequestPressure, RequestPressureSnapshotProvider
from trio_sched._request.protocol import ModelCallAdmission
from trio_sched._resources import ReleaseResult
from trio_sched._resources.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestResourceKey,
    RuntimeCorrelation,
    runtime_correlation,
)
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome
from trio_sched._util import inline

CHAT = RequestResourceKey("openai", "gpt-5", RequestDomain.CHAT)


class FakeAdmission(ModelCallAdmission):
    """Admits one attempt at a time and writes down what it is given, and when."""

    def __init__(self, *, free: bool = True) -> None:
        self.log: list[tuple[float, str]] = []
        self.items: list[RequestAdmissionItem] = []
        self.outcomes: list[RequestReleaseOutcome] = []
        self.held: dict[int, RequestAdmissionItem] = {}
        self.refusal: str | None = None
        self.closed: list[tuple[ProviderModelKey, str]] = []
        self.others_are_answered = True
        self.asked = 0
        self._gate = trio.Event()
        if free:
            self._gate.set()

    def open(self) -> None:
        self._gate.set()

    @property
    def words(self) -> list[str]:
        return [word for _, word in self.log]

    def _note(self, word: str) -> None:
        self.log.append((trio.current_time(), word))

    async def acquire_async(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        await self._gate.wait()
        refuse_nested_admission()
        if self.refusal is not None:
            raise RequestAdmissionError(RequestAdmissionDenied(item, "queue_timeout"))
        self.items.append(item)
        lease = RequestAdmissionLease(len(self.items), item, trio.current_time(), 1, 1, 1)
        assert not self.held, "two attempts at once"
        self.held[lease.lease_id] = item
        self._note("acquired")
        return lease

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> ReleaseResult:
        del self.held[lease.lease_id]
        self.outcomes.append(outcome)
        self._note(f"released {outcome.kind}")
        return ReleaseResult(True, "released")

    def model_request_started(self, lease: RequestAdmissionLease) -> None:
        assert lease.lease_id in self.held
        self._note("started")

    def model_request_completed(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        assert lease.lease_id in self.held
        self._note(f"completed {outcome.kind}")

    def answered(self, provider_model: ProviderModelKey) -> Answers:
        if not self.others_are_answered:
            return Answers()
        self.asked += 1
        return Answers(self.asked, len(self.items) + 1)

    def close_endpoint(
        self, provider_model: ProviderModelKey, reason: str, denies_with: ClosedReason = "endpoint_closed"
    ) -> None:
        self.closed.append((provider_model, reason))
        self._note("closed")

    def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        raise NotImplementedError

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        raise NotImplementedError

    @property
    def pressure(self) -> RequestPressureSnapshotProvider:
        return RequestPressure({}, {}, lambda key: 0, trio.current_time)


class ProviderError(Exception):
    """Shaped as an SDK's."""

    def __init__(self, status: int, *, retry_after: float | None = None, code: str | None = None) -> None:
        super().__init__(status)
        self.status_code = status
        self.code = code
        self.response = SimpleNamespace(headers={} if retry_after is None else {"retry-after": str(retry_after)})


def scripted(*steps: str | BaseException, seconds: float = 0.0) -> Callable[[], Awaitable[str]]:
    """A call that takes its time and then does the next step: answer or raise."""
    left = list(steps)

    async def call() -> str:
        await trio.sleep(seconds)
        step = left.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    return call


class Draws(random.Random):
    """Draws the same share of every range, and remembers the ranges."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share
        self.bounds: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        self.bounds.append(b)
        return self.share * b


def chat(call: Callable[[], Awaitable[str]], **options: Any) -> ModelRequest[str]:
    return ModelRequest(CHAT, call, **options)


async def test_one_attempt_is_one_lease_and_its_events_in_order() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)
    assert await executor.execute_attempt(chat(scripted("hello"))) == "hello"
    assert admission.words == ["acquired", "started", "completed success", "released success"]
    assert admission.outcomes == [RequestReleaseOutcome("success")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProviderError(429), "rate_limited"),
        (ProviderError(500), "provider_failure"),
        (TimeoutError(), "provider_timeout"),
        (trio.TooSlowError(), "local_timeout"),
        (ValueError(), "unexpected_exception"),
        (KeyboardInterrupt(), "local_cancelled"),
    ],
)
async def test_an_attempt_that_fails_is_released_with_its_outcome(error: BaseException, kind: str) -> None:
    admission = FakeAdmission()
    with pytest.raises(type(error)) as caught:
        await ModelRequestExecutor(admission).execute_attempt(chat(scripted(error)))
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert admission.words == ["acquired", "started", f"completed {kind}", f"released {kind}"]


async def test_the_outcome_carries_what_the_provider_said() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission, retry=RequestRetryConfig(max_retry_hint_seconds=20))
    for hint in (7, 1e9):
        with pytest.raises(ProviderError):
            await executor.execute_attempt(chat(scripted(ProviderError(429, retry_after=hint))))
    assert [(out.retry_after_seconds, out.provider_status) for out in admission.outcomes] == [(7.0, 429), (20.0, 429)]


async def test_wall_time_is_used_for_dates_only() -> None:
    admission = FakeAdmission()
    error = ProviderError(429)
    error.response.headers["retry-after"] = "Wed, 21 Oct 2015 12:00:30 GMT"
    executor = ModelRequestExecutor(admission, wall_now=lambda: 1445428800.0)
    with pytest.raises(ProviderError):
        await executor.execute_attempt(chat(scripted(error)))
    assert admission.outcomes[0].retry_after_seconds == 30.0


async def test_a_passing_failure_is_attempted_again_after_a_jittered_pause(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    rng = Draws(0.5)
    retry = RequestRetryConfig(max_attempts=6, first_backoff_seconds=1, max_backoff_seconds=5)
    executor = ModelRequestExecutor(admission, retry=retry, rng=rng)
    call = scripted(ProviderError(500), TimeoutError(), ProviderError(503), ConnectionError(), ProviderError(409), "ok")
    assert await executor.execute(chat(call)) == "ok"
    assert rng.bounds == [1.0, 2.0, 4.0, 5.0, 5.0]
    acquired = [at for at, word in admission.log if word == "acquired"]
    assert acquired == [0.0, 0.5, 1.5, 3.5, 6.0, 8.5]
    assert admission.words.count("released provider_failure") == 4
    assert admission.held == {}


async def test_no_lease_is_held_in_the_pause(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission, rng=Draws(1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.execute, chat(scripted(ProviderError(500), "ok")))
        await trio.sleep(0.25)
        assert admission.words[-1] == "released provider_failure"
        assert admission.held == {}


async def test_a_rate_limited_attempt_asks_again_at_once(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    rng = Draws(1.0)
    limited = [ProviderError(429, retry_after=60) for _ in range(3)]
    assert await ModelRequestExecutor(admission, rng=rng).execute(chat(scripted(*limited, "ok"))) == "ok"
    assert trio.current_time() == 0.0
    assert rng.bounds == []
    assert [outcome.kind for outcome in admission.outcomes] == ["rate_limited"] * 3 + ["success"]


async def test_a_rate_limit_does_not_lengthen_the_pause_of_a_failure(autojump_clock: MockClock) -> None:
    rng = Draws(0.0)
    call = scripted(ProviderError(500), ProviderError(429), ProviderError(500), "ok")
    await ModelRequestExecutor(FakeAdmission(), rng=rng).execute(chat(call))
    assert rng.bounds == [0.5, 1.0]


async def test_a_pause_is_never_shorter_than_the_hint_and_the_hint_is_capped(autojump_clock: MockClock) -> None:
    executor = ModelRequestExecutor(
        FakeAdmission(), rng=Draws(1.0), retry=RequestRetryConfig(max_retry_hint_seconds=40)
    )
    call = scripted(ProviderError(500, retry_after=30), ProviderError(500, retry_after=1e9), "ok")
    await executor.execute(chat(call))
    assert trio.current_time() == 70.0


async def test_after_the_last_attempt_its_own_exception_comes_out(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    errors = [ProviderError(500), ProviderError(429), ProviderError(503), ProviderError(500), ConnectionError()]
    executor = ModelRequestExecutor(admission, retry=RequestRetryConfig(max_attempts=3))
    with pytest.raises(ConnectionError) as caught:
        await executor.execute(chat(scripted(*errors, "never")))
    assert caught.value is errors[4]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(admission.items) == 5
    assert settled_after(caught.value) == 5


@pytest.mark.parametrize(
    "error", [ProviderError(400), ProviderError(422), ValueError(), InvalidValueError("a", 1, "b")]
)
async def test_what_cannot_succeed_is_attempted_once(error: Exception) -> None:
    admission = FakeAdmission()
    with pytest.raises(type(error)) as caught:
        await ModelRequestExecutor(admission).execute(chat(scripted(error)))
    assert caught.value is error
    assert len(admission.items) == 1


async def test_a_refused_admission_is_not_repeated() -> None:
    admission = FakeAdmission()
    admission.refusal = "queue_timeout"
    with pytest.raises(RequestAdmissionError):
        await ModelRequestExecutor(admission).execute(chat(scripted("never")))
    assert admission.log == []


@pytest.mark.parametrize("attempts", [0, 1])
async def test_admission_that_fails_keeps_its_own_cause(attempts: int, autojump_clock: MockClock) -> None:
    cause = OSError("the disk of the sink")

    class Failing(FakeAdmission):
        async def acquire_async(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
            if len(self.items) < attempts:
                return await super().acquire_async(item)
            raise RuntimeError("the sink") from cause

    with pytest.raises(RuntimeError, match="the sink") as caught:
        await ModelRequestExecutor(Failing(), rng=Draws(0.0)).execute(chat(scripted(ProviderError(500), "never")))
    assert caught.value.__cause__ is cause


async def test_a_refusal_between_attempts_ends_it(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission, rng=Draws(1.0))
    async with trio.open_nursery() as nursery:

        async def caller() -> None:
            with pytest.raises(RequestAdmissionError):
                await executor.execute(chat(scripted(ProviderError(500), "never")))

        nursery.start_soon(caller)
        await trio.sleep(0.1)
        admission.refusal = "queue_timeout"
    assert len(admission.items) == 1


async def test_an_attempt_that_takes_too_long_is_cut_and_repeated(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission, rng=Draws(0.0), retry=RequestRetryConfig(max_attempts=2))
    with pytest.raises(ModelTimeoutError) as caught:
        await executor.execute(chat(scripted("a", "b", seconds=10), attempt_timeout_seconds=3))
    assert str(caught.value) == ("openai/gpt-5 did not answer a call within 3 s; allow more with Model(timeout=...)")
    assert trio.current_time() == 6.0
    assert [outcome.kind for outcome in admission.outcomes] == ["provider_timeout", "provider_timeout"]
    assert await executor.execute(chat(scripted("a", seconds=10), attempt_timeout_seconds=11)) == "a"


async def test_the_attempt_timeout_does_not_run_in_the_queue(autojump_clock: MockClock) -> None:
    admission = FakeAdmission(free=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            ModelRequestExecutor(admission).execute, chat(scripted("a", seconds=2), attempt_timeout_seconds=3)
        )
        await trio.sleep(100)
        admission.open()
    assert admission.words[-1] == "released success"


QUOTA = "insufficient_quota"


async def with_real_admission(call: Callable[[], Awaitable[str]]) -> AdaptiveRequestAdmissionController:
    """Make a call that is refused for good, and return the controller that closed its endpoint."""
    controller = AdaptiveRequestAdmissionController()
    controller.register(provider_name=CHAT.provider_name, model_id=CHAT.model_id, alias="chat", max_parallel_requests=4)
    async with controller:
        await ModelRequestExecutor(controller).execute(chat(call))
    return controller


@pytest.mark.parametrize("code", [QUOTA, None])
async def test_access_that_is_refused_twice_closes_the_endpoint(code: str | None, autojump_clock: MockClock) -> None:
    errors = [ProviderError(401 if code is None else 429, code=code) for _ in range(2)]
    controller = AdaptiveRequestAdmissionController()
    controller.register(provider_name=CHAT.provider_name, model_id=CHAT.model_id, alias="chat", max_parallel_requests=4)
    async with controller:
        executor = ModelRequestExecutor(controller)
        with pytest.raises(QuotaExhaustedError if code else RequestAdmissionError) as caught:
            await executor.execute(chat(scripted(*errors, "never")))
        assert caught.value.__cause__ is errors[1]
        with pytest.raises(RequestAdmissionError) as refused:
            await executor.execute(chat(scripted("never")))
    assert refused.value.decision.reason == "endpoint_closed"
    if isinstance(caught.value, QuotaExhaustedError):
        assert (caught.value.endpoint, caught.value.code, caught.value.cause) == (
            CHAT.provider_model_key,
            QUOTA,
            errors[1],
        )
        assert str(caught.value) == (
            "the quota of openai/gpt-5 is used up (insufficient_quota), so no further request is sent to it; "
            "add credit or raise the limit at the provider, then run again"
        )
    snapshot = controller.pressure.global_snapshot(CHAT.provider_name, CHAT.model_id)
    assert snapshot is not None
    assert snapshot.state == "closed"


async def test_access_that_is_given_the_second_time_closes_nothing(autojump_clock: MockClock) -> None:
    controller = await with_real_admission(scripted(ProviderError(401), "ok"))
    snapshot = controller.pressure.global_snapshot(CHAT.provider_name, CHAT.model_id)
    assert snapshot is not None
    assert (snapshot.state, snapshot.unanswered_since) == ("answering", None)


async def raise_it(error: BaseException) -> None:
    raise error


def from_a_nursery(*errors: BaseException) -> Callable[[], Awaitable[str]]:
    """A call in which several things go wrong at once."""

    async def call() -> str:
        async with trio.open_nursery() as nursery:
            for error in errors:
                nursery.start_soon(raise_it, error)
        return "never"

    return call


async def test_a_used_up_quota_never_swallows_an_interrupt() -> None:
    admission = FakeAdmission()
    errors = (ProviderError(429, code=QUOTA), KeyboardInterrupt())
    with pytest.raises(BaseException, match="Exceptions from Trio nursery") as caught:
        await ModelRequestExecutor(admission).execute(chat(from_a_nursery(*errors)))
    assert set(cast("Any", caught.value).exceptions) == set(errors)
    assert admission.held == {}


async def test_cancelled_before_admission_nothing_happens() -> None:
    admission = FakeAdmission()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ModelRequestExecutor(admission).execute(chat(scripted("never")))
    assert scope.cancelled_caught
    assert admission.log == []


async def test_cancelled_in_the_queue_nothing_goes_out() -> None:
    admission = FakeAdmission(free=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ModelRequestExecutor(admission).execute, chat(scripted("never")))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    admission.open()
    assert admission.log == []


async def test_cancelled_in_the_call_it_is_released_as_cancelled() -> None:
    admission = FakeAdmission()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ModelRequestExecutor(admission).execute, chat(scripted("never", seconds=math.inf)))
        await wait_all_tasks_blocked()
        assert admission.words == ["acquired", "started"]
        nursery.cancel_scope.cancel()
    assert admission.words[2:] == ["completed local_cancelled", "released local_cancelled"]


async def test_cancelled_in_the_pause_nothing_more_goes_out() -> None:
    admission = FakeAdmission()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            ModelRequestExecutor(admission, rng=Draws(1.0)).execute, chat(scripted(ProviderError(500), "never"))
        )
        await wait_all_tasks_blocked()
        assert admission.words[-1] == "released provider_failure"
        nursery.cancel_scope.cancel()
    assert len(admission.items) == 1


async def test_cancelled_in_the_tick_of_its_end_the_answer_still_comes_back() -> None:
    admission = FakeAdmission()
    with trio.CancelScope() as scope:

        async def call() -> str:
            scope.cancel()
            return "paid for"

        assert await ModelRequestExecutor(admission).execute(chat(call)) == "paid for"
    assert admission.words[-1] == "released success"


async def test_a_release_that_fails_never_hides_the_error_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeAdmission):
        def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> ReleaseResult:
            raise RuntimeError("the ledger is wrong")

    error = ProviderError(400)
    with pytest.raises(ProviderError) as caught:
        await ModelRequestExecutor(Broken()).execute(chat(scripted(error)))
    assert caught.value is error
    assert [record.getMessage() for record in caplog.records] == ["Request admission failed to take back lease 1"]
    with pytest.raises(RuntimeError, match="the ledger is wrong"):
        await ModelRequestExecutor(Broken()).execute(chat(scripted("lost")))


async def test_admitting_again_inside_an_attempt_raises_and_after_it_does_not() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)

    async def call() -> str:
        return await executor.execute(chat(scripted("never")))

    with pytest.raises(TrioSchedError, match="an outbound attempt is admitted once"):
        await executor.execute(chat(call))
    assert admission.words == ["acquired", "started", "completed unexpected_exception", "released unexpected_exception"]
    assert await executor.execute(chat(scripted("ok"))) == "ok"


async def test_a_call_that_is_not_async_is_refused_with_the_remedy() -> None:
    admission = FakeAdmission()
    request = ModelRequest(CHAT, cast("Callable[[], Awaitable[str]]", lambda: "row data"))
    with pytest.raises(InvalidTypeError) as caught:
        await ModelRequestExecutor(admission).execute(request)
    assert str(caught.value) == (
        "ModelRequest.call() must be an awaitable (make a call out of a synchronous function with "
        "ModelRequestExecutor.in_thread), got <class 'str'>"
    )
    assert admission.held == {}
    assert len(admission.items) == 1


async def test_a_synchronous_function_runs_in_a_thread_with_its_arguments() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)
    here = threading.get_ident()

    def sync_sdk(model: str, *, prompt: str) -> tuple[str, bool]:
        return model + prompt, threading.get_ident() != here

    request = ModelRequest(CHAT, executor.in_thread(sync_sdk, "m", prompt="p"))
    assert await executor.execute(request) == ("mp", True)


async def test_in_a_simulation_the_function_runs_inline(autojump_clock: MockClock) -> None:
    executor = ModelRequestExecutor(FakeAdmission(), blocking=inline)
    assert await executor.execute(ModelRequest(CHAT, executor.in_thread(threading.get_ident))) == threading.get_ident()


async def test_the_lease_is_held_as_long_as_the_thread_is_out() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)
    running, finish = threading.Event(), threading.Event()

    def sync_sdk() -> str:
        running.set()
        assert finish.wait(30)
        return "late"

    answers: list[str] = []

    async def caller() -> None:
        answers.append(await executor.execute(ModelRequest(CHAT, executor.in_thread(sync_sdk))))
        await trio.lowlevel.checkpoint()
        answers.append("not cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await trio.to_thread.run_sync(running.wait)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert list(admission.held) == [1]
            finish.set()
    assert answers == ["late"]
    assert admission.words[-1] == "released success"


async def test_a_function_that_polls_for_cancellation_is_released_as_cancelled() -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)
    running, cancelled = threading.Event(), threading.Event()

    def polite() -> None:
        running.set()
        assert cancelled.wait(30)
        trio.from_thread.check_cancelled()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.execute, ModelRequest(CHAT, executor.in_thread(polite)))
        await trio.to_thread.run_sync(running.wait)
        nursery.cancel_scope.cancel()
        cancelled.set()
    assert admission.words[-1] == "released local_cancelled"


async def test_items_say_who_asks_and_every_attempt_has_its_own_name(autojump_clock: MockClock) -> None:
    admission = FakeAdmission()
    executor = ModelRequestExecutor(admission)
    correlation = RuntimeCorrelation("run", 1, "answer", "cell", "model", "hash", "execution-7")
    token = runtime_correlation.set(correlation)
    await executor.execute(chat(scripted(ProviderError(500), "ok"), weight=2.5, queue_wait_timeout_seconds=4))
    runtime_correlation.reset(token)
    await executor.execute_attempt(chat(scripted("ok")))
    contexts = [item.event_context for item in admission.items]
    assert all(context is not None for context in contexts)
    named = [context for context in contexts if context is not None]
    assert [context.request_attempt_id for context in named] == ["1.1", "1.2", "2.1"]
    assert [context.captured_correlation for context in named] == [correlation, correlation, None]
    assert [context.task_execution_id for context in named] == ["execution-7", "execution-7", None]
    first = admission.items[0]
    assert (first.resource, first.group.key, first.group.weight) == (CHAT, CHAT, 2.5)
    assert first.queue_wait_timeout_seconds == 4


async def test_a_check_goes_out_under_its_own_domain() -> None:
    admission = FakeAdmission()
    request = chat(scripted("alive"), weight=3)
    assert request.domain is RequestDomain.CHAT
    assert await ModelRequestExecutor(admission).check_model(request) == "alive"
    assert admission.items[0].resource == RequestResourceKey("openai", "gpt-5", RequestDomain.HEALTHCHECK)
    assert admission.items[0].group.weight == 3


def test_ctrl_c_in_the_call_interrupts_it_and_the_lease_goes_back() -> None:
    async def main() -> None:
        admissions.append(FakeAdmission())

        async def call() -> str:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the call was not interrupted")

        await ModelRequestExecutor(admissions[0]).execute(chat(call))

    admissions: list[FakeAdmission] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert admissions[0].words[-1] == "released local_cancelled"
    assert admissions[0].held == {}


@pytest.mark.parametrize("moment", ["acquired", "started", "completed", "released"])
def test_ctrl_c_in_the_boundary_itself_waits_until_the_lease_is_back(moment: str) -> None:
    class Interrupted(FakeAdmission):
        def _note(self, word: str) -> None:
            super()._note(word)
            if word.startswith(moment):
                signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        admissions.append(Interrupted())
        await ModelRequestExecutor(admissions[0]).execute(chat(scripted("ok")))
        await trio.lowlevel.checkpoint()
        raise AssertionError("the interrupt was lost")

    admissions: list[FakeAdmission] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    words = admissions[0].words
    assert words[0] == "acquired"
    assert words[-1].startswith("released")
    assert len(words) == 4
    assert admissions[0].held == {}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_attempts", 0, "RequestRetryConfig.max_attempts must be a positive int, got 0"),
        ("max_attempts", True, "RequestRetryConfig.max_attempts must be a positive int, got True"),
        (
            "first_backoff_seconds",
            0,
            "RequestRetryConfig.first_backoff_seconds must be a positive finite number, got 0",
        ),
        ("max_backoff_seconds", -1, "RequestRetryConfig.max_backoff_seconds must be a positive finite number, got -1"),
        (
            "max_retry_hint_seconds",
            math.inf,
            "RequestRetryConfig.max_retry_hint_seconds must be a positive finite number, got inf",
        ),
    ],
)
def test_a_bad_retry_config_is_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        RequestRetryConfig(**cast("dict[str, Any]", {field: value}))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resource": "openai"}, "ModelRequest.resource must be a RequestResourceKey, got 'openai'"),
        ({"call": 5}, "ModelRequest.call must be a function that makes one outbound attempt, got 5"),
        ({"weight": 0}, "ModelRequest.weight must be a positive finite number, got 0"),
        (
            {"queue_wait_timeout_seconds": -1},
            "ModelRequest.queue_wait_timeout_seconds must be None or a finite number of at least 0, got -1",
        ),
        (
            {"attempt_timeout_seconds": 0},
            "ModelRequest.attempt_timeout_seconds must be a positive finite number, got 0",
        ),
    ],
)
def test_a_bad_request_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        attrs.evolve(chat(scripted("ok")), **change)
    assert str(caught.value) == message


def test_backoff_bounds_double_up_to_the_maximum() -> None:
    retry = RequestRetryConfig(first_backoff_seconds=0.5, max_backoff_seconds=3)
    assert [retry.backoff_bound(failures) for failures in (1, 2, 3, 4, 5, 10**9)] == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


async def test_the_config_in_force_can_be_read() -> None:
    retry = RequestRetryConfig(max_attempts=2)
    assert ModelRequestExecutor(FakeAdmission(), retry=retry).retry is retry
    assert ModelRequestExecutor(FakeAdmission()).retry == RequestRetryConfig()


STEPS: dict[str, Callable[[], BaseException]] = {
    "limited": lambda: ProviderError(429, retry_after=3),
    "failed": lambda: ProviderError(500),
    "timeout": TimeoutError,
    "refused": lambda: ProviderError(400),
    "spent": lambda: ProviderError(429, code=QUOTA),
}


def expected_attempts(steps: Sequence[str], max_attempts: int) -> int:
    """Others are answered all the time, so that each failure counts but a rate limit."""
    made = counted = 0
    for step in steps:
        made += 1
        counted += step in {"failed", "timeout", "spent"}
        if step in {"ok", "refused"} or counted == max_attempts:
            break
    return made


@given(
    st.lists(st.sampled_from([*STEPS, "ok"]), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=6),
    st.integers(min_value=0, max_value=10),
    st.floats(min_value=0, max_value=8),
)
def test_any_script_any_cancellation_every_lease_goes_back(
    steps: list[str], max_attempts: int, seed: int, cancel_after: float
) -> None:
    async def run(deadline: float) -> tuple[FakeAdmission, str]:
        admission = FakeAdmission()
        retry = RequestRetryConfig(max_attempts=max_attempts)
        executor = ModelRequestExecutor(admission, retry=retry, rng=random.Random(seed))
        made: Iterable[str | BaseException] = [STEPS[step]() if step in STEPS else step for step in [*steps, "ok"]]
        result = "cancelled"
        with trio.move_on_after(deadline):
            try:
                result = await executor.execute(chat(scripted(*made, seconds=0.5)))
            except (ProviderError, TimeoutError, QuotaExhaustedError) as error:
                result = type(error).__name__
        return admission, result

    async def main() -> None:
        admission, result = await run(math.inf)
        assert len(admission.items) == expected_attempts([*steps, "ok"], max_attempts)
        assert len(admission.items) == len(admission.outcomes)
        assert (result == "ok") == (admission.outcomes[-1].kind == "success")
        again, same = await run(math.inf)
        assert (again.words, same) == (admission.words, result)
        cut, _ = await run(cancel_after)
        assert cut.held == {}
        assert len(cut.items) == len(cut.outcomes) == cut.words.count("started")
        same_so_far = max(0, len(cut.words) - 2)
        assert cut.words[:same_so_far] == admission.words[:same_so_far]

    trio.run(main, clock=MockClock(autojump_threshold=0))
