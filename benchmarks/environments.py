"""Where candidates run: copies of their code, and virtual environments of their own for other implementations.

Everything lies in `.nox/candidates` of this checkout. A candidate of this project runs on a copy of its package taken
when the run starts, next to a copy of the harness of this checkout, so editing during a run changes nothing and an old
commit is measured by the harness of today. An environment is kept between runs; what is in it is written down in it,
and when that is not what is wanted it is made again.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.errors import BenchmarkError, UsageError

__all__ = ["OTHERS", "PEER", "ROOT", "checkout_sha", "copy_of", "peer_python", "python_with", "ref_sha"]

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT / ".nox" / "candidates"
NEWEST_MINOR = 14
"""Of the Pythons that are looked for."""
RESULTS_ASIDE = ":!benchmarks/results"
"""What git does not look at: artifacts are no part of what is measured."""
PEER = ("data-designer-engine==0.9.7", "data-designer-config==0.9.7")
"""Installed without their dependencies: queue, admission and request admission need the standard library alone."""
OTHERS: Mapping[str, tuple[str, ...]] = {
    "asyncio": (),
    "anyio": ("anyio==4.12.0",),
    "aiometer": ("aiometer==1.0.0", "anyio==4.12.0"),
}
"""What asyncio programs use to bound calls, each for the scenarios that it can do the work of."""


def copy_of(folder: Path, *, package: Path | None = None, ref: str | None = None) -> Path:
    """Fill `folder` with the harness of this checkout, and with the package of a checkout or of a commit."""
    ignore = shutil.ignore_patterns("__pycache__", "results", "control")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=ignore)
    if package is not None:
        shutil.copytree(package / "trio_sched", folder / "trio_sched", ignore=shutil.ignore_patterns("__pycache__"))
    if ref is not None:
        archive = _git(ROOT, "archive", "--format=tar", ref, "trio_sched")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar.getmembers():
                tar.extract(member, folder)
    return folder


def checkout_sha(checkout: Path) -> str:
    """The commit of a checkout, with `-dirty` where the package or the harness differ from it."""
    sha = _git(checkout, "rev-parse", "HEAD").decode().strip()
    changes = _git(checkout, "status", "--porcelain", "--", "trio_sched", "benchmarks", RESULTS_ASIDE).strip()
    return f"{sha}-dirty" if changes else sha


def ref_sha(ref: str) -> str:
    """The commit that `ref` names."""
    try:
        return _git(ROOT, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").decode().strip()
    except BenchmarkError:
        raise UsageError(f"there is no commit called {ref!r} in this repository") from None


def peer_python(needs: tuple[str, ...]) -> str:
    """The Python of an environment with the peer and what else it needs, made unless it is there."""
    return python_with("peer-with-needs" if needs else "peer", needs, without_dependencies=PEER)


def python_with(
    name: str,
    packages: tuple[str, ...],
    *,
    without_dependencies: tuple[str, ...] = (),
    least_python: tuple[int, int] = (3, 10),
) -> str:
    """The Python of an environment of that name with these packages, made unless it is there.

    It is of the version that runs the harness, or of the oldest one found that `least_python` allows.
    """
    interpreter, version = _interpreter(least_python)
    folder = WORKSPACE / "{}-{}.{}".format(name, *version)
    python, contents = folder / "bin" / "python", folder / "contents.txt"
    wanted = "\n".join((*without_dependencies, *packages))
    if contents.exists() and contents.read_text(encoding="utf-8") == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    _run(f"make the environment {name}", interpreter, "-m", "venv", str(folder))
    install = (str(python), "-m", "pip", "install", "--quiet")
    if without_dependencies:
        _run(f"install {without_dependencies[0]}", *install, "--no-deps", *without_dependencies)
    if packages:
        _run(f"install what {name} needs", *install, *packages)
    contents.write_text(wanted, encoding="utf-8")
    return str(python)


def _interpreter(least: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """A Python that can make environments, of at least that version; and its version."""
    here = (sys.version_info.major, sys.version_info.minor)
    if here >= least:
        return sys.executable, here
    of_pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(least[1], NEWEST_MINOR + 1):
        installed = sorted(of_pyenv.glob(f"3.{minor}.*/bin/python3"))
        for command in (f"python3.{minor}", *map(str, installed)):
            # A shim of pyenv is on the path whether or not it starts anything.
            if (
                shutil.which(command)
                and not subprocess.run(
                    [command, "-c", "import ensurepip, venv"], capture_output=True, check=False
                ).returncode
            ):
                return command, (3, minor)
    raise BenchmarkError("no Python {}.{} or later was found".format(*least))


def _git(checkout: Path, *arguments: str) -> bytes:
    return _run(f"git {arguments[0]}", "git", "-C", str(checkout), *arguments)


def _run(what: str, *command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        output = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise BenchmarkError(f"could not {what}:\n" + "\n".join(output[-15:]))
    return done.stdout
