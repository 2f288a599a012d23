"""The Trio shell: waiting, cancelling, timeouts, the supervisor, opening and closing."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from request_samples import (
    CHAT,
    EMBEDDING,
    GPT,
    RATE_LIMITED,
    SUCCESS,
    UNKNOWN,
    OnlyKinds,
    config,
    item,
    rate_limited,
)

from trio_sched._errors import InvalidValueError
from trio_sched._events.records import RequestAdmissionEvent
from trio_sched._events.sinks import InMemoryAdmissionEventSink
from trio_sched._request.attempt import RequestAdmissionUsageError
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionError, RequestAdmissionLease
from trio_sched._request.limit import LimitName
from trio_sched._request.protocol import RequestAdmissionController
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import RuntimeCorrelation, runtime_correlation
from trio_sched._resources.request import RequestEventContext, RequestPressureSnapshot

CORRELATION = RuntimeCorrelation("run", 0, "answer", "cell", "model", "hash", "execution-1")


def make(
    cap: int = 2, settings: RequestAdmissionConfig | None = None, sink: InMemoryAdmissionEventSink | None = None
) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(settings or config(), event_sink=sink)
    register(controller, cap)
    return controller


def register(controller: AdaptiveRequestAdmissionController, cap: int, alias: str = "a") -> None:
    controller.register(provider_name="openai", model_id="gpt", alias=alias, max_parallel_requests=cap)


def lease_of(controller: AdaptiveRequestAdmissionController) -> RequestAdmissionLease:
    decision = controller.try_acquire(item())
    assert isinstance(decision, RequestAdmissionLease), decision
    return decision


def refusal_of(controller: AdaptiveRequestAdmissionController) -> RequestAdmissionDenied:
    decision = controller.try_acquire(item())
    assert isinstance(decision, RequestAdmissionDenied)
    return decision


def pressure_of(controller: AdaptiveRequestAdmissionController) -> RequestPressureSnapshot:
    snapshot = controller.pressure.snapshot(CHAT)
    assert snapshot is not None
    return snapshot


class Caller:
    """One task that asks once and remembers what came of it."""

    def __init__(self, controller: AdaptiveRequestAdmissionController) -> None:
        self.controller = controller
        self.scope = trio.CancelScope()
        self.lease: RequestAdmissionLease | None = None
        self.error: RequestAdmissionError | None = None
        self.over = False

    async def __call__(self, queue_wait: float | None = None) -> None:
        with self.scope:
            try:
                self.lease = await self.controller.acquire_async(item(timeout=queue_wait))
            except RequestAdmissionError as error:
                self.error = error
        self.over = True


@asynccontextmanager
async def waiting(controller: AdaptiveRequestAdmissionController, count: int) -> AsyncGenerator[list[Caller], None]:
    """`count` callers that wait one behind the other."""
    async with trio.open_nursery() as nursery:
        callers = [Caller(controller) for _ in range(count)]
        for caller in callers:
            nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
        yield callers
        nursery.cancel_scope.cancel()


# Without opening


def test_without_a_run_it_decides_and_judges_at_once() -> None:
    controller = make(cap=4)
    leases = [lease_of(controller) for _ in range(4)]
    assert refusal_of(controller).reason == "no_capacity"
    assert controller.release(leases[0], RATE_LIMITED).released
    snapshot = pressure_of(controller)
    assert snapshot.current_limit == 2
    assert snapshot.cooldown_remaining_seconds > 0
    assert refusal_of(controller).reason == "cooldown"
    for lease in leases[1:]:
        assert controller.release(lease, SUCCESS).reason == "released"
    assert controller.release(leases[0], SUCCESS).reason == "duplicate"
    assert controller.leak_report() == ()


async def test_without_opening_it_gives_but_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    controller = make(cap=1)
    lease = await controller.acquire_async(item())
    assert lease.holder == "<test 'test_without_opening_it_gives_but_does_not_wait'>"
    message = (
        "openai/gpt/chat has no free capacity, and only an open controller can wait for it: "
        "use `async with controller:` around acquire_async, or call try_acquire"
    )
    with pytest.raises(RequestAdmissionUsageError, match=f"^{re.escape(message)}$"):
        await controller.acquire_async(item())
    controller.release(lease, RATE_LIMITED)
    await trio.sleep(1.0)
    controller.release(lease_of(controller), SUCCESS)


def test_it_is_what_the_boundary_needs() -> None:
    controller: RequestAdmissionController = make()
    assert controller.pressure.snapshot(CHAT) is None


def test_leases_of_another_controller_are_refused() -> None:
    first, second = make(), make()
    lease = lease_of(first)
    assert second.release(lease, SUCCESS).reason == "wrong_controller_generation"
    assert first.release(lease, SUCCESS).released


def test_caps_of_a_given_resolver_are_adopted() -> None:
    resolver = RequestResourceResolver()
    resolver.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=3)
    sink = InMemoryAdmissionEventSink()
    controller = AdaptiveRequestAdmissionController(resolver=resolver, event_sink=sink)
    assert sink.request_events[0].event_kind == "request_resource_registered"
    assert controller.resolver is resolver
    assert controller.config == RequestAdmissionConfig()
    lease_of(controller)
    assert pressure_of(controller).effective_max == 3


def test_repr_tells_how_it_stands() -> None:
    controller = make()
    lease_of(controller)
    assert repr(controller) == "<AdaptiveRequestAdmissionController new, 1 leases, 0 waiting>"


# Asking


async def test_an_immediate_grant_checkpoints() -> None:
    async with make() as controller:
        with trio.testing.assert_checkpoints():
            lease = await controller.acquire_async(item())
        controller.release(lease, SUCCESS)


async def test_a_refusal_checkpoints_too() -> None:
    async with make(cap=1) as controller:
        lease_of(controller)
        with trio.testing.assert_checkpoints(), pytest.raises(RequestAdmissionError):
            await controller.acquire_async(item(timeout=0))


async def test_a_caller_cancelled_before_asking_gets_nothing() -> None:
    async with make() as controller:
        with trio.CancelScope() as scope:
            scope.cancel()
            await controller.acquire_async(item())
        assert scope.cancelled_caught
        assert controller.pressure.snapshot(CHAT) is None
        assert controller.leak_report() == ()


async def test_waiters_are_served_in_turn_holding_their_leases() -> None:
    async with make(cap=1) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 3) as callers:
            controller.release(lease, SUCCESS)
            assert pressure_of(controller).in_flight_count == 1
            assert pressure_of(controller).waiters == 2
            await trio.testing.wait_all_tasks_blocked()
            assert [caller.over for caller in callers] == [True, False, False]
            assert callers[0].lease is not None
            controller.release(callers[0].lease, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
            assert [caller.over for caller in callers] == [True, True, False]
            assert callers[1].lease is not None
            controller.release(callers[1].lease, SUCCESS)
        assert callers[2].lease is not None
        controller.release(callers[2].lease, SUCCESS)
        assert controller.leak_report() == ()


async def test_nobody_slips_in_between_a_release_and_the_waiter() -> None:
    async with make(cap=1) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 1) as callers:
            controller.release(lease, SUCCESS)
            assert refusal_of(controller).reason == "no_capacity"
            await trio.testing.wait_all_tasks_blocked()
            assert callers[0].lease is not None


async def test_a_waiter_granted_and_then_cancelled_in_the_same_tick_keeps_its_lease() -> None:
    async with make(cap=1) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 2) as callers:
            controller.release(lease, SUCCESS)
            callers[0].scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert callers[0].lease is not None
            assert [leak.lease_id for leak in controller.leak_report()] == [callers[0].lease.lease_id]
            controller.release(callers[0].lease, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
            assert callers[1].lease is not None


async def test_a_waiter_cancelled_and_then_passed_by_in_the_same_tick_gets_nothing() -> None:
    async with make(cap=1) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 2) as callers:
            callers[0].scope.cancel()
            assert pressure_of(controller).waiters == 1
            controller.release(lease, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
            assert callers[0].lease is None
            assert callers[0].over
            assert callers[1].lease is not None


async def test_a_cancelled_waiter_is_on_record() -> None:
    sink = InMemoryAdmissionEventSink()
    async with make(cap=1, sink=sink) as controller:
        lease_of(controller)
        async with waiting(controller, 1) as callers:
            callers[0].scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
    kinds = [event.event_kind for event in sink.request_events]
    assert kinds[-2:] == ["request_queue_drained", "request_wait_cancelled"]
    assert sink.request_events[-1].reason_or_outcome == "cancellation"


async def test_an_unregistered_endpoint_is_an_error_at_once() -> None:
    async with make() as controller:
        message = (
            "no request lease for nobody/nothing/chat: hard_policy_denial "
            "(nobody/nothing is not registered; call register() for it first)"
        )
        with pytest.raises(RequestAdmissionError, match=f"^{re.escape(message)}$"):
            await controller.acquire_async(item(UNKNOWN))


# Timeouts


async def test_a_timeout_of_zero_grants_or_refuses_without_waiting(autojump_clock: trio.testing.MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    async with make(cap=1, sink=sink) as controller:
        lease = await controller.acquire_async(item(timeout=0))
        with pytest.raises(RequestAdmissionError) as caught:
            await controller.acquire_async(item(timeout=0))
        assert sink.request_events[-1].event_kind == "request_wait_timeout"
        assert caught.value.decision.reason == "queue_timeout"
        assert trio.current_time() == 0.0
        controller.release(lease, SUCCESS)


async def test_a_wait_times_out_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    sink = InMemoryAdmissionEventSink()
    async with make(cap=1, sink=sink) as controller:
        lease = lease_of(controller)
        with pytest.raises(RequestAdmissionError, match=r"^no request lease for openai/gpt/chat: queue_timeout$"):
            await controller.acquire_async(item(timeout=2.5))
        assert trio.current_time() == 2.5
        assert pressure_of(controller).waiters == 0
        assert sink.request_events[-1].event_kind == "request_wait_timeout"
        assert sink.request_events[-1].diagnostics == {"waited_seconds": 2.5}
        controller.release(lease, SUCCESS)
        assert lease_of(controller).acquired_at == 2.5


async def test_the_default_timeout_applies_to_items_without_their_own(autojump_clock: trio.testing.MockClock) -> None:
    async with make(cap=1, settings=config(timeout=4.0)) as controller:
        lease_of(controller)
        with pytest.raises(RequestAdmissionError):
            await controller.acquire_async(item(timeout=1.0))
        assert trio.current_time() == 1.0
        with pytest.raises(RequestAdmissionError):
            await controller.acquire_async(item())
        assert trio.current_time() == 5.0


async def test_a_wait_with_a_timeout_is_granted_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with make(cap=1) as controller, trio.open_nursery() as nursery:
        lease = lease_of(controller)
        caller = Caller(controller)
        nursery.start_soon(caller, 5.0)
        await trio.sleep(3.0)
        controller.release(lease, SUCCESS)
        await trio.testing.wait_all_tasks_blocked()
        assert caller.lease is not None
        assert trio.current_time() == 3.0


async def test_a_cancellation_from_outside_wins_over_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with make(cap=1) as controller:
        lease_of(controller)
        with trio.move_on_at(2.0) as scope:
            await controller.acquire_async(item(timeout=2.0))
        assert scope.cancelled_caught
        assert pressure_of(controller).waiters == 0


# The supervisor


async def test_a_verdict_is_pending_until_the_supervisor_has_run() -> None:
    async with make(cap=4) as controller:
        lease = lease_of(controller)
        controller.release(lease, RATE_LIMITED)
        assert pressure_of(controller).current_limit == 4
        assert refusal_of(controller).reason == "cooldown"
        await trio.testing.wait_all_tasks_blocked()
        assert pressure_of(controller).current_limit == 2


async def test_the_end_of_a_cooldown_wakes_waiters_with_nobody_releasing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with make(cap=2) as controller:
        controller.release(lease_of(controller), rate_limited(7.0))
        lease = await controller.acquire_async(item())
        assert trio.current_time() == 7.0
        assert lease.grant.epoch == 1


async def test_a_ramp_wakes_waiters_as_it_rises(autojump_clock: trio.testing.MockClock) -> None:
    async with make(cap=3, settings=config(ramp=4.0)) as controller:
        times: list[float] = []
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await controller.acquire_async(item())
            times.append(trio.current_time())
        assert times == [0.0, 2.0, 4.0]


async def test_a_ramp_that_has_just_begun_does_not_disturb_leaving() -> None:
    async with make(cap=3, settings=config(initial_limits={CHAT: 1}, ramp=4.0)) as controller:
        await trio.testing.wait_all_tasks_blocked()
        controller.release(lease_of(controller), RATE_LIMITED)
        lease = controller.try_acquire(item(EMBEDDING))
        assert isinstance(lease, RequestAdmissionLease)
        controller.release(lease, SUCCESS)
    snapshot = controller.pressure.snapshot(EMBEDDING)
    assert snapshot is not None
    assert snapshot.current_limit == 1


async def test_growth_wakes_waiters() -> None:
    settings = config(initial_limits={CHAT: 1}, successes=1)
    async with make(cap=2, settings=settings) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 2) as callers:
            controller.release(lease, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
            assert [caller.lease is not None for caller in callers] == [True, True]


async def test_registration_wakes_waiters() -> None:
    async with make(cap=1) as controller:
        lease_of(controller)
        async with waiting(controller, 3) as callers:
            register(controller, 3)
            await trio.testing.wait_all_tasks_blocked()
            assert [caller.lease is not None for caller in callers] == [True, True, False]


async def test_a_headerless_rate_limit_does_not_shorten_a_long_retry_after(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with make(cap=4) as controller:
        leases = [lease_of(controller) for _ in range(2)]
        controller.release(leases[0], rate_limited(60.0))
        await trio.sleep(5.0)
        controller.release(leases[1], RATE_LIMITED)
        await trio.testing.wait_all_tasks_blocked()
        assert pressure_of(controller).blocked_until_monotonic == 60.0
        await controller.acquire_async(item())
        assert trio.current_time() == 60.0


def test_no_timer_is_armed_while_nothing_is_due() -> None:
    """On a mock clock that never jumps: the run's next deadline is what the controller armed, and nothing else."""
    deadlines: list[float] = []

    async def main() -> None:
        def armed() -> float:
            return trio.lowlevel.current_statistics().seconds_to_next_deadline

        async with make(cap=2) as controller:
            lease = lease_of(controller)
            async with waiting(controller, 4) as callers:
                deadlines.append(armed())
                controller.release(lease, SUCCESS)
                await trio.testing.wait_all_tasks_blocked()
                deadlines.append(armed())
                assert callers[0].lease is not None
                controller.release(callers[0].lease, rate_limited(9.0))
                await trio.testing.wait_all_tasks_blocked()
                deadlines.append(armed())
                clock.jump(9.0)
                await trio.testing.wait_all_tasks_blocked()
                deadlines.append(armed())

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)
    assert deadlines == [float("inf"), float("inf"), 9.0, float("inf")]


