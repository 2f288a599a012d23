"""Reading and steering a rehearsal provider from another process, over the HTTP that it serves anyway.

One request per connection, spoken with h11, which Hypercorn brings along: it waits under Trio's rules, so it can be
cancelled, and it looks at no proxy settings, which have no say about loopback.
"""

from __future__ import annotations

import trio

from trio_sched._errors import TrioSchedError
from trio_sched._extras import require
from trio_sched._rehearsal.address import ProviderAddress
from trio_sched._rehearsal.counters import CountersView
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import counters_from_json, script_from_json, script_to_json

__all__ = ["RehearsalClient", "RehearsalRefusedError"]

_CHUNK = 2**16


class RehearsalRefusedError(TrioSchedError):
    """The rehearsal provider answered with an error.

    Attributes: `target` (the path asked for), `status` (of the response), `body` (its text).
    """

    def __init__(self, target: str, status: int, body: str) -> None:
        super().__init__(target, status, body)
        self.target = target
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return f"the rehearsal provider answered {self.status} to {self.target}: {self.body}"


class RehearsalClient(ProviderAddress):
    """The providers served at an address, read and steered from elsewhere."""

    __slots__ = ()

    def __init__(self, host: str, port: int) -> None:
        require("rehearsal", "h11")
        super().__init__(host, port)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.host}:{self.port}>"

    async def counters(self, provider: str) -> CountersView:
        """What the provider has counted so far."""
        return counters_from_json(await self._exchange("GET", f"/{provider}/counters"))

    async def script(self, provider: str) -> RehearsalScript:
        """The script in force."""
        return script_from_json(await self._exchange("GET", f"/{provider}/script"))

    async def replace_script(self, provider: str, script: RehearsalScript) -> None:
        """Start another script from its first phase."""
        await self._exchange("PUT", f"/{provider}/script", script_to_json(script))

    async def _exchange(self, method: str, target: str, body: bytes = b"") -> bytes:
        import h11

        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("host", self.netloc),
            ("connection", "close"),
            ("content-length", str(len(body))),
        ]
        request = h11.Request(method=method, target=target, headers=headers)
        events = (request, h11.Data(body), h11.EndOfMessage())
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
            status, parts = 0, list[bytes]()
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(_CHUNK))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                else:
                    break
        reply = b"".join(parts)
        if status != 200:
            raise RehearsalRefusedError(target, status, reply.decode(errors="replace"))
        return reply
