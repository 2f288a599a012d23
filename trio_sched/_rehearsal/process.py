"""Rehearsal providers in a process of their own, so that serving takes no CPU time from the program under test.

The child prints one line of JSON when it is ready, and ends when its standard input does. A pipe closes however its
other end goes, so the child never outlives this process, not even one that is killed. It runs in a session of its own:
Ctrl-C at the terminal reaches only this process, which may still have calls to finish.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import trio

from trio_sched._extras import require
from trio_sched._rehearsal.control import RehearsalClient
from trio_sched._rehearsal.errors import RehearsalStartError
from trio_sched._rehearsal.loopback import check_loopback
from trio_sched._rehearsal.provider import open_providers
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import address_from_json, scripts_to_json

__all__ = ["RehearsalProcess", "rehearsal_process"]

_CHUNK = 4096
_GRACE_SECONDS = 3.0


class RehearsalProcess(RehearsalClient):
    """A running child process and the providers it serves."""

    __slots__ = ("_pid",)

    def __init__(self, host: str, port: int, pid: int) -> None:
        super().__init__(host, port)
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
    command = [sys.executable, "-m", "trio_sched._rehearsal", "--until-stdin-closes"]
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
    return RehearsalProcess(*address_from_json(line), child.pid)


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
