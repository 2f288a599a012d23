"""Makes the rule of a request resource, out of what was chosen for its endpoint."""

from __future__ import annotations

import logging

from trio_sched._request.aimd import AimdLimit
from trio_sched._request.config import RequestAdmissionConfig
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.fixed import FixedLimit
from trio_sched._request.limit import LimitChoice, LimitFactory, RequestLimit
from trio_sched._request.limit_state import made_by
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey

__all__ = ["RuleMaker"]

logger = logging.getLogger("trio_sched.request")


class RuleMaker:
    """Makes rules under one configuration.

    A factory is called when its endpoint is registered, so that one that cannot be used is refused before anything
    goes out. What it made then becomes the rule of the first resource that needs it.
    """

    __slots__ = ("_config", "_made")

    def __init__(self, config: RequestAdmissionConfig) -> None:
        self._config = config
        self._made: dict[ProviderModelKey, tuple[LimitFactory, int, RequestLimit]] = {}

    def prepare(self, choice: LimitChoice, endpoint: ProviderModelKey, cap: int, now: float) -> None:
        """See that `choice` can make a rule for `endpoint`. Raises `InvalidValueError` or `InvalidTypeError`."""
        if isinstance(choice, str):
            return
        made = self._made.get(endpoint)
        if made is None or made[:2] != (choice, cap):
            self._made[endpoint] = (choice, cap, made_by(choice, str(endpoint), cap, now))

    def make(self, choice: LimitChoice, resource: RequestResourceKey, effective_max: int, now: float) -> RequestLimit:
        """The rule of `resource`. Never raises: where a factory fails now, its resource gets the default rule."""
        initial_limit = self._config.initial_limits.get(resource)
        if choice == "aimd":
            return AimdLimit(effective_max, now, tuning=self._config.tuning(), initial_limit=initial_limit)
        if choice == "fixed":
            return FixedLimit(effective_max, now, level=initial_limit)
        if not isinstance(choice, str):
            factory, cap, rule = self._made.pop(resource.provider_model_key, (None, 0, None))
            if rule is not None and factory is choice and cap == effective_max:
                return rule
            try:
                return made_by(choice, str(resource), effective_max, now)
            except ValueError:
                logger.exception("%s is limited by the default rule, since its own cannot be made", resource)
        return EvidenceLimit(effective_max, now, initial_limit=initial_limit)
