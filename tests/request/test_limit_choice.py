"""Which rule an endpoint gets: by name, by a factory, by its configuration, by what its models say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from request_samples import CHAT, RATE_LIMITED, SUCCESS, item

import trio_sched as ts
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._pipeline.capacity import plan_run
from trio_sched._request.aimd import AimdLimit
from trio_sched._request.config import RequestAdmissionConfig, RequestAdmissionTuningConfig
from trio_sched._request.controller import AdaptiveRequestAdmissionController
from trio_sched._request.evidence import EvidenceLimit
from trio_sched._request.leases import RequestAdmissionLease
from trio_sched._request.limit import FixedLimit, Grant, LimitChoice, RequestLimit, RequestSample, limit_name


def make(
    limit: LimitChoice | None = None, config: RequestAdmissionConfig | None = None, cap: int = 40
) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(config)
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap, limit=limit)
    return controller


def first_lease(controller: AdaptiveRequestAdmissionController) -> RequestAdmissionLease:
    decision = controller.try_acquire(item())
    assert isinstance(decision, RequestAdmissionLease)
    return decision


def limit_after_a_refusal(controller: AdaptiveRequestAdmissionController) -> tuple[int, int]:
    """The limit at first, and when one call of three has been refused."""
    leases = [first_lease(controller) for _ in range(3)]
    controller.release(leases[0], RATE_LIMITED)
    snapshot = controller.pressure.snapshot(CHAT)
    assert snapshot is not None
    return leases[0].current_adaptive_limit, snapshot.current_limit


def fixed_at_seven(effective_max: int, now: float) -> RequestLimit:
    return FixedLimit(effective_max, level=7)


@pytest.mark.parametrize(
    ("limit", "config", "expected"),
    [
        (None, None, (16, 2)),
        ("evidence", None, (16, 2)),
        ("aimd", None, (40, 37)),
        ("fixed", None, (40, 40)),
        (EvidenceLimit, None, (16, 2)),
        (AimdLimit, None, (40, 37)),
        (FixedLimit, None, (40, 40)),
        (None, RequestAdmissionConfig(limit="fixed"), (40, 40)),
        ("evidence", RequestAdmissionConfig(limit="fixed"), (16, 2)),
        (None, RequestAdmissionConfig(multiplicative_decrease_factor=0.5), (40, 20)),
        (None, RequestAdmissionTuningConfig().with_limits(), (40, 37)),
        (None, RequestAdmissionConfig(initial_limits={CHAT: 30}), (30, 2)),
        ("aimd", RequestAdmissionConfig(initial_limits={CHAT: 30}), (30, 28)),
        ("fixed", RequestAdmissionConfig(initial_limits={CHAT: 30}), (30, 30)),
        (None, RequestAdmissionConfig(max_limit_clamps={CHAT: 5}), (5, 2)),
        ("fixed", RequestAdmissionConfig(max_limit_clamps={CHAT: 5}), (5, 5)),
        (fixed_at_seven, None, (7, 7)),
    ],
)
def test_the_rule_is_the_endpoints_own_or_the_configurations(
    limit: LimitChoice | None, config: RequestAdmissionConfig | None, expected: tuple[int, int]
) -> None:
    assert limit_after_a_refusal(make(limit, config)) == expected


def test_the_lease_keeps_what_its_rule_remembers() -> None:
    controller = make(cap=8)
    assert [first_lease(controller).grant for _ in range(2)] == [Grant(0, 1, 8), Grant(0, 2, 8)]


def test_tuning_selects_aimd_and_is_refused_together_with_another_rule() -> None:
    assert RequestAdmissionConfig().limit == "evidence"
    assert RequestAdmissionConfig(cooldown_seconds=0.25).limit == "aimd"
    assert RequestAdmissionConfig(limit="evidence", cooldown_seconds=0.25).limit == "evidence"
    with pytest.raises(
        InvalidValueError,
        match=r"^RequestAdmissionConfig\.limit must be 'aimd', or given without "
        r"multiplicative_decrease_factor, cooldown_seconds, got 'fixed'$",
    ):
        RequestAdmissionConfig(limit="fixed", cooldown_seconds=2.0, multiplicative_decrease_factor=0.5)


@pytest.mark.parametrize("limit", ["vegas", "", "AIMD"])
def test_an_unknown_name_is_refused_wherever_it_is_given(limit: str) -> None:
    unknown = cast("LimitChoice", limit)
    with pytest.raises(InvalidValueError, match=r"^RequestAdmissionConfig\.limit must be one of 'evidence', "):
        RequestAdmissionConfig(limit=unknown)
    with pytest.raises(InvalidValueError, match=r"^Model\.limit must be one of 'evidence', 'aimd', 'fixed', or a func"):
        ts.Model("p", "m", limit=unknown)
    with pytest.raises(InvalidTypeError, match=r"^Model\.limit must be .* got 3$"):
        ts.Model("p", "m", limit=cast("LimitChoice", 3))


@pytest.mark.parametrize("cap", [0, cast("Any", "4")])
def test_a_cap_that_is_none_is_refused_before_a_rule_is_made_for_it(cap: int) -> None:
    controller = AdaptiveRequestAdmissionController()
    with pytest.raises(InvalidValueError, match=r"^max_parallel_requests must be a positive int, got "):
        controller.register(
            provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=cap, limit=EvidenceLimit
        )


@pytest.mark.parametrize(
    ("field", "make_rule"),
    [
        ("EvidenceLimit.effective_max", lambda: EvidenceLimit(0)),
        ("EvidenceLimit.initial_limit", lambda: EvidenceLimit(4, initial_limit=0)),
        ("FixedLimit.effective_max", lambda: FixedLimit(0)),
        ("FixedLimit.level", lambda: FixedLimit(4, level=-3)),
        ("AimdLimit.effective_max", lambda: AimdLimit(0)),
        ("AimdLimit.initial_limit", lambda: AimdLimit(4, initial_limit=0)),
    ],
)
def test_a_rule_refuses_what_is_no_level(field: str, make_rule: Callable[[], RequestLimit]) -> None:
    with pytest.raises(InvalidValueError, match=rf"^{field} must be a positive int, got "):
        make_rule()


async def test_open_admission_refuses_what_is_no_tuning_and_no_rule() -> None:
    model = ts.Model("p", "m")
    for given, expected in (
        ({"tuning": {"cooldown_seconds": 1.0}}, r"^tuning must be None or a RequestAdmissionTuningConfig, got "),
        ({"tuning": RequestAdmissionTuningConfig(), "limit": 5}, r"^limit must be one of 'evidence', .*, got 5$"),
    ):
        with pytest.raises(InvalidTypeError, match=expected):
            async with ts.open_admission(model, **cast("dict[str, Any]", given)):
                raise AssertionError


@pytest.mark.parametrize("by_configuration", [False, True])
def test_a_registration_that_is_refused_changes_nothing(by_configuration: bool) -> None:
    def only_large(effective_max: int, now: float) -> RequestLimit:
        if effective_max < 4:
            raise RuntimeError("too small")
        return FixedLimit(effective_max)

    config = RequestAdmissionConfig(limit=only_large) if by_configuration else None
    controller = AdaptiveRequestAdmissionController(config)
    if not by_configuration:
        controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=2)
    before = controller.resolver.static_caps()
    with pytest.raises(InvalidValueError, match="too small"):
        controller.register(
            provider_name="openai",
            model_id="gpt",
            alias="b",
            max_parallel_requests=2 if by_configuration else 8,
            limit=None if by_configuration else only_large,
        )
    assert controller.resolver.static_caps() == before
    assert controller.resolver.limit(CHAT.provider_model_key) is None
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=9, limit="aimd")
    assert first_lease(controller).effective_max == 9


def test_an_endpoint_has_one_rule() -> None:
    controller = make("aimd")
    with pytest.raises(
        InvalidValueError,
        match=r"^limit of openai/gpt must be the one .* 'aimd': it has one rule, got 'fixed'$",
    ):
        controller.register(provider_name="openai", model_id="gpt", alias="b", max_parallel_requests=3, limit="fixed")
    snapshot = controller.pressure.global_snapshot("openai", "gpt")
    assert snapshot is not None
    assert snapshot.aliases == ("a",)
    controller.register(provider_name="openai", model_id="gpt", alias="b", max_parallel_requests=3, limit="aimd")
    controller.register(provider_name="openai", model_id="gpt", alias="c", max_parallel_requests=3)
    assert limit_after_a_refusal(controller) == (3, 2)


def test_a_default_rule_may_be_replaced_until_it_is_in_use() -> None:
    controller = make()
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=40, limit="fixed")
    assert first_lease(controller).current_adaptive_limit == 40
    used = make()
    first_lease(used)
    with pytest.raises(InvalidValueError, match=r"^limit of openai/gpt must be the one in use, 'evidence', got"):
        used.register(provider_name="openai", model_id="gpt", alias="b", max_parallel_requests=40, limit="fixed")
    snapshot = used.pressure.global_snapshot("openai", "gpt")
    assert snapshot is not None
    assert snapshot.aliases == ("a",)


async def test_models_of_one_endpoint_merge_caps_and_refuse_different_rules() -> None:
    with pytest.raises(InvalidValueError, match=r"^limit of p/m must be the one .*'aimd': it has one rule, got"):
        async with ts.open_admission(ts.Model("p", "m", limit="aimd"), ts.Model("p", "m", limit="fixed")):
            raise AssertionError
    both = (ts.Model("p", "m", max_parallel_requests=9), ts.Model("p", "m", max_parallel_requests=4, limit="fixed"))
    async with ts.open_admission(*both) as admission, admission.request(both[0]) as lease:
        assert (lease.current_adaptive_limit, lease.effective_max) == (4, 4)


async def test_open_admission_chooses_for_models_that_choose_nothing() -> None:
    plain, own = ts.Model("p", "plain"), ts.Model("p", "own", limit="evidence")
    async with ts.open_admission(plain, own, limit="fixed") as admission:
        async with admission.request(plain) as lease:
            assert lease.current_adaptive_limit == 64
        async with admission.request(own) as lease:
            assert lease.current_adaptive_limit == 16
    under_aimd = ts.open_admission(plain, tuning=RequestAdmissionTuningConfig())
    async with under_aimd as admission, admission.request(plain) as lease:
        assert lease.current_adaptive_limit == 64


@pytest.mark.parametrize(("model_limit", "limit"), [("evidence", None), (None, "fixed"), ("aimd", "evidence")])
async def test_open_admission_refuses_tuning_with_another_rule(
    model_limit: LimitChoice | None, limit: LimitChoice | None
) -> None:
    with pytest.raises(InvalidValueError, match=r"must be 'aimd', or given without a RequestAdmissionTuningConfig"):
        async with ts.open_admission(
            ts.Model("p", "m", limit=model_limit), tuning=RequestAdmissionTuningConfig(), limit=limit
        ):
            raise AssertionError


async def test_a_run_uses_the_rule_of_the_model_and_its_plan_says_so(tmp_path: Path) -> None:
    made: list[int] = []

    def seven(effective_max: int, now: float) -> RequestLimit:
        made.append(effective_max)
        return FixedLimit(effective_max, level=7)

    models = {
        "default": ts.Model("p", "default"),
        "aimd": ts.Model("p", "aimd", limit="aimd"),
        "mine": ts.Model("p", "mine", max_parallel_requests=9, limit=seven),
    }

    async def answer(text: str) -> str:
        await trio.lowlevel.checkpoint()
        return text

    def asks(name: str) -> ts.Column:
        @ts.column(needs=["x"], model=models[name], name=name)
        async def column(row: dict[str, Any], model: ts.ModelHandle) -> str:
            return await model.call(answer, str(row["x"]))

        return column

    await ts.run([asks(name) for name in models], rows=[{"x": 1}], output=tmp_path)
    configured = json.loads((tmp_path / "capacity_plan.json").read_text(encoding="utf-8"))["configured"]
    limits = {name: (each["value"], each["source"]) for name, each in configured["request_limits"].items()}
    assert limits == {
        "p/aimd/chat": ("aimd", "model_metadata"),
        "p/default/chat": ("evidence", "default"),
        "p/mine/chat": (f"{__name__}.{seven.__qualname__}", "model_metadata"),
    }
    initial = {name: each["value"] for name, each in configured["request_domain_initial_limits"].items()}
    assert initial == {"p/aimd/chat": 64, "p/default/chat": 16, "p/mine/chat": 9}
    assert configured["request_admission_config"]["value"]["limit"] == "evidence"
    assert made == [9]


async def test_a_run_with_tuning_is_under_aimd_and_refuses_another_rule_before_anything_is_made(tmp_path: Path) -> None:
    config = ts.RunConfig(request_admission=RequestAdmissionTuningConfig())

    @ts.column(needs=["x"], model=ts.Model("p", "m", limit="fixed"))
    async def y(row: dict[str, Any], model: ts.ModelHandle) -> int:
        raise AssertionError

    with pytest.raises(InvalidValueError, match=r"^Model\.limit of p/m must be 'aimd', or .* got 'fixed'$"):
        await ts.run([y], rows=[{"x": 1}], output=tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()
    plan = plan_run([y], rows=[{"x": 1}])
    assert plan.configured.request_limits[ts.Model("p", "m").resource].value == "fixed"

    @ts.column(needs=["x"], model=ts.Model("p", "m"))
    async def z(row: dict[str, Any], model: ts.ModelHandle) -> int:
        raise AssertionError

    under_aimd = plan_run([z], rows=[{"x": 1}], config=config).configured.request_limits
    (value,) = under_aimd.values()
    assert (value.value, value.source) == ("aimd", "run_config")


def test_a_run_config_takes_no_other_tuning() -> None:
    with pytest.raises(InvalidTypeError, match=r"^RunConfig\.request_admission must be None or a "):
        ts.RunConfig(request_admission=cast("Any", {"cooldown_seconds": 1.0}))


def test_names_of_rules() -> None:
    assert limit_name("aimd") == "aimd"
    assert limit_name(FixedLimit) == "trio_sched._request.limit.FixedLimit"


# The rule that never moves


REFUSED = RequestSample("rate_limited", in_flight=2, refused=True)


def test_fixed_stays_where_it_is_and_stops_only_when_a_whole_level_is_refused() -> None:
    rule = FixedLimit(8, level=4)
    grant = rule.granted(0.0, 1)
    assert grant == Grant(0, 1, 4)
    for _ in range(3):
        rule.ended(1.0, grant, REFUSED)
    rule.ended(1.0, grant, RequestSample("success"))
    for _ in range(3):
        rule.ended(1.0, grant, REFUSED)
    assert rule.next_deadline() is None
    rule.ended(1.0, grant, RequestSample("provider_failure", in_flight=2, refused=True))
    assert rule.current_limit == 4
    assert rule.next_deadline() == 1.25


def test_fixed_stops_for_a_moment_when_the_only_call_is_refused_whatever_its_hint() -> None:
    rule = FixedLimit(8)
    rule.ended(1.0, rule.granted(1.0, 1), RequestSample("rate_limited", hint=60.0, refused=True))
    assert rule.next_deadline() == 1.25


def test_fixed_then_sends_one_trial_and_pauses_for_the_hint_or_longer() -> None:
    rule = FixedLimit(8)
    rule.ended(1.0, rule.granted(1.0, 1), RequestSample("rate_limited", refused=True))
    pauses: list[float] = []
    for hint in (None, 0.5, None, 60.0, None):
        now = rule.next_deadline()
        assert now is not None
        rule.advance(now)
        trial = rule.granted(now, 1)
        assert trial.trial
        assert rule.blocked_until is not None
        rule.ended(now, trial, RequestSample("rate_limited", hint, refused=True))
        pauses.append(rule.blocked_until - now)
    assert pauses == [1.0, 2.0, 4.0, 60.0, 5.0]
    now = rule.next_deadline()
    assert now is not None
    rule.advance(now)
    cancelled = rule.granted(now, 1)
    rule.ended(now, cancelled, RequestSample("local_cancelled"))
    rule.advance(now + 5.0)
    trial = rule.granted(now + 5.0, 1)
    assert trial.trial
    rule.ended(now + 5.0, trial, RequestSample("success"))
    assert rule.next_deadline() is None
    assert not rule.granted(now + 5.0, 1).trial


def test_fixed_follows_the_cap() -> None:
    rule = FixedLimit(8)
    (down,) = rule.set_effective_max(5)
    assert (down.kind, down.previous, down.current) == ("decreased", 8, 5)
    (up,) = rule.set_effective_max(9)
    assert (up.kind, rule.current_limit) == ("increased", 9)
    assert FixedLimit(8, level=3).set_effective_max(5) == ()


def test_an_ended_call_teaches_its_rule_how_long_it_took() -> None:
    samples: list[RequestSample] = []

    class Listening(FixedLimit):
        def ended(self, now: float, grant: Grant, sample: RequestSample) -> tuple[()]:
            samples.append(sample)
            return ()

    controller = make(Listening)
    controller.release(first_lease(controller), SUCCESS)
    (sample,) = samples
    assert (sample.outcome, sample.hint, sample.work, sample.in_flight, sample.refused) == (
        "success",
        None,
        None,
        0,
        False,
    )
    assert sample.seconds >= 0
