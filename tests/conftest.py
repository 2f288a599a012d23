"""Hypothesis profiles: `normal` for every test run, `full` for the fuzz session (TRIO_SCHED_FUZZ=full)."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "normal", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
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
