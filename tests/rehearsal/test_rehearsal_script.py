"""The values of a script: what they draw, and what they refuse."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from statistics import fmean

import pytest

from trio_sched import InvalidTypeError, InvalidValueError
from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript, draw

EVENLY = [(index + 0.5) / 4000 for index in range(4000)]


def test_draw_depends_on_seed_and_number_alone() -> None:
    assert draw(0, 1) == (0.6249544689478298, 0.48480913031266193)
    assert draw(0, 1) != draw(0, 2)
    assert draw(0, 1) != draw(1, 1)


def test_draw_is_uniform_and_never_touches_the_ends() -> None:
    drawn = [number for pair in (draw(7, index) for index in range(2000)) for number in pair]
    assert 0 < min(drawn) < 0.01
    assert 0.99 < max(drawn) < 1
    assert fmean(drawn) == pytest.approx(0.5, abs=0.02)


def test_latency_without_sigma_is_its_mean() -> None:
    assert {Latency(mean=0.3).at(quantile) for quantile in EVENLY} == {0.3}


@pytest.mark.parametrize("shape", ["normal", "lognormal"])
def test_latency_has_the_mean_it_was_given(shape: str) -> None:
    latency = Latency(mean=0.2, sigma=0.05 if shape == "normal" else 0.5, shape=shape)  # type: ignore[arg-type]
    sample = [latency.at(quantile) for quantile in EVENLY]
    assert fmean(sample) == pytest.approx(0.2, rel=0.01)
    assert sample == sorted(sample)


def test_latency_is_never_below_its_minimum_nor_below_zero() -> None:
    assert Latency(mean=0.1, sigma=1.0, minimum=0.05).at(1e-9) == 0.05
    assert Latency(mean=0.1, sigma=1.0, shape="normal").at(1e-9) == 0.0
    assert Latency(mean=0.0, minimum=0.01).at(0.5) == 0.01


def test_a_tail_from_1_to_120_seconds_can_be_written() -> None:
    latency = Latency(mean=8.0, sigma=1.5, minimum=1.0, maximum=120.0)
    sample = [latency.at(quantile) for quantile in EVENLY]
    assert sample == sorted(sample)
    assert (sample[0], sample[-1]) == (1.0, 120.0)
    assert sample[2000] == pytest.approx(2.6, rel=0.01), "half of them are short"
    assert sum(seconds > 30 for seconds in sample) == pytest.approx(206, abs=2), "and one in twenty is long"
    assert Latency(mean=5.0, maximum=2.0).at(0.5) == 2.0


def test_fates_come_in_their_shares() -> None:
    phase = Phase(error_share=0.1, malformed_share=0.2, hang_share=0.3, bad_request_share=0.15)
    fates = Counter(phase.fate(quantile) for quantile in EVENLY)
    assert fates == {"error": 400, "malformed": 800, "hang": 1200, "bad_request": 600, "answer": 1000}


def test_shares_that_make_one_exactly_are_accepted() -> None:
    Phase(error_share=0.1, malformed_share=0.2, hang_share=0.7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Latency(mean=-1.0), "Latency.mean must be a finite number of at least 0, got -1.0"),
        (lambda: Latency(shape="flat"), "Latency.shape must be 'lognormal' or 'normal', got 'flat'"),  # type: ignore[arg-type]
        (lambda: Phase(name=""), "Phase.name must be a non-empty string, got ''"),
        (lambda: Phase(max_in_flight=0), "Phase.max_in_flight must be a positive int, got 0"),
        (lambda: Phase(burst=0), "Phase.burst must be a positive int, got 0"),
        (lambda: Phase(requests_per_second=0.0), "Phase.requests_per_second must be a positive finite number, got 0.0"),
        (lambda: Phase(error_share=1.5), "Phase.error_share must be a number from 0 to 1, got 1.5"),
        (
            lambda: Phase(error_share=0.6, hang_share=0.6),
            (
                "Phase.error_share, malformed_share, hang_share, bad_request_share must be at most 1 together, "
                "got (0.6, 0.0, 0.6, 0.0)"
            ),
        ),
        (
            lambda: Latency(minimum=2.0, maximum=1.0),
            "Latency.maximum must be at least minimum, which is 2.0, got 1.0",
        ),
        (
            lambda: Phase(requests_per_window=0),
            "Phase.requests_per_window must be a positive int, got 0",
        ),
        (lambda: Phase(window_seconds=0.0), "Phase.window_seconds must be a finite number of at least 0.01, got 0.0"),
        (
            lambda: Phase(refusal_status=500),  # type: ignore[arg-type]
            "Phase.refusal_status must be 401 or 403 or 404 or 429 or 503 or 529, got 500",
        ),
        (
            lambda: Phase(refusal_status=429.0),  # type: ignore[arg-type]
            "Phase.refusal_status must be 401 or 403 or 404 or 429 or 503 or 529, got 429.0",
        ),
        (
            lambda: Phase(refusal_status=401),
            "Phase.refusal_status must be 429, 503 or 529 in a phase that does not refuse all, got 401",
        ),
        (lambda: Phase(quota=-1), "Phase.quota must be an int of at least 0, got -1"),
        (lambda: Phase(error_status=399), "Phase.error_status must be an int of at least 400, got 399"),
        (lambda: Phase(error_status=600), "Phase.error_status must be an int from 400 to 599, got 600"),
        (lambda: Phase(error_code=""), "Phase.error_code must be a non-empty string, got ''"),
        (lambda: Phase(gone_seconds=-1.0), "Phase.gone_seconds must be a finite number of at least 0, got -1.0"),
        (
            lambda: Phase(gone_seconds=5.0, unreachable=True),
            "Phase.gone_seconds must be 0 in a phase that is unreachable anyway, got 5.0",
        ),
        (lambda: Phase(keeps_state=1), "Phase.keeps_state must be True or False, got 1"),  # type: ignore[arg-type]
        (lambda: Phase(error_form="html"), "Phase.error_form must be 'status' or 'body-in-200', got 'html'"),  # type: ignore[arg-type]
        (
            lambda: Phase(malformed_form="xml"),  # type: ignore[arg-type]
            "Phase.malformed_form must be 'half' or 'cut' or 'reset' or 'html' or 'empty', got 'xml'",
        ),
        (
            lambda: Phase(refusal_form="stream"),  # type: ignore[arg-type]
            "Phase.refusal_form must be 'status' or 'body-in-200', got 'stream'",
        ),
        (
            lambda: Phase(retry_after_header="x-reset"),  # type: ignore[arg-type]
            (
                "Phase.retry_after_header must be 'retry-after' or 'retry-after-ms' or 'retry-after-date' or "
                "'retry-after-epoch' or 'x-ratelimit-reset-requests' or 'anthropic-ratelimit-requests-reset' or "
                "'retryDelay' or 'message', got 'x-reset'"
            ),
        ),
        (
            lambda: Phase(drift=Drift(to=3)),
            "Phase.max_in_flight must be an int other than drift.to, got None",
        ),
        (
            lambda: Phase(max_in_flight=3, drift=Drift(to=3)),
            "Phase.max_in_flight must be an int other than drift.to, got 3",
        ),
        (
            lambda: Phase(neighbour=Neighbour()),
            (
                "Phase.neighbour must be None in a phase that limits nothing, "
                "got Neighbour(share=0.5, stretch_seconds=10.0)"
            ),
        ),
        (lambda: RehearsalScript(phases=()), "RehearsalScript.phases must be at least one Phase, got ()"),
        (
            lambda: RehearsalScript(phases=(Phase(name="1", after_seconds=1.0),)),
            "RehearsalScript.phases[0] must be a phase without an after_* trigger, being the first, got '1'",
        ),
        (
            lambda: RehearsalScript(phases=(Phase(), Phase(name="2"))),
            "RehearsalScript.phases[1] must be a phase with an after_* trigger, not being the first, got '2'",
        ),
        (
            lambda: RehearsalScript(phases=(Phase(), Phase(after_requests=1))),
            "RehearsalScript.phases[1] must be a phase with a name of its own, got 'steady'",
        ),
        (lambda: RehearsalScript(seed=-1), "RehearsalScript.seed must be an int of at least 0, got -1"),
        (lambda: RehearsalScript(models=[""]), "RehearsalScript.models[0] must be a non-empty string, got ''"),
        (lambda: RehearsalScript(dimensions=0), "RehearsalScript.dimensions must be a positive int, got 0"),
    ],
)
def test_a_bad_value_is_refused_with_field_and_value(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Phase(latency=0.1), "Phase.latency must be a Latency, got 0.1"),  # type: ignore[arg-type]
        (lambda: Phase(drift=3), "Phase.drift must be None or a Drift, got 3"),  # type: ignore[arg-type]
        (lambda: Phase(neighbour=3), "Phase.neighbour must be None or a Neighbour, got 3"),  # type: ignore[arg-type]
        (lambda: Phase(refuse_all=1), "Phase.refuse_all must be True or False, got 1"),  # type: ignore[arg-type]
        (lambda: RehearsalScript(models="abc"), "RehearsalScript.models must be a list of names, got 'abc'"),
        (lambda: RehearsalScript(phases="abc"), "RehearsalScript.phases must be a list of Phases, got 'abc'"),  # type: ignore[arg-type]
        (lambda: RehearsalScript(phases=["abc"]), "RehearsalScript.phases[0] must be a Phase, got 'abc'"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_type_is_refused_with_field_and_value(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"^{re.escape(message)}$"):
        build()
