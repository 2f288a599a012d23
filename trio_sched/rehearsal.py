"""The rehearsal provider: a local, scripted, OpenAI-compatible endpoint to try a pipeline against.

It needs the extra: `pip install trio_sched[rehearsal]`.
"""

from typing import TYPE_CHECKING

from trio_sched._lazy import lazy_names

if TYPE_CHECKING:
    from trio_sched._rehearsal.process import (
        RehearsalProcess,
        RehearsalRefusedError,
        RehearsalStartError,
        rehearsal_process,
    )
    from trio_sched._rehearsal.provider import CountersView, TallyView
    from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript
    from trio_sched._rehearsal.server import NotLoopbackError, RehearsalServer, open_rehearsal
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trio_sched._rehearsal.process": (
                "RehearsalProcess RehearsalRefusedError RehearsalStartError rehearsal_process"
            ),
            "trio_sched._rehearsal.provider": "CountersView TallyView",
            "trio_sched._rehearsal.script": "Drift Latency Neighbour Phase RehearsalScript",
            "trio_sched._rehearsal.server": "NotLoopbackError RehearsalServer open_rehearsal",
        },
    )

__all__ = [
    "CountersView",
    "Drift",
    "Latency",
    "Neighbour",
    "NotLoopbackError",
    "Phase",
    "RehearsalProcess",
    "RehearsalRefusedError",
    "RehearsalScript",
    "RehearsalServer",
    "RehearsalStartError",
    "TallyView",
    "open_rehearsal",
    "rehearsal_process",
]
