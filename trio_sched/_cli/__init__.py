"""The command line, `trio-sched`: what a session with the package looks like from a shell.

`commands` has the commands, `options` what several of them take. `pipelines` finds what `MODULE:NAME` names,
`config_file` reads settings, `outcome` turns errors into texts and exit codes.
"""

from __future__ import annotations

import sys
import traceback

from trio_sched._errors import MissingExtraError, require

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments of this process name, and exit."""
    try:
        require("cli", "click", "rich")
        from trio_sched._cli.commands import trio_sched

        trio_sched(prog_name="trio-sched")
    except MissingExtraError as error:
        sys.stderr.write(f"trio-sched: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        # Before a command was at work: loading takes a moment.
        sys.exit(130)
    except Exception:
        # A bug's traceback, as Python would print it; but an error may say what a provider said.
        from trio_sched._util import page

        sys.stderr.write(page(traceback.format_exc().split("\n")[:-1]) + "\n")
        sys.exit(1)
