"""The harness' end of the provider and of a client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import attrs
from typing_extensions import Self

from benchmarks.artifact import six_digits
from benchmarks.environments import ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.race.counting import Figures
from benchmarks.race.racers import Entrant
from benchmarks.race.script import Phase, Script

__all__ = ["ClientReport", "ProviderProcess", "run_client"]

ASKING_SECONDS: Final = 10.0
CONNECTIONS: Final = 32
LINES_SHOWN: Final = 15
QUIET: Final = {"NEMO_TELEMETRY_ENABLED": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
"""Nobody speaks to anybody but the provider."""


class ProviderProcess:
    """The provider, from `with` to its end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.race.provider"],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: int = 0

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the provider did not start: it ended with {self._process.wait()}")
        self.port = json.loads(line)["port"]
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    @property
    def base_url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def reset(self, script: Script) -> None:
        """Let it begin again with `script`."""
        self._ask("/reset", json.dumps(script.to_json()).encode())

    def figures(self, *, ended: bool) -> Figures:
        """What it counted since then, with numbers as an artifact holds them; `ended` where the client was ended."""
        counted: dict[str, Any] = self._ask("/figures/now" if ended else "/figures")
        return Figures(**counted | {name: six_digits(each) for name, each in counted.items() if type(each) is float})

    def highest_rate(self, requests: int) -> float:
        """Answered requests per second when each is answered at once and the client costs next to nothing."""
        self.reset(Script(0.0, 1.0, (Phase(0.0, CONNECTIONS),)))
        started = time.perf_counter()
        asyncio.run(self._hammer(requests // CONNECTIONS))
        return requests // CONNECTIONS * CONNECTIONS / (time.perf_counter() - started)

    async def _hammer(self, times: int) -> None:
        body = json.dumps({"model": "racer", "messages": [{"role": "user", "content": "row 1"}]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()

        async def ask() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(times):
                writer.write(head + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(answer.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]))
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))

    def _ask(self, target: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{target}", data=body)
        with urllib.request.urlopen(request, timeout=ASKING_SECONDS) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found


@attrs.frozen
class ClientReport:
    """How a client ended. fault: None where it came to its end. said: its outcome, where it did.

    wall_seconds: of its work as it says, otherwise of the whole process.
    """

    fault: str | None
    said: dict[str, Any] | None
    wall_seconds: float


def run_client(entrant: Entrant, base_url: str, cap: int, rows: int, patience_seconds: float) -> ClientReport:
    """Let a client do its rows; after `patience_seconds` it is ended. What it printed is shown only where it failed."""
    command = [entrant.python, "-m", f"benchmarks.race.clients.{entrant.racer.client}", base_url, str(cap), str(rows)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as noise, tempfile.TemporaryDirectory() as home:
        with subprocess.Popen(
            command, cwd=entrant.folder, env=_environment(Path(home)), stdout=subprocess.PIPE, stderr=noise
        ) as process:
            try:
                answer, _ = process.communicate(timeout=patience_seconds)
                fault = f"ended with exit code {process.returncode}" if process.returncode else None
            except subprocess.TimeoutExpired:
                answer, fault = b"", f"not over after {patience_seconds:g} s"
            finally:
                process.kill()
        wall = time.perf_counter() - started
        if fault is not None:
            noise.seek(0)
            lines = noise.read().decode(errors="replace").splitlines()
            print(f"{entrant.name}: {fault}", *lines[-LINES_SHOWN:], sep="\n  ", file=sys.stderr)
            return ClientReport(fault, None, wall)
    said: dict[str, Any] = json.loads(answer)
    return ClientReport(None, said, said["wall_seconds"])


def _environment(home: Path | None = None) -> dict[str, str]:
    """That of this process, without what would lead a client to other packages, providers or settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OPENAI_", "INSPECT_", "DATA_DESIGNER_")) and "proxy" not in name.lower()
    }
    return kept | QUIET if home is None else {**kept, **QUIET, "HOME": str(home)}
