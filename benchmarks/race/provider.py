"""The provider of the race: chat completions in OpenAI's wire format on loopback, and a count of what it was asked.

    python -m benchmarks.race.provider     prints its port as one line of JSON, and serves until its input ends

    POST .../chat/completions   the call: "row N" in it is answered "row N drafted", and that "row N finished"
    POST /reset                 a script (`script.py`): what was counted is forgotten, what is under way is not counted
    GET /figures                what was counted since then (`counting.py`)
    GET /figures/now            the same, with the end now instead of at the last answer

One process, one thread, the standard library alone: each request is parsed by hand, since only a few clients speak to
it and a framework would cost more than the work. A refusal is sent at once; an answer when the call's time is over.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Final

from benchmarks.race.counting import Counter
from benchmarks.race.script import Phase, Script

__all__ = ["Provider", "finished_row", "reply_to"]

ROW: Final = re.compile(rb"row (\d+)( drafted)?")
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LONGEST_REQUEST: Final = 1 << 20
REFUSAL: Final = json.dumps(
    {"error": {"message": "Too many calls at once.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
).encode()
MODEL: Final = "racer"


def row_of(body: bytes) -> tuple[int, bool] | None:
    """The row that a call is for, and whether it is the second call, which quotes the answer of the first."""
    found = list(ROW.finditer(body))
    return (int(found[-1][1]), any(each[2] for each in found)) if found else None


def finished_row(body: bytes) -> int | None:
    """The row that is finished with the answer to this call."""
    row = row_of(body)
    return row[0] if row is not None and row[1] else None


def reply_to(body: bytes) -> str:
    """What the model says."""
    row = row_of(body)
    if row is None:
        return "no row"
    return f"row {row[0]} finished" if row[1] else f"row {row[0]} drafted"


class Provider:
    """Everything that outlives a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.counter = Counter(Script(0.0, 1.0, (Phase(0.0, 1_000_000),)))
        self._processor_before = time.process_time()

    def reset(self, script: Script) -> None:
        """Begin again with `script`."""
        self.counter = Counter(script)
        self._processor_before = time.process_time()

    def figures(self, until: float | None = None) -> bytes:
        """What was counted."""
        processor = time.process_time() - self._processor_before
        return json.dumps(self.counter.figures(processor, until).to_json()).encode()


class Connection(asyncio.Protocol):
    """One connection, and the call that is under way on it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._call: tuple[Counter, asyncio.TimerHandle] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end])
        length = LENGTH.search(head)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if end > LONGEST_REQUEST:
            self._send("413 Content Too Large", b"{}")
        elif len(self._received) >= end:
            body = bytes(self._received[head_end + 4 : end])
            del self._received[:end]
            method, target, _ = head.split(b" ", 2)
            self._request(method, target, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's."""
        if self._call is not None:
            counter, timer = self._call
            timer.cancel()
            counter.abandons(self._provider.loop.time())

    def _request(self, method: bytes, target: bytes, body: bytes) -> None:
        if method == b"POST" and target.endswith(b"/chat/completions"):
            self._chat(body)
        elif (method, target) == (b"POST", b"/reset"):
            self._provider.reset(Script.from_json(json.loads(body)))
            self._send("200 OK", b"{}")
        elif (method, target) == (b"GET", b"/figures"):
            self._send("200 OK", self._provider.figures())
        elif (method, target) == (b"GET", b"/figures/now"):
            self._send("200 OK", self._provider.figures(self._provider.loop.time()))
        else:
            self._send("404 Not Found", b"{}")

    def _chat(self, body: bytes) -> None:
        counter, loop = self._provider.counter, self._provider.loop
        now = loop.time()
        if not counter.admits(now):
            self._send("429 Too Many Requests", REFUSAL, f"retry-after: {counter.script.hint_seconds:g}\r\n")
            return
        due = now + counter.script.call_seconds
        self._call = counter, loop.call_at(due, self._answer, counter, due, body)

    def _answer(self, counter: Counter, due: float, body: bytes) -> None:
        self._call = None
        counter.answers(self._provider.loop.time(), due, finished_row(body))
        self._send("200 OK", completion(reply_to(body)))

    def _send(self, status: str, body: bytes, headers: str = "") -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        self._transport.write(head.encode() + body)


def completion(text: str) -> bytes:
    """A chat completion that says `text`."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return json.dumps(
        {
            "id": "chatcmpl-race",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16},
        }
    ).encode()


async def serve() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    provider = Provider(loop)
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", 0, backlog=1024)
    async with server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
