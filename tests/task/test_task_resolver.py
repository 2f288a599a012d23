"""From generators to groups, requests and stage limits; and what happens to metadata that cannot be used."""

from __future__ import annotations

from typing import cast

import pytest

from trio_sched._errors import InvalidValueError, UnknownNameError
from trio_sched._resources.identity import ProviderModelKey, RequestResourceKey
from trio_sched._resources.task import (
    SchedulerResourceRequest,
    Task,
    TaskGroupKey,
    TaskGroupSpec,
    endpoint_stage_resource,
    stable_task_id,
)
from trio_sched._task.resolver import ResolvedTaskScheduling, TaskSchedulingResolver
from trio_sched.metadata import ColumnGenerator, SchedulingMetadata, SchedulingMetadataError

ENDPOINT = endpoint_stage_resource(ProviderModelKey("p", "m"))


class Generator(ColumnGenerator):
    """Says what it is given to say, one answer after the other, and then the last again."""

    def __init__(self, *answers: SchedulingMetadata | SchedulingMetadataError) -> None:
        self.answers = list(answers)
        self.asked = 0

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SchedulingMetadataError):
            raise answer
        return answer


def cell(column: str, row: int = 0) -> Task:
    return Task(column, 0, row, "cell")


def model(weight: int = 4, kind: str = "chat") -> SchedulingMetadata:
    return SchedulingMetadata.model("p", "m", kind, weight=weight)


def test_local_work_asks_for_submission() -> None:
    resolver = TaskSchedulingResolver({"c": ColumnGenerator()})
    assert resolver.resolve(cell("c")) == ResolvedTaskScheduling(
        TaskGroupSpec(TaskGroupKey("local", ("local", "default", "c"))), SchedulerResourceRequest({"submission": 1})
    )
    assert resolver.resource_limits == {}
    assert resolver.diagnostics == ()


def test_local_work_asks_for_local_where_that_is_limited() -> None:
    generators = {"c": Generator(SchedulingMetadata.local("gpu", weight=3)), "m": Generator(model())}
    resolver = TaskSchedulingResolver(generators, local_limit=6)
    resolved = resolver.resolve(cell("c"))
    assert resolved.resource_request.amounts == {"submission": 1, "local": 1}
    assert resolved.group == TaskGroupSpec(TaskGroupKey("local", ("local", "gpu", "c")), 3.0)
    assert resolver.resolve(cell("m")).resource_request.amounts == {"submission": 1, ENDPOINT: 1}
    assert resolver.resource_limits == {"local": 6, ENDPOINT: 8}
    with pytest.raises(InvalidValueError, match=r"^local_limit must be a positive int, got 0$"):
        TaskSchedulingResolver(generators, local_limit=0)


def test_local_work_asks_for_the_resource_that_it_names_where_that_is_limited() -> None:
    generators = {"t": Generator(SchedulingMetadata.local("threads")), "c": ColumnGenerator(), "m": Generator(model())}
    resolver = TaskSchedulingResolver(generators, named_limits={"threads": 40, "gpu": 1})
    assert resolver.resolve(cell("t")).resource_request.amounts == {"submission": 1, "local:threads": 1}
    assert resolver.resolve(cell("c")).resource_request.amounts == {"submission": 1}
    assert resolver.resource_limits == {"local:threads": 40, ENDPOINT: 8}
    both = TaskSchedulingResolver(generators, local_limit=6, named_limits={"threads": 40})
    assert both.resolve(cell("t")).resource_request.amounts == {"submission": 1, "local": 1, "local:threads": 1}
    with pytest.raises(InvalidValueError, match=r"^named_limits\['gpu'\] must be a positive int, got 0$"):
        TaskSchedulingResolver(generators, named_limits={"gpu": 0})


def test_a_model_task_asks_for_its_endpoint_and_may_run_twice_its_cap() -> None:
    resolver = TaskSchedulingResolver({"c": Generator(model(4))})
    assert resolver.resolve(cell("c")) == ResolvedTaskScheduling(
        TaskGroupSpec(TaskGroupKey("model", ("model", "p", "m", "chat", "c")), 4.0, 8),
        SchedulerResourceRequest({"submission": 1, ENDPOINT: 1}),
        RequestResourceKey("p", "m", "chat"),
    )
    assert resolver.resource_limits == {ENDPOINT: 8}


def test_a_generation_kind_that_is_no_domain_names_no_request_resource() -> None:
    resolver = TaskSchedulingResolver({"c": Generator(model(kind="completion"))})
    assert resolver.resolve(cell("c")).request_resource_key is None
    assert resolver.resource_limits == {ENDPOINT: 8}


@pytest.mark.parametrize("weights", [(4, 3), (3, 4)])
def test_generators_that_disagree_about_a_cap_share_the_smallest(weights: tuple[int, int]) -> None:
    generators = {f"c{weight}": Generator(model(weight)) for weight in weights}
    generators["e"] = Generator(model(9, "embedding"))
    resolver = TaskSchedulingResolver(generators)
    assert resolver.resource_limits == {ENDPOINT: 6}
    assert resolver.resolve(cell("c4")).group.admitted_limit == 8


