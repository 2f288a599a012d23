"""What the harness refuses, in words that say what to do."""

from __future__ import annotations

__all__ = ["BenchmarkError", "UsageError", "WorkloadFailedError"]


class BenchmarkError(Exception):
    """The harness cannot go on."""


class UsageError(BenchmarkError):
    """The command line asks for something that does not exist or does not fit."""


class WorkloadFailedError(BenchmarkError):
    """A workload raised, hung, or ended its process."""
