"""Request admission alone, for pipelines of one's own, without items, groups or outcomes.

    async with open_admission(writer, judge) as admission:
        async with admission.request(writer):
            reply = await client.chat.completions.create(...)

When the inner block ends, its outcome (an answer, an exception, a cancellation) is classified, the lease is released,
and the adaptive limit learns from it. Make one outbound attempt per block, and switch the client's own retries off.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from trio_sched._errors import InvalidTypeError, UnknownNameError
from trio_sched._events.sinks import RequestAdmissionEventSink
from trio_sched._pipeline.models import Model, alias_models, model_resolver, request_config
from trio_sched._request.attempt import AdmittedAttempt
from trio_sched._request.config import RequestAdmissionTuningConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.limit import LimitChoice
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestGroupSpec

__all__ = ["RequestAdmission", "open_admission"]


class RequestAdmission:
    """Admits requests to the models it was opened with. controller: the full interface, for those who need more."""

    def __init__(self, controller: AdaptiveRequestAdmissionController, models: frozenset[RequestResourceKey]) -> None:
        self.controller = controller
        self._endpoints = {resource.provider_model_key for resource in models}

    def request(
        self,
        model: Model,
        *,
        domain: RequestDomain | str | None = None,
        weight: float = 1.0,
        queue_wait_timeout_seconds: float | None = None,
        after: AdmittedAttempt | None = None,
    ) -> AdmittedAttempt:
        """A block for one outbound attempt to `model`; entering it waits for a lease. Call this once for each attempt.

        domain: the model's own by default. weight: share among those who wait. queue_wait_timeout_seconds: longest
        wait, after which `RequestAdmissionError` is raised. after: the block of this call's previous attempt, which has
        ended; if the provider refused that one at the same resource and said when to come back, this one lets other
        calls go first until then. Without it, the next block of the same task counts as the next attempt.

        Raises `UnknownNameError` for a model that admission was not opened with, `InvalidTypeError` for an `after` that
        is no such block.
        """
        if not isinstance(cast("object", model), Model):
            raise InvalidTypeError("model of admission.request", model, "a Model that admission was opened with")
        if model.endpoint not in self._endpoints:
            raise UnknownNameError(
                "model", str(model.endpoint), used_by="admission.request", known=map(str, self._endpoints)
            )
        if after is not None and not isinstance(cast("object", after), AdmittedAttempt):
            raise InvalidTypeError("after of admission.request", after, "a block that admission.request returned")
        resource = RequestResourceKey(
            model.provider, model.model_id, model.domain if domain is None else RequestDomain(domain)
        )
        item = RequestAdmissionItem(
            resource,
            RequestGroupSpec(resource, weight),
            queue_wait_timeout_seconds,
            not_before=after.not_before if after is not None and after.resource == resource else None,
        )
        return AdmittedAttempt(self.controller, item, follows_task=after is None)


@asynccontextmanager
async def open_admission(
    *models: Model,
    tuning: RequestAdmissionTuningConfig | None = None,
    limit: LimitChoice | None = None,
    event_sink: RequestAdmissionEventSink | None = None,
) -> AsyncGenerator[RequestAdmission, None]:
    """Open admission for `models`.

    tuning: the parameters of AIMD; given without a limit it selects `aimd`. limit: the rule of every model that names
    none of its own, see `Model`. event_sink: receives the request events.

    Raises `InvalidValueError` for a tuning together with another rule. A single error of the block leaves it as itself,
    not in an exception group.
    """
    for model in models:
        if not isinstance(cast("object", model), Model):
            raise InvalidTypeError("each argument of open_admission", model, "a Model")
    controller = AdaptiveRequestAdmissionController(
        request_config(models, tuning, limit), event_sink=event_sink, resolver=model_resolver(alias_models(models))
    )
    async with controller:
        yield RequestAdmission(controller, frozenset(model.resource for model in models))
