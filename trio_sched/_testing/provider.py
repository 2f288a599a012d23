"""A provider that behaves as a script tells it, called directly: no HTTP, no process, no extra.

The verdicts are those of the rehearsal provider (`trio_sched.rehearsal`), and so are the answers. Waiting is
`trio.sleep`, so on a mock clock a day of rate limits takes no time.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import trio

from trio_sched._rehearsal.answers import chat_answer, embedding
from trio_sched._rehearsal.counters import CountersView, Ending
from trio_sched._rehearsal.provider import Accepted, Refused, open_providers
from trio_sched._rehearsal.refusal import refusal_reply
from trio_sched._rehearsal.script import RehearsalScript

__all__ = ["ScriptedProvider", "ScriptedProviderError"]

T = TypeVar("T")

_BYTES_OF_A_FLOAT = 4


class ScriptedProviderError(Exception):
    """A refusal or a failure that the script asked for; carries what the errors of SDKs carry.

    Attributes: `status_code`, which is 200 for a refusal in the body of a success, `headers`, and `body`, the decoded
    JSON of a refusal or None. The retry hint of a refusal is where the script puts it.
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

        Raises `ScriptedProviderError`.
        """
        return await self.serve(lambda: chat_answer(model, messages, seed=self._provider.script.seed))

    async def embed(self, text: str, *, model: str = "scripted") -> list[float]:
        """The unit vector of `text`. Raises `ScriptedProviderError`."""
        script = self._provider.script
        packed = await self.serve(
            lambda: embedding(model, text, script.dimensions, seed=script.seed), domain="embedding"
        )
        return list(struct.unpack(f"<{len(packed) // _BYTES_OF_A_FLOAT}f", packed))

    async def serve(self, answer: Callable[[], T], *, domain: str = "chat") -> T:
        """Whatever `answer` returns, as a call of this provider: it may take time, be refused, fail or hang.

        Raises `ScriptedProviderError`, or what `answer` raises.
        """
        verdict = self._provider.arrive(domain, trio.current_time())
        if isinstance(verdict, Refused):
            await trio.sleep(verdict.seconds)
            # A whole second, so that a point in time is as far from the response's own date in every simulated run.
            refusal = refusal_reply(self._provider.name, verdict, math.floor(time.time()))
            raise ScriptedProviderError(refusal.status, refusal.message, refusal.headers, json.loads(refusal.body))
        hangs = verdict.fate == "hang"
        ending: Ending = "hang" if hangs else "abandoned"
        try:
            await trio.sleep(math.inf if hangs else verdict.seconds)
            ending = verdict.fate
            return _reply(verdict, answer)
        finally:
            self._provider.depart(verdict, ending)


def _reply(verdict: Accepted, answer: Callable[[], T]) -> T:
    if verdict.fate == "bad_request":
        raise ScriptedProviderError(400, "a bad request that the script asked for", {})
    if verdict.fate == "error":
        raise ScriptedProviderError(500, "a failure that the script asked for", {})
    if verdict.fate == "malformed":
        raise ScriptedProviderError(502, "a broken answer that the script asked for", {})
    return answer()
