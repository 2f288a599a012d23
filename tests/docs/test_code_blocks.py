"""Every Python block of the pages runs, against the rehearsal provider, or at least compiles; every command exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import trio
from page_blocks import PAGES, ROOT, Block, blocks, page_name, program

from trio_sched._cli.commands import trio_sched as command_line
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, open_rehearsal

PROGRAMS = [page for page in PAGES if program(page)]
BLOCKS = [block for page in PAGES for block in blocks(page)]
FRAGMENTS = [block for block in BLOCKS if block.info == "python fragment"]
COMMANDS = [
    (str(block), line.removeprefix("$ "))
    for block in BLOCKS
    if block.info == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]
LANGUAGES = {"python", "python fragment", "console", "text", "json", "toml", "mermaid"}
OF_THE_SHELL = {".", "cd", "echo", "export", "git", "kill", "sleep", "nox"}


def test_there_is_something_to_look_at() -> None:
    assert {"README.md", "docs/tutorial.md", "docs/howto/columns.md"} <= {page_name(page) for page in PAGES}
    assert len(PROGRAMS) > 5
    assert len(COMMANDS) > 10


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in BLOCKS if block.info not in LANGUAGES and not block.info.startswith("{")] == []


@pytest.mark.parametrize("page", PROGRAMS, ids=page_name)
async def test_the_program_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "topics.jsonl").write_text('{"topic": "trio"}\n{"topic": "leases"}\n', encoding="utf-8")
    await run_program(program(page), tmp_path, RehearsalScript())


async def test_admission_alone_as_the_readme_shows_it_outlives_rate_limits(tmp_path: Path) -> None:
    (example,) = (block.text for block in blocks(ROOT / "README.md") if "open_admission" in block.text)
    # The first burst is larger than what it takes, however slow the machine.
    busy = RehearsalScript(phases=(Phase(max_in_flight=4, latency=Latency(mean=0.1), retry_after_seconds=0.05),))
    printed, refused = await run_program(example, tmp_path, busy)
    assert len(printed.splitlines()) == 100
    assert refused > 0


async def run_program(text: str, folder: Path, script: RehearsalScript) -> tuple[str, int]:
    """Run the program in `folder` against the provider; what it printed, and how many of its calls were refused."""
    (folder / "program.py").write_text(text, encoding="utf-8")
    async with open_rehearsal({"openai": script}) as provider:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": provider.base_url("openai"),
            "OPENAI_API_KEY": "rehearsal",
            "NO_PROXY": "127.0.0.1",
        }
        done = await trio.run_process(
            [sys.executable, "-W", "error", "program.py"],
            cwd=folder,
            env=environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        refused = sum(provider.counters("openai").refused.values())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(), refused


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_a_fragment_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_a_command_exists(where: str, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    match words:
        case ["python3", "noxfile.py", session, *_]:
            assert session in nox_sessions(), where
        case ["nox", "-s", session, *_]:
            assert session in nox_sessions(), where
        case ["trio-sched", name, *options]:
            check_command_line(where, name, options)
        case ["pip", "install", *what]:
            extras = re.findall(r"\[([\w,]+)\]", " ".join(what))
            assert {extra for found in extras for extra in found.split(",")} <= declared_extras(), where
        case ["python", "-m", "pytest", *arguments]:
            paths = [argument for argument in arguments if argument.startswith("tests")]
            assert [path for path in paths if not (ROOT / path.split("::")[0]).exists()] == [], where
        case ["python" | "python3", "-m", "venv", *_]:
            pass
        case ["python", script, *_]:
            assert (ROOT / "docs" / "examples" / script).exists() or f"`{script}`" in page_text(where), where
        case [name, *_]:
            assert name in OF_THE_SHELL, where
        case _:
            pytest.fail(f"{where}: no command")


def check_command_line(where: str, name: str, options: list[str]) -> None:
    command = command_line.commands.get(name)
    assert command is not None, where
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {option.split("=")[0] for option in options if option.startswith("-") and option != "--help"}
    assert used <= known, where
    with click.Context(command) as context:
        assert command.get_help(context)


def page_text(where: str) -> str:
    return (ROOT / where.rpartition(":")[0]).read_text(encoding="utf-8")


def declared_extras() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    return set(re.findall(r"^(\w+) = ", section, re.MULTILINE))


def nox_sessions() -> set[str]:
    """The sessions that noxfile.py defines; reading it needs no nox."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("nox.session") for decorator in node.decorator_list)
    }


def test_the_page_on_the_command_line_has_every_command() -> None:
    page = (ROOT / "docs" / "howto" / "command-line.md").read_text(encoding="utf-8")
    assert [name for name in command_line.commands if f"$ trio-sched {name}" not in page] == []
