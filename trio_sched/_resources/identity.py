"""Who is called, and who calls: canonical identities of endpoints and their request domains, and of the task at work.

An *endpoint* is a provider and a model (`ProviderModelKey`); its static cap binds all its domains together. A *request
resource* is one domain of an endpoint (`RequestResourceKey`); its adaptive limit is learned. Both are canonical: an
alias never appears in them. `RuntimeCorrelation` identifies one execution of a task and joins the two event streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Literal

import attrs

from trio_sched import _validation as check

__all__ = [
    "ProviderModelKey",
    "ProviderModelStaticCap",
    "RequestDomain",
    "RequestResourceKey",
    "RuntimeCorrelation",
]


class RequestDomain(str, Enum):
    """The kind of call within an endpoint; each has an adaptive limit of its own."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    IMAGE = "image"
    HEALTHCHECK = "healthcheck"

    def __str__(self) -> str:
        return self.value


@attrs.frozen(order=True, cache_hash=True)
class ProviderModelKey:
    """One endpoint: a provider's model under its canonical id."""

    provider_name: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)

    def __str__(self) -> str:
        return f"{self.provider_name}/{self.model_id}"


@attrs.frozen(order=True, cache_hash=True)
class RequestResourceKey:
    """One request domain of one endpoint. `domain` also takes the domain's string value."""

    provider_name: str = attrs.field(validator=check.text)
    model_id: str = attrs.field(validator=check.text)
    domain: RequestDomain = attrs.field(converter=RequestDomain)

    @property
    def provider_model_key(self) -> ProviderModelKey:
        """The endpoint this domain belongs to."""
        return ProviderModelKey(self.provider_name, self.model_id)

    def __str__(self) -> str:
        return f"{self.provider_name}/{self.model_id}/{self.domain.value}"


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _caps(value: Mapping[str, int]) -> Mapping[str, int]:
    return check.frozen_mapping(value)


@attrs.frozen
class ProviderModelStaticCap:
    """The most concurrent calls an endpoint may carry, over all domains, and where that number came from.

    cap: the merged value, at least 1. aliases: names under which the endpoint was registered, sorted. raw_caps: what
    each alias asked for. merge_rule: aliases of one endpoint merge to the smallest cap.
    """

    cap: int = attrs.field(validator=check.positive_int)
    aliases: tuple[str, ...] = attrs.field(converter=_names)
    raw_caps: Mapping[str, int] = attrs.field(converter=_caps)
    merge_rule: Literal["min_same_endpoint"] = "min_same_endpoint"


@attrs.frozen
class RuntimeCorrelation:
    """Identity of one task execution, carried by context to everything that it causes.

    Of what belongs to a row group, or to the run as a whole, the more specific fields are None.
    """

    run_id: str
    row_group: int | None = None
    task_column: str | None = None
    task_type: str | None = None
    scheduling_group_kind: str | None = None
    scheduling_group_identity_hash: str | None = None
    task_execution_id: str | None = None