@pytest.mark.parametrize(("limit", "refusals", "stop"), [("evidence", 1, 0.25), ("aimd", 1, 9.0), ("fixed", 1, 0.25)])
def test_under_no_rule_a_timer_is_armed_while_nothing_is_due(limit: LimitName, refusals: int, stop: float) -> None:
    deadlines: list[float] = []

    async def main() -> None:
        async def note() -> None:
            await trio.testing.wait_all_tasks_blocked()
            deadlines.append(trio.lowlevel.current_statistics().seconds_to_next_deadline)

        async with make(1, RequestAdmissionConfig(limit=limit)) as controller:
            await note()
            lease = lease_of(controller)
            async with waiting(controller, 5) as callers:
                await note()
                controller.release(lease, SUCCESS)
                for caller in callers[:refusals]:
                    await note()
                    assert caller.lease is not None
                    controller.release(caller.lease, rate_limited(9.0))
                await note()
                clock.jump(stop)
                await trio.testing.wait_all_tasks_blocked()
                trial = callers[refusals].lease
                assert trial is not None
                controller.release(trial, SUCCESS)
                await note()

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)
    assert deadlines == [float("inf")] * (2 + refusals) + [stop] + [float("inf")]


# Closing


async def test_leaving_refuses_waiters_with_shutdown() -> None:
    controller = make(cap=1)
    async with trio.open_nursery() as nursery:
        callers = [Caller(controller) for _ in range(3)]
        async with controller:
            lease = lease_of(controller)
            for caller in callers:
                nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            controller.release(lease, SUCCESS)
            await trio.testing.wait_all_tasks_blocked()
    served = [caller for caller in callers if caller.lease is not None]
    assert len(served) == 1
    for caller in callers:
        if caller not in served:
            assert caller.error is not None
            assert caller.error.decision.reason == "shutdown"
    assert refusal_of(controller).reason == "shutdown"
    with pytest.raises(RequestAdmissionError, match=r"^no request lease for openai/gpt/chat: shutdown$"):
        await controller.acquire_async(item())
    assert served[0].lease is not None
    assert controller.release(served[0].lease, RATE_LIMITED).released
    assert controller.leak_report() == ()
    assert repr(controller) == "<AdaptiveRequestAdmissionController closed, 0 leases, 0 waiting>"


