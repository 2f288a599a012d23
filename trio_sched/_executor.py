"""The model-call boundary: one outbound attempt, one lease, released with what became of the attempt.

    admitted ──> model_request_started ──> the call ──> judged ──> model_request_completed ──> released
                                                                                                  │
              backoff, outside any lease  <── whatever is not shown to be the request's fault  <──┘

*Release.* Between the grant and the release there is no way out that skips the release, cancellation and Ctrl-C
included, and no checkpoint between the end of the call and the release. What the caller sees is what the call raised.

*Whose failure.* Each attempt is admitted anew, so it queues fairly behind others and obeys the limit of that moment. A
refusal by the provider's pace never counts: the call asks again at once, with the time that the provider named, and
admission lets everybody else go first until then. A failure without an answer may be the endpoint's, so it counts
against the request only if another call was answered between its grant and the next one, and the endpoint did not stop
answering meanwhile. Where no other call can show that, because there is none or all have failed, the last call that was
answered is sent again, under the domain `healthcheck`. After `max_attempts` failures that count, the caller gets the
very exception of the last one, so `except openai.InternalServerError` works. But a server that shuts down gracefully
answers what it has while it refuses what is new. So at one of the later failures a call has to be answered already that
was granted after the first one.

*Pauses.* Between failures the pause is drawn from the whole range up to a bound that doubles (full jitter), but is
never shorter than the provider's hint. While failures do not count, the bound goes on doubling, so that in the end the
pause is longer than the calls of others take. An endpoint that does not answer lets one call go at a time, see
`_request/endpoint.py`; a call that failed there lets others go first. An admission that was refused (timeout, shutdown,
closed endpoint) is not repeated here.

*Closed endpoints.* A key, model or quota that is refused twice closes the endpoint for everybody. The caller gets
`QuotaExhaustedError`, or `RequestAdmissionError`, with the provider's own error as its cause.

*Threads.* A synchronous SDK is called through `in_thread`. Its thread cannot be stopped, so cancellation and the
attempt timeout wait for it to end, and the lease is held until then: a call that is still out is still in flight. The
SDK's own timeout bounds that; a function of one's own may poll `trio.from_thread.check_cancelled()`.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._answers import is_open_stream
from trio_sched._classify import ErrorVerdict, judge_exception
from trio_sched._errors import InvalidTypeError, TrioSchedError
from trio_sched._request.attempt import AdmittedAttempt
from trio_sched._request.endpoint import Answers
from trio_sched._request.leases import RequestAdmissionError, RequestAdmissionLease
from trio_sched._request.protocol import ModelCallAdmission, RequestAdmissionController
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey, runtime_correlation
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestEventContext,
    RequestGroupSpec,
    RequestReleaseOutcome,
)
from trio_sched._retry_hints import DEFAULT_HINT_CAP_SECONDS
from trio_sched._util import Blocking, doubled, in_threads

__all__ = [
    "ModelRequest",
    "ModelRequestExecutor",
    "ModelTimeoutError",
    "OpenStreamError",
    "QuotaExhaustedError",
    "RequestRetryConfig",
    "blame_endpoint",
    "blamed_endpoint",
    "settled_after",
]


P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("trio_sched.request")

_SUCCESS: Final = RequestReleaseOutcome("success")
_UNJUDGED: Final = RequestReleaseOutcome("unexpected_exception")
_MAX_THREADS: Final = 256
_LONGEST_PAUSE: Final = 600.0
"""Seconds: the bound of the pauses after failures that do not count against their request."""
_YIELDS_SECONDS: Final = 60.0
"""For how long a call that failed at an endpoint which does not answer lets others go first."""
_REFUSALS_WITHOUT_PAUSE: Final = 5
"""Refusals of one call after which it pauses outside admission too: a fixed limit never stops it."""
_SETTLED_BY_HEALTHCHECK: Final = 3
"""Requests per endpoint that fail for good on the evidence of health checks alone."""
_SETTLED: Final = "_trio_sched_settled_after"
_BLAMED: Final = "_trio_sched_blamed_endpoint"


class QuotaExhaustedError(TrioSchedError):
    """An endpoint refuses for good: out of credit, or over a spending limit. No further request is sent to it.

    Attributes: `endpoint`, `code` (what the provider said), `cause` (the exception of the call).
    """

    def __init__(self, endpoint: ProviderModelKey, code: str, cause: BaseException) -> None:
        super().__init__(endpoint, code, cause)
        self.endpoint = endpoint
        self.code = code
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"the quota of {self.endpoint} is used up ({self.code}), so no further request is sent to it; "
            "add credit or raise the limit at the provider, then run again"
        )


class ModelTimeoutError(TrioSchedError, TimeoutError):
    """A call was not answered in time, without any wait for its lease. Attributes: `endpoint`, `seconds`, `setting`."""

    def __init__(self, endpoint: ProviderModelKey, seconds: float, setting: str = "Model(timeout=...)") -> None:
        super().__init__(endpoint, seconds, setting)
        self.endpoint = endpoint
        self.seconds = seconds
        self.setting = setting

    def __str__(self) -> str:
        what = "send the next piece of a stream" if self.setting.startswith("idle") else "answer a call"
        return f"{self.endpoint} did not {what} within {self.seconds:g} s; allow more with {self.setting}"


class OpenStreamError(TrioSchedError, TypeError):
    """A call returned a stream that is still open, although its lease ends with it. Attribute: `kind` (its type)."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"the function given to model.call returned an open stream ({self.kind}), and the lease ends with the "
            "call; read it in a block: `async with model.request() as request:`, then `stream = await "
            "request.call(...)` and `async for piece in request.pieces(stream):`"
        )


