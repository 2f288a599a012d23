"""Who is put through the scripted providers: each does what its description says."""

from __future__ import annotations

import pytest
from control_samples import EXACT

from benchmarks.control.acceptance import LINES, judge, summed_up
from benchmarks.control.candidates import CANDIDATES, JUDGED, PEER, WHO, client_factory, scenarios_of, seeds_of
from benchmarks.control.cubic import CubicClient
from benchmarks.control.gates import Concurrency
from benchmarks.control.inspect_connections import InspectClient
from benchmarks.control.providers import ScriptedProvider
from benchmarks.control.retrying import sdk_pause
from benchmarks.control.rules import RuleClient
from benchmarks.control.scenarios import SCENARIOS
from benchmarks.control.sdk import SdkClient
from benchmarks.control.simulator import GIVEN_UP, Answer, Client, Party, Simulation, Ticket
from benchmarks.control.split import SPLIT
from benchmarks.control.told import Told
from benchmarks.control.worlds import play
from benchmarks.errors import UsageError
from trio_sched.lowlevel import EvidenceLimit, Grant, LimitTransition, RequestSample

SUCCESS = Answer("success", 1.0)
REFUSED = Answer("rate_limited", 0.05, None, True, 429)
OVERLOADED = Answer("provider_failure", 0.05, None, True, 503)
BAD = Answer("provider_failure", 0.1, status=400)


def granted(client: Client, now: float) -> list[Ticket]:
    tickets: list[Ticket] = []
    while (ticket := client.grant(now)) is not None:
        tickets.append(ticket)
    return tickets


class Scripted:
    """A rule that writes down what it is told, and stops everything after a refusal."""

    current_limit = 3

    def __init__(self) -> None:
        self.told: list[object] = []
        self.blocked_until: float | None = None

    def granted(self, now: float, in_flight: int) -> Grant:
        self.told.append(("granted", now, in_flight))
        return Grant(0, in_flight, self.current_limit)

    def ended(self, now: float, grant: Grant, sample: RequestSample) -> tuple[LimitTransition, ...]:
        self.told.append(("ended", now, grant.rank, sample))
        if sample.refused:
            self.blocked_until = now + 1.0
        return ()

    def advance(self, now: float) -> tuple[LimitTransition, ...]:
        self.told.append(("advance", now))
        self.blocked_until = None
        return ()

    def next_deadline(self) -> float | None:
        return self.blocked_until


def test_a_rule_is_told_what_admission_tells_it() -> None:
    rule = Scripted()
    client = RuleClient(rule)
    first, second, third = granted(client, 1.0)
    client.release(first, SUCCESS, 2.0)
    client.release(second, Answer("rate_limited", 0.05, 0.7, True, 429), 2.5)
    assert granted(client, 2.6) == []
    assert client.next_wake() == 3.5
    client.release(third, GIVEN_UP, 4.0)
    assert len(granted(client, 4.0)) == 3
    assert rule.told == [
        ("granted", 1.0, 1),
        ("granted", 1.0, 2),
        ("granted", 1.0, 3),
        ("ended", 2.0, 1, RequestSample("success", None, 1.0, None, 2, False)),
        ("ended", 2.5, 2, RequestSample("rate_limited", 0.7, 1.5, None, 1, True)),
        ("advance", 4.0),
        ("ended", 4.0, 3, RequestSample("provider_timeout", None, 3.0, None, 0, False)),
        ("granted", 4.0, 1),
        ("granted", 4.0, 2),
        ("granted", 4.0, 3),
    ]


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("scenario", ["24-8-24 cap=64 hint=5", "outage=10 kind=529 K=16 T=1", "K=4 T=1 hint=1 gap"])
def test_everybody_works_repeats_and_stays_below_the_cap(name: str, scenario: str) -> None:
    world = SCENARIOS[scenario].world
    clients: list[Client] = []

    def make(told: Told) -> Client:
        clients.append(CANDIDATES[name](told))
        return clients[-1]

    first = play(world, make, 1, scenario)
    assert first == play(world, make, 1, scenario)
    assert 0.05 < first["utilisation"] <= 1 + 1e-9
    assert 0 <= first["refused"] < 1
    assert 1 <= clients[0].limit <= world.cap


@pytest.mark.parametrize("group", ["limit from 8 up", "limit below 8", "24, 8, 24", "growth 32 to 256"])
def test_the_default_keeps_lines_with_a_seed_of_the_half_that_is_tuned_on(group: str) -> None:
    names = [name for name in SPLIT["tune"] if SCENARIOS[name].group == group and SCENARIOS[name].world.calls < 30_000]
    assert names
    for name in names[::6]:
        found = summed_up([play(SCENARIOS[name].world, CANDIDATES[JUDGED], 1, name)])
        assert judge(LINES[group], found) == "kept", (name, found)


