"""A leaked lease, a lost wake-up, a shield and a busy loop each end with their test, which says what they were."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CONFTEST = """
import hanging

def pytest_configure(config):
    config.pluginmanager.register(hanging)
"""
HANGING = """
import pytest
import trio
import trio.testing

from trio_sched.lowlevel import (
    AdaptiveRequestAdmissionController,
    FairTaskQueue,
    RequestAdmissionConfig,
    RequestAdmissionItem,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
    SchedulableTask,
    SchedulerResourceRequest,
    Task,
    TaskAdmissionConfig,
    TaskAdmissionController,
    TaskGroupKey,
    TaskGroupSpec,
    stable_task_id,
)

CHAT = RequestResourceKey("openai", "gpt", RequestDomain.CHAT)
CALL = RequestAdmissionItem(CHAT, RequestGroupSpec(CHAT))
pytestmark = pytest.mark.timeout(1)


@pytest.fixture
def controller():
    controller = AdaptiveRequestAdmissionController(RequestAdmissionConfig())
    controller.register(provider_name="openai", model_id="gpt", alias="a", max_parallel_requests=1)
    return controller


async def test_request_lease(controller, autojump_clock):
    async def leaks():
        await controller.acquire_async(CALL)

    async with controller, trio.open_nursery() as nursery:
        nursery.start_soon(leaks, name="the forgetful one")
        await trio.testing.wait_all_tasks_blocked()
        await controller.acquire_async(CALL)


async def test_request_lease_behind_a_shield(controller, autojump_clock):
    async with controller:
        controller.try_acquire(CALL)
        with trio.CancelScope(shield=True):
            await controller.acquire_async(CALL)


def test_task_lease():
    async def main():
        admission = TaskAdmissionController(TaskAdmissionConfig(submission_capacity=1))
        task = Task("answer", 0, 0, "cell")
        group = TaskGroupSpec(TaskGroupKey("local", ("answer",)))
        item = SchedulableTask(stable_task_id(task), task, group, SchedulerResourceRequest())
        admission.try_acquire(item, FairTaskQueue().view())
        await trio.sleep_forever()

    trio.run(main)


async def test_lost_wake_up():
    await trio.lowlevel.ParkingLot().park()


async def test_busy_loop():
    while True:
        pass


def test_without_trio():
    while True:
        pass


async def test_what_follows(controller):
    async with controller, controller.admit(CALL):
        pass
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("hanging")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "test_cases.py").write_text(HANGING, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(TESTS.parent / "pyproject.toml")]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "TRIO_SCHED_FUZZ": "normal"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return done.stdout


def test_each_fails_and_those_that_follow_do_not(output: str) -> None:
    assert re.search(r"\b6 failed, 1 passed in ", output), output


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ("test_request_lease", "held: lease 1 on openai/gpt/chat held by task the forgetful one"),
        ("test_request_lease", "waits: <test 'test_request_lease'> at .*acquire_async"),
        ("test_request_lease_behind_a_shield", "held: lease 1 on openai/gpt/chat held by task <test 'test_req.*'>"),
        ("test_task_lease", "held: task lease 1 of task '.*answer.*' .*holds 1 of submission"),
        ("test_lost_wake_up", r"waits: <test 'test_lost_wake_up'> at .*test_cases.py:\d+ test_lost_wake_up"),
        ("test_busy_loop", r"runs: test_cases.py:\d+ test_busy_loop"),
        ("test_without_trio", r"runs: test_cases.py:\d+ test_without_trio"),
    ],
)
def test_the_failure_names_what_was_held_and_who_waited(output: str, test: str, line: str) -> None:
    _, _, report = output.partition(f"__ {test} __")
    assert report.startswith("_"), output
    lines = report.partition("\n__")[0].splitlines()
    assert lines[1] == "The test did not end within 1 s."
    assert any(re.match(line, each) for each in lines), report
