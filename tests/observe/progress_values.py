"""Progress values for tests of what shows them."""

from __future__ import annotations

from trio_sched._observe.layers import Limit
from trio_sched._observe.progress import ColumnProgress, EndpointProgress, RunProgress
from trio_sched._observe.request_replay import Activity

__all__ = ["MIDWAY"]

MIDWAY = RunProgress(
    elapsed_seconds=83.4,
    records_done=1200,
    records_total=4800,
    rate_now=15.04,
    rate_average=14.4,
    eta_seconds=3700.0,
    dropped=3,
    deferred=2,
    columns=(ColumnProgress("question", 1500, 30, 12), ColumnProgress("a very long name of a column", 1300, 0, 200)),
    endpoints=(EndpointProgress("openai/gpt/chat", 8, 16, 7, 40, 905.0, Activity("stopped", seconds_left=11.3)),),
    limit=Limit("cooldown", "openai/gpt/chat"),
    result=None,
)
