"""The commands of `trio-sched`."""

from __future__ import annotations

import click

from trio_sched._cli.outcome import Commands
from trio_sched._cli.planning import plan_command
from trio_sched._cli.reading import report_command, trace_command, why_command
from trio_sched._cli.rehearsing import rehearse_command
from trio_sched._cli.running import resume_command, run_command
from trio_sched._version import __version__

__all__ = ["trio_sched"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='Completion for bash, zsh and fish: eval "$(_TRIO_SCHED_COMPLETE=bash_source trio-sched)" and the like.',
)
@click.version_option(__version__)
def trio_sched() -> None:
    """Run pipelines that call models by the thousand, and look at what a run did.

    \b
      trio-sched run pipes:pipeline --rows topics.jsonl --output out
      trio-sched why out
    """


for _command in (
    run_command,
    resume_command,
    plan_command,
    why_command,
    report_command,
    trace_command,
    rehearse_command,
):
    trio_sched.add_command(_command)
