"""The rehearsal provider: a local, OpenAI-compatible provider that behaves as a script tells it.

It stands in for a real endpoint where one wants to see a pipeline at work without a key, a bill or a surprise: real
HTTP, a real client library, and latencies, limits, refusals and failures that strike when the script says so.

    full, low = Phase(max_in_flight=24), Phase(name="low", after_accepted=500, max_in_flight=8)
    async with open_rehearsal({"a": RehearsalScript(phases=(full, low))}) as server:
        client = AsyncOpenAI(base_url=server.base_url("a"), api_key="rehearsal", max_retries=0)

`rehearsal_process` takes the same and serves it from a process of its own.

Who does what: `script` and `counters` are values, and `serde` is their JSON; `provider` decides; `answers` and `wire`
know what is said; `waiting`, `app`, `loopback` and `server` serve it; `control` and `process` reach it from elsewhere.
"""

from __future__ import annotations

from trio_sched._extras import MissingExtraError
from trio_sched._rehearsal.control import RehearsalClient, RehearsalRefusedError
from trio_sched._rehearsal.counters import CountersView, TallyView
from trio_sched._rehearsal.errors import NotLoopbackError, RehearsalStartError
from trio_sched._rehearsal.process import RehearsalProcess, rehearsal_process
from trio_sched._rehearsal.script import Latency, Phase, RehearsalScript
from trio_sched._rehearsal.server import RehearsalServer, open_rehearsal

__all__ = [
    "CountersView",
    "Latency",
    "MissingExtraError",
    "NotLoopbackError",
    "Phase",
    "RehearsalClient",
    "RehearsalProcess",
    "RehearsalRefusedError",
    "RehearsalScript",
    "RehearsalServer",
    "RehearsalStartError",
    "TallyView",
    "open_rehearsal",
    "rehearsal_process",
]
