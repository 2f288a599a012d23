"""The request queue against lists: per line first come first served, between lines weighted fair, nothing lost.

Calls that were told a time let the others of their line go first until then, and take the place of their age after it.
"""

from __future__ import annotations

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_sched._request.queue import RequestFairQueue, RequestQueueSelection, RequestQueueView, RequestWaiter
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.request import RequestAdmissionItem, RequestGroupSpec

RESOURCES = tuple(
    RequestResourceKey(provider, "model", domain)
    for provider in ("left", "right")
    for domain in (RequestDomain.CHAT, RequestDomain.EMBEDDING, RequestDomain.IMAGE)
)
WEIGHTS = dict(zip(RESOURCES, (1.0, 0.5, 3.0, 2.0, 0.1, 7.0), strict=True))
NOT_BEFORE = st.none() | st.integers(0, 12).map(float)
"""Few times, so that several waiters have the same one, and whole lines are deferred."""


class RequestQueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = RequestFairQueue()
        self.lines: dict[RequestResourceKey, list[RequestWaiter]] = {resource: [] for resource in RESOURCES}
        self.made = 0
        self.now = -math.inf
        self.blocked: frozenset[RequestResourceKey] = frozenset()
        self.selection: RequestQueueSelection | None = None
        self.service: dict[RequestResourceKey, float] = dict.fromkeys(RESOURCES, 0.0)
        self.together: dict[tuple[RequestResourceKey, RequestResourceKey], float] = {}

    def eligible(self, waiter: RequestWaiter, view: RequestQueueView) -> bool:
        assert view is self.queue.view()
        return waiter.item.resource not in self.blocked

    def head(self, resource: RequestResourceKey) -> RequestWaiter:
        """Who is next in a line: the oldest of those who may go, or else whose time comes first."""

        def place(waiter: RequestWaiter) -> tuple[float, int]:
            until = waiter.item.not_before
            return (until if until is not None and until > self.now else -math.inf, waiter.waiter_id)

        return min(self.lines[resource], key=place)

    @rule(resource=st.sampled_from(RESOURCES), times=st.lists(NOT_BEFORE, min_size=1, max_size=6))
    def enqueue(self, resource: RequestResourceKey, times: list[float | None]) -> None:
        waiters: list[RequestWaiter] = []
        for not_before in times:
            self.made += 1
            item = RequestAdmissionItem(resource, RequestGroupSpec(resource, WEIGHTS[resource]), not_before=not_before)
            waiters.append(RequestWaiter(self.made, item, float(self.made)))
        assert self.queue.enqueue(waiters) == tuple(waiter.waiter_id for waiter in waiters)
        assert self.queue.enqueue(waiters) == ()
        self.lines[resource].extend(waiters)

    @rule(now=st.integers(0, 12).map(float))
    def advance(self, now: float) -> None:
        """Time that went back, as for whoever is late to say it, changes nothing."""
        self.now = max(now, self.now)
        self.queue.advance(now)

    @rule(blocked=st.frozensets(st.sampled_from(RESOURCES), max_size=4))
    def block(self, blocked: frozenset[RequestResourceKey]) -> None:
        self.blocked = blocked

    @rule(position=st.integers(0, 40))
    def remove(self, position: int) -> None:
        everybody = [waiter for line in self.lines.values() for waiter in line]
        if everybody:
            waiter = everybody[position % len(everybody)]
            assert self.queue.remove(waiter.waiter_id) is waiter
            assert self.queue.remove(waiter.waiter_id) is None
            self.lines[waiter.item.resource].remove(waiter)

    @rule()
    def select(self) -> None:
        self.selection = self.queue.select_next(self.eligible)
        candidates = [resource for resource in RESOURCES if self.lines[resource] and resource not in self.blocked]
        assert (self.selection is None) == (not candidates)
        if self.selection is not None:
            waiter = self.selection.item
            assert self.head(waiter.item.resource) is waiter
            assert waiter.item.resource not in self.blocked

    @precondition(lambda self: self.selection is not None)
    @rule()
    def commit_what_was_selected(self) -> None:
        assert self.selection is not None
        waiter = self.selection.item
        line = self.lines[waiter.item.resource]
        served = self.queue.commit(self.selection)
        if line and self.head(waiter.item.resource) is waiter:
            assert served is waiter
            line.remove(waiter)
            self.note_service(waiter.item.resource)
        else:
            assert served is None

    @rule(rounds=st.integers(1, 12))
    def serve(self, rounds: int) -> None:
        for _ in range(rounds):
            selection = self.queue.select_next(self.eligible)
            if selection is None:
                return
            assert self.queue.commit(selection) is selection.item
            resource = selection.item.item.resource
            assert self.head(resource) is selection.item
            self.lines[resource].remove(selection.item)
            self.note_service(resource)
            self.fair()

    def note_service(self, resource: RequestResourceKey) -> None:
        self.service[resource] += 1 / WEIGHTS[resource]

    @invariant()
    def fair(self) -> None:
        """Over any stretch in which two lines of an endpoint are backlogged and eligible, within 1/w_a + 1/w_b."""
        for one in RESOURCES:
            for other in RESOURCES:
                if one >= other or one.provider_name != other.provider_name:
                    continue
                pair = (one, other)
                if all(self.lines[each] and each not in self.blocked for each in pair):
                    gap = self.service[one] - self.service[other]
                    start = self.together.setdefault(pair, gap)
                    assert abs(gap - start) <= 1 / WEIGHTS[one] + 1 / WEIGHTS[other] + 1e-9
                else:
                    self.together.pop(pair, None)

    @invariant()
    def the_view_counts_right(self) -> None:
        view = self.queue.view()
        assert view.queued_by_group == {key: len(line) for key, line in self.lines.items() if line}
        assert view.queued_total == sum(map(len, self.lines.values()))
        assert sum(view.aggregate_provider_model_waiters.values()) == view.queued_total
        for key, line in self.lines.items():
            assert self.queue.queued_in(key) == len(line)
            if line:
                assert view.first_candidate_by_group[key] is self.head(key).item


TestRequestQueueMachine = RequestQueueMachine.TestCase
