"""Models as users name them, the endpoints that they stand for, and how a column calls them.

A `Model` is a declaration: which endpoint, which request domain, how many calls at once. It holds no connection and may
be shared by any number of columns and runs. Two models may name one endpoint, for instance one per domain; they share
the endpoint's static cap, which is the smallest that any of them asks for.

Inside a run a column's function gets a `ModelHandle` for each of its models. `await handle.call(function, ...)`
imitates no SDK. It takes any async function and its arguments, passes the call through the executor, which admits,
retries and releases, and returns what the function returned: once per outbound attempt, each under a lease of its own.
If the function belongs to the client of a known SDK, it is called on a copy of that client without retries of its own,
since a hidden retry would be an attempt that nobody admitted. Every answer is looked at while its attempt holds the
lease: one that is an error in truth, or that the model's judge calls one, ends the attempt as that error.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar, cast

import attrs

from trio_sched import _validation as check
from trio_sched._answers import AnswerJudge, check_judge, gives_objects, look_at_answer
from trio_sched._clients import RetryFreeClients
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._executor import ModelRequest, ModelRequestExecutor
from trio_sched._pipeline.streams import AdmittedRequest, admitted_request
from trio_sched._request.config import RequestAdmissionConfig, RequestAdmissionTuningConfig, check_limit
from trio_sched._request.limit import LimitChoice, limit_name
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey, runtime_correlation
from trio_sched._util import records_given

__all__ = ["Model", "ModelHandle", "alias_models", "model_resolver", "request_config", "retry_free_clients"]


def _is_limit(instance: object, attribute: attrs.Attribute[LimitChoice | None], value: object) -> None:
    if value is not None:
        check_limit("Model.limit", value)


def _is_judge(instance: Model, attribute: attrs.Attribute[AnswerJudge | None], value: object) -> None:
    check_judge(f"Model.judge of {instance.endpoint}", value)


@records_given
@attrs.frozen(eq=False)
class Model:
    """An endpoint to call.

    provider, model_id: canonical names, shown in events and reports. client: the SDK client whose methods `call` gets;
    its own hidden retries are switched off. max_parallel_requests: the most calls in flight at once, over all its
    domains. domain: `chat`, `embedding`, `image` or `healthcheck`.
    limit: how many calls may be in flight, up to that number: `evidence` (the default) learns it by counting what the
    provider accepts, `aimd` by additive increase and multiplicative decrease, `fixed` stays at the number; or a
    function (effective_max, now) that returns a `RequestLimit`. Models of one endpoint share one rule.
    timeout: seconds for one attempt, from its lease to its answer, without any wait for the lease; None for no limit.
    judge: a function of what a call returned, asked before the attempt ends. It returns None for an answer that is what
    it seems, otherwise what the attempt was in truth: a `RequestReleaseOutcome`, or an exception such as
    `RateLimited(retry_after=20)`. An answer that carries a provider's error, or cannot be read, is seen without it.
    given: names of what was passed, whatever its value; the rest are defaults.
    """

    provider: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)
    client: object | None = attrs.field(default=None, kw_only=True, repr=False)
    max_parallel_requests: int = attrs.field(default=64, kw_only=True, validator=check.positive_int)
    domain: RequestDomain = attrs.field(default=RequestDomain.CHAT, kw_only=True, converter=RequestDomain)
    limit: LimitChoice | None = attrs.field(default=None, kw_only=True, validator=_is_limit)
    timeout: float | None = attrs.field(default=600.0, kw_only=True, validator=check.optional_positive_finite)
    judge: AnswerJudge | None = attrs.field(default=None, kw_only=True, repr=False, validator=_is_judge)
    given: frozenset[str] = attrs.field(default=frozenset[str](), init=False, repr=False)

    def __str__(self) -> str:
        return str(self.resource)

    @property
    def endpoint(self) -> ProviderModelKey:
        """The endpoint, whose static cap all its domains share."""
        return ProviderModelKey(self.provider, self.model_id)

    @property
    def resource(self) -> RequestResourceKey:
        """The request domain of the endpoint that calls go to."""
        return RequestResourceKey(self.provider, self.model_id, self.domain)


def alias_models(models: Iterable[Model]) -> dict[Model, str]:
    """A name of its own for every model, so that the caps of two models of one endpoint are both kept."""
    aliases: dict[Model, str] = {}
    taken: set[str] = set()
    for model in models:
        if model not in aliases:
            name = str(model.endpoint)
            numbered = (f"{name}#{number}" for number in itertools.count(2))
            aliases[model] = next(alias for alias in itertools.chain([name], numbered) if alias not in taken)
            taken.add(aliases[model])
    return aliases


def model_resolver(aliases: Mapping[Model, str]) -> RequestResourceResolver:
    """A resolver that knows the endpoint of every model under its alias, with the cap and the rule that it asks for.

    Raises `InvalidValueError` for models of one endpoint that ask for different rules.
    """
    resolver = RequestResourceResolver()
    for model, alias in aliases.items():
        resolver.register(
            provider_name=model.provider,
            model_id=model.model_id,
            alias=alias,
            max_parallel_requests=model.max_parallel_requests,
            limit=model.limit,
        )
    return resolver


def request_config(
    models: Iterable[Model],
    tuning: RequestAdmissionTuningConfig | None,
    limit: LimitChoice | None = None,
    max_outage_seconds: float | None = None,
) -> RequestAdmissionConfig:
    """The configuration of request admission for `models`, from what a user gives.

    Raises `InvalidValueError` for the tuning of AIMD together with another rule, and for a limit that is no rule.
    """
    if tuning is None:
        if limit is None:
            return RequestAdmissionConfig(max_outage_seconds=max_outage_seconds)
        return RequestAdmissionConfig(limit=limit, max_outage_seconds=max_outage_seconds)
    if not isinstance(cast("object", tuning), RequestAdmissionTuningConfig):
        raise InvalidTypeError("tuning", tuning, "None or a RequestAdmissionTuningConfig")
    if limit is not None:
        check_limit("limit", limit)
    chosen: dict[str, LimitChoice | None] = {"limit": limit}
    for model in models:
        chosen[f"Model.limit of {model.endpoint}"] = model.limit
    for field, choice in chosen.items():
        if choice is not None and choice != "aimd":
            expected = "'aimd', or given without a RequestAdmissionTuningConfig, which has the parameters of AIMD alone"
            raise InvalidValueError(field, limit_name(choice), expected)
    return tuning.with_limits(max_outage_seconds=max_outage_seconds)


P = ParamSpec("P")
T = TypeVar("T")


class ModelHandle:
    """One model of one column in one run; the column's function gets it after the row.

    was_called: whether any call went through it.
    """

    __slots__ = ("_clients", "_executor", "_model", "was_called")

    def __init__(self, model: Model, executor: ModelRequestExecutor, clients: RetryFreeClients) -> None:
        self._model = model
        self._executor = executor
        self._clients = clients
        self.was_called: bool = False

    def __repr__(self) -> str:
        return f"<ModelHandle {self._model}>"

    @property
    def model_id(self) -> str:
        """The model's canonical id, as most SDKs want it."""
        return self._model.model_id

    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` under admission, and again if it fails in a way that may pass.

        Raises what the last attempt raised. An answer that raised nothing and is an error, or cannot be read, ends its
        attempt with `ProviderAnswerError`; the model's judge may say so of others.
        """
        self.was_called = True
        once = self._clients.redirect(function)
        due = gives_objects(function, args)

        def attempt() -> Awaitable[T]:
            made = once(*args, **kwargs)
            return self._looked_at(made, due=due) if isinstance(cast("object", made), Awaitable) else made

        return await self._executor.execute(
            ModelRequest(self._model.resource, attempt, attempt_timeout_seconds=self._model.timeout)
        )

    def request(
        self, *, timeout: float | None = None, idle_timeout: float | None = None
    ) -> AbstractAsyncContextManager[AdmittedRequest]:
        """A block for one attempt, inside which anything may be done, such as reading a stream with `pieces`.

        timeout: seconds for the block, from its lease on, the model's by default. idle_timeout: seconds for each piece
        of a stream, None for no limit. Raises `InvalidValueError` for a bad number of seconds.
        """
        self.was_called = True
        seconds = check.check_optional_seconds("timeout of model.request", timeout)
        idle = check.check_optional_seconds("idle_timeout of model.request", idle_timeout)
        return admitted_request(
            self._executor.admission,
            self._model.resource,
            self._clients,
            timeout=self._model.timeout if seconds is None else seconds,
            idle_timeout=idle,
        )

    def took_cut_short(self) -> bool:
        """Whether the task execution at work here was cancelled while a call of it waited; asking forgets it."""
        correlation = runtime_correlation.current()
        execution = None if correlation is None else correlation.task_execution_id
        if execution not in self._executor.cut_short:
            return False
        self._executor.cut_short.discard(execution)
        return True

    async def _looked_at(self, made: Awaitable[T], *, due: bool) -> T:
        answer = await made
        look_at_answer(answer, model=str(self._model.endpoint), judge=self._model.judge, due=due)
        return answer


def retry_free_clients(models: Iterable[Model]) -> RetryFreeClients:
    """The clients of these models without retries. Raises `HiddenRetriesError` for one that always retries."""
    clients = RetryFreeClients()
    for model in models:
        if model.client is not None:
            clients.use(model.client, timeout=model.timeout if "timeout" in model.given else None)
    return clients
