"""The fair order: its bound, what earns no credit, what is remembered, and that lanes and rebasing do not show."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_sched._fair import FairOrder

ORDINARY = st.sampled_from((1.0, 2.0, 3.0, 0.5, 0.1))
WIDE = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)
EXTREME = st.sampled_from((1e-307, 1e-300, 1e-12, 0.1, 1.0, 1e12, 1e300))
WEIGHTS = st.one_of(*(st.lists(weight, min_size=2, max_size=5) for weight in (ORDINARY, WIDE, EXTREME)))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 4), st.integers(1, 30)),
        st.tuples(st.just("toggle"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 4), st.integers(0, 2)),
        st.tuples(st.just("serve"), st.integers(1, 12), st.just(0)),
    ),
    max_size=60,
)


def serve(order: FairOrder[str], *keys: str, weight: float = 1.0) -> None:
    for key in keys:
        order.serve(key, weight)


def active(*keys: str) -> FairOrder[str]:
    order: FairOrder[str] = FairOrder()
    for key in keys:
        order.activate(key)
    return order


@given(WEIGHTS, STEPS)
@example([1e-300, 1.0, 1.0], [("arrive", each, 30) for each in range(3)] + [("serve", 12, 0)] * 6)
def test_service_differs_by_at_most_one_unit_each(weights: list[float], steps: list[tuple[str, int, int]]) -> None:
    """Over every stretch in which both are backlogged and eligible: |s_a/w_a - s_b/w_b| <= 1/w_a + 1/w_b."""
    order: FairOrder[int] = FairOrder()
    backlog = [0] * len(weights)
    eligible = [True] * len(weights)
    served = [0] * len(weights)
    stretches: dict[tuple[int, int], tuple[int, int, float, float]] = {}

    def measure() -> None:
        for a in range(len(weights)):
            for b in range(a):
                if not (backlog[a] and backlog[b] and eligible[a] and eligible[b]):
                    stretches.pop((a, b), None)
                    continue
                from_a, from_b, low, high = stretches.get((a, b), (served[a], served[b], 0.0, 0.0))
                lag = (served[a] - from_a) / weights[a] - (served[b] - from_b) / weights[b]
                low, high = min(low, lag), max(high, lag)
                stretches[a, b] = (from_a, from_b, low, high)
                assert high - low <= (1 / weights[a] + 1 / weights[b]) * (1 + 1e-6)

    for kind, number, amount in steps:
        group = number % len(weights)
        if kind == "arrive":
            if not backlog[group]:
                order.activate(group, amount % 2, weight=weights[group])
            backlog[group] += amount
        elif kind == "toggle":
            eligible[group] = not eligible[group]
        elif kind == "move" and backlog[group]:
            order.move(group, amount)
        for _ in range(number if kind == "serve" else 0):
            ranked = list(order.ranked())
            assert ranked == sorted((each for each in range(len(weights)) if backlog[each]), key=order.rank)
            chosen = next((each for each in ranked if eligible[each]), None)
            if chosen is None:
                break
            order.serve(chosen, weights[chosen])
            backlog[chosen] -= 1
            served[chosen] += 1
            if not backlog[chosen]:
                order.deactivate(chosen)
            measure()
        measure()


def test_equals_take_turns_first_come_first() -> None:
    order = active("a", "b", "c")
    turns: list[str] = []
    for _ in range(7):
        head = order.head()
        assert head is not None
        turns.append(head)
        order.serve(head, 1.0)
    assert turns == ["a", "b", "c", "a", "b", "c", "a"]


def test_three_thirds_are_a_whole() -> None:
    """No rounding error decides between equals: after 3 services at weight 3 both stand at 1, and b came first."""
    order = active("a", "b")
    serve(order, "a", weight=1.0)
    for _ in range(3):
        assert order.head() == "b"
        serve(order, "b", weight=3.0)
    assert order.rank("a")[0] == order.rank("b")[0] == 1.0
    assert order.head() == "a"


def test_ten_tenths_are_a_whole_for_all_equals() -> None:
    """Three units of a tenth, summed one by one, are a little more than three tenths."""
    order = active("ten", "also", "one")
    serve(order, "one")
    for count in range(1, 11):
        for key in ("ten", "also"):
            assert order.head() == key
            serve(order, key, weight=10.0)
            assert order.rank(key)[0] == count / 10
    assert order.head() == "one"


def test_a_group_that_comes_back_when_it_is_due_stays_equal_to_its_equals() -> None:
    order = active("steady", "back", "stays")
    serve(order, "stays", "back", "back", weight=10.0)
    order.deactivate("back")
    serve(order, "stays", "stays", weight=10.0)
    assert order.statistics().virtual_time == 0.2
    order.activate("back", weight=10.0)
    serve(order, "back", weight=10.0)
    assert order.rank("back")[0] == order.rank("stays")[0] == 0.3


def test_a_skipped_group_returns_as_an_equal() -> None:
    """Ineligible for a hundred rounds: it is next, once, and then takes turns."""
    order = active("away", "a", "b")
    for _ in range(100):
        serve(order, "a", "b")
    turns: list[str] = []
    for _ in range(6):
        head = order.head()
        assert head is not None
        turns.append(head)
        order.serve(head, 1.0)
    assert turns == ["away", "a", "b", "away", "a", "b"]


def test_coming_back_one_at_a_time_earns_nothing() -> None:
    order = active("steady")
    served = {"steady": 0, "nervous": 0}
    for _ in range(20):
        if "nervous" not in order:
            order.activate("nervous")
        head = order.head()
        assert head is not None
        order.serve(head, 1.0)
        served[head] += 1
        if head == "nervous":
            order.deactivate("nervous")
    assert served == {"steady": 10, "nervous": 10}


def test_a_crowd_that_comes_and_goes_starves_nobody() -> None:
    """Far more groups than can be remembered, each back as soon as it was served."""
    order = active("steady")
    crowd = deque(f"c{number}" for number in range(500))
    served = 0
    for _ in range(5000):
        visitor = crowd[0]
        crowd.rotate(-1)
        order.activate(visitor)
        head = order.head()
        assert head is not None
        if head == "steady":
            served += 1
        order.serve(head, 1.0)
        order.deactivate(visitor)
        assert order.statistics().idle <= 2 * 1 + 16
    assert served >= 100


def test_a_newcomer_after_early_forgetting_waits_no_longer_than_one_just_served() -> None:
    crowd = [f"c{number}" for number in range(100)]
    order = active(*crowd, "steady")
    serve(order, *crowd)
    for visitor in crowd:
        order.deactivate(visitor)
    assert order.statistics().idle == 18
    order.activate("new", weight=4.0)
    order.activate("slow", weight=0.125)
    order.activate("plain")
    assert [order.rank(key)[0] for key in ("new", "slow", "plain")] == [0.25, 1.0, 1.0]


def test_what_is_remembered_is_bounded_by_who_is_active() -> None:
    order = active("steady")
    for number in range(10_000):
        key = f"g{number}"
        order.activate(key, lane=number)
        order.serve(key, 1e-9)
        order.deactivate(key)
    statistics = order.statistics()
    assert (statistics.active, statistics.lanes) == (1, 1)
    assert statistics.idle <= 18
    assert statistics.entries <= 1 + 8 + 2 * 18 + 8


def test_when_nobody_is_active_all_is_forgotten() -> None:
    order = active("a", "b")
    serve(order, "a", "a", "b")
    order.deactivate("a")
    assert order.statistics().idle == 1
    order.deactivate("b")
    statistics = order.statistics()
    assert (statistics.active, statistics.idle, statistics.lanes, statistics.entries) == (0, 0, 0, 0)
    assert statistics.virtual_time == 0
    assert len(order) == 0
    order.activate("a")
    assert order.rank("a")[0] == 0


def test_a_tag_behind_virtual_time_is_not_kept() -> None:
    order = active("a", "b")
    serve(order, "b", "b", "b")
    order.deactivate("a")
    assert order.statistics().idle == 0
    order.activate("a")
    assert order.rank("a")[0] == order.statistics().virtual_time == 2.0


def test_an_idle_tag_behind_virtual_time_earns_nothing() -> None:
    order = active("a", "b")
    serve(order, "a")
    order.deactivate("a")
    serve(order, "b", "b", "b")
    order.activate("a")
    assert order.rank("a")[0] == 2.0
    serve(order, "a")
    assert order.rank("a")[0] == 3.0


@pytest.mark.parametrize(("services", "idle"), [(1, 2), (2, 1), (3, 0)])
def test_an_idle_tag_is_forgotten_once_virtual_time_has_come_to_it(services: int, idle: int) -> None:
    order = active("one", "two", "b", "c")
    serve(order, "one")
    serve(order, "two", weight=0.5)
    order.deactivate("one")
    order.deactivate("two")
    serve(order, *("b",) * services)
    order.deactivate("c")
    assert order.statistics().idle == idle


def test_a_group_can_come_and_go_for_ever_at_a_tiny_weight() -> None:
    """Its idle tag never expires, so entries out of date must go by themselves."""
    order = active("steady")
    order.activate("tiny", weight=1e-300)
    serve(order, "tiny", weight=1e-300)
    for _ in range(1000):
        order.deactivate("tiny")
        order.activate("tiny", weight=1e-300)
        assert order.statistics().entries <= 2 * (2 + 1) + 16
    assert order.rank("tiny")[0] == 1 / 1e-300


def test_changing_the_weight_keeps_what_was_charged() -> None:
    order = active("a")
    serve(order, "a", weight=2.0)
    serve(order, "a", weight=4.0)
    serve(order, "a", weight=4.0)
    assert order.rank("a")[0] == 0.5 + 0.25 + 0.25


@pytest.mark.parametrize("tiny", [1e-300, 1e-20])
def test_tiny_weights_beside_ordinary_ones_lose_no_precision(tiny: float) -> None:
    """Virtual time leaps to 1e300, or 1e20, while the ordinary groups are away; afterwards 2 : 1 is still 2 : 1."""
    order = active("tiny")
    serve(order, "tiny", "tiny", weight=tiny)
    order.activate("double")
    order.activate("single")
    served = {"double": 0, "single": 0}
    for _ in range(30):
        head = order.head()
        assert head is not None
        order.serve(head, 2.0 if head == "double" else 1.0)
        served[head] += 1
    assert served == {"double": 20, "single": 10}
    assert order.statistics().virtual_time < 100


def test_rebasing_shifts_idle_groups_and_what_was_forgotten() -> None:
    order = active("steady")
    for number in range(40):
        order.activate(f"c{number}", weight=1e-300)
        order.serve(f"c{number}", 1e-300)
        order.deactivate(f"c{number}")
    order.activate("t", weight=1e-300)
    serve(order, "t", weight=1e-300)
    serve(order, "t", weight=1e-300)
    serve(order, "steady")
    assert order.statistics().virtual_time == 0
    order.activate("c39", weight=1e-300)
    assert order.rank("c39")[0] == 0
    assert order.rank("t")[0] == 1 / 1e-300


@pytest.mark.parametrize(
    ("start", "weight", "shifts"),
    [
        (2.0**15, 2.0**17, 0),
        (2.0**16, 2.0**17, 1),
        (0.0, 2.0**40, 0),
        (2.0**900, 0.25, 1),
        (2.0**900, 2.0**-900, 0),
        (2.0**901, 2.0**-901, 1),
    ],
)
def test_tags_are_shifted_where_a_unit_would_be_lost_in_virtual_time(start: float, weight: float, shifts: int) -> None:
    order = active("a")
    if start:
        serve(order, "a", weight=1 / start)
    assert order.shifts == 0
    serve(order, "a", weight=weight)
    assert order.shifts == shifts
    assert order.statistics().virtual_time == (0.0 if shifts else start)
    assert order.rank("a")[0] == order.statistics().virtual_time + 1 / weight


def test_shifts_are_counted() -> None:
    order = active("a")
    for count in range(1, 4):
        serve(order, "a", weight=2.0**-16)
        serve(order, "a", weight=2.0**40)
        assert order.shifts == count


def test_those_behind_a_shift_become_equal_and_take_turns() -> None:
    order = active("x", "y", "late")
    serve(order, "y", weight=0.5)
    serve(order, "x", weight=1.0)
    serve(order, "late", weight=0.1)
    assert list(order.ranked()) == ["x", "y", "late"]
    serve(order, "late", weight=2.0**40)
    assert (order.shifts, order.rank("x")[0], order.rank("y")[0]) == (1, 0.0, 0.0)
    assert list(order.ranked()) == ["y", "x", "late"]
    assert order.head() == "y"
    assert order.statistics().entries <= 3 + 1


@pytest.mark.parametrize(("start", "expected"), [(100.0, 900.0), (2000.0, 0.0)])
def test_a_shift_moves_what_a_newcomer_waits_for(start: float, expected: float) -> None:
    """A crowd was forgotten early, up to a tag of 1000."""
    crowd = [f"c{number}" for number in range(60)]
    order = active("steady", *crowd)
    serve(order, *crowd, weight=0.001)
    for visitor in crowd:
        order.deactivate(visitor)
    serve(order, "steady", weight=1 / start)
    serve(order, "steady", weight=2.0**40)
    assert order.shifts == 1
    order.activate("new", weight=1e-6)
    assert order.rank("new")[0] == expected


def test_largest_reciprocals_never_overflow() -> None:
    order = active("a", "b")
    for _ in range(10):
        head = order.head()
        assert head is not None
        order.serve(head, 6e-309)
        assert all(math.isfinite(order.rank(key)[0]) for key in ("a", "b"))


def test_lanes_have_heads_of_their_own_and_one_order() -> None:
    order: FairOrder[str] = FairOrder()
    for key, lane in (("a", "x"), ("b", "y"), ("c", "x")):
        order.activate(key, lane)
    assert (order.head("x"), order.head("y"), order.head("z"), order.head()) == ("a", "b", None, None)
    assert list(order.ranked()) == list(order.ranked("x", "y")) == ["a", "b", "c"]
    assert list(order.ranked("x", "nobody")) == ["a", "c"]
    place = order.rank("a")
    order.move("a", "y")
    assert order.rank("a") == place
    assert (order.head("x"), order.head("y")) == ("c", "a")
    order.move("a", "y")
    order.move("a", "x")
    assert list(order.ranked("x")) == ["a", "c"]
    order.serve("a", 1.0)
    assert list(order.ranked()) == ["b", "c", "a"]
    assert "a" in order
    assert "d" not in order


def test_a_lane_does_not_keep_entries_that_left_it() -> None:
    order: FairOrder[int] = FairOrder()
    for key in range(100):
        order.activate(key, "here")
    for key in range(99, 0, -1):
        order.move(key, "there")
        order.move(key, "here")
    assert order.statistics().entries <= 2 * 100 + 8 + 8
    assert list(order.ranked("here")) == list(range(100))


def test_those_that_stay_keep_their_order_while_most_leave() -> None:
    """Entries out of date are cleared away several times, from anywhere in a lane."""
    order: FairOrder[int] = FairOrder()
    for key in range(200):
        order.activate(key, key % 2)
    for key in range(200):
        order.serve(key, 1 / (1 + key * 37 % 101))
    staying = set(range(200))
    for step in range(190):
        key = step * 71 % 200
        order.deactivate(key)
        staying.remove(key)
        ranked = sorted(staying, key=order.rank)
        assert list(order.ranked()) == ranked
        for lane in (0, 1):
            assert order.head(lane) == next((each for each in ranked if each % 2 == lane), None)


def test_ranking_is_lazy_and_changes_nothing() -> None:
    order = active("a", "b", "c")
    walk = order.ranked()
    assert next(walk) == "a"
    before = order.statistics()
    assert list(order.ranked()) == ["a", "b", "c"]
    assert order.statistics() == before
    assert list(walk) == ["b", "c"]


def test_serving_out_of_order_lifts_nobody_below_virtual_time() -> None:
    order = active("a", "b")
    serve(order, "b", "b", "b")
    assert order.statistics().virtual_time == 2.0
    serve(order, "a")
    assert order.rank("a")[0] == 3.0


@pytest.mark.parametrize("key", ["never", "gone"])
def test_only_active_groups_have_a_rank(key: str) -> None:
    order = active("a", "gone")
    order.serve("gone", 1.0)
    order.deactivate("gone")
    with pytest.raises(KeyError):
        order.rank(key)
