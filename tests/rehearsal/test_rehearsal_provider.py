"""The verdicts of a provider, with scripts played through on injected time."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched import InvalidValueError
from trio_sched._rehearsal.provider import Accepted, Provider, Refused, Verdict, open_providers
from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript, heads


def provider_of(*phases: Phase, seed: int = 0) -> Provider:
    return Provider("a", RehearsalScript(phases=phases, seed=seed))


def reasons(provider: Provider, now: float, requests: int) -> list[str]:
    """What becomes of so many requests that arrive at once."""
    verdicts = [provider.arrive("chat", now) for _ in range(requests)]
    return [verdict.reason if isinstance(verdict, Refused) else "accepted" for verdict in verdicts]


def accepted(verdict: Verdict) -> Accepted:
    assert isinstance(verdict, Accepted)
    return verdict


def test_above_the_concurrency_limit_requests_are_refused_until_one_departs() -> None:
    provider = provider_of(Phase(max_in_flight=2, refusal_seconds=0.1))
    first = accepted(provider.arrive("chat", 0.0))
    accepted(provider.arrive("embedding", 0.0))

    refused = provider.arrive("chat", 0.0)
    assert refused == Refused("concurrency", provider.phase, 0.1, limit=2)

    provider.depart(first, "answer")
    accepted(provider.arrive("chat", 0.0))


def test_a_slot_is_given_back_once() -> None:
    provider = provider_of(Phase())
    request = accepted(provider.arrive("chat", 0.0))
    provider.depart(request, "answer")
    with pytest.raises(KeyError):
        provider.depart(request, "answer")
    assert provider.counters().in_flight == 0


def test_the_rate_limit_is_a_bucket_that_refills() -> None:
    provider = provider_of(Phase(requests_per_second=10.0, burst=2))
    assert reasons(provider, 5.0, 3) == ["accepted", "accepted", "rate"]
    assert reasons(provider, 5.0625, 1) == ["rate"]
    assert reasons(provider, 5.125, 2) == ["accepted", "rate"]
    assert reasons(provider, 1000.0, 3) == ["accepted", "accepted", "rate"]


def test_windows_follow_each_other_from_the_first_request() -> None:
    provider = provider_of(Phase(requests_per_window=2, window_seconds=10.0))
    assert reasons(provider, 7.0, 1) == ["accepted"]
    assert reasons(provider, 16.5, 2) == ["accepted", "window"]
    assert reasons(provider, 17.0, 3) == ["accepted", "accepted", "window"]
    assert reasons(provider, 44.0, 3) == ["accepted", "accepted", "window"]
    assert reasons(provider, 47.0, 1) == ["accepted"]
    assert provider.counters().refused == {"window": 3}


def test_a_request_that_one_rate_refuses_costs_nothing_of_the_other() -> None:
    provider = provider_of(Phase(requests_per_window=2, window_seconds=10.0, requests_per_second=1.0, burst=1))
    assert reasons(provider, 0.0, 3) == ["accepted", "rate", "rate"]
    assert reasons(provider, 1.0, 1) == ["accepted"]
    assert reasons(provider, 2.0, 2) == ["window", "window"]
    assert reasons(provider, 10.0, 2) == ["accepted", "rate"]


@pytest.mark.parametrize(("status", "reason"), [(429, "flood"), (503, "outage"), (529, "outage")])
def test_a_flood_and_an_outage_refuse_everything(status: Literal[429, 503, 529], reason: str) -> None:
    provider = provider_of(
        Phase(name="well"),
        Phase(name="ill", after_seconds=10.0, refuse_all=True, refusal_status=status, refusal_seconds=2.0),
        Phase(name="well again", after_seconds=20.0),
    )
    assert reasons(provider, 0.0, 2) == ["accepted", "accepted"]
    verdict = provider.arrive("chat", 10.0)
    assert isinstance(verdict, Refused)
    assert (verdict.reason, verdict.seconds, verdict.phase.refusal_status) == (reason, 2.0, status)
    assert reasons(provider, 20.0, 1) == ["accepted"]
    assert provider.counters().by_phase["ill"].refused == {reason: 1}
    assert provider.counters().in_flight == 3


def test_a_limit_that_drifts_refuses_by_where_it_is() -> None:
    provider = provider_of(Phase(max_in_flight=1, drift=Drift(to=3, seconds=10.0)))
    assert reasons(provider, 0.0, 2) == ["accepted", "concurrency"]
    assert reasons(provider, 10.0, 2) == ["accepted", "concurrency"]
    assert reasons(provider, 20.0, 2) == ["accepted", "concurrency"]
    refused = provider.arrive("chat", 30.0)
    assert refused == Refused("concurrency", provider.phase, 0.0, limit=2)
    assert provider.counters().in_flight == 3


def test_a_phase_that_is_due_by_time_has_started_at_that_time() -> None:
    phases = (Phase(name="first"), Phase(name="up", after_seconds=5.0, max_in_flight=1, drift=Drift(to=9, seconds=1.0)))
    early, late = provider_of(*phases), provider_of(*phases)
    for now in (100.0, 105.0, 106.0):
        early.arrive("chat", now)
    late.arrive("chat", 100.0)
    limits: list[int | None] = []
    for provider in (early, late):
        verdicts = [provider.arrive("chat", 108.0) for _ in range(20)]
        limits.append(max((each.limit or 0) for each in verdicts if isinstance(each, Refused)))
    assert limits == [4, 4]


def test_a_phase_never_starts_after_the_request_that_finds_it_due() -> None:
    start, after = 12.09, 33.3
    now = math.nextafter(start + after, 0.0)
    assert now - start >= after, "due, although the sum says later: floats"
    following = Phase(name="next", after_seconds=after, max_in_flight=1, drift=Drift(to=9))
    provider = provider_of(Phase(name="first"), following)
    provider.arrive("chat", start)
    assert provider.arrive("chat", now) == Refused("concurrency", following, 0.0, limit=1)


def test_a_phase_that_is_due_by_count_starts_with_the_request_that_finds_it() -> None:
    drifting = Phase(name="up", after_requests=1, max_in_flight=1, drift=Drift(to=9, seconds=1.0))
    provider = provider_of(Phase(name="first"), drifting)
    assert reasons(provider, 0.0, 1) == ["accepted"]
    assert provider.arrive("chat", 50.0) == Refused("concurrency", drifting, 0.0, limit=1)
    assert reasons(provider, 51.0, 2) == ["accepted", "concurrency"]


def test_a_neighbour_takes_slots_for_whole_intervals() -> None:
    phase = Phase(max_in_flight=4, neighbour=Neighbour(share=0.5, stretch_seconds=10.0))
    provider = provider_of(phase, seed=3)
    allowed: list[int] = []
    for stretch in range(40):
        counts: set[int] = set()
        for now in (stretch * 10.0, stretch * 10.0 + 9.75):
            verdicts = [provider.arrive("chat", now) for _ in range(5)]
            held = [verdict for verdict in verdicts if isinstance(verdict, Accepted)]
            counts.add(len(held))
            for each in held:
                provider.depart(each, "answer")
        allowed.append(counts.pop())
        assert not counts
    assert set(allowed) == {2, 4}
    assert 10 < allowed.count(2) < 30


def test_a_neighbour_takes_its_part_of_the_rates() -> None:
    """By count: over many stretches it is there half of the time, and then uses half of what there is."""

    def accepted_of(phase: Phase) -> int:
        provider = provider_of(phase, seed=1)
        for tick in range(10_000):
            provider.arrive("chat", tick / 10)
        return provider.counters().accepted

    neighbour = Neighbour(share=0.5, stretch_seconds=5.0)
    there = heads("1:steady:neighbour", 200)
    assert 80 < there < 120
    left = 1000.0 - there * 5.0 / 2
    assert accepted_of(Phase(requests_per_second=2.0)) == pytest.approx(2000, abs=2)
    assert accepted_of(Phase(requests_per_second=2.0, neighbour=neighbour)) == pytest.approx(2 * left, abs=2)


def test_what_a_neighbour_uses_of_a_window_is_used_while_it_is_there() -> None:
    phase = Phase(requests_per_window=10, window_seconds=10.0, neighbour=Neighbour(share=0.5, stretch_seconds=1000.0))
    seed = next(seed for seed in range(10) if heads(f"{seed}:steady:neighbour", 1) == 1)
    provider = provider_of(phase, seed=seed)
    assert reasons(provider, 0.0, 4) == ["accepted"] * 4
    # Half a request each second: 4.5 of 10 are used by it, and 5 are left, one of which goes to this request.
    assert reasons(provider, 9.0, 3) == ["accepted", "window", "window"]
    assert reasons(provider, 10.0, 11) == ["accepted"] * 10 + ["window"]


def test_a_bad_request_fails_at_once() -> None:
    provider = provider_of(Phase(latency=Latency(mean=5.0), bad_request_share=0.3))
    requests = [accepted(provider.arrive("chat", 0.0)) for _ in range(1000)]
    bad = [request for request in requests if request.fate == "bad_request"]
    assert 250 < len(bad) < 350
    assert {request.seconds for request in bad} == {0.0}
    assert {request.seconds for request in requests if request.fate == "answer"} == {5.0}
    provider.depart(bad[0], "bad_request")
    assert provider.counters().failed == {"bad_request": 1}


def test_where_a_limit_is_depends_on_seed_and_time_alone() -> None:
    drift, neighbour = Drift(to=16, seconds=0.25, shape="walk"), Neighbour(stretch_seconds=2.0)
    phase = Phase(max_in_flight=8, drift=drift, neighbour=neighbour)

    def play(seed: int, *, often: bool) -> list[int | None]:
        """The limit at every second; `often` also asks in between."""
        provider = provider_of(phase, seed=seed)
        limits: list[int | None] = []
        for tick in range(600):
            if tick % 10 and not often:
                continue
            verdicts = [provider.arrive("chat", tick / 10) for _ in range(17)]
            if tick % 10 == 0:
                limits += {each.limit for each in verdicts if isinstance(each, Refused)}
            for each in verdicts:
                if isinstance(each, Accepted):
                    provider.depart(each, "answer")
        return limits

    assert play(1, often=False) == play(1, often=True) != play(2, often=True)
    assert len(play(1, often=True)) == 60
    assert len(set(play(1, often=True))) > 6


@pytest.mark.parametrize(
    ("trigger", "phases"),
    [
        (Phase(name="low", after_requests=3), ["full", "full", "full", "low", "low"]),
        (Phase(name="low", after_accepted=2), ["full", "full", "full", "full", "full"]),
        (Phase(name="low", after_accepted=1), ["full", "low", "low", "low", "low"]),
        (Phase(name="low", after_seconds=2.0), ["full", "full", "low", "low", "low"]),
        (Phase(name="low", after_seconds=100.0, after_requests=4), ["full", "full", "full", "full", "low"]),
    ],
)
def test_a_phase_starts_when_its_first_trigger_is_reached(trigger: Phase, phases: list[str]) -> None:
    provider = provider_of(Phase(name="full", max_in_flight=1), trigger)
    assert [provider.arrive("chat", 7.0 + second).phase.name for second in range(5)] == phases


def test_phases_start_in_order_and_several_at_once() -> None:
    provider = provider_of(
        Phase(name="one"),
        Phase(name="two", after_seconds=5.0),
        Phase(name="three", after_requests=1),
        Phase(name="four", after_seconds=50.0),
    )
    assert [provider.arrive("chat", now).phase.name for now in (0.0, 1.0, 5.0, 6.0, 60.0)] == [
        *("one", "one", "three", "three", "four")
    ]


def test_a_lower_limit_takes_nothing_back() -> None:
    provider = provider_of(Phase(max_in_flight=3), Phase(name="low", after_accepted=3, max_in_flight=1))
    requests = [accepted(provider.arrive("chat", 0.0)) for _ in range(3)]
    for request in requests:
        assert isinstance(provider.arrive("chat", 0.0), Refused)
        provider.depart(request, "answer")
    assert accepted(provider.arrive("chat", 0.0)).phase.name == "low"


def test_looking_moves_nothing_on() -> None:
    provider = provider_of(Phase(name="one"), Phase(name="two", after_requests=1))
    provider.arrive("chat", 0.0)
    assert provider.counters().phase == provider.phase.name == "one"
    assert repr(provider) == "<Provider 'a' in phase 'one', 1 in flight>"


def test_what_happens_to_a_request_depends_on_seed_and_number_alone() -> None:
    phase = Phase(latency=Latency(mean=0.1, sigma=0.5), error_share=0.3, hang_share=0.3)

    def play(seed: int, *, early: bool) -> list[tuple[float, str]]:
        provider = provider_of(phase, seed=seed)
        requests: list[tuple[float, str]] = []
        for number in range(50):
            request = accepted(provider.arrive("chat", number / 10))
            requests.append((request.seconds, request.fate))
            if early:
                provider.depart(request, "answer")
        return requests

    assert play(1, early=True) == play(1, early=False)
    assert play(1, early=True) != play(2, early=True)
    assert {fate for _, fate in play(1, early=True)} == {"answer", "error", "hang"}


def test_another_script_starts_from_its_first_phase_and_keeps_who_is_in_flight() -> None:
    provider = provider_of(Phase(name="one"), Phase(name="two", after_requests=1))
    request = accepted(provider.arrive("chat", 0.0))
    accepted(provider.arrive("chat", 0.0))

    script = RehearsalScript(phases=(Phase(name="other", max_in_flight=2), Phase(name="end", after_seconds=10.0)))
    provider.replace_script(script)

    assert provider.script is script
    assert provider.arrive("chat", 100.0).phase.name == "other"
    assert provider.counters().refused == {"concurrency": 1}
    provider.depart(request, "answer")
    assert accepted(provider.arrive("chat", 109.0)).phase.name == "other"
    assert provider.arrive("chat", 110.0).phase.name == "end"
    assert provider.counters().requests == 5


def test_counters_are_kept_by_domain_and_phase() -> None:
    provider = provider_of(Phase(name="full", max_in_flight=2), Phase(name="low", after_requests=3, max_in_flight=1))
    chat = accepted(provider.arrive("chat", 0.0))
    accepted(provider.arrive("embedding", 0.0))
    provider.arrive("embedding", 0.0)
    provider.arrive("chat", 0.0)
    provider.depart(chat, "error")

    counters = provider.counters()
    assert (counters.provider, counters.phase) == ("a", "low")
    assert (counters.requests, counters.accepted, counters.max_in_flight) == (4, 2, 2)
    assert counters.refused == {"concurrency": 2}
    assert counters.failed == {"error": 1}
    assert {name: (tally.requests, tally.in_flight) for name, tally in counters.by_domain.items()} == {
        "chat": (2, 0),
        "embedding": (2, 1),
    }
    assert {name: (tally.requests, tally.in_flight) for name, tally in counters.by_phase.items()} == {
        "full": (3, 1),
        "low": (1, 0),
    }


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("arrive"), st.sampled_from(["chat", "embedding"])),
            st.tuples(
                st.just("depart"),
                st.sampled_from(["answer", "error", "malformed", "hang", "bad_request", "abandoned"]),
            ),
        ),
        max_size=60,
    )
)
def test_the_counts_always_add_up(steps: list[tuple[str, str]]) -> None:
    provider = provider_of(
        Phase(max_in_flight=4, requests_per_second=2.0, burst=6),
        Phase(name="low", after_requests=8, max_in_flight=2),
        Phase(name="out", after_requests=30, refuse_all=True, refusal_status=503),
        Phase(name="windows", after_requests=40, max_in_flight=4, requests_per_window=3, window_seconds=2.0),
    )
    in_flight: list[Accepted] = []
    for now, (step, argument) in enumerate(steps):
        if step == "arrive":
            verdict = provider.arrive(argument, now / 4)
            if isinstance(verdict, Accepted):
                in_flight.append(verdict)
        elif in_flight:
            provider.depart(in_flight.pop(0), argument)  # type: ignore[arg-type]

        total = provider.counters()
        assert total.in_flight == len(in_flight) <= total.max_in_flight <= 4
        for tally in (total, *total.by_domain.values(), *total.by_phase.values()):
            assert tally.requests == tally.accepted + sum(tally.refused.values())
            assert tally.accepted == (tally.answered + sum(tally.failed.values()) + tally.abandoned + tally.in_flight)
        for parts in (total.by_domain.values(), total.by_phase.values()):
            assert sum(tally.requests for tally in parts) == total.requests
            assert sum(tally.in_flight for tally in parts) == total.in_flight


@pytest.mark.parametrize("name", ["", "a/b", "v1", "-a", "ä"])
def test_a_provider_needs_a_name_that_can_stand_in_a_path(name: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^the name of a provider must be .*, got {re.escape(repr(name))}$"):
        open_providers({name: RehearsalScript()})


def test_at_least_one_provider_is_needed() -> None:
    with pytest.raises(InvalidValueError, match=r"^providers must be at least one script by name, got \{\}$"):
        open_providers({})


def test_a_quota_counts_what_its_phase_accepts_and_nothing_else() -> None:
    phases = (
        Phase(),
        Phase(name="paid", after_requests=2, quota=2, max_in_flight=1),
        Phase(name="more", after_requests=9),
    )
    provider = Provider("a", RehearsalScript(phases=phases))

    def arrive() -> Accepted:
        return accepted(provider.arrive("chat", 0.0))

    for _ in range(2):
        provider.depart(arrive(), "answer")
    held = arrive()
    provider.arrive("chat", 0.0)
    provider.depart(held, "answer")
    provider.depart(arrive(), "answer")
    for _ in range(4):
        provider.arrive("chat", 0.0)
    arrive()
    assert provider.counters().refused == {"concurrency": 1, "quota": 4}


def test_a_provider_that_is_unreachable_comes_back_in_a_later_phase() -> None:
    down = Phase(name="down", after_requests=1, unreachable=True, refuse_all=True, refusal_seconds=2.0)
    provider = Provider("a", RehearsalScript(phases=(Phase(), down, Phase(name="again", after_seconds=25.0))))
    assert isinstance(provider.arrive("chat", 0.0), Accepted)
    for now in (0.0, 24.9):
        verdict = provider.arrive("chat", now)
        assert isinstance(verdict, Refused)
        assert (verdict.reason, verdict.seconds) == ("unreachable", 2.0)
    assert isinstance(provider.arrive("chat", 25.0), Accepted)
    assert provider.counters().refused == {"unreachable": 2}


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "key"), (403, "key"), (429, "flood"), (503, "outage"), (529, "outage")]
)
def test_refusing_all_is_counted_by_what_it_stands_for(status: Any, reason: str) -> None:
    provider = Provider("a", RehearsalScript(phases=(Phase(refuse_all=True, refusal_status=status),)))
    provider.arrive("chat", 0.0)
    assert provider.counters().refused == {reason: 1}
