"""Hypothesis profiles, named by TRIO_SCHED_FUZZ: `normal`, `full` for the fuzz session, `quick` to see that it runs."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "normal", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("normal"), max_examples=20)
settings.register_profile(
    "full",
    max_examples=5000,
    stateful_step_count=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("TRIO_SCHED_FUZZ", "normal"))
