"""`python -m trio_sched._rehearsal`: serve rehearsal providers until interrupted.

Prints one line of JSON with the address it listens on, and nothing else. Exit codes: 0 when its standard input closed,
2 for a bad argument, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import trio

from trio_sched._errors import TrioSchedError
from trio_sched._rehearsal.script import RehearsalScript
from trio_sched._rehearsal.serde import address_to_json, scripts_from_json
from trio_sched._rehearsal.server import open_rehearsal


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trio_sched._rehearsal", description=__doc__)
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
    async with open_rehearsal(scripts, host=host, port=port) as server:
        sys.stdout.write(address_to_json(server.host, server.port) + "\n")
        sys.stdout.flush()
        if not until_stdin_closes:
            await trio.sleep_forever()
        # A thread, because not every platform can wait for a pipe otherwise; it dies with the process.
        await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


if __name__ == "__main__":
    sys.exit(main())
