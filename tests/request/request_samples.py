"""Values and small recorders that the tests of the request stage share."""

from __future__ import annotations

from collections.abc import Mapping

from trio_sched._events.records import RequestAdmissionEvent, RequestAdmissionEventKind
from trio_sched._events.sinks import InMemoryAdmissionEventSink, request_event_stream
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.core import RequestAdmissionCore
from trio_sched._request.leases import RequestAdmissionDenied, RequestAdmissionLease
from trio_sched._request.queue import RequestWaiter
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestEventContext,
    RequestGroupSpec,
    RequestPressureSnapshot,
    RequestReleaseOutcome,
)

GPT = ProviderModelKey("openai", "gpt")
CLAUDE = ProviderModelKey("anthropic", "claude")
CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
EMBEDDING = RequestResourceKey("openai", "gpt", RequestDomain.EMBEDDING)
OTHER = RequestResourceKey("anthropic", "claude", RequestDomain.CHAT)
UNKNOWN = RequestResourceKey("nobody", "nothing", RequestDomain.CHAT)

SUCCESS = RequestReleaseOutcome("success")
RATE_LIMITED = RequestReleaseOutcome("rate_limited")
FAILED = RequestReleaseOutcome("provider_failure", provider_status=500)


def item(
    resource: RequestResourceKey = CHAT,
    *,
    weight: float = 1.0,
    timeout: float | None = None,
    context: RequestEventContext | None = None,
) -> RequestAdmissionItem:
    return RequestAdmissionItem(resource, RequestGroupSpec(resource, weight), timeout, context)


def rate_limited(retry_after: float) -> RequestReleaseOutcome:
    return RequestReleaseOutcome("rate_limited", retry_after_seconds=retry_after)


def config(
    *,
    initial_limits: Mapping[RequestResourceKey, int] | None = None,
    max_limit_clamps: Mapping[RequestResourceKey, int] | None = None,
    cooldown: float = 1.0,
    factor: float = 0.5,
    successes: int = 2,
    ramp: float = 0.0,
    timeout: float | None = None,
) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(
        initial_limits=initial_limits or {},
        max_limit_clamps=max_limit_clamps or {},
        cooldown_seconds=cooldown,
        multiplicative_decrease_factor=factor,
        successes_until_increase=successes,
        startup_ramp_seconds=ramp,
        default_queue_wait_timeout_seconds=timeout,
    )


class OnlyKinds(InMemoryAdmissionEventSink):
    """Wants some kinds of events and no others."""

    def __init__(self, *kinds: RequestAdmissionEventKind) -> None:
        super().__init__()
        self._kinds = kinds

    def accepts_request_event(self, kind: str) -> bool:
        return kind in self._kinds


class Bench:
    """A core with one endpoint, driven by hand: what it leaves to do is done at once, as without a supervisor."""

    def __init__(
        self,
        settings: RequestAdmissionConfig | None = None,
        *,
        cap: int = 4,
        sink: InMemoryAdmissionEventSink | None = None,
    ) -> None:
        self.sink = InMemoryAdmissionEventSink() if sink is None else sink
        self.stream = request_event_stream(self.sink)
        self.core = RequestAdmissionCore(config() if settings is None else settings, self.stream, 1)
        self.resolver = RequestResourceResolver()
        self.register(cap, 0.0)
        self.take_events()

    def register(self, cap: int, now: float, alias: str = "a", endpoint: ProviderModelKey = GPT) -> None:
        merged = self.resolver.register(
            provider_name=endpoint.provider_name, model_id=endpoint.model_id, alias=alias, max_parallel_requests=cap
        )
        self.core.register(endpoint, merged, alias, now)

    def lease(self, now: float = 0.0, resource: RequestResourceKey = CHAT) -> RequestAdmissionLease:
        answer = self.core.try_lease(item(resource), now)
        assert isinstance(answer, RequestAdmissionLease), answer
        return answer

    def refusal(self, now: float = 0.0, resource: RequestResourceKey = CHAT) -> RequestAdmissionDenied:
        answer = self.core.try_lease(item(resource), now)
        assert not isinstance(answer, RequestAdmissionLease)
        return self.core.deny(item(resource), answer, now)

    def wait(self, now: float = 0.0, resource: RequestResourceKey = CHAT, weight: float = 1.0) -> RequestWaiter:
        wanted = item(resource, weight=weight)
        assert isinstance(self.core.try_lease(wanted, now), str)
        return self.core.enqueue(wanted, now)

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, now: float) -> None:
        result = self.core.release(lease, outcome, now)
        assert result.released
        self.apply_all(now)

    def apply_all(self, now: float) -> None:
        while self.core.updates:
            self.core.apply(self.core.updates.popleft(), now)

    def woken(self) -> list[RequestWaiter]:
        woken = list(self.core.woken)
        self.core.woken.clear()
        return woken

    def pressure(self, resource: RequestResourceKey = CHAT, now: float = 0.0) -> RequestPressureSnapshot:
        denied = self.core.deny(item(resource), "no_capacity", now)
        assert denied.snapshot is not None
        self.take_events()
        return denied.snapshot

    def take_events(self) -> list[RequestAdmissionEvent]:
        events = list(self.core.events.pending)
        self.core.events.pending.clear()
        return events

    def kinds(self) -> list[RequestAdmissionEventKind]:
        return [event.event_kind for event in self.take_events()]
