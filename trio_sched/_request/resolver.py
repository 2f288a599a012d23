"""The one place where names become canonical: aliases, endpoints, static caps and the metadata built from them.

An endpoint may be registered under several aliases, each with the cap its author asked for. They are one endpoint: its
static cap is the smallest of them, and every raw cap is kept. Names that were never registered stand for themselves.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidValueError, TrioSchedError
from trio_sched._request.config import check_limit
from trio_sched._request.limit import LimitChoice, limit_name
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RequestDomain, RequestResourceKey
from trio_sched.metadata import SchedulingMetadata

__all__ = ["ModelAliasError", "RequestResourceResolver", "ResolvedRequestResource"]


class ModelAliasError(TrioSchedError, LookupError):
    """An alias that stands for no endpoint, or for another one than it is used for.

    Attributes: `alias`, `problem`, `nearest` (the known alias that looks most like it, or None).
    """

    def __init__(self, alias: str, problem: str, nearest: str | None = None) -> None:
        super().__init__(alias, problem, nearest)
        self.alias = alias
        self.problem = problem
        self.nearest = nearest

    def __str__(self) -> str:
        hint = "" if self.nearest is None else f"; did you mean {self.nearest!r}?"
        return f"model alias {self.alias!r} {self.problem}{hint}"


@attrs.frozen
class ResolvedRequestResource:
    """Canonical identity of a request, and the names it was asked under."""

    provider_model: ProviderModelKey
    resource: RequestResourceKey
    aliases: tuple[str, ...] = ()
    generation_kind: str | None = None


class RequestResourceResolver:
    """Aliases in, canonical identities out.

    distinct_generation_kinds: per provider, the generation kinds that it treats as endpoints of their own; only those
    are folded into the canonical model id.
    """

    def __init__(self, *, distinct_generation_kinds: Mapping[str, Collection[str]] | None = None) -> None:
        self._distinct = {provider: frozenset(kinds) for provider, kinds in (distinct_generation_kinds or {}).items()}
        self._raw_caps: dict[ProviderModelKey, dict[str, int]] = {}
        self._endpoints_by_alias: dict[str, dict[ProviderModelKey, None]] = {}
        self._provider_by_alias: dict[str, str] = {}
        self._limits: dict[ProviderModelKey, LimitChoice] = {}

    def register(
        self,
        *,
        provider_name: str,
        model_id: str,
        alias: str,
        max_parallel_requests: int,
        provider_alias: str | None = None,
        generation_kind: str | None = None,
        limit: LimitChoice | None = None,
    ) -> ProviderModelStaticCap:
        """Name an endpoint and its cap; the same alias again replaces its raw cap. Returns the merged cap.

        limit: the rule of the endpoint, None for no opinion. Raises `InvalidValueError` where another one was chosen.
        """
        check.check_text("provider_name", provider_name)
        check.check_text("model_id", model_id)
        check.check_text("alias", alias)
        check.check_int("max_parallel_requests", max_parallel_requests, minimum=1)
        if provider_alias is not None:
            check.check_text("provider_alias", provider_alias)
            self._provider_by_alias[provider_alias] = provider_name
        endpoint = self.canonical(provider_name, model_id, generation_kind)
        if limit is not None:
            check_limit(f"limit of {endpoint}", limit)
            known = self._limits.setdefault(endpoint, limit)
            if known != limit:
                expected = f"the one that was chosen for this endpoint before, {limit_name(known)!r}: it has one rule"
                raise InvalidValueError(f"limit of {endpoint}", limit_name(limit), expected)
        self._raw_caps.setdefault(endpoint, {})[alias] = max_parallel_requests
        self._endpoints_by_alias.setdefault(alias, {})[endpoint] = None
        return self._merged(endpoint)

    def canonical(self, provider_name: str, model_id: str, generation_kind: str | None = None) -> ProviderModelKey:
        """The endpoint of canonical names, with the generation kind folded in where the provider calls for it."""
        if generation_kind is not None and generation_kind in self._distinct.get(provider_name, ()):
            return ProviderModelKey(provider_name, f"{model_id}:{generation_kind}")
        return ProviderModelKey(provider_name, model_id)

    def resolve(
        self,
        *,
        provider_name: str,
        model_id: str,
        domain: RequestDomain | str,
        model_alias: str | None = None,
        provider_alias: str | None = None,
        generation_kind: str | None = None,
    ) -> ResolvedRequestResource:
        """The canonical resource of a call, whichever of its names it is given.

        `provider_name` and `model_id` may be canonical or registered aliases. `model_alias` and `provider_alias` are
        kept as names; a `model_alias` that is registered, but not for this endpoint, raises `ModelAliasError`.
        """
        provider = self._provider_by_alias.get(provider_name, provider_name)
        endpoint = self.canonical(provider, model_id, generation_kind)
        if endpoint not in self._raw_caps:
            of_provider = [
                known for known in self._endpoints_by_alias.get(model_id, {}) if known.provider_name == provider
            ]
            if len(of_provider) > 1:
                raise ModelAliasError(model_id, _ambiguous(of_provider))
            if of_provider:
                endpoint = of_provider[0]
        if model_alias is not None:
            named = self._endpoints_by_alias.get(model_alias)
            if named is not None and endpoint not in named:
                raise ModelAliasError(model_alias, f"stands for {_listed(named)}, not for {endpoint}")
        return ResolvedRequestResource(
            provider_model=endpoint,
            resource=RequestResourceKey(endpoint.provider_name, endpoint.model_id, RequestDomain(domain)),
            aliases=tuple(alias for alias in (provider_alias, model_alias) if alias is not None),
            generation_kind=generation_kind,
        )

    def endpoint_of(self, alias: str) -> ProviderModelKey:
        """The endpoint that `alias` stands for; `ModelAliasError` if there is none, or more than one."""
        endpoints = self._endpoints_by_alias.get(alias)
        if endpoints is None:
            raise ModelAliasError(alias, "is not registered", self._nearest(alias))
        if len(endpoints) > 1:
            raise ModelAliasError(alias, _ambiguous(endpoints))
        return next(iter(endpoints))

    def static_cap(self, endpoint: ProviderModelKey) -> ProviderModelStaticCap | None:
        """The merged cap of `endpoint`, or None where it was never registered."""
        return self._merged(endpoint) if endpoint in self._raw_caps else None

    def limit(self, endpoint: ProviderModelKey) -> LimitChoice | None:
        """The rule that was chosen for `endpoint`, or None where nobody chose one."""
        return self._limits.get(endpoint)

    def static_caps(self) -> Mapping[ProviderModelKey, ProviderModelStaticCap]:
        """The merged cap of every registered endpoint."""
        return {endpoint: self._merged(endpoint) for endpoint in self._raw_caps}

    def scheduling_metadata(self, aliases: Iterable[str], generation_kind: str = "chat") -> SchedulingMetadata:
        """Metadata of a generator that calls the models named `aliases`, whose order and repetition do not matter.

        One endpoint gives `model` metadata weighted by its static cap; several give a `custom_model` whose identity
        names them all; none gives `local`.
        """
        endpoints = sorted({self.endpoint_of(alias) for alias in aliases})
        if not endpoints:
            return SchedulingMetadata.local()
        if len(endpoints) == 1:
            (endpoint,) = endpoints
            return SchedulingMetadata.model(
                endpoint.provider_name, endpoint.model_id, generation_kind, weight=self._merged(endpoint).cap
            )
        return SchedulingMetadata.custom_model(
            "endpoints", f"{generation_kind}:{'+'.join(str(endpoint) for endpoint in endpoints)}"
        )

    def _merged(self, endpoint: ProviderModelKey) -> ProviderModelStaticCap:
        raw_caps = self._raw_caps[endpoint]
        return ProviderModelStaticCap(cap=min(raw_caps.values()), aliases=tuple(sorted(raw_caps)), raw_caps=raw_caps)

    def _nearest(self, alias: str) -> str | None:
        return next(iter(difflib.get_close_matches(alias, self._endpoints_by_alias, n=1)), None)


def _listed(endpoints: Iterable[ProviderModelKey]) -> str:
    return ", ".join(str(endpoint) for endpoint in sorted(endpoints))


def _ambiguous(endpoints: Iterable[ProviderModelKey]) -> str:
    return f"stands for more than one endpoint: {_listed(endpoints)}"
