"""For tests of pipelines of one's own: a scripted provider, runs in simulated time, and what records their events.

def test_rate_limits_cost_no_row(tmp_path):
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(max_in_flight=4),)))

    @ts.column(needs=["topic"], model=ts.Model("scripted", "any", max_parallel_requests=32))
    async def question(row, model):
        return await model.call(provider.chat, [("user", row["topic"])])

    result = simulate([question], rows=[{"topic": "trio"}] * 100, output=tmp_path)
    assert result.records == 100
    assert provider.counters.refused["concurrency"] > 0
"""

from typing import TYPE_CHECKING

from trio_sched._lazy import lazy_names

if TYPE_CHECKING:
    from trio_sched._blocking import inline
    from trio_sched._events.sinks import InMemoryAdmissionEventSink
    from trio_sched._rehearsal.counters import CountersView, TallyView
    from trio_sched._rehearsal.moving import Drift, Neighbour
    from trio_sched._rehearsal.script import Latency, Phase, RehearsalScript
    from trio_sched._testing.provider import ScriptedProvider, ScriptedProviderError
    from trio_sched._testing.simulation import simulate
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trio_sched._blocking": "inline",
            "trio_sched._events.sinks": "InMemoryAdmissionEventSink",
            "trio_sched._rehearsal.counters": "CountersView TallyView",
            "trio_sched._rehearsal.moving": "Drift Neighbour",
            "trio_sched._rehearsal.script": "Latency Phase RehearsalScript",
            "trio_sched._testing.provider": "ScriptedProvider ScriptedProviderError",
            "trio_sched._testing.simulation": "simulate",
        },
    )

__all__ = [
    "CountersView",
    "Drift",
    "InMemoryAdmissionEventSink",
    "Latency",
    "Neighbour",
    "Phase",
    "RehearsalScript",
    "ScriptedProvider",
    "ScriptedProviderError",
    "TallyView",
    "inline",
    "simulate",
]
