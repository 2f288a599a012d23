"""Task and request admission for Trio pipelines that call models by the thousand."""

from trio_sched._errors import InvalidTypeError, InvalidValueError, TrioSchedError
from trio_sched._version import __version__
from trio_sched.metadata import SchedulingMetadata, SchedulingMetadataError

__all__ = [
    "InvalidTypeError",
    "InvalidValueError",
    "SchedulingMetadata",
    "SchedulingMetadataError",
    "TrioSchedError",
    "__version__",
]
