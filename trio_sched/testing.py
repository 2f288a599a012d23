"""For tests of pipelines of one's own: a scripted provider, runs in simulated time, and what records their events.

def test_rate_limits_cost_no_row(tmp_path):
    provider = ScriptedProvider(RehearsalScript(phases=(Phase(max_in_flight=4),)))

    @ts.column(needs=["topic"], model=ts.Model("scripted", "any", max_parallel_requests=32))
    async def question(row, model):
        return await model.call(provider.chat, [("user", row["topic"])])

    result = simulate([question], rows=[{"topic": "trio"}] * 100, output=tmp_path)
    assert result.records == 100
    assert provider.counters.refused["concurrency"] > 0

`ScriptedProvider` gives the verdicts and the answers of the rehearsal provider (`trio_sched.rehearsal`), called
directly: no HTTP, no process, no extra. It waits by `trio.sleep`, so on a mock clock a day of limits takes no time.

`simulate` does a whole run on such a clock: hours of latency and cooldown in the time that the computing takes. The
clock jumps whenever every task sleeps. So nothing may run in a thread meanwhile, where the clock cannot see it: files
are written and sync columns are called in Trio's own thread. Trio runs tasks that are ready at the same moment in
random order. In a simulation many are, and a limit that learns from who is refused first learns something else in
another order. So the order is drawn from a seed there.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from os import PathLike
from typing import TypeVar

import trio
import trio.testing

from trio_sched._events.sinks import AnyAdmissionEventSink, InMemoryAdmissionEventSink
from trio_sched._pipeline.columns import PipelineStep
from trio_sched._pipeline.config import RunConfig
from trio_sched._pipeline.models import Model
from trio_sched._pipeline.result import RunResult
from trio_sched._pipeline.resume import ResumeMode
from trio_sched._pipeline.run import run
from trio_sched._pipeline.sources import Row
from trio_sched._rehearsal.answers import chat_answer, embedding
from trio_sched._rehearsal.provider import Accepted, CountersView, Ending, TallyView, open_providers
from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript
from trio_sched._rehearsal.wire import SCRIPTED_FAILURE, error_reply, refusal_reply
from trio_sched._util import inline

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

T = TypeVar("T")

_BYTES_OF_A_FLOAT = 4


def __dir__() -> list[str]:
    """The names that this face hands out, without those it only uses."""
    return [*__all__]


class ScriptedProviderError(Exception):
    """A refusal or a failure that the script asked for; carries what the errors of SDKs carry.

    Attributes: `status_code`, which is 200 for one in the body of a success, `headers`, and `body`, the decoded JSON of
    a refusal or an error, or None. The retry hint of a refusal is where the script puts it.
    """

    def __init__(self, status_code: int, message: str, headers: Mapping[str, str], body: object = None) -> None:
        self.status_code = status_code
        self.message = message
        self.headers: dict[str, str] = dict(headers)
        self.body = body
        super().__init__(status_code, message, self.headers, body)

    def __str__(self) -> str:
        return f"{self.status_code}: {self.message}"


class ScriptedProvider:
    """A provider to be called by columns: `await model.call(provider.chat, [("user", "...")])`.

    script: latencies, limits, refusals and failures, phase by phase; by default every call is answered after 20 ms.
    """

    def __init__(self, script: RehearsalScript | None = None, *, name: str = "scripted") -> None:
        script = script if script is not None else RehearsalScript()
        self._provider = open_providers({name: script})[name]
        self._provider.on_change = self._aim
        self._waits: dict[trio.CancelScope, float] = {}

    def __repr__(self) -> str:
        return f"<ScriptedProvider {self._provider.name!r} in phase {self._provider.phase.name!r}>"

    @property
    def counters(self) -> CountersView:
        """What was asked, answered and refused so far, in all and by phase and domain."""
        return self._provider.counters()

    def replace_script(self, script: RehearsalScript) -> None:
        """Start another script from its first phase."""
        self._provider.replace_script(script)

    async def chat(self, messages: Sequence[tuple[str, str]], *, model: str = "scripted") -> str:
        """A reply to `messages`, pairs of role and text; always the same to the same messages.

        Raises `ScriptedProviderError` or `ConnectionError`.
        """
        return await self.serve(lambda: chat_answer(model, messages, seed=self._provider.script.seed))

    async def stream(
        self, messages: Sequence[tuple[str, str]], *, model: str = "scripted"
    ) -> AsyncGenerator[str, None]:
        """The same reply, word by word. A call that goes wrong goes wrong after half of its words.

        Raises `ScriptedProviderError` or `ConnectionError`.
        """
        accepted = await self._arrive("chat")
        words = re.findall(r"\S+\s*", chat_answer(model, messages, seed=self._provider.script.seed))
        in_all = len(words)
        if accepted.fate != "answer":
            words = words[: in_all // 2]
        ending: Ending = "hang" if accepted.fate == "hang" else "abandoned"
        try:
            for word in words:
                await self._pass(accepted.seconds / in_all)
                yield word
            await self._pass(math.inf if accepted.fate == "hang" else accepted.seconds * (1 - len(words) / in_all))
            ending = accepted.fate
        finally:
            self._provider.depart(accepted, ending)
        _reply(accepted, lambda: None)

    async def embed(self, text: str, *, model: str = "scripted") -> list[float]:
        """The unit vector of `text`. Raises `ScriptedProviderError` or `ConnectionError`."""
        script = self._provider.script
        packed = await self.serve(
            lambda: embedding(model, text, script.dimensions, seed=script.seed), domain="embedding"
        )
        return list(struct.unpack(f"<{len(packed) // _BYTES_OF_A_FLOAT}f", packed))

    async def serve(self, answer: Callable[[], T], *, domain: str = "chat") -> T:
        """Whatever `answer` returns, as a call of this provider: it may take time, be refused, fail or hang.

        Raises `ScriptedProviderError`, `ConnectionRefusedError` where nobody is there, `ConnectionResetError` for a
        connection that is reset, or what `answer` raises.
        """
        accepted = await self._arrive(domain)
        hangs = accepted.fate == "hang"
        ending: Ending = "hang" if hangs else "abandoned"
        try:
            await self._pass(math.inf if hangs else accepted.seconds)
            ending = accepted.fate
            return _reply(accepted, answer)
        finally:
            self._provider.depart(accepted, ending)

    async def _arrive(self, domain: str) -> Accepted:
        verdict = self._provider.arrive(domain, trio.current_time())
        if isinstance(verdict, Accepted):
            return verdict
        await trio.sleep(verdict.seconds)
        if verdict.reason == "unreachable":
            raise ConnectionRefusedError(f"provider {self._provider.name} is unreachable, as its script says")
        # A whole second, so that a point in time is as far from the response's own date in every simulated run.
        refusal = refusal_reply(self._provider.name, verdict, math.floor(time.time()))
        raise ScriptedProviderError(refusal.status, refusal.message, refusal.headers, json.loads(refusal.body))

    async def _pass(self, seconds: float) -> None:
        """Let time pass, for a call that has been accepted: its connection may be reset meanwhile."""
        until = trio.current_time() + seconds
        scope = trio.CancelScope()
        self._waits[scope] = until
        try:
            self._aim(scope)
            with scope:
                await trio.sleep_forever()
        finally:
            del self._waits[scope]
        if trio.current_time() < until:
            raise ConnectionResetError(f"provider {self._provider.name} reset the connection, as its script says")

    def _aim(self, *scopes: trio.CancelScope) -> None:
        """Let the waits, by default all of them, end in time: as a call is over, or when nobody is there any more."""
        if not self._waits:
            return
        now = trio.current_time()
        is_gone, at = self._provider.gone_at(now)
        reset_at = now if is_gone else at
        for scope in scopes or tuple(self._waits):
            scope.deadline = min(self._waits[scope], reset_at)


def _reply(verdict: Accepted, answer: Callable[[], T]) -> T:
    if verdict.fate == "bad_request":
        raise ScriptedProviderError(400, "a bad request that the script asked for", {})
    if verdict.fate == "error":
        status, body = error_reply(verdict.phase)
        raise ScriptedProviderError(status, SCRIPTED_FAILURE, {}, json.loads(body))
    if verdict.fate == "malformed":
        if verdict.phase.malformed_form == "reset":
            raise ConnectionResetError("the connection was reset, as the script says")
        raise ScriptedProviderError(502, "a broken answer that the script asked for", {})
    return answer()


def simulate(
    steps: Sequence[PipelineStep],
    *,
    output: str | PathLike[str],
    rows: Iterable[Row] | str | PathLike[str] | None = None,
    records: int | None = None,
    models: Mapping[str, Model] | None = None,
    config: RunConfig | None = None,
    resume: ResumeMode = "never",
    event_sink: AnyAdmissionEventSink | None = None,
) -> RunResult:
    """`trio_sched.run` from its beginning to its end, in simulated time. For tests: call it outside of Trio.

    Takes what `trio_sched.run` takes and raises what it raises; times in the result are in simulated seconds. A column
    that waits for anything but Trio's clock, such as a socket or a thread, does not belong here. The same run takes
    the same time again; `config.seed` chooses the order of tasks that are ready at the same moment.
    """
    with _seeded_order(0 if config is None else config.seed):
        return trio.run(
            partial(
                run,
                steps,
                output=output,
                rows=rows,
                records=records,
                models=models,
                config=config,
                resume=resume,
                event_sink=event_sink,
                blocking=inline,
            ),
            clock=trio.testing.MockClock(autojump_threshold=0),
        )


@contextmanager
def _seeded_order(seed: int) -> Generator[None, None, None]:
    """Trio chooses the order of tasks by a seed."""
    # Trio has no public way to fix it. Hypothesis' own support for Trio uses these two names; without them the order
    # stays random, and only a simulation's times change from run to run.
    scheduler = import_module("trio._core._run")
    fixed: dict[str, object] = {"_ALLOW_DETERMINISTIC_SCHEDULING": True, "_r": random.Random(seed)}
    before = {name: getattr(scheduler, name) for name in fixed if hasattr(scheduler, name)}
    for name in before:
        setattr(scheduler, name, fixed[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(scheduler, name, value)
