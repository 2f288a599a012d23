from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._request.queue import (
    RequestFairQueue,
    RequestQueueSelection,
    RequestQueueSnapshot,
    RequestQueueView,
    RequestWaiter,
)
from trio_sched._resources.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestGroupSpec

GPT = ProviderModelKey("openai", "gpt")
CLAUDE = ProviderModelKey("anthropic", "claude")
CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
EMBEDDING = RequestResourceKey("openai", "gpt", RequestDomain.EMBEDDING)
IMAGE = RequestResourceKey("openai", "gpt", RequestDomain.IMAGE)
OTHER = RequestResourceKey("anthropic", "claude", RequestDomain.CHAT)


def waiter(
    number: int, resource: RequestResourceKey = CHAT, at: float | None = None, weight: float = 1.0
) -> RequestWaiter:
    item = RequestAdmissionItem(resource, RequestGroupSpec(resource, weight))
    return RequestWaiter(number, item, float(number) if at is None else at)


def anyone(_waiter: RequestWaiter, _view: RequestQueueView) -> bool:
    return True


def only(*resources: RequestResourceKey) -> Callable[[RequestWaiter, RequestQueueView], bool]:
    return lambda waiter, _view: waiter.item.resource in resources


def serve(
    queue: RequestFairQueue, is_eligible: Callable[[RequestWaiter, RequestQueueView], bool] = anyone
) -> int | None:
    selection = queue.select_next(is_eligible)
    if selection is None:
        return None
    served = queue.commit(selection)
    assert served is not None
    assert served is selection.item
    return served.waiter_id


def test_an_empty_queue_selects_nothing() -> None:
    queue = RequestFairQueue()
    assert queue.select_next(anyone) is None
    assert queue.select_next(anyone, endpoint=GPT) is None
    assert queue.remove(1) is None
    assert queue.queued_in(CHAT) == 0
    assert queue.queued_at(GPT) == 0
    assert queue.waiters(GPT) == ()


def test_one_line_is_first_come_first_served() -> None:
    queue = RequestFairQueue()
    assert queue.enqueue([waiter(1), waiter(2), waiter(3)]) == (1, 2, 3)
    assert [serve(queue) for _ in range(4)] == [1, 2, 3, None]


def test_enqueue_is_idempotent_by_id() -> None:
    queue = RequestFairQueue()
    first = waiter(1)
    assert queue.enqueue([first, first]) == (1,)
    assert queue.enqueue([waiter(1), waiter(2)]) == (2,)
    assert queue.queued_in(CHAT) == 2
    assert queue.waiters(GPT)[0] is first


def test_select_changes_nothing() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1), waiter(2, EMBEDDING)])
    first = queue.select_next(anyone)
    again = queue.select_next(anyone)
    assert first == again
    assert first is not None
    assert first.sequence_version == 2
    assert queue.view().queued_total == 2


def test_the_version_moves_with_every_change() -> None:
    queue = RequestFairQueue()
    versions: list[int] = []
    queue.enqueue([waiter(1), waiter(2), waiter(3)])
    for change in (lambda: None, lambda: queue.remove(3), lambda: serve(queue), lambda: queue.enqueue([waiter(4)])):
        change()
        selection = queue.select_next(anyone)
        assert selection is not None
        versions.append(selection.sequence_version)
    assert versions == [3, 4, 5, 6]


def test_waiters_are_themselves_and_not_their_contents() -> None:
    assert waiter(1) != waiter(1)
    assert len({waiter(1), waiter(1)}) == 2


def test_lines_of_equal_weight_take_turns() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(number, CHAT) for number in (1, 2, 3)])
    queue.enqueue([waiter(number, EMBEDDING) for number in (4, 5, 6)])
    assert [serve(queue) for _ in range(6)] == [1, 4, 2, 5, 3, 6]


def test_weights_share_in_proportion() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(number, CHAT, weight=3.0) for number in range(1, 13)])
    queue.enqueue([waiter(number, EMBEDDING) for number in range(101, 113)])
    served = [serve(queue) for _ in range(12)]
    assert sum(number is not None and number < 100 for number in served) == 9


def test_the_weight_is_that_of_the_item_served() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1, CHAT, weight=0.5), waiter(2, CHAT, weight=4.0), waiter(3, CHAT)])
    queue.enqueue([waiter(number, EMBEDDING) for number in (11, 12, 13)])
    assert [serve(queue) for _ in range(6)] == [1, 11, 12, 2, 13, 3]


def test_lines_that_stand_equal_go_by_the_age_of_their_heads() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1, CHAT, at=5.0), waiter(2, EMBEDDING, at=3.0), waiter(3, IMAGE, at=4.0)])
    assert [serve(queue) for _ in range(3)] == [2, 3, 1]


def test_age_does_not_beat_a_turn() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1, CHAT, at=0.0), waiter(2, CHAT, at=1.0), waiter(3, EMBEDDING, at=9.0)])
    assert [serve(queue) for _ in range(3)] == [1, 3, 2]


def test_an_ineligible_line_is_passed_over_and_earns_no_burst() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(number, CHAT) for number in range(1, 11)])
    queue.enqueue([waiter(number, EMBEDDING) for number in range(11, 21)])
    assert [serve(queue, only(CHAT)) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert [serve(queue) for _ in range(6)] == [11, 7, 12, 8, 13, 9]


def test_nobody_eligible_selects_nothing() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1)])
    assert queue.select_next(only(EMBEDDING)) is None
    assert queue.select_next(only(EMBEDDING), endpoint=GPT) is None