def test_custom_model_work_asks_for_submission_only() -> None:
    metadata = SchedulingMetadata.custom_model("ns", "pair", "2", weight=5)
    resolver = TaskSchedulingResolver({"c": Generator(metadata)}, local_limit=1)
    resolved = resolver.resolve(cell("c"))
    assert resolved.group == TaskGroupSpec(TaskGroupKey("custom_model", ("custom_model", "ns", "pair", "2", "c")), 5.0)
    assert resolved.resource_request.amounts == {"submission": 1}
    assert resolved.request_resource_key is None


def test_a_generator_of_several_columns_is_one_flow_in_declared_order() -> None:
    both, other = Generator(SchedulingMetadata.local()), Generator(SchedulingMetadata.local())
    resolver = TaskSchedulingResolver({"z": both, "o": other, "a": both})
    assert resolver.resolve(cell("z")) is resolver.resolve(cell("a"))
    assert resolver.resolve(cell("a")).group.key.identity == ("local", "default", "z", "a")
    assert resolver.resolve(cell("o")).group.key.identity == ("local", "default", "o")


def test_every_column_is_listed_with_what_its_tasks_resolve_to() -> None:
    generator = Generator(SchedulingMetadata.local())
    resolver = TaskSchedulingResolver({"z": generator, "a": generator})
    assert resolver.by_column == {name: resolver.resolve(cell(name)) for name in ("z", "a")}


def test_generators_that_are_equal_are_still_two() -> None:
    class Same(ColumnGenerator):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    resolver = TaskSchedulingResolver({"a": Same(), "b": Same()})
    assert resolver.resolve(cell("a")).group.key != resolver.resolve(cell("b")).group.key


def test_each_generator_is_asked_twice_and_never_again() -> None:
    generator = Generator(model())
    resolver = TaskSchedulingResolver({"a": generator, "b": generator})
    for row in range(10):
        resolver.resolve(cell("a", row))
    assert generator.asked == 2


def test_a_schedulable_task_is_the_task_with_its_place() -> None:
    resolver = TaskSchedulingResolver({"c": Generator(model())})
    task = cell("c", 7)
    item, resolved = resolver.schedulable(task), resolver.resolve(task)
    assert (item.task_id, item.payload) == (stable_task_id(task), task)
    assert (item.group, item.resource_request) == (resolved.group, resolved.resource_request)
    assert item.request_resource_key == resolved.request_resource_key


def test_a_column_without_generator_is_refused() -> None:
    resolver = TaskSchedulingResolver({"title": ColumnGenerator()})
    with pytest.raises(UnknownNameError) as caught:
        resolver.resolve(cell("titel"))
    assert str(caught.value) == (
        f"{cell('titel')!r} names the column 'titel', which does not exist; did you mean 'title'?"
    )


def test_metadata_that_differs_between_two_calls_is_fatal() -> None:
    first, second = SchedulingMetadata.local("a"), SchedulingMetadata.local("b")
    generator = Generator(first, second)
    with pytest.raises(SchedulingMetadataError) as caught:
        TaskSchedulingResolver({"c": generator, "d": generator})
    assert caught.value.code == "unstable_identity"
    assert str(caught.value) == (
        "the generator of columns 'c', 'd' must return the same metadata each time, "
        f"got {first!r} and {second!r} [unstable_identity]"
    )
    assert caught.value.diagnostics == {"columns": ("c", "d"), "first": repr(first), "second": repr(second)}


@pytest.mark.parametrize("answer", [None, ("local", "default")])
def test_what_is_not_metadata_is_fatal(answer: object) -> None:
    with pytest.raises(SchedulingMetadataError) as caught:
        TaskSchedulingResolver({"c": Generator(cast("SchedulingMetadata", answer))})
    assert str(caught.value) == (
        f"the generator of column 'c' must return SchedulingMetadata, got {answer!r} [invalid_metadata]"
    )
    assert caught.value.diagnostics == {"columns": ("c",)}


def test_an_error_without_fallback_is_fatal_and_itself() -> None:
    error = SchedulingMetadataError("no_alias", "alias 'x' is not registered")
    with pytest.raises(SchedulingMetadataError) as caught:
        TaskSchedulingResolver({"c": Generator(error)})
    assert caught.value is error


@pytest.mark.parametrize("recovers", [True, False])
def test_an_error_with_fallback_goes_on_and_is_kept(recovers: bool) -> None:
    error = SchedulingMetadataError("no_alias", "alias 'x' is not registered", model(), {"alias": "x"})
    generator = Generator(error, SchedulingMetadata.local()) if recovers else Generator(error)
    resolver = TaskSchedulingResolver({"a": ColumnGenerator(), "c": generator, "d": generator})
    assert resolver.resolve(cell("c")).group.key.identity == ("model", "p", "m", "chat", "c", "d")
    (kept,) = resolver.diagnostics
    assert (kept.columns, kept.code, kept.message) == (("c", "d"), "no_alias", "alias 'x' is not registered")
    assert kept.fallback == model()
    assert kept.diagnostics == {"alias": "x"}
    assert resolver.resource_limits == {ENDPOINT: 8}


def test_an_error_in_the_second_call_only_counts_too() -> None:
    error = SchedulingMetadataError("late", "gone", SchedulingMetadata.local("spare"))
    resolver = TaskSchedulingResolver({"c": Generator(model(), error)})
    assert resolver.resolve(cell("c")).group.key.identity == ("local", "spare", "c")
    assert [kept.code for kept in resolver.diagnostics] == ["late"]