def settled_after(error: BaseException) -> int | None:
    """After how many attempts the executor let `error` go, as the request's own failure; None if it did not."""
    attempts: object = getattr(error, _SETTLED, None)
    return attempts if isinstance(attempts, int) else None


def blame_endpoint(error: BaseException, endpoint: ProviderModelKey, when_asked: Answers) -> None:
    """Note that `error` may be the fault of `endpoint`, and what that had answered when the attempt asked to go out."""
    setattr(error, _BLAMED, (endpoint, when_asked))


def blamed_endpoint(error: BaseException) -> tuple[ProviderModelKey, Answers] | None:
    """What `blame_endpoint` noted."""
    found: object = getattr(error, _BLAMED, None)
    return cast("tuple[ProviderModelKey, Answers]", found) if isinstance(found, tuple) else None


@attrs.frozen
class RequestRetryConfig:
    """How often and when a model call is attempted.

    max_attempts: failures of one call that count against it; refusals by the provider's pace never do, nor does what
    may be the endpoint's failure. first_backoff_seconds, max_backoff_seconds: the bound of the jittered pause after the
    first failure, doubling up to the maximum. max_retry_hint_seconds: the longest wait that a provider may ask for; a
    longer one is cut to it.
    """

    max_attempts: int = attrs.field(default=5, validator=check.positive_int)
    first_backoff_seconds: float = attrs.field(default=0.5, validator=check.positive_finite)
    max_backoff_seconds: float = attrs.field(default=8.0, validator=check.positive_finite)
    max_retry_hint_seconds: float = attrs.field(default=DEFAULT_HINT_CAP_SECONDS, validator=check.positive_finite)

    def backoff_bound(self, failures: int) -> float:
        """The longest pause after the given number of failures, from 1."""
        return doubled(self.first_backoff_seconds, self.max_backoff_seconds, failures=failures)


def _is_call(instance: object, attribute: attrs.Attribute[Callable[[], Awaitable[Any]]], value: object) -> None:
    if not callable(value):
        raise InvalidTypeError("ModelRequest.call", value, "a function that makes one outbound attempt")


