"""Whether an endpoint answers. A limit rule asks how many calls an endpoint takes; this asks whether it takes any.

*Whose failure.* A call that failed without an answer (a refused connection, HTTP 500, a timeout) may be a bad call or
a bad endpoint. One call cannot tell. Several in a row can: at least three, at least as many as were in flight when the
row began, and nothing answered in between that was granted later than the first of them. Then the endpoint is *not
answering*, and nobody who waits for it is to blame. Calls that were granted earlier prove nothing: they may have had
their connections already, as in a server that shuts down gracefully.

*One trial.* From then on one call goes out at a time, that of whoever comes first in the fair order, after a pause of
5 s that doubles to 30 s. Everybody else waits. The first trial that is answered opens the endpoint, at the limit that
was learned before, since the limit rule saw none of this as a refusal. So does a trial that the provider's pace refuses
(429): it shows that the provider is there, and the limit rule goes on. A trial that is out for longer than `PATIENCE`
hangs, and another one may go.

*Access.* A refused key, a used-up quota or an unknown model says that no call will be answered, but a service may say
so by mistake. So it is asked once more, at once, by one trial. If that is refused the same way, the endpoint is
*closed*.

*The end of patience.* Where `max_outage_seconds` is set, an endpoint that did not answer for so long, whether it failed
or was overloaded (503, 529), is closed too. The clock runs from the first call that was not answered after the last one
that was. A 429 is no outage, however long it lasts: the provider is there, and says when to come back.

                enough failures in a row, or access refused         access refused again
     +-----------+  ------------------------------>  +---------------+  ------------->  +--------+
     | answering |                                   | not answering |                  | closed |
     +-----------+  <------------------------------  +---------------+  ------------->  +--------+
                            a trial is answered                        out of patience

Pure: the time is passed in. `ended` and `advance` return what changed, for events.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from trio_sched._resources.request import EndpointStateName, RequestReleaseOutcome
from trio_sched._util import doubled

__all__ = ["Answers", "ClosedReason", "EndpointChange", "EndpointHealth"]

LEAST_FAILURES: Final = 3
"""Failures in a row that make an endpoint not answering, however few calls were in flight."""
FIRST_PAUSE: Final = 5.0
"""Seconds from a failed trial to the next one, doubling with each."""
LONGEST_PAUSE: Final = 30.0
PATIENCE: Final = 60.0
"""Seconds after which a trial that has not ended no longer keeps the next one back."""

ClosedReason = Literal["endpoint_closed", "endpoint_not_answering"]
EndpointChange = Literal["not_answering", "answering", "closed"]


class Answers(NamedTuple):
    """What an endpoint has answered so far: how many calls, and the highest lease id of one of them.

    outages: how often it stopped answering. is_answering: whether it answers now.
    """

    calls: int = 0
    latest_lease: int = 0
    outages: int = 0
    is_answering: bool = True

    def answered_since(self, then: Answers) -> bool:
        """Whether it answered a call since `then`, when it answered, and did not stop answering."""
        return self.calls > then.calls and then.is_answering and self.outages == then.outages


class EndpointHealth:
    """The state of one endpoint.

    state, because: the state, and why it is not `answering`. closed_for: the reason for which calls are refused once it
    is closed. admits: whether a call may go out as far as the state is concerned. answers: calls that the provider
    answered. answered: the highest lease id of one of them. outages: how often it stopped answering. unanswered_since:
    when the first call ended that was not answered after the last one that was, or None. next_trial_at: until when the
    next trial is kept back; infinite while it is not.
    """

    __slots__ = (
        "_access_refused",
        "_failures",
        "_first_unanswered",
        "_max_outage",
        "_needed",
        "_refused",
        "_trials",
        "_trials_failed",
        "admits",
        "answered",
        "answers",
        "because",
        "closed_for",
        "next_trial_at",
        "outages",
        "state",
        "unanswered_since",
    )

    def __init__(self, max_outage_seconds: float | None = None) -> None:
        self._max_outage = math.inf if max_outage_seconds is None else max_outage_seconds
        self.state: EndpointStateName = "answering"
        self.because: str | None = None
        self.closed_for: ClosedReason = "endpoint_closed"
        self.admits: bool = True
        self.answered: int = 0
        self.answers: int = 0
        self.outages: int = 0
        self.unanswered_since: float | None = None
        # Of the calls in a row that were not answered: failures, how many are enough, refusals by pace and of access.
        self._first_unanswered = 0
        self._failures = 0
        self._needed = LEAST_FAILURES
        self._refused = 0
        self._access_refused = 0
        # Leases of trials that are out, and how many failed since the endpoint stopped answering.
        self._trials: set[int] = set()
        self._trials_failed = 0
        self.next_trial_at: float = math.inf

    @property
    def paused_until(self) -> float | None:
        """When the next trial goes, while nothing is out that could be answered; else None."""
        paused = self.state == "not_answering" and not self._trials and self.next_trial_at < math.inf
        return self.next_trial_at if paused else None

    def granted(self, lease_id: int, now: float) -> bool:
        """A call goes out; whether it is a trial. To be asked only while the state is not `answering`."""
        if self.state != "not_answering":
            return False
        self._trials.add(lease_id)
        self.admits = False
        self.next_trial_at = now + PATIENCE
        return True

    def ended(self, lease_id: int, outcome: RequestReleaseOutcome, in_flight: int, now: float) -> EndpointChange | None:
        """A call is over, and `in_flight` others of the endpoint are still out. What changed."""
        blame = outcome.blame
        is_trial = lease_id in self._trials
        self._trials.discard(lease_id)
        if outcome.kind == "success" or (blame == "row" and outcome.provider_status is not None):
            self.answers += 1
            self.answered = max(self.answered, lease_id)
            return self._take_answer(lease_id, is_trial)
        if blame in ("nobody", "row"):
            if is_trial:
                self._allow_trial()
            return None
        is_overload = outcome.provider_status in (503, 529)
        if blame == "pace" and not is_overload:
            # The provider is there, and says when to come back.
            return self._take_answer(lease_id, is_trial) if is_trial else None
        if self.unanswered_since is None:
            self.unanswered_since, self._first_unanswered = now, lease_id
            self._needed = max(LEAST_FAILURES, in_flight + 1)
        if blame == "pace":
            self._refused += 1
            self._fail(is_trial, now)
            return None
        if blame == "access":
            return self._refuse_access(outcome, is_trial, now)
        self._failures += 1
        if self.state == "answering" and self._failures >= self._needed:
            self._stop_answering(f"{self._failures} calls in a row failed, the last with {_words(outcome)}")
            self._pause(now)
            return "not_answering"
        self._fail(is_trial, now)
        return None

    def next_deadline(self) -> float:
        """When `advance` next has something to do; infinite while nothing is due."""
        if self.unanswered_since is None or self.state == "closed":
            return math.inf
        return min(self.next_trial_at, self._gives_up_at())

    def advance(self, now: float) -> EndpointChange | None:
        """Let time pass until `now`: the next trial may go, or patience is over."""
        if self.state == "closed":
            return None
        if now >= self._gives_up_at():
            assert self.unanswered_since is not None
            seconds = now - self.unanswered_since
            because = self.because or f"{self._refused} calls were refused and {self._failures} failed"
            self.close(f"it did not answer for {seconds:.0f} s: {because}", "endpoint_not_answering")
            return "closed"
        if now >= self.next_trial_at:
            self._allow_trial()
        return None

    def close(self, because: str, closed_for: ClosedReason = "endpoint_closed") -> None:
        """Nothing goes out any more."""
        self.state, self.because, self.closed_for = "closed", because, closed_for
        self.admits = False

    # Parts

    def _take_answer(self, lease_id: int, is_trial: bool) -> EndpointChange | None:
        if self.unanswered_since is None or self.state == "closed":
            return None
        if not is_trial and (self.state == "not_answering" or lease_id < self._first_unanswered):
            return None
        self.unanswered_since = None
        self._failures = self._refused = self._access_refused = 0
        return self._open()

    def _open(self) -> EndpointChange | None:
        if self.state != "not_answering":
            return None
        self.state, self.because = "answering", None
        self.admits = True
        self._failures = self._trials_failed = 0
        self._trials.clear()
        self.next_trial_at = math.inf
        return "answering"

    def _stop_answering(self, because: str) -> None:
        self.state, self.because = "not_answering", because
        self.outages += 1
        self.admits = False

    def _refuse_access(self, outcome: RequestReleaseOutcome, is_trial: bool, now: float) -> EndpointChange | None:
        if self.state == "closed":
            return None
        if self._access_refused and is_trial:
            self.close(f"it refuses access: {_words(outcome)}, twice")
            return "closed"
        was, self._access_refused = self.state, self._access_refused + 1
        if was == "answering":
            self._stop_answering(f"it refused access: {_words(outcome)}")
            self._allow_trial()
            return "not_answering"
        if is_trial:
            self._allow_trial()
        return None

    def _fail(self, is_trial: bool, now: float) -> None:
        if is_trial and self.state == "not_answering":
            self._trials_failed += 1
            self._pause(now)

    def _pause(self, now: float) -> None:
        self.admits = False
        self.next_trial_at = now + doubled(FIRST_PAUSE, LONGEST_PAUSE, failures=self._trials_failed + 1)

    def _allow_trial(self) -> None:
        self.next_trial_at = math.inf
        self.admits = self.state != "closed"

    def _gives_up_at(self) -> float:
        """When it has not answered for too long, as far as that is known of all that is out."""
        lasts = self.state == "not_answering" or self._refused + self._failures >= self._needed
        return self.unanswered_since + self._max_outage if self.unanswered_since is not None and lasts else math.inf


def _words(outcome: RequestReleaseOutcome) -> str:
    """How a call ended, in words that quote nothing of it."""
    quota, error = outcome.diagnostics.get("quota_code"), outcome.diagnostics.get("error_type")
    status = None if outcome.provider_status is None else f"HTTP {outcome.provider_status}"
    named = [each for each in (status, quota, error) if isinstance(each, str)]
    return ", ".join(named) or outcome.kind
