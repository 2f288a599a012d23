"""The model-call boundary: one outbound attempt, one lease, released with what became of the attempt.

    admitted ──> model_request_started ──> the call ──> judged ──> model_request_completed ──> released
                                                                                                  │
              backoff, outside any lease  <── worth another attempt, and attempts are left  <─────┘

*Release.* Between the grant and the release there is no way out that skips the release, cancellation and Ctrl-C
included, and no checkpoint between the end of the call and the release. What the caller sees is what the call raised.

*Retries.* Each attempt is admitted anew, so it queues fairly behind others and obeys the limit of that moment. A rate
limited attempt asks again at once, with the time that the provider named. Admission lets everybody else go first until
then, so a pause of its own would only leave a permit idle. After any other passing failure the pause is drawn from the
whole range up to a bound that doubles (full jitter), but is never shorter than the provider's hint. An admission that
was refused (timeout, shutdown, closed endpoint) is not repeated here. After the last attempt the caller gets the very
exception of that attempt, so `except openai.RateLimitError` works.

*Used-up quota.* A refusal that will not pass closes the endpoint for everybody, and is raised as `QuotaExhaustedError`.

*Threads.* A synchronous SDK is called through `in_thread`. Its thread cannot be stopped, so cancellation and the
attempt timeout wait for it to end, and the lease is held until then: a call that is still out is still in flight. The
SDK's own timeout bounds that; a function of one's own may poll `trio.from_thread.check_cancelled()`.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

import attrs
import trio

from trio_sched import _validation as check
from trio_sched._classify import ErrorVerdict, judge_exception
from trio_sched._errors import InvalidTypeError, TrioSchedError
from trio_sched._events.correlation import runtime_correlation
from trio_sched._request.attempt import AdmittedAttempt
from trio_sched._request.protocol import ModelCallAdmission, RequestAdmissionController
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.request import (
    RequestAdmissionItem,
    RequestEventContext,
    RequestGroupSpec,
    RequestReleaseOutcome,
)
from trio_sched._retry_hints import DEFAULT_HINT_CAP_SECONDS
from trio_sched._util import Blocking, doubled, in_threads

__all__ = ["ModelRequest", "ModelRequestExecutor", "QuotaExhaustedError", "RequestRetryConfig"]


P = ParamSpec("P")
T = TypeVar("T")

_SUCCESS: Final = RequestReleaseOutcome("success")
_UNJUDGED: Final = RequestReleaseOutcome("unexpected_exception")
_MAX_THREADS: Final = 256


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


@attrs.frozen
class RequestRetryConfig:
    """How often and when a model call is attempted.

    max_attempts: outbound attempts in all, rate limited ones included. first_backoff_seconds, max_backoff_seconds: the
    bound of the jittered pause after the first failure, doubling up to the maximum. max_retry_hint_seconds: the longest
    wait that a provider may ask for; a longer one is cut to it.
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
    exceeds it raises `trio.TooSlowError` and may be repeated.
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

    __slots__ = ("outcome", "verdict")

    def __init__(self, admission: RequestAdmissionController, item: RequestAdmissionItem) -> None:
        super().__init__(admission, item, retries=False)
        self.outcome = _UNJUDGED
        self.verdict: ErrorVerdict | None = None

    def _outcome_of(self, exc: BaseException | None) -> RequestReleaseOutcome:
        return self.outcome


class ModelRequestExecutor:
    """Makes model calls under request admission. Belongs to the Trio thread; any number of tasks may share it.

    rng: draws the pauses between attempts; give a seeded one for runs that repeat. blocking: where `in_thread` calls
    run. wall_now: wall time, only for retry hints that are dates.
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
        """Attempt until it succeeds, cannot succeed, or has been attempted often enough. Raises as one attempt does."""
        retry = self._retry
        number = next(self._requests)
        made = failures = 0
        not_before: float | None = None
        while True:
            made += 1
            attempt = self._new_attempt(request, number, made, not_before)
            try:
                return await self._run(request, attempt)
            except Exception:
                verdict = attempt.verdict
                if verdict is None or not verdict.retryable or made >= retry.max_attempts:
                    raise
            not_before = attempt.not_before
            if verdict.outcome.kind != "rate_limited":
                failures += 1
                pause = self._rng.uniform(0.0, retry.backoff_bound(failures))
                await trio.sleep(max(pause, verdict.outcome.retry_after_seconds or 0.0))

    async def check_model(self, request: ModelRequest[T]) -> T:
        """`execute` the request under the `healthcheck` domain of its endpoint."""
        endpoint = request.resource
        resource = RequestResourceKey(endpoint.provider_name, endpoint.model_id, RequestDomain.HEALTHCHECK)
        return await self.execute(attrs.evolve(request, resource=resource))

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
            try:
                self._admission.model_request_started(lease)
                response = await _call(request)
                attempt.outcome = _SUCCESS
                return response
            except BaseException as exc:
                verdict = self._judge(exc, attempt)
                if verdict.exhausted is not None:
                    endpoint = request.resource.provider_model_key
                    self._admission.close_endpoint(endpoint, f"its quota is used up ({verdict.exhausted})")
                    if isinstance(exc, Exception):
                        raise QuotaExhaustedError(endpoint, verdict.exhausted, exc) from exc
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
        return await _begin(request)
    with trio.fail_after(timeout):
        return await _begin(request)


def _begin(request: ModelRequest[T]) -> Awaitable[T]:
    made = cast("object", request.call())
    if not isinstance(made, Awaitable):
        raise InvalidTypeError(
            "ModelRequest.call()",
            type(made),
            "an awaitable (make a call out of a synchronous function with ModelRequestExecutor.in_thread)",
        )
    return cast("Awaitable[T]", made)