def _is_resource(instance: object, attribute: attrs.Attribute[RequestResourceKey], value: object) -> None:
    if not isinstance(value, RequestResourceKey):
        raise InvalidTypeError("ModelRequest.resource", value, "a RequestResourceKey")


@attrs.frozen
class ModelRequest(Generic[T]):
    """One call of a model: where to, and how to make one outbound attempt at it.

    resource: the endpoint and request domain. call: an async function of no arguments; it makes one attempt each time
    it is called, and a streamed answer is read to its end within it. weight: share in the fair order among waiting
    requests. queue_wait_timeout_seconds: longest wait for a lease, None takes admission's default.
    attempt_timeout_seconds: longest time for one attempt once admitted, None for no limit of ours; an attempt that
    exceeds it raises `ModelTimeoutError`.
    """

    resource: RequestResourceKey = attrs.field(validator=_is_resource)
    call: Callable[[], Awaitable[T]] = attrs.field(validator=_is_call)
    weight: float = attrs.field(default=1.0, kw_only=True, validator=check.positive_finite)
    queue_wait_timeout_seconds: float | None = attrs.field(
        default=None, kw_only=True, validator=check.optional_non_negative_finite
    )
    attempt_timeout_seconds: float | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(check.positive_finite)
    )

    @property
    def domain(self) -> RequestDomain:
        """The request domain within the endpoint."""
        return self.resource.domain


class _Attempt(AdmittedAttempt):
    """The block of one attempt, released with the outcome that the executor found."""

    __slots__ = ("answers", "lease_id", "outcome", "verdict")

    def __init__(self, admission: RequestAdmissionController, item: RequestAdmissionItem) -> None:
        super().__init__(admission, item, retries=False)
        self.answers = Answers()
        self.lease_id = 0
        self.outcome = _UNJUDGED
        self.verdict: ErrorVerdict | None = None

    def _outcome_of(self, exc: BaseException | None, lease: RequestAdmissionLease) -> RequestReleaseOutcome:
        return self.outcome


class _Failures:
    """Those of one call: which of them count against it. made: attempts in all."""

    __slots__ = (
        "_are_shown",
        "_failed",
        "_first",
        "_open",
        "_refused",
        "_retry",
        "_rng",
        "by_healthcheck",
        "counted",
        "made",
    )

    def __init__(self, retry: RequestRetryConfig, rng: random.Random) -> None:
        self._retry = retry
        self._rng = rng
        self._failed = 0
        self._refused = 0
        # The lease of the first failure that may be the endpoint's, and for the latest one, while it is open whether it
        # counts, what the endpoint had answered at its grant.
        self._first: int | None = None
        self._open: Answers | None = None
        self._are_shown = retry.max_attempts == 1
        self.counted = 0
        self.by_healthcheck = 0
        self.made = 0

    @property
    def is_open(self) -> bool:
        """Whether it is still open if the latest failure, which may be the endpoint's, counts."""
        return self._open is not None

    def note(self, lease_id: int, at_grant: Answers, now: Answers, verdict: ErrorVerdict) -> None:
        """An attempt failed. at_grant, now: what the endpoint had answered when it was granted, and has by now."""
        self.made += 1
        self.count(at_grant, by_healthcheck=False)
        self._open = None
        blame = verdict.outcome.blame
        if verdict.outcome.kind == "rate_limited":
            self._refused += 1
        else:
            self._failed += 1
        if blame == "row":
            self.counted += 1
        elif blame in ("endpoint", "access"):
            self._open = at_grant
            if self._first is None:
                self._first = lease_id
            self._see(now)
            self.count(now, by_healthcheck=False)

    def count(self, answers: Answers, *, by_healthcheck: bool) -> None:
        """See whether the latest failure counts, now that the endpoint has answered so much."""
        at_grant = self._open
        if at_grant is None:
            return
        is_shown = by_healthcheck and answers.calls > at_grant.calls
        if is_shown or answers.answered_since(at_grant):
            self._open = None
            self.counted += 1
            self.by_healthcheck += by_healthcheck
            if by_healthcheck:
                self._see(answers)

    @property
    def are_its_own(self) -> bool:
        """Whether the failures are shown to be the call's own."""
        return self.counted >= self._retry.max_attempts and (self._are_shown or self._first is None)

    def _see(self, answers: Answers) -> None:
        """Note whether a call that was granted after the first failure was answered, when another one has failed."""
        self._are_shown = self._are_shown or (self._first is not None and answers.latest_lease > self._first)

    def pause(self, outcome: RequestReleaseOutcome) -> float:
        """Seconds to wait outside admission before the next attempt."""
        retry = self._retry
        if outcome.kind == "rate_limited":
            extra = self._refused - _REFUSALS_WITHOUT_PAUSE
            if extra < 1:
                return 0.0
            bound = retry.backoff_bound(extra)
        else:
            longest = retry.max_backoff_seconds if self._open is None else _LONGEST_PAUSE
            bound = doubled(retry.first_backoff_seconds, longest, failures=self._failed)
        return max(self._rng.uniform(0.0, bound), outcome.retry_after_seconds or 0.0)