async def test_leaving_with_leases_held_names_them_and_their_holders(caplog: pytest.LogCaptureFixture) -> None:
    async def forgetful_worker() -> None:
        context = RequestEventContext(CORRELATION, "execution-1", "attempt-7")
        await controller.acquire_async(attrs.evolve(item(), event_context=context))

    controller = make()
    with caplog.at_level(logging.WARNING, logger="trio_sched.request"):
        async with controller, trio.open_nursery() as nursery:
            nursery.start_soon(forgetful_worker)
    (leak,) = controller.leak_report()
    assert str(leak).startswith("lease 1 on openai/gpt/chat held by task ")
    assert str(leak).endswith("forgetful_worker, task execution execution-1, attempt attempt-7")
    assert leak.captured_correlation == CORRELATION
    assert caplog.messages == [f"Request admission was left with 1 leases held: {leak}"]


async def test_a_clean_end_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="trio_sched.request"):
        async with make() as controller:
            assert repr(controller) == "<AdaptiveRequestAdmissionController open, 0 leases, 0 waiting>"
            controller.release(await controller.acquire_async(item()), SUCCESS)
    assert caplog.messages == []


async def test_an_error_of_the_block_leaves_as_itself() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match=r"^mine$") as caught:
        async with make():
            raise error
    assert caught.value is error
    assert error.__cause__ is None