def test_endpoints_are_independent() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1, CHAT), waiter(2, OTHER)])
    selection = queue.select_next(anyone, endpoint=CLAUDE)
    assert selection is not None
    assert selection.item.waiter_id == 2
    assert serve(queue, only(OTHER)) == 2
    assert serve(queue) == 1


def test_a_selection_goes_stale_with_its_head() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1), waiter(2), waiter(3, EMBEDDING)])
    selection = queue.select_next(anyone)
    assert selection is not None
    queue.remove(1)
    assert queue.commit(selection) is None
    assert serve(queue) == 2
    assert queue.commit(selection) is None
    assert queue.view().queued_total == 1


def test_a_selection_survives_changes_behind_its_head() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1), waiter(2)])
    selection = queue.select_next(anyone)
    assert selection is not None
    queue.remove(2)
    queue.enqueue([waiter(3, EMBEDDING)])
    committed = queue.commit(selection)
    assert committed is not None
    assert committed.waiter_id == 1


def test_a_selection_of_another_queue_is_stale() -> None:
    queue, stranger = RequestFairQueue(), waiter(1)
    assert queue.commit(RequestQueueSelection(stranger, queue.view(), 0)) is None
    queue.enqueue([waiter(1)])
    assert queue.commit(RequestQueueSelection(stranger, queue.view(), 0)) is None
    assert queue.queued_in(CHAT) == 1


def test_remove_takes_a_waiter_out_of_the_middle() -> None:
    queue = RequestFairQueue()
    waiters = [waiter(number) for number in (1, 2, 3)]
    queue.enqueue(waiters)
    assert queue.remove(2) is waiters[1]
    assert queue.remove(2) is None
    assert [serve(queue) for _ in range(3)] == [1, 3, None]


def test_an_emptied_line_starts_anew() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1)])
    queue.remove(1)
    assert queue.select_next(anyone) is None
    queue.enqueue([waiter(2)])
    assert serve(queue) == 2


def test_waiters_are_told_line_by_line() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(1), waiter(2, EMBEDDING), waiter(3), waiter(4, OTHER)])
    assert [each.waiter_id for each in queue.waiters(GPT)] == [1, 3, 2]


def test_the_view_reads_the_queue_as_it_stands() -> None:
    queue = RequestFairQueue()
    view = queue.view()
    assert view is queue.view()
    assert view.queued_total == 0
    assert view.queued_by_group == {}
    queue.enqueue([waiter(1), waiter(2, EMBEDDING), waiter(3), waiter(4, OTHER)])
    head = queue.waiters(GPT)[0].item
    assert view.queued_total == 4
    assert view.queued_by_group == {CHAT: 2, EMBEDDING: 1, OTHER: 1}
    assert view.queued_demand_by_resource == {CHAT: 2, EMBEDDING: 1, OTHER: 1}
    assert view.aggregate_provider_model_waiters == {GPT: 3, CLAUDE: 1}
    assert view.first_candidate_by_group[CHAT] == head
    frozen = view.snapshot()
    queue.remove(4)
    assert view.aggregate_provider_model_waiters == {GPT: 3}
    assert view.queued_by_group == {CHAT: 2, EMBEDDING: 1}
    assert set(view.first_candidate_by_group) == {CHAT, EMBEDDING}
    assert frozen == RequestQueueSnapshot(
        4,
        {CHAT: 2, EMBEDDING: 1, OTHER: 1},
        {CHAT: 2, EMBEDDING: 1, OTHER: 1},
        {GPT: 3, CLAUDE: 1},
        {CHAT: head, EMBEDDING: waiter(2, EMBEDDING).item, OTHER: waiter(4, OTHER).item},
    )


def test_the_view_cannot_be_written() -> None:
    queue = RequestFairQueue()
    with pytest.raises(TypeError):
        cast("dict[RequestResourceKey, int]", queue.view().queued_by_group)[CHAT] = 1


def test_selection_costs_the_same_in_a_long_line() -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(number) for number in range(1, 100_001)])
    for number in range(1, 50_001):
        queue.remove(number)
    calls = 0

    def counting(_waiter: RequestWaiter, _view: RequestQueueView) -> bool:
        nonlocal calls
        calls += 1
        return False

    assert queue.select_next(counting) is None
    assert calls == 1
    assert serve(queue) == 50_001


@given(
    weights=st.tuples(st.sampled_from([0.25, 1.0, 2.0, 3.0]), st.sampled_from([0.1, 1.0, 4.0])),
    rounds=st.integers(1, 60),
)
def test_backlogged_lines_stay_within_the_bound(weights: tuple[float, float], rounds: int) -> None:
    queue = RequestFairQueue()
    queue.enqueue([waiter(number, CHAT, weight=weights[0]) for number in range(rounds)])
    queue.enqueue([waiter(1000 + number, EMBEDDING, weight=weights[1]) for number in range(rounds)])
    service = [0, 0]
    for _ in range(rounds):
        served = serve(queue)
        assert served is not None
        service[served >= 1000] += 1
        lag = abs(service[0] / weights[0] - service[1] / weights[1])
        assert lag <= 1 / weights[0] + 1 / weights[1] + 1e-9
