"""Everything that is run on this project, by name: `nox -s demo`, `nox -s test`, `nox -s lint typecheck`.

Where nox is not installed, `python3 noxfile.py demo` does the same: it makes a private environment in `.nox/bootstrap`,
installs nox there and hands over. So a machine needs git and Python, and nothing outside this folder is changed, with
two exceptions that say so: Debian's Python may come without what it takes to make an environment, and `integration`
wants nginx, tmux and chromium.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOX = "nox[uv]>=2025.2.9,<2027"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so would everything below; some of it tests Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Bootstrap: written so that a Python as old as 3.8 can read it and say that it is too old.


def hand_over_to_nox(arguments: list[str]) -> None:
    """Become `nox -s NAMES -- ARGUMENTS`. Without names, list them."""
    if sys.version_info < (3, 10):  # noqa: UP036
        version = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"trio_sched needs Python 3.10 or later, and this is {version}: run noxfile.py with a later one.")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    sessions = ["-s", *arguments[:split]] if split else ["--list"]
    python = sys.executable if starts_nox(sys.executable) else environment_with_nox(HERE / ".nox" / "bootstrap")
    os.execv(python, [python, "-m", "nox", "-f", str(HERE / "noxfile.py"), *sessions, *arguments[split:]])


def environment_with_nox(folder: Path) -> str:
    """The Python of a private environment that has nox, made unless it is there."""
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if starts_nox(python):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    if succeeds(sys.executable, "-c", "import ensurepip, venv"):
        run(sys.executable, "-m", "venv", str(folder))
        run(python, "-m", "pip", "install", "--quiet", NOX)
    elif succeeds(sys.executable, "-m", "pip", "--python", sys.executable, "--version"):
        # The system's pip may not install into the system, but it may install into an environment.
        run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", NOX)
    else:
        install_venv()
        return environment_with_nox(folder)
    return python


def install_venv() -> None:
    """Install what Debian leaves out of its Python, if that is what is missing here and we may."""
    package = "python{}.{}-venv".format(*sys.version_info)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(
            f"{sys.executable} has neither ensurepip nor pip, so it cannot make the environment that nox runs in.\n"
            f"On Debian and Ubuntu run: sudo apt-get install {package}"
        )
    run("apt-get", "update", "--quiet")
    run("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", package, DEBIAN_FRONTEND="noninteractive")
    if not succeeds(sys.executable, "-c", "import ensurepip, venv"):
        sys.exit(
            f"{package} is installed, and {sys.executable} still has no ensurepip: run noxfile.py with another one."
        )


def starts_nox(python: str) -> bool:
    """Whether there is such a Python, and it has nox."""
    return Path(python).exists() and succeeds(python, "-c", "import nox")


def succeeds(*command: str) -> bool:
    """Whether a command exits with 0. What it prints is lost."""
    nothing = subprocess.DEVNULL
    return subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, check=False).returncode == 0


def run(*command: str, **environment: str) -> None:
    """Print a command and run it, or exit."""
    print("+", *command, flush=True)
    returncode = subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    if returncode:
        sys.exit(f"{command[0]} failed with exit code {returncode}.")


if __name__ == "__main__":
    hand_over_to_nox(sys.argv[1:])


# Sessions.

import nox  # noqa: E402

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["test", "lint", "typecheck"]
nox.options.default_venv_backend = "uv|virtualenv"  # uv where nox has it: it installs in seconds
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
"""Settings of pip, and the variables by which uv is told the same."""


def registry_of_pip() -> dict[str, str]:
    """Where pip was told to find packages, in variables of uv, which reads nothing of pip's. What uv was told stays."""
    command = (sys.executable, "-m", "pip", "config", "list")
    settings = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    pairs = re.findall(r"^\S+?\.([\w-]+)='(\S+)'$", settings, re.MULTILINE)
    return {UV_NAMES[name]: value for name, value in pairs if name in UV_NAMES and UV_NAMES[name] not in os.environ}


os.environ.update(registry_of_pip())

