"""Values refuse what cannot be right where they are built, naming field and value."""

from __future__ import annotations

import enum
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._resources.identity import ProviderModelKey, ProviderModelStaticCap, RequestDomain, RequestResourceKey
from trio_sched._resources.request import (
    OUTCOME_KINDS,
    RequestAdmissionItem,
    RequestGroupSpec,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from trio_sched._resources.task import (
    SchedulerResourceRequest,
    Task,
    TaskGroupKey,
    TaskGroupSpec,
    endpoint_stage_resource,
    stable_task_id,
)

GROUP = TaskGroupKey("local", ("local", "default"))
RESOURCE = RequestResourceKey("p", "m", RequestDomain.CHAT)


@pytest.mark.parametrize("weight", [1, 0.25, 1e-300, 1e300])
def test_any_positive_finite_weight_is_taken_as_it_is(weight: float) -> None:
    assert TaskGroupSpec(GROUP, weight).weight == weight


@pytest.mark.parametrize("weight", [0, -1.0, math.inf, math.nan, 1e-310, 10**400])
def test_other_weights_are_refused(weight: float) -> None:
    with pytest.raises(InvalidValueError, match=r"^TaskGroupSpec.weight must be a positive .*, got"):
        TaskGroupSpec(GROUP, weight)


@pytest.mark.parametrize("weight", [0, -1.0, math.inf, math.nan, 5e-324])
def test_weights_of_requests_are_checked_alike(weight: float) -> None:
    with pytest.raises(InvalidValueError, match=r"^RequestGroupSpec.weight must be a positive .*, got"):
        RequestGroupSpec(RESOURCE, weight)


def test_a_bool_is_not_a_number() -> None:
    with pytest.raises(InvalidTypeError, match=r"^TaskGroupSpec.admitted_limit must be a positive int, got True$"):
        TaskGroupSpec(GROUP, admitted_limit=True)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"submission": 0}, r"^SchedulerResourceRequest.amounts\['submission'\] must be a positive int, got 0$"),
        ({"submission": 1.0}, r"^SchedulerResourceRequest.amounts\['submission'\] must be a positive int, got 1.0$"),
        ({"": 1}, r"^SchedulerResourceRequest.amounts key must be a non-empty string, got ''$"),
    ],
)
def test_bad_amounts(amounts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SchedulerResourceRequest(amounts)


def test_a_request_cannot_be_changed_behind_its_back() -> None:
    amounts = {"submission": 1}
    request = SchedulerResourceRequest(amounts)
    amounts["submission"] = 5
    assert request.amounts == {"submission": 1}
    with pytest.raises(TypeError):
        request.amounts["submission"] = 2  # type: ignore[index]
    assert request == SchedulerResourceRequest()
    assert hash(request) == hash(SchedulerResourceRequest())


@given(
    st.lists(st.builds(Task, st.text(max_size=4), st.integers(0, 9), st.none() | st.integers(0, 9), st.just("cell")))
)
def test_task_ids_tell_tasks_apart(tasks: list[Task]) -> None:
    assert len({stable_task_id(task) for task in tasks}) == len(set(tasks))


class Column(str, enum.Enum):
    A = "a"


@pytest.mark.parametrize(
    "other", [Task("a", True, 1, "cell"), Task("a", 1, True, "cell"), Task(Column.A, 1, 1, "cell")]
)
def test_tasks_are_equal_as_their_ids_and_hashes_are(other: Task) -> None:
    task = Task("a", 1, 1, "cell")
    is_same = stable_task_id(task) == stable_task_id(other)
    assert (task == other) is is_same
    assert len({task, other}) == 2 - is_same


def test_task_ids_are_the_same_in_every_process() -> None:
    assert stable_task_id(Task("a:b", 3, None, "batch")) == "3:*:batch:a:b"
    assert stable_task_id(Task("a", 3, 7, "cell")) == "3:7:cell:a"


def test_identities() -> None:
    assert RequestResourceKey("p", "m", "chat") == RESOURCE
    assert str(RESOURCE) == "p/m/chat"
    assert RESOURCE.provider_model_key == ProviderModelKey("p", "m")
    assert endpoint_stage_resource(RESOURCE.provider_model_key) == "endpoint:p/m"
    with pytest.raises(ValueError, match="'chatter' is not a valid RequestDomain"):
        RequestResourceKey("p", "m", "chatter")
    with pytest.raises(InvalidValueError, match=r"^ProviderModelKey.provider_name must be a non-empty string, got ''$"):
        ProviderModelKey("", "m")
    with pytest.raises(InvalidValueError, match=r"^ProviderModelStaticCap.cap must be a positive int, got 0$"):
        ProviderModelStaticCap(0, ("a",), {"a": 0})


@pytest.mark.parametrize("timeout", [-1.0, math.nan, math.inf])
def test_bad_queue_wait_timeouts(timeout: float) -> None:
    with pytest.raises(InvalidValueError, match=r"^RequestAdmissionItem.queue_wait_timeout_seconds must be"):
        RequestAdmissionItem(RESOURCE, RequestGroupSpec(RESOURCE), timeout)


@given(st.sampled_from(sorted(OUTCOME_KINDS)) | st.text(), st.none() | st.floats() | st.text() | st.booleans())
def test_building_an_outcome_never_raises(kind: str, hint: float | None) -> None:
    outcome = RequestReleaseOutcome(kind, hint)  # type: ignore[arg-type]
    assert outcome.kind in OUTCOME_KINDS
    assert outcome.retry_after_seconds is None or 0 <= outcome.retry_after_seconds < math.inf
    assert ("invalid_kind" in outcome.diagnostics) == (kind not in OUTCOME_KINDS)
    assert ("invalid_retry_after_seconds" in outcome.diagnostics) == (outcome.retry_after_seconds != hint)


@pytest.mark.parametrize(
    "hint", [10**400, 10**5000, -(10**400), "soon", [1.0]], ids=["large", "too long", "small", "text", "list"]
)
def test_an_outcome_can_be_built_of_any_hint(hint: object) -> None:
    outcome = RequestReleaseOutcome("rate_limited", hint)  # type: ignore[arg-type]
    assert outcome.retry_after_seconds is None
    assert "invalid_retry_after_seconds" in outcome.diagnostics


@pytest.mark.parametrize(
    ("kind", "status", "refused"),
    [
        ("rate_limited", 429, True),
        ("rate_limited", None, True),
        ("rate_limited", 400, True),
        ("provider_failure", 503, True),
        ("provider_failure", 529, True),
        ("provider_failure", 500, False),
        ("provider_failure", 429, False),
        ("provider_failure", None, False),
        ("provider_timeout", 503, False),
        ("unexpected_exception", 529, False),
        ("success", 503, False),
    ],
)
def test_an_outcome_says_whether_the_provider_refused(
    kind: RequestOutcomeKind, status: int | None, refused: bool
) -> None:
    assert RequestReleaseOutcome(kind, provider_status=status).refused is refused


def test_an_outcome_can_be_built_of_any_kind() -> None:
    outcome = RequestReleaseOutcome(["rate_limited"])  # type: ignore[arg-type]
    assert outcome.kind == "unexpected_exception"
    assert outcome.diagnostics == {"invalid_kind": "['rate_limited']"}
