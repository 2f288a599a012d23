"""Who is measured: this checkout, another one, a commit, the peer, the floor, and what asyncio programs use."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path

import attrs

from benchmarks import environments
from benchmarks.errors import UsageError
from benchmarks.scenarios.scenario import Kind

__all__ = ["GRAMMAR", "Candidate", "open_candidate"]

GRAMMAR = "here, path:FOLDER, ref:COMMIT, peer, floor, asyncio, anyio, aiometer"


@attrs.frozen
class Candidate:
    """name: as it is called in tables. kind: which workload of a scenario it runs. sha: what exactly was measured."""

    name: str
    kind: Kind
    sha: str
    python: str
    folder: Path


def open_candidate(spec: str, scratch: Path, *, peer_needs: tuple[str, ...] = ()) -> Candidate:
    """Make `spec` ready to run, in a new folder below `scratch`."""
    folder = scratch / f"candidate{len(list(scratch.iterdir()))}"
    if spec == "peer":
        sha, python = environments.PEER[0], environments.peer_python(peer_needs)
        return Candidate("peer", "peer", sha, python, environments.copy_of(folder))
    if spec in environments.OTHERS:
        packages = environments.OTHERS[spec]
        sha = packages[0] if packages else f"CPython {platform.python_version()}"
        return Candidate(spec, spec, sha, environments.python_with(spec, packages), environments.copy_of(folder))
    if spec == "floor":
        sha = f"trio=={importlib.metadata.version('trio')}"
        return Candidate("floor", "floor", sha, sys.executable, environments.copy_of(folder))
    if spec == "here":
        sha = environments.checkout_sha(environments.ROOT)
        folder = environments.copy_of(folder, package=environments.ROOT)
        return Candidate("here", "project", sha, sys.executable, folder)
    if spec.startswith("ref:"):
        sha = environments.ref_sha(spec[4:])
        return Candidate(spec, "project", sha, sys.executable, environments.copy_of(folder, ref=sha))
    if spec.startswith("path:"):
        checkout = Path(spec[5:]).resolve()
        if not (checkout / "trio_sched").is_dir():
            raise UsageError(f"{spec[5:]} is no checkout of this project: it has no folder trio_sched")
        sha = environments.checkout_sha(checkout)
        folder = environments.copy_of(folder, package=checkout)
        return Candidate("checkout", "project", sha, sys.executable, folder)
    raise UsageError(f"there is no candidate {spec!r}; there are {GRAMMAR}")
