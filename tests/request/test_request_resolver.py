from __future__ import annotations

import itertools
import re
from typing import cast

import pytest

from trio_sched._errors import InvalidValueError
from trio_sched._request.resolver import ModelAliasError, RequestResourceResolver, ResolvedRequestResource
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RequestDomain, RequestResourceKey
from trio_sched.metadata import SchedulingMetadata

GPT = ProviderModelKey("openai", "gpt")
CLAUDE = ProviderModelKey("anthropic", "claude")


def known() -> RequestResourceResolver:
    resolver = RequestResourceResolver()
    resolver.register(provider_name="openai", model_id="gpt", alias="writer", max_parallel_requests=8)
    resolver.register(provider_name="openai", model_id="gpt", alias="judge", max_parallel_requests=5)
    resolver.register(
        provider_name="anthropic", model_id="claude", alias="critic", max_parallel_requests=3, provider_alias="ant"
    )
    return resolver


def test_names_that_were_never_registered_stand_for_themselves() -> None:
    resolved = RequestResourceResolver().resolve(
        provider_name="openai",
        model_id="gpt",
        domain=RequestDomain.CHAT,
        model_alias="writer",
        provider_alias="oa",
        generation_kind="chat",
    )
    assert resolved == ResolvedRequestResource(
        provider_model=GPT,
        resource=RequestResourceKey("openai", "gpt", RequestDomain.CHAT),
        aliases=("oa", "writer"),
        generation_kind="chat",
    )


def test_aliases_become_canonical() -> None:
    resolver = known()
    by_name = resolver.resolve(provider_name="anthropic", model_id="claude", domain="embedding")
    assert by_name.resource == RequestResourceKey("anthropic", "claude", RequestDomain.EMBEDDING)
    assert by_name.aliases == ()
    by_alias = resolver.resolve(provider_name="ant", model_id="critic", domain="embedding")
    assert by_alias == by_name


def test_a_canonical_name_wins_over_an_alias_of_the_same_name() -> None:
    resolver = known()
    resolver.register(provider_name="openai", model_id="writer", alias="other", max_parallel_requests=2)
    resolved = resolver.resolve(provider_name="openai", model_id="writer", domain="chat")
    assert resolved.provider_model == ProviderModelKey("openai", "writer")


def test_an_alias_of_another_provider_is_not_taken() -> None:
    resolved = known().resolve(provider_name="anthropic", model_id="writer", domain="chat")
    assert resolved.provider_model == ProviderModelKey("anthropic", "writer")


def test_an_alias_used_for_another_endpoint_is_refused() -> None:
    with pytest.raises(
        ModelAliasError, match=r"^model alias 'critic' stands for anthropic/claude, not for openai/gpt$"
    ) as caught:
        known().resolve(provider_name="openai", model_id="gpt", domain="chat", model_alias="critic")
    assert caught.value.alias == "critic"
    assert caught.value.nearest is None
    assert isinstance(caught.value, LookupError)


def test_a_model_id_that_is_an_alias_of_two_models_is_refused() -> None:
    resolver = known()
    resolver.register(provider_name="openai", model_id="mini", alias="writer", max_parallel_requests=2)
    message = "model alias 'writer' stands for more than one endpoint: openai/gpt, openai/mini"
    with pytest.raises(ModelAliasError, match=f"^{re.escape(message)}$"):
        resolver.resolve(provider_name="openai", model_id="writer", domain="chat")
    with pytest.raises(ModelAliasError, match=f"^{re.escape(message)}$"):
        resolver.endpoint_of("writer")
    assert resolver.resolve(
        provider_name="openai", model_id="mini", domain="chat", model_alias="writer"
    ).provider_model == ProviderModelKey("openai", "mini")


