"""Models as users name them, and the endpoints that they stand for.

A `Model` is a declaration: which endpoint, which request domain, how many calls at once. It holds no connection and may
be shared by any number of columns and runs. Two models may name one endpoint, for instance one per domain; they share
the endpoint's static cap, which is the smallest that any of them asks for.

Inside a run a column receives a handle for each of its models; see `model_calls.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._request.config import RequestAdmissionConfig, RequestAdmissionTuningConfig, check_limit
from trio_sched._request.limit import LimitChoice, limit_name
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._util import records_given

__all__ = ["Model", "alias_models", "model_resolver", "request_config"]


def _is_limit(instance: object, attribute: attrs.Attribute[LimitChoice | None], value: object) -> None:
    if value is not None:
        check_limit("Model.limit", value)


@records_given
@attrs.frozen(eq=False)
class Model:
    """An endpoint to call. max_parallel_requests: the most calls in flight at once, over all its domains.

    provider, model_id: canonical names, shown in events and reports. client: the SDK client whose methods `call` will
    be given; its own hidden retries are switched off. domain: `chat`, `embedding`, `image` or `healthcheck`.
    limit: how many calls may be in flight below that number: `evidence` (the default) learns it by counting what the
    provider accepts, `aimd` by additive increase and multiplicative decrease, `fixed` stays at the number; or a
    function (effective_max, now) that returns a `RequestLimit`. Models of one endpoint share one rule.
    given: names of what was handed over, whatever its value; the rest are defaults.
    """

    provider: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)
    client: object | None = attrs.field(default=None, kw_only=True, repr=False)
    max_parallel_requests: int = attrs.field(default=64, kw_only=True, validator=check.positive_int)
    domain: RequestDomain = attrs.field(default=RequestDomain.CHAT, kw_only=True, converter=RequestDomain)
    limit: LimitChoice | None = attrs.field(default=None, kw_only=True, validator=_is_limit)
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
    for model in dict.fromkeys(models):
        name = alias = str(model.endpoint)
        number = 1
        while alias in taken:
            number += 1
            alias = f"{name}#{number}"
        taken.add(alias)
        aliases[model] = alias
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
    models: Iterable[Model], tuning: RequestAdmissionTuningConfig | None, limit: LimitChoice | None = None
) -> RequestAdmissionConfig:
    """The configuration of request admission for `models`, out of what a user gives.

    Raises `InvalidValueError` for the tuning of AIMD together with another rule, and for a limit that is no rule.
    """
    if tuning is None:
        return RequestAdmissionConfig() if limit is None else RequestAdmissionConfig(limit=limit)
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
    return tuning.with_limits()
