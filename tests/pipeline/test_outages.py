"""An endpoint that does not answer for a while, or not any more, costs no row: the run waits for it, or stops.

An outage begins when the run is at full speed. While it lasts, one trial goes out at a time. Before that, the calls
that were in flight as it began have to fail: each of them frees a permit for one that fails too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outage_samples import (
    KINDS,
    Kind,
    Outage,
    Provider,
    StatusError,
    answer_column,
    answered_rows,
    is_not_told,
    topics,
)

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink
from trio_sched.testing import simulate

BEGINS = 12.0
ROUND_TRIP = 1.0
AT_ONCE = {kind.name: kind for kind in KINDS}
CONNECT = AT_ONCE["connect"]
CAPS = (8, 256) if os.environ.get("TRIO_SCHED_FUZZ") == "quick" else (8, 32, 256)


def a_model(cap: int, kind: Kind | None = None) -> ts.Model:
    if kind is not None and kind.error is None:
        return ts.Model("p", "m", max_parallel_requests=cap, timeout=10)
    return ts.Model("p", "m", max_parallel_requests=cap)


def a_config(max_outage_seconds: float | None = 1800.0) -> ts.RunConfig:
    return ts.RunConfig(max_concurrent_row_groups=16, write_events="none", max_outage_seconds=max_outage_seconds)


def cases(caps: tuple[int, ...], lengths: tuple[float, ...]) -> list[object]:
    """Every kind of outage. What takes many seconds of processor time is for the fuzz session."""
    return [
        pytest.param(
            cap,
            seconds,
            kind,
            id=f"cap {cap}, {seconds:g} s, {kind}",
            marks=[pytest.mark.fuzz, pytest.mark.timeout(300)] if cap > 100 else [],
        )
        for cap in caps
        for seconds in lengths
        for kind in KINDS
    ]


@pytest.mark.parametrize(("cap", "seconds", "kind"), cases(CAPS, (5.0, 20.0, 60.0, 300.0, 3600.0)))
def test_an_outage_costs_no_row(tmp_path: Path, cap: int, seconds: float, kind: Kind) -> None:
    outage = Outage(BEGINS, seconds, kind)
    provider = Provider(ROUND_TRIP, [outage])
    rows = topics(26 * cap)
    sink = InMemoryAdmissionEventSink()
    result = simulate(
        [answer_column(provider, a_model(cap, kind))],
        rows=rows,
        output=tmp_path / "out",
        config=a_config(None if seconds > 1800 else 1800.0),
        event_sink=sink,
    )
    assert (result.status, result.stop_reason) == ("completed", None)
    assert (result.records, result.dropped, result.leaks) == (len(rows), 0, ())
    assert list(result.rows()) == answered_rows(rows)
    check_trials(provider, outage, sink)
    check_return(provider, outage)


def check_trials(provider: Provider, outage: Outage, sink: InMemoryAdmissionEventSink) -> None:
    """Two trials and one for every five seconds, from when the outage is noticed.

    Until then so many calls fail in a row as were in flight. Where those in flight go on and are answered (DNS), others
    come in their places until enough have failed.
    """
    noticed = [
        event.captured_at_monotonic
        for event in sink.request_events
        if event.event_kind in ("request_endpoint_not_answering", "request_outage_started")
        and event.captured_at_monotonic >= outage.begins
    ]
    # An outage in which calls hang may be over before the first of them is.
    since = min(noticed, default=outage.ends)
    trials = [call for call in provider.arrived(since, outage.ends) if call.arrived > since]
    assert len(trials) <= 2 + outage.lasts / 5
    at_once = max(3, provider.in_flight(outage.begins))
    came = len(provider.arrived(outage.begins, outage.ends))
    assert came <= (1 if outage.kind.breaks_calls else 1.25) * at_once + 2 + outage.lasts / 5


def check_return(provider: Provider, outage: Outage) -> None:
    """Nine tenths of the rate within ten round trips of the first answered trial."""
    before = len(provider.answered(outage.begins - 3 * ROUND_TRIP, outage.begins)) / 3
    first = min(call.ended for call in provider.arrived(outage.begins) if call.outcome == "answered")
    best = max(len(provider.answered(first + trip * ROUND_TRIP, first + (trip + 1) * ROUND_TRIP)) for trip in range(10))
    assert best >= 0.9 * before


@pytest.mark.parametrize(("cap", "seconds", "kind"), cases((8, 32), (3600.0,)))
def test_a_run_that_has_waited_for_half_an_hour_stops_and_goes_on_later(
    tmp_path: Path, cap: int, seconds: float, kind: Kind
) -> None:
    down = Provider(ROUND_TRIP, [Outage(BEGINS, seconds, kind)])
    rows = topics(26 * cap)
    model = a_model(cap, kind)
    stopped = simulate([answer_column(down, model)], rows=rows, output=tmp_path / "out", config=a_config())
    assert (stopped.status, stopped.stop_reason) == ("stopped", "endpoint_not_answering")
    assert (stopped.dropped, stopped.leaks) == (0, ())
    assert BEGINS + 1800 <= stopped.wall_seconds <= BEGINS + 1800 + 60
    assert list(stopped.rows()) == answered_rows(rows)[: stopped.records]

    back = Provider(ROUND_TRIP)
    resumed = simulate(
        [answer_column(back, model)], rows=rows, output=tmp_path / "out", config=a_config(), resume="if-possible"
    )
    assert (resumed.status, resumed.stop_reason) == ("completed", None)
    assert (resumed.records, resumed.dropped) == (len(rows), 0)
    assert list(resumed.rows()) == answered_rows(rows)
    assert len(back.calls) == len(rows) - stopped.records


def test_the_wait_for_an_endpoint_has_the_length_that_was_asked_for(tmp_path: Path) -> None:
    provider = Provider(ROUND_TRIP, [Outage(BEGINS, 600.0, CONNECT)])
    result = simulate(
        [answer_column(provider, a_model(8))], rows=topics(208), output=tmp_path / "out", config=a_config(120.0)
    )
    assert (result.status, result.stop_reason, result.dropped) == ("stopped", "endpoint_not_answering", 0)
    assert BEGINS + 120 <= result.wall_seconds <= BEGINS + 120 + 35


def test_an_endpoint_that_never_answered_is_waited_for_too(tmp_path: Path) -> None:
    provider = Provider(ROUND_TRIP, [Outage(0.0, 300.0, CONNECT)])
    rows = topics(100)
    result = simulate([answer_column(provider, a_model(32))], rows=rows, output=tmp_path / "out", config=a_config())
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_single_row_is_not_given_up_for_an_endpoint_that_never_answered(tmp_path: Path, kind: Kind) -> None:
    """Nothing shows that the row is to blame, so it is not blamed."""
    provider = Provider(ROUND_TRIP, [Outage(0.0, 10_000.0, kind)])
    result = simulate(
        [answer_column(provider, a_model(8, kind))], rows=topics(1), output=tmp_path / "out", config=a_config()
    )
    assert (result.status, result.stop_reason) == ("stopped", "endpoint_not_answering")
    assert (result.records, result.dropped) == (0, 0)


def test_waiting_for_an_endpoint_is_not_standing_still(tmp_path: Path) -> None:
    provider = Provider(ROUND_TRIP, [Outage(BEGINS, 3600.0, CONNECT)])
    config = ts.RunConfig(no_progress_seconds=100.0, max_outage_seconds=None, write_events="none")
    result = simulate([answer_column(provider, a_model(8))], rows=topics(208), output=tmp_path / "out", config=config)
    assert (result.status, result.records) == ("completed", 208)


def test_outages_one_after_the_other_cost_no_attempt(tmp_path: Path) -> None:
    """More of them than a row has attempts."""
    outages = [Outage(5.0 + 60 * number, 20.0, KINDS[number % 4]) for number in range(12)]
    provider = Provider(20.0, outages)
    rows = topics(160)
    result = simulate([answer_column(provider, a_model(8))], rows=rows, output=tmp_path / "out", config=a_config())
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)


@pytest.mark.parametrize("lasts", [20.0, 300.0])
def test_trials_are_calls_of_one_row_after_another(tmp_path: Path, lasts: float) -> None:
    """A row that the endpoint cannot answer must not be the one that decides whether it answers."""
    outage = Outage(BEGINS, lasts, CONNECT)
    provider = Provider(ROUND_TRIP, [outage], poisoned={"t100": AT_ONCE["500"]})
    rows = topics(208)
    result = simulate([answer_column(provider, a_model(8))], rows=rows, output=tmp_path / "out", config=a_config())
    assert list(result.rows()) == answered_rows(rows, without=["t100"])
    trials = [call.key for call in provider.arrived(outage.begins + 2, outage.ends)]
    assert len(trials) > 1
    assert len(set(trials)) == len(trials)


@pytest.mark.parametrize(
    ("count", "lasts"),
    [
        pytest.param(240, 60.0, id="for a while"),
        pytest.param(40, 100_000.0, id="for good"),
        pytest.param(240, 100_000.0, id="for good, many row groups"),
    ],
)
def test_what_can_be_made_without_one_of_two_endpoints_is_made(tmp_path: Path, count: int, lasts: float) -> None:
    """Every other row group needs an endpoint that is down."""
    rows = [{"topic": f"t{index}", "is_told": index // 10 % 2 == 0} for index in range(count)]
    expected = [
        {**row, "asked": str(row["topic"]).upper(), "told": str(row["topic"]).upper() if row["is_told"] else None}
        for row in rows
    ]

    def steps(first: Provider, second: Provider) -> list[ts.PipelineStep]:
        @ts.column(needs=["topic"], model=ts.Model("up", "m", max_parallel_requests=8))
        async def asked(row: dict[str, str], model: ts.ModelHandle) -> str:
            return await model.call(first.call, row["topic"])

        @ts.column(
            needs=["topic", "is_told"],
            model=ts.Model("down", "m", max_parallel_requests=8),
            skip_when=is_not_told,
        )
        async def told(row: dict[str, str], model: ts.ModelHandle) -> str:
            return await model.call(second.call, row["topic"])

        return [asked, told]

    config = ts.RunConfig(buffer_size=10, write_events="none")
    up, down = Provider(ROUND_TRIP), Provider(ROUND_TRIP, [Outage(0.0, lasts, CONNECT)])
    result = simulate(steps(up, down), rows=rows, output=tmp_path / "out", config=config)
    assert result.dropped == 0
    if lasts < 1800:
        assert (result.status, list(result.rows())) == ("completed", expected)
        return
    assert (result.status, result.stop_reason) == ("stopped", "endpoint_not_answering")
    assert list(result.rows()) == [row for row in expected if not row["is_told"]]

    resumed = simulate(
        steps(Provider(), Provider()), rows=rows, output=tmp_path / "out", config=config, resume="if-possible"
    )
    assert (resumed.status, resumed.stop_reason, resumed.dropped) == ("completed", None, 0)
    assert list(resumed.rows()) == expected


def test_a_flood_of_rate_limits_is_waited_for_as_an_outage_is(tmp_path: Path) -> None:
    flood = Kind("429", 0.1, lambda: StatusError(429, "Rate limit reached", headers={"retry-after": "20"}))
    provider = Provider(ROUND_TRIP, [Outage(BEGINS, 3600.0, flood)])
    rows = topics(208)
    column = answer_column(provider, a_model(8))
    result = simulate([column], rows=rows, output=tmp_path / "out", config=a_config(None))
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)
