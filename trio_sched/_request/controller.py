"""Request admission for Trio programs: a thin shell of waiting and cancelling around the synchronous core.

Every method that changes the core has the supervisor carry out what that left to do. Asking checks for cancellation
first, acts without waiting, and ends with a shielded checkpoint, so that a lease that was booked is always returned.
`Cancelled` means that nothing happened.

Inside `async with`, a supervisor task puts into force what the limits' rules learn, and keeps their time. A controller
that was never opened spawns nothing: limits change where it is called, time passes when it is asked, and only waiting
is impossible. Its clock is
Trio's inside a run and `time.perf_counter` outside one; a controller is used in one or the other.

Leaving the block refuses whoever waits, with `shutdown`. Leases still held stay releasable; `leak_report` names them.
An error of the block leaves it as itself, not inside an exception group.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

import trio
from typing_extensions import Self

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError
from trio_sched._events.sinks import RequestAdmissionEventSink, subscribed_request_event_stream
from trio_sched._request.attempt import AdmittedAttempt, RequestAdmissionUsageError, refuse_nested_admission
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.endpoint import Answers, ClosedReason
from trio_sched._request.leases import (
    LeakedRequestLease,
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionLease,
    RequestDenialReason,
)
from trio_sched._request.limit import LimitChoice
from trio_sched._request.pressure import RequestPressure
from trio_sched._request.queue import RequestWaiter
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._request.supervisor import Parking, RequestSupervisor
from trio_sched._resources import ReleaseResult
from trio_sched._resources.identity import ProviderModelKey, RuntimeCorrelation, runtime_correlation
from trio_sched._resources.request import RequestAdmissionItem, RequestReleaseOutcome
from trio_sched._util import run_clock

__all__ = ["AdaptiveRequestAdmissionController"]

logger = logging.getLogger("trio_sched.request")

_generations: Final = itertools.count(1)
_ABANDONED: Final = RequestReleaseOutcome("local_cancelled")
_FINAL: Final[frozenset[RequestDenialReason]] = frozenset({"shutdown", "hard_policy_denial", "endpoint_closed"})
"""Refusals that no waiting changes."""


class AdaptiveRequestAdmissionController:
    """Leases for outbound model calls, under static caps and adaptive limits.

    All methods belong to the Trio thread, except `acquire_sync`. With a `resolver`, what it has registered is adopted;
    later registrations go through the controller.
    """

    def __init__(
        self,
        config: RequestAdmissionConfig | None = None,
        *,
        event_sink: RequestAdmissionEventSink | None = None,
        resolver: RequestResourceResolver | None = None,
    ) -> None:
        self._config = RequestAdmissionConfig() if config is None else config
        self._resolver = RequestResourceResolver() if resolver is None else resolver
        stream = subscribed_request_event_stream(event_sink)
        self._core = RequestAdmissionCore(self._config, stream, next(_generations))
        self._parking = Parking(self._abandon)
        self._supervisor = RequestSupervisor(self._core, stream, self._parking)
        self._carry_out = self._supervisor.carry_out
        ledger = self._core.ledger
        self._pressure = RequestPressure(ledger.endpoints, ledger.domains, self._core.queue.queued_in, run_clock)
        for endpoint, static_cap in self._resolver.static_caps().items():
            for alias in static_cap.aliases:
                self._core.register(endpoint, static_cap, alias, run_clock(), self._resolver.limit(endpoint))
        self._carry_out()

    def __repr__(self) -> str:
        state = "open" if self._supervisor.is_open else "closed" if self._supervisor.was_opened else "new"
        held, waiting = len(self._core.ledger.leases), self._core.queue.view().queued_total
        return f"<AdaptiveRequestAdmissionController {state}, {held} leases, {waiting} waiting>"

    # Opening and closing

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._supervisor.was_opened:
            raise RequestAdmissionUsageError("a controller is opened once; make another one")
        await self._supervisor.open()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._supervisor.close()
        finally:
            leaks = self.leak_report()
            if leaks:
                logger.warning(
                    "Request admission was left with %d leases held: %s", len(leaks), "; ".join(map(str, leaks))
                )

    # Endpoints

    @trio.lowlevel.enable_ki_protection
    def register(
        self,
        *,
        provider_name: str,
        model_id: str,
        alias: str,
        max_parallel_requests: int,
        limit: LimitChoice | None = None,
    ) -> None:
        """Make an endpoint known under `alias` with a cap, or replace that alias's cap; also while running.

        limit: the rule of the endpoint: `evidence`, `aimd`, `fixed`, or a function (effective_max, now) that returns a
        `RequestLimit`; None takes the configuration's. An endpoint has one rule, and keeps it. Raises
        `InvalidValueError` or `InvalidTypeError` for another one, or for one that cannot be made, and then changes
        nothing.
        """
        check.check_text("alias", alias)
        check.check_int("max_parallel_requests", max_parallel_requests, minimum=1)
        endpoint = self._resolver.canonical(provider_name, model_id)
        choice = self._config.limit if limit is None and endpoint not in self._core.ledger.endpoints else limit
        if choice is not None:
            # Before anything changes, under the cap that there will be.
            known = self._resolver.static_cap(endpoint)
            caps = {**({} if known is None else known.raw_caps), alias: max_parallel_requests}
            self._core.check_limit(endpoint, choice, min(caps.values()), run_clock())
        static_cap = self._resolver.register(
            provider_name=provider_name,
            model_id=model_id,
            alias=alias,
            max_parallel_requests=max_parallel_requests,
            limit=limit,
        )
        self._core.register(endpoint, static_cap, alias, run_clock(), limit)
        self._carry_out()

    @trio.lowlevel.enable_ki_protection
    def close_endpoint(
        self, provider_model: ProviderModelKey, reason: str, denies_with: ClosedReason = "endpoint_closed"
    ) -> None:
        """Admit nothing more at an endpoint, for good: whoever waits or comes is refused with `denies_with`."""
        if provider_model not in self._core.ledger.endpoints:
            raise InvalidValueError("provider_model", str(provider_model), "a registered endpoint")
        self._core.close_endpoint(provider_model, reason, run_clock(), denies_with)
        self._carry_out()

    def answered(self, provider_model: ProviderModelKey) -> Answers:
        """What an endpoint has answered so far."""
        endpoint = self._core.ledger.endpoints.get(provider_model)
        if endpoint is None:
            return Answers()
        health = endpoint.health
        return Answers(health.answers, health.answered, health.outages, health.state == "answering")

    @property
    def resolver(self) -> RequestResourceResolver:
        """Names and caps as registered; for reading."""
        return self._resolver

    @property
    def config(self) -> RequestAdmissionConfig:
        """The configuration in force."""
        return self._config

    # Leases

    @trio.lowlevel.enable_ki_protection
    def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """A lease if one is free and nobody waits for it, else a denial that says why."""
        now = run_clock()
        correlation = _correlation_of(item)
        answer = self._core.try_lease(item, now, _current_holder(), correlation)
        if isinstance(answer, RequestAdmissionLease):
            self._carry_out_or_abandon(answer)
            return answer
        denied = self._core.deny(item, answer, now, correlation)
        self._carry_out()
        return denied

    @trio.lowlevel.enable_ki_protection
    async def acquire_async(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease. Raises `RequestAdmissionError` where none will be given."""
        await trio.lowlevel.checkpoint_if_cancelled()
        refuse_nested_admission()
        now = trio.current_time()
        holder = trio.lowlevel.current_task().name
        correlation = _correlation_of(item)
        answer = self._core.try_lease(item, now, holder, correlation)
        if isinstance(answer, RequestAdmissionLease):
            self._carry_out_or_abandon(answer)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return answer
        timeout = item.queue_wait_timeout_seconds
        if timeout is None:
            timeout = self._config.default_queue_wait_timeout_seconds
        is_final = answer in _FINAL or self._core.is_closed(item.resource.provider_model_key)
        if is_final or timeout == 0:
            denied = self._core.deny(item, answer if is_final else "queue_timeout", now, correlation)
            self._carry_out()
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise RequestAdmissionError(denied)
        if not self._supervisor.is_open:
            raise RequestAdmissionUsageError(
                f"{item.resource} has no free capacity, and only an open controller can wait for it: "
                "use `async with controller:` around acquire_async, or call try_acquire"
            )
        deadline = math.inf if timeout is None else now + timeout
        return await self._wait(item, now, deadline, holder, correlation)

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease in a worker thread started by `trio.to_thread`; raises what `acquire_async` raises.

        The lease is released on the Trio thread: `trio.from_thread.run_sync(controller.release, lease, outcome)`.
        """
        return _wait_in_thread(self.acquire_async, item)

    @trio.lowlevel.enable_ki_protection
    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> ReleaseResult:
        """Give a lease back, with how its attempt ended. Never waits and never raises."""
        result = self._core.release(lease, outcome, run_clock())
        self._carry_out()
        return result

    def admit(self, item: RequestAdmissionItem) -> AdmittedAttempt:
        """`async with controller.admit(item) as lease:` admits one attempt, classifies how it ended, and releases."""
        return AdmittedAttempt(self, item)

    # Reading and recording

    @property
    def pressure(self) -> RequestPressure:
        """Read-only snapshots of limits, leases and waiters."""
        return self._pressure

    def leak_report(self) -> tuple[LeakedRequestLease, ...]:
        """The leases that are held now, and by whom. Empty when everything was given back."""
        return tuple(LeakedRequestLease.of(lease) for lease in self._core.ledger.leases.values())

    @trio.lowlevel.enable_ki_protection
    def model_request_started(self, lease: RequestAdmissionLease) -> None:
        """Record that the call admitted by `lease` goes out."""
        self._core.record_model_request("model_request_started", lease, None, run_clock())
        self._carry_out()

    @trio.lowlevel.enable_ki_protection
    def model_request_completed(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        """Record that the call admitted by `lease` is over."""
        self._core.record_model_request("model_request_completed", lease, outcome, run_clock())
        self._carry_out()

    # Parts

    async def _wait(
        self,
        item: RequestAdmissionItem,
        now: float,
        deadline: float,
        holder: str,
        correlation: RuntimeCorrelation | None,
    ) -> RequestAdmissionLease:
        waiter = self._core.enqueue(item, now, holder=holder, correlation=correlation)
        try:
            self._carry_out()
        except BaseException:
            self._forget(waiter)
            raise
        try:
            if deadline == math.inf:
                await self._sleep(waiter)
            else:
                with trio.move_on_at(deadline):
                    await self._sleep(waiter)
        except BaseException:
            self._core.record_withdrawal(waiter, "cancellation", trio.current_time())
            self._carry_out()
            raise
        decision = waiter.decision
        if decision is None:
            decision = self._core.record_withdrawal(waiter, "queue_timeout", trio.current_time())
            self._carry_out()
        if isinstance(decision, RequestAdmissionDenied):
            raise RequestAdmissionError(decision)
        return decision

    async def _sleep(self, waiter: RequestWaiter) -> None:
        if waiter.decision is None:
            await self._parking.park(waiter)
        else:
            # A sink released capacity while the wait was announced.
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _abandon(self, waiter: RequestWaiter) -> None:
        self._core.withdraw(waiter, trio.current_time())

    def _forget(self, waiter: RequestWaiter) -> None:
        if waiter.decision is None:
            self._core.withdraw(waiter, trio.current_time())
        elif isinstance(waiter.decision, RequestAdmissionLease):
            self.release(waiter.decision, _ABANDONED)

    def _carry_out_or_abandon(self, lease: RequestAdmissionLease) -> None:
        try:
            self._carry_out()
        except BaseException:
            self.release(lease, _ABANDONED)
            raise


def _current_holder() -> str | None:
    """The name of the current Trio task, if there is one."""
    try:
        return trio.lowlevel.current_task().name
    except RuntimeError:
        return None


def _correlation_of(item: RequestAdmissionItem) -> RuntimeCorrelation | None:
    """The execution an item belongs to: as captured in it, else the one at work here."""
    context = item.event_context
    if context is not None and context.captured_correlation is not None:
        return context.captured_correlation
    return runtime_correlation.current()


def _wait_in_thread(
    acquire: Callable[[RequestAdmissionItem], Awaitable[RequestAdmissionLease]], item: RequestAdmissionItem
) -> RequestAdmissionLease:
    """Have the Trio thread wait for a lease, on behalf of the worker thread this is called in."""
    if trio.lowlevel.in_trio_run():
        raise RequestAdmissionUsageError(
            "acquire_sync would block the Trio thread; await acquire_async there, or call it from a worker thread"
        )
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        raise RequestAdmissionUsageError(
            "acquire_sync works in threads started by trio.to_thread.run_sync, and this is none of them; "
            "call it there, or await acquire_async on the Trio thread"
        ) from None
    return trio.from_thread.run(acquire, item)