async def test_a_cancelled_block_is_left_cleanly() -> None:
    controller = make()
    with trio.CancelScope() as scope:
        async with controller:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert refusal_of(controller).reason == "shutdown"


async def test_an_error_of_a_cancelled_block_is_not_lost_to_the_cancellation() -> None:
    async def fail() -> None:
        async with make():
            scope.cancel()
            raise ValueError("mine")

    with trio.CancelScope() as scope, pytest.raises(ValueError, match=r"^mine$"):
        await fail()
    assert not scope.cancelled_caught


async def test_verdicts_that_were_not_judged_yet_are_judged_on_leaving() -> None:
    sink = OnlyKinds("request_rate_limited")
    async with make(cap=4, sink=sink) as controller:
        leases = [lease_of(controller) for _ in range(2)]
        for lease in leases:
            controller.release(lease, RATE_LIMITED)
    assert pressure_of(controller).current_limit == 2
    assert pressure_of(controller).consecutive_rate_limits == 2
    assert len(sink.request_events) == 2


async def test_a_controller_is_opened_once() -> None:
    async with make() as controller:
        with pytest.raises(RequestAdmissionUsageError, match=r"^a controller is opened once; make another one$"):
            await controller.__aenter__()
    with pytest.raises(RequestAdmissionUsageError, match=r"^a controller is opened once; make another one$"):
        await controller.__aenter__()


