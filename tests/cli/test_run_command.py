"""`run` and `resume`: exit codes, texts, and what is left in the folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
WriteModule = Callable[[str], str]

NUMBERS = """
import trio_sched as ts

@ts.from_scratch_column()
async def number(span):
    return [span.seed + each for each in range(span.start, span.start + span.count)]

@ts.column(needs=["number"])
async def even(row):
    if row["number"] % 10 == 9:
        raise ValueError("nine")
    return row["number"] % 2 == 0

@ts.column(needs=["number"], model="thinker")
async def thought(row, model):
    async def think():
        return str(row["number"])
    return await model.call(think)

@ts.post_batch_processor()
async def broken(rows):
    raise KeyError("boo")

pipeline = [number]
dropping = [number, even]
thinking = [number, thought]
breaking = [number, broken]
models = {"thinker": ts.Model("brain", "left", max_parallel_requests=3)}
"""


def test_all_records_are_exit_code_0_and_a_summary(write_module: WriteModule, invoke: Invoke) -> None:
    done = invoke("run", f"{write_module(NUMBERS)}:pipeline", "--records", "250", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("rows         250 written, 0 dropped\n")
    rows = Path("out/data/part-00000.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0]) == {"number": 3}


def test_a_run_that_stopped_says_how_to_go_on_in_words_of_the_command_line(
    write_module: WriteModule, invoke: Invoke
) -> None:
    failing = """
import trio_sched as ts

@ts.from_scratch_column()
async def number(span):
    return list(range(span.count))

@ts.column(needs=["number"])
async def never(row):
    raise LookupError

pipeline = [number, never]
"""
    done = invoke("run", f"{write_module(failing)}:pipeline", "--records", "1000")
    assert done.exit_code == 3
    assert "--resume if-possible" in done.stdout
    assert "resume=" not in done.output


def test_drops_are_exit_code_1_unless_allowed(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(NUMBERS)}:dropping"
    assert invoke("run", name, "--records", "100").exit_code == 1
    assert invoke("run", name, "--records", "100", "--output", "b", "--max-drop-rate", "0.1").exit_code == 0
    assert invoke("run", name, "--records", "100", "--output", "c", "--max-drop-rate", "0.09").exit_code == 1


def test_rows_come_from_a_file(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(
        "import trio_sched as ts\n@ts.column(needs=['topic'])\ndef size(row): return len(row['topic'])\np = [size]"
    )
    Path("topics.csv").write_text("topic\nape\nhorse\n", encoding="utf-8")
    assert invoke("run", f"{name}:p", "--rows", "topics.csv").exit_code == 0
    assert Path("out/data/part-00000.jsonl").read_text(encoding="utf-8").count("\n") == 2


def test_models_by_name_come_from_the_module(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(NUMBERS)}:thinking"
    assert invoke("run", name, "--records", "5", "--models", "models").exit_code == 0
    refused = invoke("run", name, "--records", "5", "--output", "b")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: column 'thought' names the model 'thinker', which does not exist; known: none\n",
    )


def test_what_fails_under_way_is_exit_code_3_and_names_the_place(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(NUMBERS)
    done = invoke("run", f"{name}:breaking", "--records", "5")
    assert done.exit_code == 3
    line = NUMBERS.splitlines().index('    raise KeyError("boo")') + 1
    assert "error: post-batch processor 'broken' failed on row group 0: it raised KeyError('boo')\n" in done.stderr
    assert done.stderr.endswith(f"KeyError comes from {Path.cwd() / name}.py, line {line}\n")
    assert "--resume if-possible" in done.stderr
    assert "Traceback" not in done.output


def test_a_folder_with_a_run_is_refused_and_resumed_on_demand(write_module: WriteModule, invoke: Invoke) -> None:
    arguments = ("run", f"{write_module(NUMBERS)}:pipeline", "--records", "5")
    assert invoke(*arguments, "--resume", "always").exit_code == 2
    assert invoke(*arguments, "--resume", "if-possible").exit_code == 0
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("or go on with that run: --resume if-possible\n")
    assert invoke(*arguments, "--resume", "always").exit_code == 0


def test_an_internal_error_shows_itself(
    write_module: WriteModule, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(*_: object, **__: object) -> None:
        raise RuntimeError("a bug") from ZeroDivisionError("its cause")

    monkeypatch.setattr("trio_sched._cli.commands.run", bug)
    done = invoke("run", f"{write_module(NUMBERS)}:pipeline", "--records", "5")
    assert repr(done.exception) == "RuntimeError('a bug')"
    assert done.exception is not None
    assert repr(done.exception.__cause__) == "ZeroDivisionError('its cause')"


def test_a_bad_row_is_bad_input_whenever_it_is_met(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(
        "import trio_sched as ts\n@ts.column(needs=['t'])\nasync def size(row): return len(row['t'])\np = [size]"
    )
    rows = ['{"t": "ape"}'] * 900 + ["not JSON"]
    Path("rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    done = invoke("run", f"{name}:p", "--rows", "rows.jsonl")
    assert done.exit_code == 2
    assert "row 901: not JSON" in done.stderr


INTERRUPTING = """
import atexit, os, signal, trio
import trio_sched as ts

@ts.from_scratch_column()
async def number(span):
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"])
async def late(row):
    if row["number"] == 25 and "STRIKE" in os.environ:
        os.kill(os.getpid(), getattr(signal, os.environ["STRIKE"]))
        await trio.sleep_forever()
    return row["number"]

if "STRIKE_AT_EXIT" in os.environ:
    atexit.register(os.kill, os.getpid(), signal.SIGINT)