def test_caps_of_one_endpoint_merge_to_the_smallest_and_are_all_kept() -> None:
    resolver = known()
    assert resolver.static_cap(GPT) == ProviderModelStaticCap(5, ("judge", "writer"), {"writer": 8, "judge": 5})
    assert resolver.static_cap(ProviderModelKey("openai", "other")) is None
    assert resolver.static_caps() == {
        GPT: ProviderModelStaticCap(5, ("judge", "writer"), {"writer": 8, "judge": 5}),
        CLAUDE: ProviderModelStaticCap(3, ("critic",), {"critic": 3}),
    }


def test_an_alias_registered_again_replaces_its_raw_cap() -> None:
    resolver = known()
    merged = resolver.register(provider_name="openai", model_id="gpt", alias="judge", max_parallel_requests=20)
    assert merged == ProviderModelStaticCap(8, ("judge", "writer"), {"writer": 8, "judge": 20})


def test_a_generation_kind_is_folded_in_only_where_the_provider_tells_it_apart() -> None:
    resolver = RequestResourceResolver(distinct_generation_kinds={"azure": {"embedding"}})
    folded = resolver.resolve(provider_name="azure", model_id="gpt", domain="embedding", generation_kind="embedding")
    assert folded.provider_model == ProviderModelKey("azure", "gpt:embedding")
    assert folded.generation_kind == "embedding"
    for provider, kind in (("azure", "chat"), ("openai", "embedding"), ("azure", None)):
        plain = resolver.resolve(provider_name=provider, model_id="gpt", domain="chat", generation_kind=kind)
        assert plain.provider_model == ProviderModelKey(provider, "gpt")
    resolver.register(
        provider_name="azure", model_id="gpt", alias="e", max_parallel_requests=2, generation_kind="embedding"
    )
    assert resolver.endpoint_of("e") == ProviderModelKey("azure", "gpt:embedding")


def test_an_unknown_alias_names_the_nearest() -> None:
    with pytest.raises(
        ModelAliasError, match=r"^model alias 'writter' is not registered; did you mean 'writer'\?$"
    ) as caught:
        known().endpoint_of("writter")
    assert caught.value.nearest == "writer"
    with pytest.raises(ModelAliasError, match=r"^model alias 'zzz' is not registered$"):
        known().scheduling_metadata(["zzz"])


def test_metadata_of_one_endpoint_carries_its_cap() -> None:
    expected = SchedulingMetadata.model("openai", "gpt", "chat", weight=5)
    resolver = known()
    assert resolver.scheduling_metadata(["writer"]) == expected
    assert resolver.scheduling_metadata(["judge", "writer", "judge"]) == expected
    assert resolver.scheduling_metadata(["writer"], "embedding").identity == ("model", "openai", "gpt", "embedding")


def test_metadata_of_several_endpoints_is_the_same_in_any_order() -> None:
    resolver = known()
    expected = SchedulingMetadata.custom_model("endpoints", "chat:anthropic/claude+openai/gpt")
    for order in itertools.permutations(["writer", "critic", "judge"]):
        assert resolver.scheduling_metadata(order) == expected


def test_metadata_without_models_is_local() -> None:
    assert known().scheduling_metadata([]) == SchedulingMetadata.local()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"provider_name": ""}, "provider_name must be a non-empty string, got ''"),
        ({"model_id": 3}, "model_id must be a non-empty string, got 3"),
        ({"alias": ""}, "alias must be a non-empty string, got ''"),
        ({"max_parallel_requests": 0}, "max_parallel_requests must be a positive int, got 0"),
        ({"max_parallel_requests": 1.0}, "max_parallel_requests must be a positive int, got 1.0"),
        ({"provider_alias": ""}, "provider_alias must be a non-empty string, got ''"),
    ],
)
def test_bad_registrations_are_named_and_change_nothing(change: dict[str, object], message: str) -> None:
    resolver = RequestResourceResolver()
    arguments = {"provider_name": "p", "model_id": "m", "alias": "a", "max_parallel_requests": 1, **change}
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        resolver.register(**cast("dict[str, str]", arguments))  # type: ignore[arg-type]  # wrong on purpose
    assert resolver.static_caps() == {}
