"""The command line, `trio-sched`: what a session with the package looks like from a shell.

`commands` has the commands, `options` what several of them take. `pipelines` finds what `MODULE:NAME` names,
`outcome` turns errors into texts and exit codes.

*Ctrl-C at any moment* ends it with its own code. While a run goes on, the run takes it. Before and after that,
`KeyboardInterrupt` is caught here, whatever it strikes. When the exit code is decided Python still has to leave, and
what it does then swallows exceptions: one would show as a traceback beside an exit code that says that all went well.
So from then on the signal ends the process by itself.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback

from trio_sched._errors import MissingExtraError, require

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments of this process name, and exit."""
    try:
        code = _run_command()
    except KeyboardInterrupt:
        code = 130
    try:
        _leave_quietly()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run_command() -> int:
    try:
        require("cli", "click", "rich")
        import click

        from trio_sched._cli.commands import trio_sched

        try:
            # Click's own way to end would tell Ctrl-C as an abort, with the code 1.
            code = trio_sched.main(prog_name="trio-sched", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return 130
        return code if isinstance(code, int) else 0
    except MissingExtraError as error:
        sys.stderr.write(f"trio-sched: {error}\n")
        return 2
    except Exception:
        # A bug's traceback, as Python would print it; but an error may say what a provider said.
        from trio_sched._util import page

        sys.stderr.write(page(traceback.format_exc().split("\n")[:-1]) + "\n")
        return 1


def _leave_quietly() -> None:
    """What was said is said; from now on Ctrl-C ends the process without a word."""
    is_here = threading.current_thread() is threading.main_thread()
    if is_here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
