"""Hypothesis profiles, chosen with TRIO_SCHED_FUZZ.

`normal`, for every test run, tries the same examples each time, so that a change never fails by chance. `bounded`, for
`nox -s fuzz -- bounded`, tries as many, but new ones each time unless CI is set. `full`, for `nox -s fuzz`, tries many
more. `quick` is for seeing that everything runs on yet another Python.
"""

import os
import signal

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
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "full",
    max_examples=5000,
    stateful_step_count=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("TRIO_SCHED_FUZZ", "normal"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so do its children; here it is to be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