async def test_closing_an_endpoint_ends_its_waits() -> None:
    async with make(cap=1) as controller:
        lease = lease_of(controller)
        async with waiting(controller, 2) as callers:
            controller.close_endpoint(GPT, "the account's quota is exhausted (insufficient_quota)")
            await trio.testing.wait_all_tasks_blocked()
            for caller in callers:
                assert caller.error is not None
                assert str(caller.error) == (
                    "no request lease for openai/gpt/chat: endpoint_closed "
                    "(the account's quota is exhausted (insufficient_quota))"
                )
        assert controller.release(lease, SUCCESS).released
        assert refusal_of(controller).reason == "endpoint_closed"


def test_closing_an_endpoint_that_was_never_registered_is_refused() -> None:
    controller = AdaptiveRequestAdmissionController()
    with pytest.raises(InvalidValueError, match=r"^provider_model must be a registered endpoint, got 'openai/gpt'$"):
        controller.close_endpoint(GPT, "why")


# Sinks


class Meddler(InMemoryAdmissionEventSink):
    """Calls back on the first event of a kind."""

    def __init__(self, kind: str, action: Callable[[], object]) -> None:
        super().__init__()
        self._kind = kind
        self._action: Callable[[], object] | None = action

    def emit_request_event(self, event: RequestAdmissionEvent) -> None:
        action = self._action
        if event.event_kind == self._kind and action is not None:
            self._action = None
            action()
        super().emit_request_event(event)


async def test_a_sink_that_releases_while_a_wait_is_announced_serves_that_wait() -> None:
    held: list[RequestAdmissionLease] = []
    sink = Meddler("request_queue_formed", lambda: controller.release(held.pop(), SUCCESS))
    controller = make(cap=1, sink=sink)
    async with controller:
        held.append(lease_of(controller))
        with trio.testing.assert_checkpoints():
            lease = await controller.acquire_async(item())
        assert lease.lease_id == 2
    sequence = [event.sequence for event in sink.request_events]
    assert sequence == list(range(1, len(sequence) + 1))


def interrupt() -> None:
    raise KeyboardInterrupt


