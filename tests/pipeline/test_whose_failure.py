"""A failure is a row's own only if the endpoint has shown that it is: whatever else fails, no row is settled by it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio
from outage_samples import (
    ACCESS,
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
from trio_sched.testing import simulate

QUIET = ts.RunConfig(write_events="none")
ROWS = 250
AT_ONCE = {kind.name: kind for kind in KINDS}
FAILS = Kind("500", 0.3, lambda: StatusError(500, "the poisoned row"))
HANGS = AT_ONCE["hang"]


def a_model(cap: int = 16, *, timeout: float | None = None) -> ts.Model:
    if timeout is not None:
        return ts.Model("p", "m", max_parallel_requests=cap, timeout=timeout)
    return ts.Model("p", "m", max_parallel_requests=cap)


def second(moments: list[float]) -> float:
    return sorted(moments)[1]


@pytest.mark.parametrize("how", ["rotated", "spent"])
@pytest.mark.parametrize("refusal", ACCESS.values(), ids=ACCESS)
def test_a_refused_key_or_a_used_up_quota_closes_the_endpoint_and_settles_nothing(
    tmp_path: Path, refusal: Callable[[], Exception], how: str
) -> None:
    rows = topics(1000)
    ended = (
        Provider(refuses_after=30.0, refusal=refusal) if how == "rotated" else Provider(calls_left=400, refusal=refusal)
    )
    stopped = simulate([answer_column(ended, a_model())], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (stopped.status, stopped.stop_reason) == ("stopped", "endpoint_closed")
    assert (stopped.dropped, stopped.leaks) == (0, ())
    assert 0 < stopped.records < 1000
    assert list(stopped.rows()) == answered_rows(rows)[: stopped.records]

    refused = [call for call in ended.calls if call.outcome == "StatusError"]
    sure = second([call.ended for call in refused])
    assert ended.arrived(sure + 1e-6) == []
    assert 2 <= len(refused) <= 2 + ended.in_flight(sure)
    # Calls that were in flight are waited for: they are paid, and their rows may be complete.
    assert all(call.outcome in ("answered", "StatusError") for call in ended.calls)
    assert stopped.wall_seconds < sure + 5

    mended = Provider()
    resumed = simulate(
        [answer_column(mended, a_model())], rows=rows, output=tmp_path / "out", config=QUIET, resume="if-possible"
    )
    assert (resumed.status, resumed.stop_reason, resumed.dropped) == ("completed", None, 0)
    assert list(resumed.rows()) == answered_rows(rows)
    assert len(mended.calls) == len(rows) - stopped.records


def test_the_summary_says_which_endpoint_was_closed_and_why(tmp_path: Path) -> None:
    provider = Provider(refuses_after=5.0)
    result = simulate([answer_column(provider, a_model())], rows=topics(ROWS), output=tmp_path / "out", config=QUIET)
    summary = result.summary()
    assert "p/m" in summary
    assert "401" in summary
    assert "Incorrect API key provided" in summary


@pytest.mark.parametrize("refusal", ACCESS.values(), ids=ACCESS)
def test_a_key_that_never_worked_costs_two_answers_at_most_a_permit(
    tmp_path: Path, refusal: Callable[[], Exception]
) -> None:
    provider = Provider(refuses_after=0.0, refusal=refusal)
    result = simulate([answer_column(provider, a_model(4))], rows=topics(100), output=tmp_path / "out", config=QUIET)
    assert (result.status, result.stop_reason) == ("stopped", "endpoint_closed")
    assert (result.records, result.dropped) == (0, 0)
    assert 2 <= len(provider.calls) <= 5


@pytest.mark.parametrize("refusal", ACCESS.values(), ids=ACCESS)
def test_a_single_row_asks_a_second_time_to_be_sure(tmp_path: Path, refusal: Callable[[], Exception]) -> None:
    provider = Provider(refuses_after=0.0, refusal=refusal)
    result = simulate([answer_column(provider, a_model())], rows=topics(1), output=tmp_path / "out", config=QUIET)
    assert (result.status, result.stop_reason, result.dropped) == ("stopped", "endpoint_closed", 0)
    assert len(provider.calls) == 2


@pytest.mark.parametrize("name", ["401", "403", "404"])
def test_one_refused_key_that_is_taken_the_second_time_costs_nothing(tmp_path: Path, name: str) -> None:
    """A gateway that restarts says so once."""
    provider = Provider()
    once = [True]

    async def call(topic: str) -> str:
        if topic == "t100" and once:
            once.clear()
            refusal = ACCESS[name]()
            raise refusal
        return await provider.call(topic)

    @ts.column(needs=["topic"], model=a_model())
    async def answer(row: dict[str, str], model: ts.ModelHandle) -> str:
        return await model.call(call, row["topic"])

    rows = topics(ROWS)
    result = simulate([answer], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)
    assert len(provider.calls) == ROWS


def test_what_can_be_made_without_a_closed_endpoint_is_made(tmp_path: Path) -> None:
    rows = [{"topic": f"t{index}", "is_told": index // 10 % 2 == 0} for index in range(200)]

    def steps(first: Provider, other: Provider) -> list[ts.PipelineStep]:
        @ts.column(needs=["topic"], model=ts.Model("open", "m", max_parallel_requests=8))
        async def asked(row: dict[str, str], model: ts.ModelHandle) -> str:
            return await model.call(first.call, row["topic"])

        @ts.column(
            needs=["topic", "is_told"],
            model=ts.Model("shut", "m", max_parallel_requests=8),
            skip_when=is_not_told,
        )
        async def told(row: dict[str, str], model: ts.ModelHandle) -> str:
            return await model.call(other.call, row["topic"])

        return [asked, told]

    expected = [
        {**row, "asked": str(row["topic"]).upper(), "told": str(row["topic"]).upper() if row["is_told"] else None}
        for row in rows
    ]
    config = ts.RunConfig(buffer_size=10, write_events="none")
    shut = Provider(refuses_after=0.0)
    result = simulate(steps(Provider(), shut), rows=rows, output=tmp_path / "out", config=config)
    assert (result.status, result.stop_reason, result.dropped) == ("stopped", "endpoint_closed", 0)
    assert list(result.rows()) == [row for row in expected if not row["is_told"]]
    assert len(shut.calls) <= 9

    resumed = simulate(
        steps(Provider(), Provider()), rows=rows, output=tmp_path / "out", config=config, resume="if-possible"
    )
    assert (resumed.status, resumed.dropped) == ("completed", 0)
    assert list(resumed.rows()) == expected


@pytest.mark.parametrize("place", [0, ROWS // 2, ROWS - 1], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    ("kind", "timeout", "reason"),
    [(FAILS, None, "the poisoned row"), (HANGS, 10.0, r"\b10(\.0)? ?s")],
    ids=["always 500", "never answered"],
)
def test_one_poisoned_row_costs_one_row(
    tmp_path: Path, kind: Kind, timeout: float | None, reason: str, place: int
) -> None:
    rows = topics(ROWS)
    poisoned = f"t{place}"
    provider = Provider(poisoned={poisoned: kind})
    model = a_model(timeout=timeout)
    result = simulate([answer_column(provider, model)], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.stop_reason) == ("completed", None)
    assert (result.records, result.dropped, result.leaks) == (ROWS - 1, 1, ())
    assert list(result.rows()) == answered_rows(rows, without=[poisoned])
    assert "column 'answer'" in result.summary()
    assert re.search(reason, result.summary())
    check_evidence(provider, [poisoned])


def check_evidence(provider: Provider, poisoned: list[str], *, max_attempts: int = 5) -> None:
    """Every failure of a poisoned row counted, since another call was answered before its next.

    Where no other row wanted the endpoint, the last call that it answered was sent again, once for each failure.
    """
    calls = provider.calls_by_key()
    assert {key: calls.pop(key) for key in poisoned} == dict.fromkeys(poisoned, max_attempts)
    assert sum(calls.values()) <= len(calls) + max_attempts * len(poisoned)
    for key in poisoned:
        own = [call for call in provider.calls if call.key == key]
        for attempt, following in zip(own, [*own[1:], None], strict=True):
            until = following.arrived if following else float("inf")
            assert [each for each in provider.answered(attempt.arrived, until) if each.key != key]


@pytest.mark.parametrize("max_attempts", [1, 2, 7])
def test_max_attempts_counts_the_failures_that_are_the_rows(tmp_path: Path, max_attempts: int) -> None:
    rows = topics(ROWS)
    provider = Provider(poisoned={"t100": FAILS})
    config = ts.RunConfig(max_attempts=max_attempts, write_events="none")
    result = simulate([answer_column(provider, a_model())], rows=rows, output=tmp_path / "out", config=config)
    assert list(result.rows()) == answered_rows(rows, without=["t100"])
    check_evidence(provider, ["t100"], max_attempts=max_attempts)


@pytest.mark.parametrize("kind", [FAILS, HANGS], ids=str)
def test_the_last_rows_may_all_be_poisoned(tmp_path: Path, kind: Kind) -> None:
    """They want the endpoint as well, but none of them can show that it answers."""
    rows = topics(ROWS)
    poisoned = [f"t{ROWS - 2}", f"t{ROWS - 1}"]
    provider = Provider(poisoned=dict.fromkeys(poisoned, kind))
    model = a_model(timeout=10.0)
    result = simulate([answer_column(provider, model)], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.records, result.dropped) == ("completed", ROWS - 2, 2)
    assert list(result.rows()) == answered_rows(rows, without=poisoned)
    check_evidence(provider, poisoned)


def test_the_last_rows_may_hang_for_as_long_as_the_default_timeout(tmp_path: Path) -> None:
    rows = topics(ROWS)
    poisoned = [f"t{ROWS - 2}", f"t{ROWS - 1}"]
    provider = Provider(poisoned=dict.fromkeys(poisoned, HANGS))
    result = simulate([answer_column(provider, a_model())], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.records, result.dropped) == ("completed", ROWS - 2, 2)


def test_a_poisoned_row_alone_with_its_endpoint_is_shown_by_the_call_that_was_answered_last(tmp_path: Path) -> None:
    """One call at a time, so every answer to another row is a call that was sent again."""
    rows = topics(3)
    provider = Provider(poisoned={"t2": FAILS})
    column = answer_column(provider, a_model(1), ordered=True)
    result = simulate([column], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.records, result.dropped) == ("completed", 2, 1)
    calls = provider.calls_by_key()
    assert calls["t2"] == 5
    assert sorted(calls.values()) == [1, 5, 6]
    sent = [(resource.domain.value, requests.attempts) for resource, requests in result.requests.items()]
    assert sorted(sent) == [("chat", 7), ("healthcheck", 5)]


def test_a_healthcheck_that_is_not_answered_is_an_outage_of_the_endpoint_and_not_the_rows_failure(
    tmp_path: Path,
) -> None:
    provider = Provider(outages=[Outage(3.0, 300.0, AT_ONCE["500"])])
    rows = topics(6)
    column = answer_column(provider, a_model(1), ordered=True)
    result = simulate([column], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)


@pytest.mark.parametrize("status", [400, 413, 422, 424])
def test_a_request_that_is_wrong_is_made_once(tmp_path: Path, status: int) -> None:
    rows = topics(ROWS)
    wrong = Kind(str(status), 0.1, lambda: StatusError(status, "the request is wrong"))
    provider = Provider(poisoned={"t100": wrong})
    result = simulate([answer_column(provider, a_model())], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.dropped) == ("completed", 1)
    assert list(result.rows()) == answered_rows(rows, without=["t100"])
    assert len(provider.calls) == ROWS
    assert "the request is wrong" in result.summary()


def test_many_poisoned_rows_that_are_left_alone_look_like_an_outage(tmp_path: Path) -> None:
    """No health check settles more than three of them: the run waits, stops, and has rejected none."""
    rows = topics(20)
    poisoned = [f"t{number}" for number in range(10, 20)]
    provider = Provider(poisoned=dict.fromkeys(poisoned, FAILS))
    config = attrs.evolve(QUIET, buffer_size=1, max_concurrent_row_groups=20)
    result = simulate([answer_column(provider, a_model())], rows=rows, output=tmp_path / "out", config=config)
    assert result.status == "stopped"
    assert result.stop_reason is not None
    assert (result.stop_reason, result.records, result.dropped) == ("endpoint_not_answering", 10, 0)


@pytest.mark.parametrize("why", ["cooldown", "outage"])
def test_a_timeout_of_ones_own_that_ends_while_its_call_waits_settles_nothing(
    tmp_path: Path, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused = Kind("429", 0.1, lambda: StatusError(429, "slow down", headers={"retry-after": "200"}))
    kind = refused if why == "cooldown" else AT_ONCE["connect"]
    provider = Provider(outages=[Outage(10.0, 400.0, kind)])

    @ts.column(needs=["topic"], model=a_model())
    async def answer(row: dict[str, str], model: ts.ModelHandle) -> str:
        with trio.fail_after(60):
            return await model.call(provider.call, row["topic"])

    rows = topics(400)
    with caplog.at_level(logging.WARNING, logger="trio_sched"):
        result = simulate([answer], rows=rows, output=tmp_path / "out", config=QUIET)
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)
    told = [each for each in caplog.messages if "timeout" in each and "wait" in each]
    assert len(told) == 1


class FastFailures:
    """Of 30 s if it is answered, and of 0.05 s if it is refused, which a share of the rows is."""

    def __init__(self, share: float) -> None:
        self.calls = 0
        self._every = round(1 / share)

    def is_refused(self, number: int) -> bool:
        return (number + 1) % self._every == 0

    async def call(self, number: int) -> int:
        self.calls += 1
        if self.is_refused(number):
            await trio.sleep(0.05)
            raise StatusError(400, "a true failure")
        await trio.sleep(30)
        return number


def fast_column(provider: FastFailures) -> ts.Column:
    @ts.column(needs=["n"], model=ts.Model("p", "m", max_parallel_requests=1024, limit="fixed"))
    async def answer(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(provider.call, row["n"])

    return answer


WIDE = ts.RunConfig(max_concurrent_row_groups=20, write_events="none")


def test_fast_failures_do_not_crowd_out_slow_successes(tmp_path: Path) -> None:
    provider = FastFailures(0.1)
    rows = [{"n": number} for number in range(3000)]
    result = simulate([fast_column(provider)], rows=rows, output=tmp_path / "out", config=WIDE)
    assert (result.status, result.stop_reason) == ("completed", None)
    assert (result.records, result.dropped, provider.calls) == (2700, 300, 3000)
    assert [row["n"] for row in result.rows()] == [n for n in range(3000) if not provider.is_refused(n)]


def test_failures_of_every_row_stop_the_run_and_what_is_left_can_be_made_later(tmp_path: Path) -> None:
    provider = FastFailures(1.0)
    rows = [{"n": number} for number in range(3000)]
    result = simulate([fast_column(provider)], rows=rows, output=tmp_path / "out", config=WIDE)
    assert (result.status, result.stop_reason) == ("stopped", "error_rate")
    assert result.records == 0
    # No row group is finished, so what was rejected in them can be made again, too.
    assert result.dropped == 0
    assert provider.calls <= 2000, "those that were let in at the instant at which the first ones failed"

    mended = FastFailures(1 / 3001)
    resumed = simulate([fast_column(mended)], rows=rows, output=tmp_path / "out", config=WIDE, resume="if-possible")
    assert resumed.status == "completed"
    assert resumed.dropped <= result.dropped
    assert resumed.records == 3000 - resumed.dropped


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_failures_of_the_endpoint_do_not_count_towards_the_error_rate(tmp_path: Path, kind: Kind) -> None:
    provider = Provider(outages=[Outage(10.0 + 40.0 * number, 20.0, kind) for number in range(5)])
    config = ts.RunConfig(stop_error_rate=0.01, write_events="none")
    rows = topics(1000)
    model = a_model(timeout=10.0)
    result = simulate([answer_column(provider, model)], rows=rows, output=tmp_path / "out", config=config)
    assert (result.status, result.dropped) == ("completed", 0)
    assert list(result.rows()) == answered_rows(rows)