PROJECT = nox.project.load_toml(HERE / "pyproject.toml")
MEET_DEPENDENCIES = (
    "tests/boundary", "tests/cli", "tests/events", "tests/observe/test_live.py", "tests/observe/test_otel.py",
    "tests/pipeline/test_checks.py", "tests/pipeline/test_parquet.py", "tests/pipeline/test_pipeline_run.py",
    "tests/pipeline/test_run_lock.py",
    "tests/rehearsal", "tests/testing",
)  # fmt: skip
RANDOM = ("tests/stateful", "tests/fuzz", "tests/crash")


def group(name: str) -> tuple[str, ...]:
    """The requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: real text in, a finished dataset out. OPENAI_BASE_URL and OPENAI_API_KEY choose a real endpoint."""
    session.install("-e", ".[cli,openai,rehearsal]")
    # After Ctrl-C the demo writes its reports and says how to go on; nox would kill it in the middle of that.
    session.run("python", "docs/examples/demo.py", *session.posargs, interrupt_timeout=30)


def run_tests(session: nox.Session) -> None:
    """The tests, on this one Python."""
    session.install("-e", ".[all]", *group("test"))
    arguments = [argument for argument in session.posargs if argument != "--coverage"]
    if arguments == session.posargs:
        session.run("pytest", *arguments)
    else:
        session.run("coverage", "run", "-m", "pytest", *arguments)
        session.run("coverage", "report")


@nox.session
def test(session: nox.Session) -> None:
    """The tests, on the Python that runs nox. Arguments go to pytest, except for `--coverage`."""
    run_tests(session)


def skip(session: nox.Session) -> None:
    """Skipped: this Python is not installed here, or does not start."""
    session.skip("this Python is not installed here, or does not start")


