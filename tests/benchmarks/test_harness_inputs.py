from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.errors import UsageError
from benchmarks.inputs import MEASURED_ITERATIONS, Inputs
from benchmarks.scenarios import ALL, Scenario

TASKS, REQUESTS = ALL["tasks"], ALL["requests"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            Inputs(records=5),
            r"^--records does not apply to scenario 'tasks'; of the optional inputs it takes --task-capacity$",
        ),
        (
            Inputs(provider_script=Path("script.json")),
            r"^--provider-script does not apply to scenario 'tasks'; of the optional inputs it takes --task-capacity$",
        ),
        (
            Inputs(axes={"callers": (1,)}),
            r"^--axis callers does not apply to scenario 'tasks'; its axes are tasks, groups, resources, policy$",
        ),
        (Inputs(axes={"groups": ("many",)}), r"^--axis groups takes values like 1, not 'many'$"),
        (Inputs(axes={"groups": (0,)}), r"^--axis groups takes positive numbers, not 0$"),
        (Inputs(axes={"policy": ("lax",)}), r"^--axis policy takes strict, borrow, not lax$"),
    ],
)
def test_what_does_not_apply_is_refused(inputs: Inputs, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TASKS.points("budgets", inputs)


def test_a_scenario_without_optional_inputs_says_so() -> None:
    with pytest.raises(UsageError, match=r"it takes none of those$"):
        REQUESTS.points("budgets", Inputs(task_capacity=5))


def test_axes_narrow_the_named_points_and_replace_the_grid() -> None:
    narrow = Inputs(axes={"groups": (1, 3), "policy": ("strict",), "resources": ("local",)})
    assert [dict(point) for point in TASKS.points("budgets", narrow)] == [
        {"tasks": 1_000, "groups": 1, "resources": "local", "policy": "strict"},
        {"tasks": 100_000, "groups": 1, "resources": "local", "policy": "strict"},
    ]
    assert [(point["tasks"], point["groups"]) for point in TASKS.points("full", narrow)] == [
        (tasks, groups) for tasks in (1_000, 10_000, 100_000) for groups in (1, 3)
    ]


def test_the_full_grid_is_the_one_of_the_specification() -> None:
    assert len(TASKS.points("full", Inputs())) == 3 * 4 * 4 * 2
    assert [point["callers"] for point in REQUESTS.points("full", Inputs())] == [1, 100, 500, 1_000, 2_000, 100_000]


def test_the_capacity_reaches_the_workers() -> None:
    point = TASKS.points("smoke", Inputs())[0]
    assert TASKS.params(Inputs(task_capacity=77), point, True)["task_capacity"] == 77


def test_what_is_recorded_names_no_folder() -> None:
    recorded = Inputs(candidate="path:/home/somebody/project", task_capacity=5).recorded("budgets")
    assert recorded["candidate"] == "checkout"
    assert recorded["task_capacity"] == 5
    assert "records" not in recorded
    assert "/" not in str(recorded)


def test_a_scenario_chooses_what_was_not_given() -> None:
    assert REQUESTS.chosen(Inputs()).iterations == MEASURED_ITERATIONS
    assert REQUESTS.chosen(Inputs()).beside == ("floor", "asyncio", "anyio", "aiometer")
    assert ALL["soak"].chosen(Inputs()).iterations == 1
    assert ALL["soak"].chosen(Inputs(iterations=2, beside=())).iterations == 2
    assert ALL["soak"].chosen(Inputs(beside=())).beside == ()


@pytest.mark.parametrize("scenario", ALL.values(), ids=list(ALL))
def test_fewer_iterations_have_their_reason(scenario: Scenario) -> None:
    assert scenario.iterations >= MEASURED_ITERATIONS or "enough" in scenario.remark
