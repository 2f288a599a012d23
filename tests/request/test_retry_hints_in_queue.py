"""A hint belongs to the call that was refused: it lets others go first, stops nobody, and no permit idles for it."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import attrs
import pytest
import trio
from request_samples import CHAT, EMBEDDING, SUCCESS, Bench, config, item
from trio.testing import MockClock

import trio_sched as ts
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._executor import ModelRequest, ModelRequestExecutor
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease
from trio_sched._request.queue import RequestFairQueue, RequestWaiter
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome


def later(not_before: float, resource: RequestResourceKey = CHAT) -> RequestAdmissionItem:
    return attrs.evolve(item(resource), not_before=not_before)


def fixed(cap: int = 1) -> Bench:
    return Bench(RequestAdmissionConfig(limit="fixed"), cap=cap)


def wait(bench: Bench, wanted: RequestAdmissionItem, now: float = 0.0) -> RequestWaiter:
    assert isinstance(bench.core.try_lease(wanted, now), str)
    return bench.core.enqueue(wanted, now)


# The queue


def served(queue: RequestFairQueue) -> list[int]:
    order: list[int] = []
    while (selection := queue.select_next(lambda waiter, view: True)) is not None:
        waiter = queue.commit(selection)
        assert waiter is not None
        order.append(waiter.waiter_id)
    return order


def queue_of(*not_before: float | None) -> RequestFairQueue:
    queue = RequestFairQueue()
    queue.advance(0.0)
    queue.enqueue(
        RequestWaiter(number, item() if until is None else later(until), 0.0)
        for number, until in enumerate(not_before, 1)
    )
    return queue


def test_deferred_waiters_go_after_all_others_and_the_earliest_of_them_first() -> None:
    assert served(queue_of(9.0, None, 5.0, None)) == [2, 4, 3, 1]


def test_a_time_that_has_passed_defers_nobody() -> None:
    assert served(queue_of(0.0, None, -1.0)) == [1, 2, 3]


def test_whose_time_has_passed_has_the_place_of_its_age() -> None:
    queue = queue_of(None, 9.0, None, 5.0, None)
    queue.advance(5.0)
    assert served(queue) == [1, 3, 4, 5, 2]
    queue = queue_of(None, 9.0, None, 5.0, None)
    queue.advance(9.0)
    assert served(queue) == [1, 2, 3, 4, 5]


def test_waiters_that_leave_leave_the_others_their_order() -> None:
    queue = queue_of(9.0, 5.0, 7.0, 5.0, None)
    assert queue.remove(2) is not None
    queue.advance(6.0)
    assert queue.remove(4) is not None
    assert queue.remove(4) is None
    assert [waiter.waiter_id for waiter in queue.waiters(CHAT.provider_model_key)] == [5, 1, 3]
    assert queue.queued_in(CHAT) == 3
    assert queue.view().queued_by_group == {CHAT: 3}
    assert served(queue) == [5, 3, 1]
    queue.advance(math.inf)
    assert queue.view().queued_total == 0


def test_a_line_of_deferred_waiters_alone_competes_with_other_lines() -> None:
    queue = RequestFairQueue()
    queue.advance(0.0)
    queue.enqueue([RequestWaiter(1, later(9.0), 0.0), RequestWaiter(2, item(EMBEDDING), 1.0)])
    assert served(queue) == [1, 2]


# The core


def test_no_permit_idles_for_a_hint() -> None:
    bench = fixed(cap=2)
    assert isinstance(bench.core.try_lease(later(100.0), 0.0), RequestAdmissionLease)
    assert isinstance(bench.core.try_lease(later(100.0), 0.0), RequestAdmissionLease)


def test_a_call_that_comes_back_early_lets_newcomers_go_first() -> None:
    bench = fixed()
    lease = bench.lease()
    early, newcomer = wait(bench, later(100.0)), wait(bench, item())
    bench.release(lease, SUCCESS, 1.0)
    assert bench.woken() == [newcomer]
    assert isinstance(newcomer.decision, RequestAdmissionLease)
    bench.release(newcomer.decision, SUCCESS, 2.0)
    assert bench.woken() == [early]


def test_a_call_whose_hint_is_over_is_an_ordinary_one() -> None:
    bench = fixed()
    lease = bench.lease()
    early, newcomer = wait(bench, later(5.0)), wait(bench, item())
    bench.release(lease, SUCCESS, 5.0)
    assert bench.woken() == [early]
    assert newcomer.decision is None


def test_a_denial_names_the_hint_and_its_time() -> None:
    bench = fixed()
    bench.lease()
    wanted = later(7.0)
    assert bench.core.try_lease(wanted, 4.0) == "retry_hint"
    denied = bench.core.deny(wanted, "retry_hint", 4.0)
    assert (denied.reason, denied.available_after_monotonic, denied.retry_after_seconds) == ("retry_hint", 7.0, 3.0)
    assert bench.core.try_lease(wanted, 7.0) == "no_capacity"
    assert bench.core.try_lease(later(7.0), 4.0) == "retry_hint"


def test_the_wait_of_such_a_call_says_why() -> None:
    bench = fixed()
    bench.lease()
    bench.take_events()
    wait(bench, later(7.0))
    wait(bench, item())
    started = [event for event in bench.take_events() if event.event_kind == "request_wait_started"]
    assert [event.reason_or_outcome for event in started] == ["retry_hint", None]


def test_under_aimd_a_hint_is_over_when_the_cooldown_is() -> None:
    bench = Bench(config(), cap=1)
    bench.release(bench.lease(), RequestReleaseOutcome("rate_limited", 5.0), 0.0)
    early, newcomer = wait(bench, later(5.0)), wait(bench, item())
    assert bench.core.try_lease(later(5.0), 1.0) == "cooldown"
    bench.core.advance(5.0)
    assert bench.woken() == [early]
    assert newcomer.decision is None


@pytest.mark.parametrize("not_before", [math.nan, math.inf])
def test_a_time_that_is_none_is_refused(not_before: float) -> None:
    with pytest.raises(InvalidValueError, match=r"^RequestAdmissionItem\.not_before must be None or a finite number"):
        later(not_before)
    with pytest.raises(InvalidTypeError, match=r"^RequestAdmissionItem\.not_before"):
        attrs.evolve(item(), not_before=cast("Any", "soon"))


# Blocks


MODEL = ts.Model("openai", "gpt", max_parallel_requests=1, limit="fixed")


class RefusedError(Exception):
    status_code: Final = 429
    headers: Final[Mapping[str, str]] = MappingProxyType({"retry-after": "60"})


class Provider:
    """Refuses the calls named in `refuses` once; each call takes a second. order: who was served, and when."""

    def __init__(self, *refuses: str) -> None:
        self.refuses = set(refuses)
        self.order: list[tuple[str, float]] = []

    async def call(self, name: str) -> None:
        await trio.sleep(1.0)
        if name in self.refuses:
            self.refuses.remove(name)
            raise RefusedError
        self.order.append((name, trio.current_time()))


async def test_the_next_block_of_the_task_is_the_refused_calls_next_attempt(autojump_clock: MockClock) -> None:
    provider = Provider("a")

    async def ask(admission: ts.RequestAdmission, name: str) -> None:
        for _ in range(2):
            try:
                async with admission.request(MODEL):
                    await provider.call(name)
                return
            except RefusedError:
                continue

    async with ts.open_admission(MODEL) as admission, trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(ask, admission, name)
            await trio.testing.wait_all_tasks_blocked()
    # `a` was refused first, let both others go, and then did not wait for the rest of its minute. As the only call that
    # was out, it stopped everything for a quarter of a second.
    assert sorted(provider.order) == [("a", 4.25), ("b", 2.25), ("c", 3.25)]


async def test_a_child_task_does_not_inherit_the_refusal(autojump_clock: MockClock) -> None:
    async with ts.open_admission(MODEL) as admission:
        refused = admission.request(MODEL)
        with pytest.raises(RefusedError):
            async with refused:
                raise RefusedError
        assert refused.not_before == 60.0
        seen: list[float | None] = []

        async def child() -> None:
            async with admission.request(MODEL) as lease:
                seen.append(lease.item.not_before)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        async with admission.request(MODEL) as lease:
            seen.append(lease.item.not_before)
        async with admission.request(MODEL) as lease:
            seen.append(lease.item.not_before)
        assert seen == [None, 60.0, None]


async def test_a_child_that_lives_on_does_not_keep_a_refused_task_alive(autojump_clock: MockClock) -> None:
    ended: list[weakref.ref[trio.lowlevel.Task]] = []
    async with ts.open_admission(MODEL) as admission, trio.open_nursery() as children:

        async def parent() -> None:
            ended.append(weakref.ref(trio.lowlevel.current_task()))
            with pytest.raises(RefusedError):
                async with admission.request(MODEL):
                    raise RefusedError
            children.start_soon(trio.sleep_forever)

        async with trio.open_nursery() as parents:
            parents.start_soon(parent)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [each() for each in ended] == [None]
        children.cancel_scope.cancel()


async def test_after_names_the_previous_attempt_by_hand(autojump_clock: MockClock) -> None:
    async with ts.open_admission(MODEL) as admission:
        refused = admission.request(MODEL)

        async def fail() -> None:
            with pytest.raises(RefusedError):
                async with refused:
                    raise RefusedError

        async def again() -> None:
            async with admission.request(MODEL, after=refused) as lease:
                assert lease.item.not_before == 60.0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
        answered = admission.request(MODEL)
        async with answered:
            pass
        async with admission.request(MODEL, after=answered) as lease:
            assert lease.item.not_before is None


async def test_after_an_answered_attempt_the_refusal_of_another_call_of_the_task_does_not_count(
    autojump_clock: MockClock,
) -> None:
    async with ts.open_admission(MODEL) as admission:
        answered = admission.request(MODEL)
        async with answered:
            pass
        with pytest.raises(RefusedError):
            async with admission.request(MODEL):
                raise RefusedError
        async with admission.request(MODEL, after=answered) as lease:
            assert lease.item.not_before is None


async def test_after_counts_for_the_resource_that_refused(autojump_clock: MockClock) -> None:
    other = ts.Model("openai", "other", limit="fixed")
    async with ts.open_admission(MODEL, other) as admission:
        refused = admission.request(MODEL)
        with pytest.raises(RefusedError):
            async with refused:
                raise RefusedError
        async with admission.request(other, after=refused) as lease:
            assert lease.item.not_before is None
        async with admission.request(MODEL, domain="embedding", after=refused) as lease:
            assert lease.item.not_before is None
        async with admission.request(MODEL, after=refused) as lease:
            assert lease.item.not_before == 60.0
            with pytest.raises(InvalidTypeError, match=r"^after of admission\.request must be a block"):
                admission.request(MODEL, after=cast("Any", lease))


async def test_another_resource_or_an_answer_in_between_ends_it(autojump_clock: MockClock) -> None:
    other = ts.Model("openai", "other", limit="fixed")
    async with ts.open_admission(MODEL, other) as admission:
        with pytest.raises(RefusedError):
            async with admission.request(MODEL):
                raise RefusedError
        async with admission.request(other) as lease:
            assert lease.item.not_before is None
        async with admission.request(MODEL) as lease:
            assert lease.item.not_before is None


async def test_the_executor_passes_the_hint_of_its_own_attempts_only(autojump_clock: MockClock) -> None:
    seen: list[float | None] = []
    steps: list[Exception | None] = [RefusedError(), None, None]

    class Listening(AdaptiveRequestAdmissionController):
        async def acquire_async(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
            seen.append(item.not_before)
            return await super().acquire_async(item)

    async def call() -> str:
        await trio.lowlevel.checkpoint()
        step = steps.pop(0)
        if step is not None:
            raise step
        return "answer"

    resource = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
    async with Listening() as controller:
        controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=4)
        executor = ModelRequestExecutor(controller)
        assert await executor.execute(ModelRequest(resource, call)) == "answer"
        assert await executor.execute(ModelRequest(resource, call)) == "answer"
    assert seen == [None, 60.0, None]


async def test_a_waiting_call_does_not_cost_an_attempt(autojump_clock: MockClock) -> None:
    """`try_acquire` refuses what comes back early; `acquire_async` waits inside admission."""
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig(limit="fixed"))
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=1)
    async with controller:
        lease = controller.try_acquire(item())
        assert isinstance(lease, RequestAdmissionLease)
        denied = controller.try_acquire(later(60.0))
        assert isinstance(denied, RequestAdmissionDenied)
        assert (denied.reason, denied.retry_after_seconds) == ("retry_hint", 60.0)

        async def give_back() -> None:
            await trio.sleep(2.0)
            controller.release(lease, SUCCESS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_back)
            early = await controller.acquire_async(later(60.0))
        assert trio.current_time() == 2.0
        controller.release(early, SUCCESS)