for version in PYTHONS:
    python = shutil.which(f"python{version}")
    # Being found is not enough: pyenv has a shim for each of its versions, and only those switched on start.
    if python and succeeds(python, "-c", ""):
        nox.session(name=f"test-{version}", python=version)(run_tests)
    else:
        nox.session(name=f"test-{version}", python=False)(skip)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Mypy and pyright, strict, on package and tests; mypy on the benchmarks; whether every public name has a type."""
    session.install("-e", ".[all]", *group("typecheck"))
    session.run("mypy", "trio_sched", "tests", "benchmarks")
    for fixtures in sorted((HERE / "tests").glob("*/conftest.py")):
        session.run("mypy", str(fixtures))
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_sched", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, into out/docs: every reference must resolve, and nothing may be warned of."""
    session.install("-e", ".", *group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-q", "-b", "html", "docs", "out/docs")
    session.log(f"{HERE / 'out' / 'docs' / 'index.html'}")


@nox.session
def diagrams(session: nox.Session) -> None:
    """Draw plans/diagrams/*.svg again; needs plantuml (Debian: apt-get install plantuml).

    tests/docs/test_diagrams.py compares their words and arrows with the source, and the names in it with the code.
    """
    folder = HERE / "plans" / "diagrams"
    style = (folder / "style.puml").read_text(encoding="utf-8")
    source = (folder / "trio_sched.puml").read_text(encoding="utf-8")
    draw = ("plantuml", "-tsvg", "-nometadata", "-charset", "UTF-8", "-config", str(folder / "style.puml"))
    session.run(*draw, str(folder / "trio_sched.puml"), external=True)
    for name, text in re.findall(r"^@startuml ([\w-]+)\n(.*?)^@enduml$", source, re.MULTILINE | re.DOTALL):
        image = folder / f"{name}.svg"
        drawn_from = hashlib.sha256((style + text).encode()).hexdigest()
        # PlantUML leaves the background to the viewer, who may like it dark; the lines are dark too.
        painted = f'<!-- drawn from {drawn_from} --><rect width="100%" height="100%" fill="#FFFFFF"/>'
        image.write_text(image.read_text(encoding="utf-8").replace("<g>", f"{painted}<g>", 1) + "\n", encoding="utf-8")


@nox.session(venv_backend="virtualenv", reuse_venv=False)
def package(session: nox.Session) -> None:
    """Wheel and sdist, built; the wheel put where nothing else is, by pip, and tried as README and tutorial say."""
    session.install("build>=1.2")
    built = Path(session.create_tmp()).resolve()
    for file in built.glob("trio_sched-*"):
        file.unlink()
    session.run("python", "-m", "build", "--outdir", str(built), str(HERE))
    (wheel,) = built.glob("trio_sched-*.whl")
    (sdist,) = built.glob("trio_sched-*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        session.chdir(folder)
        # What the sdist makes a wheel of is whole, too.
        session.install("--no-deps", str(sdist))
        session.install("--force-reinstall", f"{wheel}[openai,cli,rehearsal]")
        session.run("python", str(HERE / "tests" / "packaging" / "try_installed.py"), str(HERE / "README.md"))
        with tempfile.TemporaryDirectory() as another:
            session.chdir(another)
            session.run("python", str(HERE / "docs" / "examples" / "topics.py"))
            session.chdir(folder)
        session.chdir(HERE)


@nox.session(venv_backend="uv")
def minimum(session: nox.Session) -> None:
    """The tests that use dependencies, with the lowest versions of them that pyproject.toml allows; needs uv."""
    session.install("--resolution", "lowest-direct", "-e", ".[all]", *group("test"))
    session.run("pytest", *(session.posargs or MEET_DEPENDENCIES))


@nox.session
def bench(session: nox.Session) -> None:
    """What it costs, beside the peer and the floor: every figure of the docs, which takes most of an hour.

    `smoke` counts instead of timing, in less than a minute; `--against COMMIT` fails where that commit was better;
    `race` lets real clients race over real HTTP, and takes what `python -m benchmarks.race` takes.
    """
    session.install("-e", ".[openai]", *group("bench"))
    if session.posargs[:1] == ["race"]:
        session.run("python", "-m", "benchmarks.race", *session.posargs[1:])
        return
    session.run("python", "-m", "benchmarks", *(session.posargs or ("results", "--output", "out/benchmarks")))
    if session.posargs == ["smoke"]:
        session.run("python", "-m", "benchmarks.control", "--smoke")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Every test with thousands of examples; `bounded` tries hundreds of histories, pipelines and killed runs.

    Those of `bounded` are others than `test` tries, and with CI set the same ones each time.
    """
    session.install("-e", ".[all]", *group("test"))
    arguments = [argument for argument in session.posargs if argument != "bounded"]
    if arguments == session.posargs:
        session.run("pytest", "-m", "", *arguments, env={"TRIO_SCHED_FUZZ": "full"})
        return
    if "CI" in os.environ:
        arguments.append("--hypothesis-seed=1")
    session.run("pytest", "-m", "", *RANDOM, *arguments, env={"TRIO_SCHED_FUZZ": "bounded"})


PEERS = {
    "nginx": ("nginx-light", "limit_conn and limit_req behind nginx"),
    "tmux": ("tmux", "the live panel in a terminal"),
    "chromium": ("chromium", "report and trace in a browser"),
    "chromedriver": ("chromium-driver", "report and trace in a browser"),
}
"""Programs of the integration session: the Debian package of each, and what is skipped without it."""


def find_peer(session: nox.Session, program: str, package: str) -> str | None:
    """Why there is no such program, or None. Debian's is installed if we may, but not started."""
    if shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin"):
        return None
    if not shutil.which("apt-get"):
        return f"{program} is not installed, and there is no apt-get to install it with"
    if os.geteuid() != 0:
        return f"{program} is not installed, and only root may install it (sudo apt-get install {package})"
    # RUNLEVEL=1: as in single-user mode, so the package does not start a server of its own.
    quietly = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    options = ("--quiet", "--yes", "--no-install-recommends")
    try:
        session.run("apt-get", "update", "--quiet", external=True)
        session.run("apt-get", "install", *options, package, env=quietly, external=True)
    except nox.command.CommandFailed:
        return f"apt-get could not install {package}"
    return None


@nox.session
def integration(session: nox.Session) -> None:
    """Real peers in real time: nginx with limits of its own, the SDKs, a terminal, a browser. Says what it skipped."""
    session.install("-e", ".[openai,anthropic,otel,cli,rehearsal]", *group("integration"))
    missing = {
        f"SKIPPED: {what}: {why}."
        for program, (package, what) in PEERS.items()
        if (why := find_peer(session, program, package)) is not None
    }
    session.run("pytest", "tests/integration", "--timeout=300", *session.posargs, env={"TRIO_SCHED_INTEGRATION": "1"})
    for told in sorted(missing):
        session.warn(told)
    if not missing:
        session.log("Nothing was skipped for want of a program.")
