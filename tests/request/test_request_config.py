from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import cast

import attrs
import pytest

from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._request.config import (
    RequestAdmissionConfig,
    RequestAdmissionConfigSnapshot,
    RequestAdmissionTuningConfig,
)
from trio_sched._resources.identity import RequestDomain, RequestResourceKey

CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)


def test_field_names_and_order() -> None:
    assert [field.name for field in attrs.fields(RequestAdmissionConfig)] == [
        "initial_limits",
        "max_limit_clamps",
        "cooldown_seconds",
        "multiplicative_decrease_factor",
        "additive_increase_step",
        "successes_until_increase",
        "startup_ramp_seconds",
        "default_queue_wait_timeout_seconds",
        "limit",
        "max_outage_seconds",
        "given",
    ]
    assert [field.name for field in attrs.fields(RequestAdmissionTuningConfig)] == [
        "multiplicative_decrease_factor",
        "additive_increase_step",
        "successes_until_increase",
        "cooldown_seconds",
        "startup_ramp_seconds",
    ]
    assert [field.name for field in attrs.fields(RequestAdmissionConfigSnapshot)] == [
        field.name for field in attrs.fields(RequestAdmissionConfig) if field.init
    ]


def test_the_two_configs_share_their_defaults() -> None:
    assert RequestAdmissionConfig().tuning() == RequestAdmissionTuningConfig()
    assert RequestAdmissionTuningConfig().with_limits() == RequestAdmissionConfig(limit="aimd")
    assert RequestAdmissionTuningConfig().startup_ramp_seconds == 0.0
    assert RequestAdmissionConfig().default_queue_wait_timeout_seconds is None


def test_tuning_and_limits_make_the_whole() -> None:
    tuning = RequestAdmissionTuningConfig(0.5, 2, 3, 4.0, 5.0)
    whole = tuning.with_limits(
        initial_limits={CHAT: 3}, max_limit_clamps={CHAT: 9}, default_queue_wait_timeout_seconds=7.0
    )
    assert whole == RequestAdmissionConfig(
        initial_limits={CHAT: 3},
        max_limit_clamps={CHAT: 9},
        cooldown_seconds=4.0,
        multiplicative_decrease_factor=0.5,
        additive_increase_step=2,
        successes_until_increase=3,
        startup_ramp_seconds=5.0,
        default_queue_wait_timeout_seconds=7.0,
    )
    assert whole.tuning() == tuning


def test_a_clamp_lowers_and_never_raises() -> None:
    config = RequestAdmissionConfig(max_limit_clamps={CHAT: 5})
    assert config.effective_max(CHAT, 9) == 5
    assert config.effective_max(CHAT, 3) == 3
    assert RequestAdmissionConfig().effective_max(CHAT, 9) == 9


def test_limits_are_copied_and_read_only() -> None:
    given = {CHAT: 3}
    config = RequestAdmissionConfig(initial_limits=given, max_limit_clamps=given)
    given[CHAT] = 8
    assert config.initial_limits == {CHAT: 3}
    assert config.max_limit_clamps == {CHAT: 3}
    with pytest.raises(TypeError):
        cast("dict[RequestResourceKey, int]", config.initial_limits)[CHAT] = 1


def test_the_snapshot_is_plain() -> None:
    snapshot = RequestAdmissionConfig(initial_limits={CHAT: 3}, max_limit_clamps={CHAT: 9}).snapshot()
    assert snapshot.initial_limits == {"openai/gpt/chat": 3}
    assert snapshot.max_limit_clamps == {"openai/gpt/chat": 9}
    assert json.loads(json.dumps(attrs.asdict(snapshot))) == attrs.asdict(snapshot)
    assert snapshot.cooldown_seconds == RequestAdmissionConfig().cooldown_seconds


@pytest.mark.parametrize("make", [RequestAdmissionConfig, RequestAdmissionTuningConfig])
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("multiplicative_decrease_factor", 0, "a number strictly between 0 and 1"),
        ("multiplicative_decrease_factor", 1.0, "a number strictly between 0 and 1"),
        ("multiplicative_decrease_factor", float("nan"), "a number strictly between 0 and 1"),
        ("additive_increase_step", 0, "a positive int"),
        ("additive_increase_step", 1.5, "a positive int"),
        ("successes_until_increase", -1, "a positive int"),
        ("successes_until_increase", True, "a positive int"),
        ("cooldown_seconds", -0.1, "a finite number of at least 0"),
        ("cooldown_seconds", float("inf"), "a finite number of at least 0"),
        ("startup_ramp_seconds", float("nan"), "a finite number of at least 0"),
        ("startup_ramp_seconds", "1", "a finite number of at least 0"),
    ],
)
def test_bad_values_are_named(make: Callable[..., object], field: str, value: object, expected: str) -> None:
    name = cast("type", make).__name__
    with pytest.raises(InvalidValueError, match=f"^{re.escape(f'{name}.{field} must be {expected}, got {value!r}')}$"):
        make(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "initial_limits",
            {CHAT: 0},
            "RequestAdmissionConfig.initial_limits[openai/gpt/chat] must be a positive int, got 0",
        ),
        (
            "max_limit_clamps",
            {CHAT: 2.0},
            "RequestAdmissionConfig.max_limit_clamps[openai/gpt/chat] must be a positive int, got 2.0",
        ),
        (
            "default_queue_wait_timeout_seconds",
            -1,
            (
                "RequestAdmissionConfig.default_queue_wait_timeout_seconds "
                "must be None or a finite number of at least 0, got -1"
            ),
        ),
    ],
)
def test_bad_limits_and_timeouts_are_named(field: str, value: object, message: str) -> None:
    make = cast("Callable[..., object]", RequestAdmissionConfig)
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        make(**{field: value})


def test_a_limit_under_a_name_instead_of_a_resource_is_refused() -> None:
    limits = cast("dict[RequestResourceKey, int]", {"openai/gpt/chat": 3})
    with pytest.raises(
        InvalidTypeError,
        match=r"^RequestAdmissionConfig\.initial_limits key must be a RequestResourceKey, got 'openai/gpt/chat'$",
    ):
        RequestAdmissionConfig(initial_limits=limits)


def test_the_defaults_are_those_that_were_measured() -> None:
    assert RequestAdmissionTuningConfig() == RequestAdmissionTuningConfig(
        multiplicative_decrease_factor=0.94,
        additive_increase_step=1,
        successes_until_increase=75,
        cooldown_seconds=0.25,
        startup_ramp_seconds=0.0,
    )