@attrs.define(eq=False)
class _CallsOfEndpoint:
    """Calls under way at one endpoint. failing: those that failed, perhaps by the endpoint's fault."""

    under_way: int = 0
    failing: set[_Failures] = attrs.field(factory=set[_Failures])
    last_answered: ModelRequest[Any] | None = None
    settled_by_healthcheck: int = 0

    @property
    def all_failed(self) -> bool:
        """Whether no call under way can show that the endpoint answers, since none has been answered so far.

        Where more of them failed than health checks may settle, it looks like an outage, and is waited for like one.
        """
        return len(self.failing) == self.under_way <= _SETTLED_BY_HEALTHCHECK


class ModelRequestExecutor:
    """Makes model calls under request admission. Belongs to the Trio thread; any number of tasks may share it.

    rng: draws the pauses between attempts; give a seeded one for runs that repeat. blocking: where `in_thread` calls
    run. wall_now: wall time, only for retry hints that are dates. cut_short: the task executions that were cancelled
    while a call of theirs waited, for whoever wants to know and takes them out.
    """

    def __init__(
        self,
        admission: ModelCallAdmission,
        *,
        retry: RequestRetryConfig | None = None,
        rng: random.Random | None = None,
        blocking: Blocking | None = None,
        wall_now: Callable[[], float] = time.time,
    ) -> None:
        self._admission = admission
        self._retry = RequestRetryConfig() if retry is None else retry
        self._rng = random.Random() if rng is None else rng
        self._blocking = in_threads(_MAX_THREADS) if blocking is None else blocking
        self._wall_now = wall_now
        self._requests = itertools.count(1)
        self._calls: dict[ProviderModelKey, _CallsOfEndpoint] = {}
        self.cut_short: set[str] = set()

    @property
    def admission(self) -> ModelCallAdmission:
        """What admits its calls."""
        return self._admission

    @property
    def retry(self) -> RequestRetryConfig:
        """The retry configuration in force."""
        return self._retry

    async def execute_attempt(self, request: ModelRequest[T]) -> T:
        """Admit, call, judge and release exactly one outbound attempt.

        Raises what the call raised, `RequestAdmissionError` if it was not admitted, `QuotaExhaustedError` for an
        endpoint that refuses for good.
        """
        return await self._run(request, self._new_attempt(request, next(self._requests), 1))

    async def execute(self, request: ModelRequest[T]) -> T:
        """Attempt until it is answered, or shown that it never will be. Raises as one attempt does."""
        endpoint = request.resource.provider_model_key
        calls = self._calls.get(endpoint)
        if calls is None:
            calls = self._calls[endpoint] = _CallsOfEndpoint()
        failures = _Failures(self._retry, self._rng)
        calls.under_way += 1
        try:
            answer = await self._execute(request, endpoint, calls, failures)
            calls.last_answered = request
            return answer
        finally:
            calls.under_way -= 1
            calls.failing.discard(failures)

    async def _execute(
        self, request: ModelRequest[T], endpoint: ProviderModelKey, calls: _CallsOfEndpoint, failures: _Failures
    ) -> T:
        number = next(self._requests)
        not_before: float | None = None
        error: Exception | None = None
        exhausted: str | None = None
        for made in itertools.count(1):
            attempt = self._new_attempt(request, number, made, not_before)
            try:
                return await self._run(request, attempt)
            except Exception as exc:
                if attempt.verdict is None:
                    # It was not admitted, or admission itself failed, with a cause of its own.
                    if error is None or not isinstance(exc, RequestAdmissionError):
                        raise
                    if exhausted is not None:
                        raise QuotaExhaustedError(endpoint, exhausted, error) from error
                    raise exc from error
                error = exc
            except trio.Cancelled:
                if not attempt.lease_id:
                    self._note_cut_short()
                raise
            verdict = attempt.verdict
            failures.note(attempt.lease_id, attempt.answers, self._admission.answered(endpoint), verdict)
            if not verdict.retryable and verdict.exhausted is None:
                raise error
            not_before, exhausted = attempt.not_before, verdict.exhausted
            try:
                if await self._wait_after(error, endpoint, calls, failures, verdict.outcome):
                    not_before = trio.current_time() + _YIELDS_SECONDS
            except trio.Cancelled:
                self._note_cut_short()
                raise
        raise AssertionError("unreachable")

    async def _wait_after(
        self,
        error: Exception,
        endpoint: ProviderModelKey,
        calls: _CallsOfEndpoint,
        failures: _Failures,
        outcome: RequestReleaseOutcome,
    ) -> bool:
        """Wait, outside any lease, until the next attempt may be asked for, unless `error` is the request's own.

        Whether its endpoint does not answer, so that the next attempt lets others go first. Raises `error`.
        """
        is_endpoints = outcome.blame in ("endpoint", "access")
        if is_endpoints:
            calls.failing.add(failures)
            asks = self._nobody_waits(endpoint) if outcome.blame == "access" else calls.all_failed
            await self._find_evidence(endpoint, calls, failures, asks=asks)
        self._settle(error, endpoint, calls, failures)
        if is_endpoints and self._is_not_answering(endpoint):
            return True
        pause = failures.pause(outcome)
        if pause:
            await trio.sleep(pause)
            failures.count(self._admission.answered(endpoint), by_healthcheck=False)
            self._settle(error, endpoint, calls, failures)
        return False

    def _note_cut_short(self) -> None:
        correlation = runtime_correlation.current()
        if correlation is not None and correlation.task_execution_id is not None:
            self.cut_short.add(correlation.task_execution_id)

    async def _find_evidence(
        self, endpoint: ProviderModelKey, calls: _CallsOfEndpoint, failures: _Failures, *, asks: bool
    ) -> None:
        """See whether the endpoint answers others. asks: whether to send it the last call that it answered again."""
        failures.count(self._admission.answered(endpoint), by_healthcheck=False)
        if asks and failures.is_open and calls.last_answered is not None:
            try:
                await self.check_model(calls.last_answered)
            except Exception as error:
                # The endpoint's state has learned of it, and the call itself failed with the error that counts.
                logger.info("The health check of %s failed: %s", endpoint, type(error).__qualname__)
            failures.count(self._admission.answered(endpoint), by_healthcheck=True)

    def _settle(
        self, error: Exception, endpoint: ProviderModelKey, calls: _CallsOfEndpoint, failures: _Failures
    ) -> None:
        """Raise `error` if it is shown to be the request's own."""
        if not failures.are_its_own:
            return
        if failures.by_healthcheck == failures.counted:
            calls.settled_by_healthcheck += 1
            if calls.settled_by_healthcheck > _SETTLED_BY_HEALTHCHECK:
                why = f"{calls.settled_by_healthcheck} requests failed while it answered nothing but health checks"
                self._admission.close_endpoint(endpoint, why, "endpoint_not_answering")
                return
        setattr(error, _SETTLED, failures.made)
        raise error

    def _nobody_waits(self, endpoint: ProviderModelKey) -> bool:
        seen = self._admission.pressure.snapshots()
        return not any(each.waiters for key, each in seen.items() if key.provider_model_key == endpoint)

    def _is_not_answering(self, endpoint: ProviderModelKey) -> bool:
        seen = self._admission.pressure.global_snapshot(endpoint.provider_name, endpoint.model_id)
        return seen is not None and seen.state != "answering"

    async def check_model(self, request: ModelRequest[T]) -> T:
        """`execute_attempt` under the `healthcheck` domain of the request's endpoint."""
        endpoint = request.resource
        resource = RequestResourceKey(endpoint.provider_name, endpoint.model_id, RequestDomain.HEALTHCHECK)
        return await self.execute_attempt(attrs.evolve(request, resource=resource))

    def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[[], Awaitable[T]]:
        """A `call` for `ModelRequest` out of a synchronous function: each attempt runs it in a worker thread."""

        async def call() -> T:
            return await self._blocking(function, *args, **kwargs)

        return call

    def _new_attempt(
        self, request: ModelRequest[T], number: int, made: int, not_before: float | None = None
    ) -> _Attempt:
        correlation = runtime_correlation.current()
        item = RequestAdmissionItem(
            request.resource,
            RequestGroupSpec(request.resource, request.weight),
            request.queue_wait_timeout_seconds,
            RequestEventContext(
                correlation, None if correlation is None else correlation.task_execution_id, f"{number}.{made}"
            ),
            not_before,
        )
        return _Attempt(self._admission, item)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, request: ModelRequest[T], attempt: _Attempt) -> T:
        async with attempt as lease:
            attempt.lease_id = lease.lease_id
            attempt.answers = self._admission.answered(request.resource.provider_model_key)
            try:
                self._admission.model_request_started(lease)
                response = await _call(request)
                attempt.outcome = _SUCCESS
                return response
            except BaseException as exc:
                self._judge(exc, attempt)
                raise
            finally:
                self._admission.model_request_completed(lease, attempt.outcome)

    def _judge(self, exc: BaseException, attempt: _Attempt) -> ErrorVerdict:
        verdict = judge_exception(exc, hint_cap_seconds=self._retry.max_retry_hint_seconds, wall_now=self._wall_now)
        attempt.verdict = verdict
        attempt.outcome = verdict.outcome
        return verdict


@trio.lowlevel.disable_ki_protection
async def _call(request: ModelRequest[T]) -> T:
    """Make the attempt. Checkpoints as the user's function does."""
    timeout = request.attempt_timeout_seconds
    if timeout is None:
        return _read(await _begin(request))
    with trio.move_on_after(timeout) as scope:
        return _read(await _begin(request))
    assert scope.cancelled_caught
    raise ModelTimeoutError(request.resource.provider_model_key, timeout)


def _begin(request: ModelRequest[T]) -> Awaitable[T]:
    made = cast("object", request.call())
    if not isinstance(made, Awaitable):
        _read(made)
        raise InvalidTypeError(
            "ModelRequest.call()",
            type(made),
            "an awaitable (make a call out of a synchronous function with ModelRequestExecutor.in_thread)",
        )
    return cast("Awaitable[T]", made)


def _read(answer: T) -> T:
    """The answer, unless it is a stream that nobody has read."""
    if is_open_stream(answer):
        raise OpenStreamError(type(answer).__qualname__)
    return answer
