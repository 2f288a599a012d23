"""Scripts and counters survive JSON, and a script from outside is checked like any other."""

from __future__ import annotations

import json
import re

import pytest

from trio_sched import InvalidTypeError, InvalidValueError
from trio_sched._rehearsal import serde
from trio_sched._rehearsal.provider import Provider
from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript

SCRIPT = RehearsalScript(
    phases=(
        Phase(name="full", max_in_flight=24, latency=Latency(mean=0.05, sigma=0.4, minimum=0.01)),
        Phase(name="low", after_accepted=500, max_in_flight=8, retry_after_seconds=None, hang_share=0.01),
        Phase(name="end", after_seconds=60.0, requests_per_second=50, burst=10, retry_after_header="retry-after-ms"),
        Phase(
            name="moving",
            after_seconds=90.0,
            max_in_flight=16,
            drift=Drift(to=128, step=4, seconds=2.0, shape="walk"),
            requests_per_window=500,
            window_seconds=60.0,
            neighbour=Neighbour(share=0.5, stretch_seconds=20.0),
            bad_request_share=0.3,
            latency=Latency(mean=8.0, sigma=1.5, minimum=1.0, maximum=120.0),
        ),
        Phase(
            name="outage",
            after_seconds=120.0,
            refuse_all=True,
            refusal_status=529,
            refusal_form="body-in-200",
            refusal_seconds=3.0,
            retry_after_header="anthropic-ratelimit-requests-reset",
        ),
    ),
    seed=7,
    models=("one", "two"),
)


def test_a_script_survives() -> None:
    assert serde.script_from_json(serde.script_to_json(SCRIPT)) == SCRIPT


def test_scripts_by_provider_survive() -> None:
    scripts = {"a": SCRIPT, "b": RehearsalScript()}
    assert serde.scripts_from_json(serde.scripts_to_json(scripts)) == scripts


def test_what_is_left_out_has_its_default() -> None:
    assert serde.script_from_json("{}") == RehearsalScript()
    assert serde.script_from_json('{"phases": [{"max_in_flight": 3}]}') == RehearsalScript(
        phases=(Phase(max_in_flight=3),)
    )


def test_counters_survive() -> None:
    provider = Provider("a", RehearsalScript(phases=(Phase(max_in_flight=1),)))
    provider.arrive("chat", 0.0)
    provider.arrive("embedding", 0.0)
    counters = provider.counters()
    text = serde.counters_to_json(counters)
    assert serde.counters_from_json(text) == counters
    assert json.loads(text)["by_domain"]["embedding"]["refused"] == {"concurrency": 1}


def test_an_address_survives() -> None:
    assert serde.address_from_json(serde.address_to_json("::1", 80)) == ("::1", 80)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sed": 1}', "a name in script must be one of its fields (the nearest is 'seed'), got 'sed'"),
        (
            '{"phases": [{"max_inflight": 1}]}',
            "a name in script.phases[0] must be one of its fields (the nearest is 'max_in_flight'), got 'max_inflight'",
        ),
        (
            '{"phases": [{"latency": {"average": 1}}]}',
            "a name in script.phases[0].latency must be one of its fields (the nearest is 'mean'), got 'average'",
        ),
        (
            '{"phases": [{"max_in_flight": 2, "drift": {"too": 3}}]}',
            "a name in script.phases[0].drift must be one of its fields (the nearest is 'to'), got 'too'",
        ),
        (
            '{"phases": [{"max_in_flight": 2, "neighbour": {"share": 2}}]}',
            "Neighbour.share must be a number from 0 to 1, got 2",
        ),
        ('{"phases": [{"error_share": 1.5}]}', "Phase.error_share must be a number from 0 to 1, got 1.5"),
        ('{"phases": [{"error_share": NaN}]}', "Phase.error_share must be a number from 0 to 1, got nan"),
    ],
)
def test_a_bad_script_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        serde.script_from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "script must be a JSON object, got []"),
        ('{"phases": [3]}', "script.phases[0] must be a JSON object, got 3"),
        ('{"phases": {}}', "RehearsalScript.phases must be a list of Phases, got {}"),
        ('{"phases": [{"latency": 3}]}', "script.phases[0].latency must be a JSON object, got 3"),
        ('{"phases": [{"drift": 3}]}', "script.phases[0].drift must be a JSON object, got 3"),
        ('{"phases": [{"latency": null}]}', "Phase.latency must be a Latency, got None"),
        ('{"phases": [{"max_in_flight": "3"}]}', "Phase.max_in_flight must be a positive int, got '3'"),
    ],
)
def test_a_script_of_wrong_types_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"^{re.escape(message)}$"):
        serde.script_from_json(text)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^script must be JSON \(.*\), got '\{'$"):
        serde.script_from_json("{")


@pytest.mark.parametrize("depth", [50, 300, 600, 900, 950, 980, 1000, 100_000])
@pytest.mark.parametrize("around", ["%s", '{"seed": %s}', '{"phases": [%s]}', '{"phases": [{"latency": %s}]}'])
def test_a_script_that_is_nested_deeply_is_refused_at_any_depth(depth: int, around: str) -> None:
    for nested in ("[" * depth + "]" * depth, '{"a": ' * depth + "1" + "}" * depth):
        with pytest.raises(InvalidValueError) as caught:
            serde.script_from_json(around % nested)
        assert len(str(caught.value)) < 3_000
