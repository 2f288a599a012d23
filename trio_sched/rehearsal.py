"""The rehearsal provider: a local, scripted, OpenAI-compatible endpoint to try a pipeline against.

It needs the extra: `pip install trio_sched[rehearsal]`.
"""

from trio_sched._rehearsal.process import RehearsalProcess, rehearsal_process
from trio_sched._rehearsal.script import Latency, Phase, RehearsalScript
from trio_sched._rehearsal.server import RehearsalServer, open_rehearsal

__all__ = [
    "Latency",
    "Phase",
    "RehearsalProcess",
    "RehearsalScript",
    "RehearsalServer",
    "open_rehearsal",
    "rehearsal_process",
]