async def ask_at_once(controller: AdaptiveRequestAdmissionController) -> None:
    controller.try_acquire(item())


async def ask_and_wait(controller: AdaptiveRequestAdmissionController) -> None:
    await controller.acquire_async(item())


@pytest.mark.parametrize("ask", [ask_at_once, ask_and_wait])
async def test_an_interrupt_in_a_sink_does_not_lose_the_lease(
    ask: Callable[[AdaptiveRequestAdmissionController], Awaitable[None]],
) -> None:
    sink = Meddler("request_lease_acquired", interrupt)
    controller = make(cap=1, sink=sink)
    async with controller:
        with pytest.raises(KeyboardInterrupt):
            await ask(controller)
        assert controller.leak_report() == ()
        lease_of(controller)


async def test_an_interrupt_in_a_sink_does_not_leave_a_waiter_behind() -> None:
    sink = Meddler("request_queue_formed", interrupt)
    controller = make(cap=1, sink=sink)
    async with controller:
        lease_of(controller)
        with pytest.raises(KeyboardInterrupt):
            await controller.acquire_async(item())
        assert pressure_of(controller).waiters == 0


async def test_an_interrupt_in_a_sink_after_the_grant_gives_the_lease_back() -> None:
    held: list[RequestAdmissionLease] = []

    def release_and_interrupt() -> None:
        controller.release(held.pop(), SUCCESS)
        raise KeyboardInterrupt

    controller = make(cap=1, sink=Meddler("request_queue_formed", release_and_interrupt))
    async with controller:
        held.append(lease_of(controller))
        with pytest.raises(KeyboardInterrupt):
            await controller.acquire_async(item())
        assert controller.leak_report() == ()


async def test_an_interrupt_in_a_sink_after_a_shutdown_leaves_nothing() -> None:
    def close_and_interrupt() -> None:
        controller.close_endpoint(GPT, "quota")
        raise KeyboardInterrupt

    controller = make(cap=1, sink=Meddler("request_queue_formed", close_and_interrupt))
    async with controller:
        lease = lease_of(controller)
        with pytest.raises(KeyboardInterrupt):
            await controller.acquire_async(item())
        controller.release(lease, SUCCESS)
        assert controller.leak_report() == ()
        assert pressure_of(controller).waiters == 0


async def test_events_carry_the_correlation_of_who_asked_not_of_who_released() -> None:
    sink = InMemoryAdmissionEventSink()

    async def asker() -> None:
        token = runtime_correlation.set(CORRELATION)
        lease = await controller.acquire_async(item())
        runtime_correlation.reset(token)
        controller.release(lease, SUCCESS)

    controller = make(cap=1, sink=sink)
    async with controller, trio.open_nursery() as nursery:
        lease = lease_of(controller)
        nursery.start_soon(asker)
        await trio.testing.wait_all_tasks_blocked()
        controller.release(lease, SUCCESS)
    mine = [event for event in sink.request_events if event.captured_correlation == CORRELATION]
    assert [event.event_kind for event in mine] == [
        "request_wait_started",
        "request_wait_completed",
        "request_lease_acquired",
        "request_lease_released",
    ]


def test_provider_calls_are_recorded_in_the_same_stream() -> None:
    sink = InMemoryAdmissionEventSink()
    controller = make(sink=sink)
    lease = lease_of(controller)
    controller.model_request_started(lease)
    assert sink.request_events[-1].event_kind == "model_request_started"
    controller.model_request_completed(lease, SUCCESS)
    started, completed = sink.request_events[-2:]
    assert (started.event_kind, started.reason_or_outcome) == ("model_request_started", None)
    assert (completed.event_kind, completed.reason_or_outcome) == ("model_request_completed", "success")
    assert completed.request_lease_id == lease.lease_id
    assert completed.sequence == started.sequence + 1


async def test_maxima_are_kept() -> None:
    async with make(cap=2, settings=config(max_limit_clamps={EMBEDDING: 1})) as controller:
        leases = [lease_of(controller) for _ in range(2)]
        async with waiting(controller, 3):
            pass
        for lease in leases:
            controller.release(lease, RATE_LIMITED)
        await trio.testing.wait_all_tasks_blocked()
        maxima = controller.pressure.maxima()
        assert maxima.in_flight_by_resource == {CHAT: 2}
        assert maxima.in_flight_by_endpoint == {GPT: 2}
        assert maxima.waiters_by_resource == {CHAT: 3}
        assert maxima.current_limit_by_resource == {CHAT: 2}