def test_the_sdk_sleeps_half_a_second_doubled_or_what_it_is_asked() -> None:
    assert [sdk_pause(retries, REFUSED, 0.0) for retries in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert sdk_pause(0, REFUSED, 1.0) == 0.375
    hints = [Answer("rate_limited", 0.05, hint, True, 429) for hint in (0.0, 0.2, 60.0, 61.0)]
    assert [sdk_pause(0, hint, 0.0) for hint in hints] == [0.5, 0.2, 60.0, 0.5]


def test_a_refused_call_sleeps_in_its_place_and_is_lost_after_the_last_retry() -> None:
    client = SdkClient(1, retries=2, seed=1)
    now = 0.0
    for attempts in range(3):
        assert granted(client, now) == [attempts]
        client.release(attempts, REFUSED, now + 0.05)
        wake = client.next_wake()
        if wake is None:
            break
        assert granted(client, now + 0.06) == []
        now = wake
    assert client.lost == 1
    assert granted(client, now + 1) == [0]


def test_the_sdk_does_not_try_again_what_is_wrong() -> None:
    client = SdkClient(1, retries=2, seed=1)
    client.release(client.grant(0.0) or 0, BAD, 0.1)
    assert client.next_wake() is None
    assert client.lost == 0
    client.release(client.grant(0.1) or 0, OVERLOADED, 0.2)
    assert client.next_wake() is not None


def test_inspect_doubles_each_round_until_something_is_refused_and_then_adds_a_twentieth() -> None:
    client = InspectClient(cap=100, seed=1)
    assert client.limit == 20
    for _ in range(20):
        client.answered(1, 0.0)
    assert client.limit == 40
    client.answered(2, 0.0)
    client.pause(1, REFUSED, 10.0)
    assert client.limit == 30
    client.pause(1, REFUSED, 24.9)
    assert client.limit == 30
    for _ in range(100):
        client.answered(1, 24.9)
    assert client.limit == 30
    for _ in range(30):
        client.answered(1, 25.0)
    assert client.limit == 35
    client.pause(1, Answer("rate_limited", 0.05, 20.0, True, 429), 26.0)
    client.pause(1, REFUSED, 45.9)
    assert client.limit == 25
    client.pause(1, REFUSED, 46.0)
    assert client.limit == 20


def test_inspect_never_cuts_for_a_failing_server_and_waits_longer_from_the_third_attempt_on() -> None:
    client = InspectClient(cap=8, seed=1)
    pauses = [client.pause(attempts, OVERLOADED, 0.0) or 0.0 for attempts in range(1, 7)]
    assert client.limit == 8
    assert [round(pause) for pause in pauses[:2]] == [0, 1]
    assert 3 <= pauses[2] <= 4
    assert 6 <= pauses[5] <= 7
    assert InspectClient(cap=2, seed=1).limit == 2


def test_cubic_starts_slowly_falls_by_three_tenths_once_a_window_and_comes_back() -> None:
    client = CubicClient(cap=1000)
    tickets = granted(client, 0.0)
    assert len(tickets) == 10
    for ticket in tickets:
        client.release(0.0 if ticket == 0.0 else 1.0, SUCCESS, 1.0)
    assert client.limit == 20
    assert len(granted(client, 1.0)) == 20
    client.release(1.0, REFUSED, 1.05)
    client.release(1.0, REFUSED, 1.06)
    assert client.limit == 14
    now, seen = 2.0, [client.limit]
    for _ in range(60):
        for _ in range(client.limit):
            client.release(now - 1.0, SUCCESS, now)
        seen.append(client.limit)
        now += 1.0
    assert seen == sorted(seen)
    # Back at where it fell from, slowly around it, and then away from it.
    assert any(20 <= limit <= 21 for limit in seen)
    assert seen[-1] > 40


def test_cubic_waits_when_nothing_is_left_and_longer_each_time() -> None:
    client = CubicClient(cap=1)
    pauses: list[float] = []
    now = 0.0
    for _ in range(8):
        assert granted(client, now) == [now]
        client.release(now, REFUSED, now)
        wake = client.next_wake()
        assert wake is not None
        assert granted(client, now) == []
        pauses.append(wake - now)
        now = wake
        client.wake(now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_cubic_is_refused_less_than_it_would_be_without_falling() -> None:
    party = Party(CubicClient(64))
    Simulation(ScriptedProvider(Concurrency(16), EXACT), [party], seed=1).run(300.0)
    assert party.refused / party.attempts < 0.1
    assert party.succeeded > 0.8 * 16 * 300


def test_a_factory_is_named_by_module_and_attribute() -> None:
    world = SCENARIOS["24-8-24 cap=64 hint=5"].world
    assert play(world, client_factory("trio_sched.lowlevel:EvidenceLimit"), 1) == play(world, CANDIDATES["evidence"], 1)
    assert EvidenceLimit(64).current_limit == client_factory("evidence")(Told(64, 16)).limit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "there is no candidate 'nobody'; there are evidence, "),
        ("nowhere:Rule", "there is no rule 'nowhere:Rule': No module named 'nowhere'"),
        ("trio_sched.lowlevel:NoRule", "there is no rule 'trio_sched.lowlevel:NoRule': "),
    ],
)
def test_who_is_unknown_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        client_factory(name)


def test_the_judged_gets_every_seed_and_others_fewer() -> None:
    seeds = (101, 102, 103, 104, 105)
    assert seeds_of(JUDGED, seeds) == seeds_of("my:Rule", seeds) == seeds
    assert seeds_of("aimd", seeds) == seeds_of(PEER, seeds) == (101,)
    assert {*CANDIDATES, PEER} == WHO.keys()


def test_the_peer_plays_what_is_short_and_the_shortest_of_each_line() -> None:
    names = SPLIT["report"]
    assert scenarios_of("aimd", names) == list(names)
    played = scenarios_of(PEER, names)
    assert {SCENARIOS[name].group for name in played} == LINES.keys()
    assert len(names) / 2 < len(played) < len(names)
    longer = [name for name in played if SCENARIOS[name].world.calls > 20_000]
    assert len(longer) == len({SCENARIOS[name].group for name in longer})
