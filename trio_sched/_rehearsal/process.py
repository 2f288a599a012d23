"""Rehearsal providers in a process of their own, so that serving takes no CPU time from the program under test.

The child, `python -m trio_sched._rehearsal.process`, prints one line of JSON with its address when it is ready, and
ends when its standard input does. A pipe closes however its other end goes, so the child never outlives this process,
not even one that is killed. It runs in a session of its own: Ctrl-C at the terminal reaches only this process, which
may still have calls to finish.

Its providers are read and steered over HTTP: one request per connection, spoken with h11, which Hypercorn brings
along. It waits under Trio's rules, so it can be cancelled, and it looks at no proxy settings, which have no say about
loopback. The child has a port of its own for that, which is open whatever its scripts say.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio

from trio_sched._errors import TrioSchedError, require
from trio_sched._rehearsal.provider import CountersView, open_providers
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import (
    address_from_json,
    address_to_json,
    control_port_from_json,
    counters_from_json,
    script_from_json,
    script_to_json,
    scripts_from_json,
    scripts_to_json,
)
from trio_sched._rehearsal.server import ProviderAddress, check_loopback, open_with_control

__all__ = [
    "RehearsalClient",
    "RehearsalProcess",
    "RehearsalRefusedError",
    "RehearsalStartError",
    "main",
    "rehearsal_process",
]


_CHUNK = 2**16
_GRACE_SECONDS = 3.0


class RehearsalStartError(TrioSchedError):
    """The process of a rehearsal provider did not get ready; its messages are on the standard error stream.

    Attributes: `returncode` (None: it was still starting at the timeout).
    """

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.returncode = returncode

    def __str__(self) -> str:
        if self.returncode is None:
            return "the rehearsal provider's process did not get ready in time"
        return f"the rehearsal provider's process ended with exit code {self.returncode} before it was ready"


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
    """The providers served at an address, read and steered from elsewhere, by default at the same port."""

    __slots__ = ("_control",)

    def __init__(self, host: str, port: int, control_port: int | None = None) -> None:
        require("rehearsal", "h11")
        super().__init__(host, port)
        self._control = ProviderAddress(host, port if control_port is None else control_port)

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
            ("host", self._control.netloc),
            ("connection", "close"),
            ("content-length", str(len(body))),
        ]
        request = h11.Request(method=method, target=target, headers=headers)
        events = (request, h11.Data(body), h11.EndOfMessage())
        async with await trio.open_tcp_stream(self.host, self._control.port) as stream:
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


class RehearsalProcess(RehearsalClient):
    """A running child process and the providers it serves."""

    __slots__ = ("_pid",)

    def __init__(self, host: str, port: int, pid: int, control_port: int | None = None) -> None:
        super().__init__(host, port, control_port)
        self._pid = pid

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._pid


@asynccontextmanager
async def rehearsal_process(
    providers: Mapping[str, RehearsalScript],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    start_timeout_seconds: float = 30.0,
) -> AsyncGenerator[RehearsalProcess, None]:
    """Serve `providers`, scripts by name, in a child process until the block is left.

    Raises `RehearsalStartError` if the child does not get ready. What can be refused without it is refused before.
    """
    open_providers(providers)
    check_loopback(host)
    require("rehearsal", "starlette", "hypercorn")
    command = [sys.executable, "-m", "trio_sched._rehearsal.process", "--until-stdin-closes"]
    command += ["--host", host, "--port", str(port), "--scripts", scripts_to_json(providers)]
    child = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield await _ready(child, start_timeout_seconds)
    finally:
        await _end(child)


async def _ready(child: trio.Process, timeout_seconds: float) -> RehearsalProcess:
    """Wait for the child's one line."""
    output = cast("trio.abc.ReceiveStream", child.stdout)  # never None, for a pipe was asked for
    line = b""
    with trio.move_on_after(timeout_seconds) as scope:
        while not line.endswith(b"\n"):
            chunk = await output.receive_some(_CHUNK)
            if not chunk:
                raise RehearsalStartError(await child.wait())
            line += chunk
    if scope.cancelled_caught:
        raise RehearsalStartError(None)
    return RehearsalProcess(*address_from_json(line), child.pid, control_port_from_json(line))


async def _end(child: trio.Process) -> None:
    """Close the pipes, and kill a child that does not take that as its end."""
    with trio.CancelScope(shield=True):
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                await pipe.aclose()
        with trio.move_on_after(_GRACE_SECONDS):
            await child.wait()
        if child.returncode is None:
            child.kill()
            await child.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve rehearsal providers until interrupted; what the child does.

    Returns the exit code: 0 when its standard input closed, 2 for a bad argument, 130 when it was interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m trio_sched._rehearsal.process", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port (default: %(default)s)")
    parser.add_argument("--scripts", default='{"a": {}}', help="JSON: scripts by provider (default: %(default)s)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    try:
        scripts = scripts_from_json(options.scripts)
        trio.run(_serve, scripts, options.host, options.port, options.until_stdin_closes)
    except TrioSchedError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(scripts: Mapping[str, RehearsalScript], host: str, port: int, until_stdin_closes: bool) -> None:
    async with open_with_control(scripts, host=host, port=port) as (server, control_port):
        sys.stdout.write(address_to_json(server.host, server.port, control_port) + "\n")
        sys.stdout.flush()
        if not until_stdin_closes:
            await trio.sleep_forever()
        # A thread, because not every platform can wait for a pipe otherwise; it dies with the process.
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


if __name__ == "__main__":
    sys.exit(main())