pipeline = [number, late]
"""


def run_in_a_process(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    Path("run.toml").write_text("buffer_size = 10\nmax_concurrent_row_groups = 1\n", encoding="utf-8")
    # A process that was started in the background ignores Ctrl-C otherwise.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listen}; from trio_sched._cli import main; main()"]
    command += ["run", name, "--records", "40", "--config", "run.toml"]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=False, text=True, timeout=50
    )


@pytest.mark.skipif(sys.platform == "win32", reason="these are no signals there")
@pytest.mark.parametrize(("strike", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_has_the_exit_code_of_shells_and_resume_does_the_rest(
    write_module: WriteModule, invoke: Invoke, strike: str, code: int
) -> None:
    name = f"{write_module(INTERRUPTING)}:pipeline"
    done = run_in_a_process(name, STRIKE=strike)
    assert done.returncode == code
    assert done.stderr.endswith("the same run goes on from there with --resume if-possible\ninterrupted\n")
    assert f"2 row groups are kept in {str(Path('out/data').absolute())!r}" in done.stderr
    assert f"warning: {strike}: the run ends, and what is finished is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(Path("out/run.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    resumed = invoke("resume", name, "out")
    assert resumed.exit_code == 0, resumed.output
    assert resumed.stdout.startswith("rows         40 written, 0 dropped\nbefore       20 rows in 2 row groups\n")


@pytest.mark.skipif(sys.platform == "win32", reason="these are no signals there")
def test_ctrl_c_while_the_process_leaves_is_no_success_with_a_traceback(write_module: WriteModule) -> None:
    done = run_in_a_process(f"{write_module(INTERRUPTING)}:pipeline", STRIKE_AT_EXIT="yes")
    assert done.returncode == -2
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("rows         40 written, 0 dropped\n")


def test_a_resumed_run_has_the_bounds_that_were_given_and_no_others(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(NUMBERS)}:pipeline"
    Path("run.toml").write_text("submission_capacity = 7\n", encoding="utf-8")
    assert invoke("run", name, "--records", "5", "--config", "run.toml").exit_code == 0
    assert invoke("resume", name, "out").exit_code == 0
    plan = json.loads(Path("out/capacity_plan.json").read_text(encoding="utf-8"))["configured"]
    assert (plan["submission_capacity"]["value"], plan["submission_capacity"]["source"]) == (7, "run_config")
    assert plan["row_group_admission"]["mode"] == "adaptive"


def test_the_command_line_raises_the_limit_of_open_files(
    write_module: WriteModule, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource: Any = pytest.importorskip("resource")
    asked: list[object] = []

    def getrlimit(_: int) -> tuple[int, int]:
        return 256, 5_000

    def setrlimit(_: int, wanted: tuple[int, int]) -> None:
        asked.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    name = f"{write_module(NUMBERS)}:pipeline"
    assert invoke("run", name, "--records", "5").exit_code == 0
    assert invoke("plan", name, "--records", "5").exit_code == 0
    assert asked == [(5_000, 5_000)] * 2


def test_resume_wants_the_input_again(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(
        "import trio_sched as ts\n@ts.column(needs=['t'])\ndef size(row): return len(row['t'])\np = [size]"
    )
    Path("rows.jsonl").write_text('{"t": "ape"}\n', encoding="utf-8")
    assert invoke("run", f"{name}:p", "--rows", "rows.jsonl").exit_code == 0
    asked = invoke("resume", f"{name}:p", "out")
    assert asked.exit_code == 2
    assert "give the same ones again with --rows" in asked.stderr
    assert invoke("resume", f"{name}:p", "out", "--rows", "rows.jsonl").exit_code == 0


def test_resume_needs_a_run(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(NUMBERS)
    Path("empty").mkdir()
    asked = invoke("resume", f"{name}:pipeline", "empty")
    assert asked.exit_code == 2
    assert asked.stderr.startswith("error: output 'empty' holds no run to go on with")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("{0}", "give MODULE:NAME, such as pipes:pipeline"),
        ("{0}.py:pipeline", "is a file, not a module"),
        ("nowhere_at_all:pipeline", "there is no module 'nowhere_at_all', neither in"),
        ("{0}:pipelin", "has no 'pipelin'; did you mean 'pipeline'?"),
        ("{0}:number", "is a single column or processor; give a list of them"),
        ("{0}:models", "'models' is a dict, not a list of columns and processors"),
        ("{0}:__name__", "'__name__' is a str, not a list of columns and processors"),
    ],
)
def test_what_is_no_pipeline_is_refused(write_module: WriteModule, invoke: Invoke, name: str, problem: str) -> None:
    refused = invoke("run", name.format(write_module(NUMBERS)), "--records", "1")
    assert refused.exit_code == 2
    assert "names no pipeline" in refused.stderr
    assert problem in refused.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = = 2", "raised SyntaxError: invalid syntax"),
        ("import nowhere_at_all", "raised ModuleNotFoundError: No module named 'nowhere_at_all' (in"),
        ("def f():\n    raise RuntimeError('hm')\nf()", ".py, line 2)"),
        ("pipeline = [1]", "pipeline[0] is a int, not a column or a processor; is a decorator"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_without_traceback(
    write_module: WriteModule, invoke: Invoke, text: str, problem: str
) -> None:
    refused = invoke("run", f"{write_module(text)}:pipeline", "--records", "1")
    assert refused.exit_code == 2
    assert problem in refused.stderr
    assert "Traceback" not in refused.output


def test_models_that_are_none_are_refused(write_module: WriteModule, invoke: Invoke) -> None:
    name = write_module(NUMBERS + "\nodd = {'a': 1}")
    for models, problem in (("pipeline", "is a list, not a mapping"), ("odd", "odd['a'] is a int, not a model")):
        refused = invoke("run", f"{name}:pipeline", "--records", "1", "--models", models)
        assert refused.exit_code == 2
        assert problem in refused.stderr
