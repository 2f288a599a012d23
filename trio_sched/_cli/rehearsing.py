"""`rehearse`: the rehearsal provider, for programs of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import trio

from trio_sched._errors import InvalidValueError
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import scripts_from_json
from trio_sched._rehearsal.server import open_rehearsal

__all__ = ["rehearse_command"]


@click.command("rehearse", short_help="Serve a local provider to try a pipeline against.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="0 takes any free port.")
@click.option(
    "--scripts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON: for each provider what it does, see trio_sched.rehearsal. [default: one that answers at once]",
)
def rehearse_command(host: str, port: int, scripts: Path | None) -> None:
    """Serve a local, OpenAI-compatible provider until Ctrl-C; print its base URL.

    Nothing leaves this machine, any key will do, and answers depend only on what is asked. A script makes it slow,
    limited or faulty:

    \b
      trio-sched rehearse
      trio-sched rehearse --scripts scripts.json
    \b
    with scripts.json, for two providers, one of which takes 8 calls at once:
      {"a": {"phases": [{"latency": {"mean": 0.2}, "max_in_flight": 8}]}, "b": {}}
    """
    read = _read(scripts) if scripts is not None else {"a": RehearsalScript()}
    try:
        trio.run(_serve, read, host, port)
    except KeyboardInterrupt:
        # The way it is meant to end.
        click.echo("stopped", err=True)


def _read(path: Path) -> Mapping[str, RehearsalScript]:
    try:
        return scripts_from_json(path.read_bytes())
    except InvalidValueError as error:
        # What JSON it is not would be the whole file.
        given = f", got {error.value!r}" if not isinstance(error.value, bytes) else ""
        problem = f"{path}: {error.field} must be {error.expected}{given}"
        raise click.BadParameter(problem, param_hint="--scripts") from error


async def _serve(scripts: Mapping[str, RehearsalScript], host: str, port: int) -> None:
    async with open_rehearsal(scripts, host=host, port=port) as server:
        for name in scripts:
            click.echo(server.base_url(name))
        first = server.base_url(next(iter(scripts)))
        click.echo(f"Try: OPENAI_BASE_URL={first} OPENAI_API_KEY=rehearsal; end with Ctrl-C.", err=True)
        await trio.sleep_forever()
