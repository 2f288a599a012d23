"""Who takes part in the race, and the environment of each, with pinned versions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks import environments
from benchmarks.candidates import open_candidate
from benchmarks.errors import UsageError

__all__ = ["ADMISSION", "BOUND", "RACERS", "RUN", "SMOKE", "Entrant", "Racer", "entrants"]

OPENAI: Final = "openai==3.57.0"
OURS: Final = ("trio==0.35.0", "attrs==26.1.0", "cattrs==26.2.1", "filelock==4.3.1", "msgspec==0.23.0", OPENAI)
"""What this project needs. The package itself is a copy of the checkout that is measured."""


@attrs.frozen
class Racer:
    """client: a module of `benchmarks.race.clients`. ours: whether it is this project's, so that checkouts differ."""

    name: str
    what: str
    client: str
    packages: tuple[str, ...]
    ours: bool = False
    least_python: tuple[int, int] = (3, 10)


RUN: Final = "run"
ADMISSION: Final = "admission"
BOUND: Final = "sdk-retries"
RACERS: Final = {
    each.name: each
    for each in (
        Racer(RUN, "a pipeline of this project", "run_here", OURS, ours=True),
        Racer(ADMISSION, "its request admission alone", "admission_here", OURS, ours=True),
        Racer(BOUND, "a bound on the calls at once, and the SDK's own ten retries", "sdk_retries", (OPENAI,)),
        Racer(
            "aiometer",
            "aiometer over the rows, and tenacity's retries as OpenAI's cookbook has them",
            "aiometer_tenacity",
            ("aiometer==1.0.0", "tenacity==9.2.1", "anyio==4.16.0", OPENAI),
        ),
        Racer(
            "infermesh",
            "a client over LiteLLM, with its defaults",
            "infermesh_client",
            ("infermesh==0.3.2", "litellm==1.110.2", OPENAI),
            least_python=(3, 12),
        ),
        Racer(
            "inspect-ai",
            "inspect_ai's models on Trio, with adaptive connections",
            "inspect_model",
            ("inspect-ai==0.3.285", "trio==0.35.0", OPENAI),
        ),
        Racer(
            "data-designer",
            "NeMo DataDesigner, a dataset of two columns of text",
            "data_designer_create",
            ("data-designer==0.9.7", "data-designer-engine==0.9.7", "data-designer-config==0.9.7"),
        ),
    )
}
SMOKE: Final = (RUN, ADMISSION, BOUND)
"""Those whom the Python that runs the harness can start, so that nothing has to be installed."""


@attrs.frozen
class Entrant:
    """A racer made ready. name: with the commit where it is of another checkout. sha: what exactly is measured.

    judged: whether it is held to the lines of acceptance.
    """

    name: str
    racer: Racer
    sha: str
    python: str
    folder: Path
    judged: bool = False


def entrants(names: Sequence[str], checkouts: Sequence[str], scratch: Path, *, smoke: bool) -> list[Entrant]:
    """Make them ready, this project's once for each checkout; the first one is judged."""
    found: list[Entrant] = []
    copies = [open_candidate(spec, scratch) for spec in checkouts]
    bare = environments.copy_of(scratch / "harness")
    for name in names:
        if name not in RACERS:
            raise UsageError(f"there is no client {name!r}; there are {', '.join(RACERS)}")
        racer = RACERS[name]
        environment = "race-ours" if racer.ours else f"race-{name}"
        python = (
            sys.executable
            if smoke
            else environments.python_with(environment, racer.packages, least_python=racer.least_python)
        )
        if not racer.ours:
            found.append(Entrant(name, racer, " ".join(racer.packages), python, bare))
            continue
        for spec, copy in zip(checkouts, copies, strict=True):
            called = name if spec == "here" else f"{name} at {copy.sha.partition('-')[0][:8]}"
            found.append(Entrant(called, racer, copy.sha, python, copy.folder, judged=spec == checkouts[0]))
    if len({each.name for each in found}) < len(found):
        raise UsageError("two checkouts are of the same commit, so their clients would have the same name")
    return found
