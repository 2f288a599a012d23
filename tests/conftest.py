"""Hypothesis profiles, chosen with TRIO_SCHED_FUZZ, and a disk that nobody waits for.

`normal`, for every test run, tries the same examples each time, so that a change never fails by chance. `bounded`, for
`nox -s fuzz -- bounded`, tries as many, but others; new ones each time unless CI is set. `full`, for `nox -s fuzz`,
tries many more. `quick` is for seeing that everything runs on yet another Python. A test that wants more or fewer than
its profile says so with `examples.share_of_profile`. `hanging` ends tests that do not end by themselves.
"""

import os
import signal
from collections.abc import Iterator

import hanging
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "normal", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("normal"), max_examples=20)
settings.register_profile(
    "bounded",
    max_examples=200,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "full",
    max_examples=5000,
    stateful_step_count=80,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("TRIO_SCHED_FUZZ", "normal"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so do its children; here it is to be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # The same for what was started with nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Tests that do not end are ended."""
    config.pluginmanager.register(hanging)


FLUSH_TO_DISK = os.fsync


def check_descriptor(descriptor: int) -> None:
    """What is left of `os.fsync` without the disk: an error where there is no such open file."""
    os.fstat(descriptor)


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """No test outlives a power cut, and some would do little but wait for thousands of flushes.

    What is flushed, and when, is checked in tests/pipeline/test_durable.py. Processes that tests start really flush.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", check_descriptor)
        yield


@pytest.fixture
def real_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Really flush to the disk."""
    monkeypatch.setattr(os, "fsync", FLUSH_TO_DISK)
