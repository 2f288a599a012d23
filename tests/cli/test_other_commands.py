"""`plan`, `why`, `report`, `trace`, `rehearse` and the help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from trio_sched._version import __version__

Invoke = Callable[..., Result]
WriteModule = Callable[[str], str]

COMMANDS = ("run", "resume", "plan", "why", "report", "trace", "rehearse")
CALLING = """
import trio_sched as ts

@ts.from_scratch_column()
async def number(span):
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"], model=ts.Model("brain", "left", max_parallel_requests=3))
async def thought(row, model):
    async def think():
        return str(row["number"])
    return await model.call(think)

pipeline = [number, thought]
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(invoke: Invoke, command: str) -> None:
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert f"\n    trio-sched {command} " in shown.stdout or f"\n    trio-sched {command}\n" in shown.stdout


def test_the_help_lists_every_command_with_a_whole_sentence(invoke: Invoke) -> None:
    lines = invoke("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(COMMANDS)
    assert [line for line in lines if line.endswith("...") or not line.endswith(".")] == []


def test_the_version_is_printed(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"trio-sched, version {__version__}\n"


def test_an_unknown_command_is_bad_input(invoke: Invoke) -> None:
    assert invoke("runn").exit_code == 2


def test_plan_prints_every_limit_and_runs_nothing(write_module: WriteModule, invoke: Invoke) -> None:
    Path("run.toml").write_text("buffer_size = 7\n", encoding="utf-8")
    name = f"{write_module(CALLING)}:pipeline"
    shown = invoke("plan", name, "--records", "5", "--config", "run.toml")
    assert shown.exit_code == 0, shown.output
    values = {line[:32].strip(): line[32:].split() for line in shown.stdout.splitlines()}
    assert values["buffer size"] == ["7", "run", "config"]
    assert values["submission capacity"] == ["1024", "default"]
    assert values["request resources"] == ["brain/left/chat", "model", "metadata"]
    as_json = json.loads(invoke("plan", name, "--records", "5", "--config", "run.toml", "--json").stdout)
    assert as_json["configured"]["provider_model_static_caps"]["brain/left"]["value"]["cap"] == 3
    assert not Path("out").exists()


def test_plan_distinguishes_what_was_given_from_what_is_the_default(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(CALLING)}:pipeline"

    def sources(text: str) -> dict[str, str]:
        Path("run.toml").write_text(text, encoding="utf-8")
        shown = invoke("plan", name, "--records", "5", "--config", "run.toml", "--json")
        configured = json.loads(shown.stdout)["configured"]
        return {key: configured[key]["source"] for key in ("buffer_size", "request_admission_config")}

    assert sources("") == {"buffer_size": "default", "request_admission_config": "default"}
    # These are the defaults, said aloud.
    assert sources("buffer_size = 100\n[request_admission]\ncooldown_seconds = 0.25\n") == {
        "buffer_size": "run_config",
        "request_admission_config": "run_config",
    }


def test_plan_says_what_the_run_then_says(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(CALLING)}:pipeline"
    planned = json.loads(invoke("plan", name, "--records", "5", "--json").stdout)
    assert invoke("run", name, "--records", "5").exit_code == 0
    was = json.loads(Path("out/capacity_plan.json").read_text(encoding="utf-8"))
    # What is seen only while it runs.
    del planned["configured"]["row_group_admission"]["observed_in_flight"]
    del was["configured"]["row_group_admission"]["observed_in_flight"]
    assert planned["configured"] == was["configured"]


def test_plan_refuses_what_run_refuses(write_module: WriteModule, invoke: Invoke) -> None:
    text = (
        "import trio_sched as ts\n@ts.column(needs=['b'])\ndef a(row): ...\n@ts.column(needs=['a'])\ndef b(row): ...\n"
    )
    name = f"{write_module(text + 'circle = [a, b]')}:circle"
    refused = [invoke(command, name, "--records", "5") for command in ("plan", "run")]
    assert refused[0].exit_code == refused[1].exit_code == 2
    assert refused[0].stderr == refused[1].stderr
    assert "circle" in refused[0].stderr
    assert invoke("plan", name).exit_code == 2


def test_a_finished_run_can_be_read(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(CALLING)}:pipeline"
    assert invoke("run", name, "--records", "5", "--write-events", "all").exit_code == 0
    for command, file in (("report", "report.html"), ("trace", "trace.json")):
        (Path("out") / file).unlink()
        done = invoke(command, "out")
        assert (done.exit_code, done.stdout) == (0, f"{Path('out') / file}\n")
        assert (Path("out") / file).stat().st_size > 0
    assert invoke("why", "out").stdout.startswith("completed in ")
    assert json.loads(invoke("why", "out", "--json").stdout)["state"] == "completed"


def test_a_run_that_wrote_a_summary_has_no_trace(write_module: WriteModule, invoke: Invoke) -> None:
    done = invoke("run", f"{write_module(CALLING)}:pipeline", "--records", "5")
    assert 'trace.json is made with write_events="all"' in done.stdout
    assert invoke("report", "out").exit_code == 0
    assert invoke("why", "out").stdout.startswith("completed in ")
    refused = invoke("trace", "out")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: 'out' has a summary of its events, and a trace is made of all of them")
    assert not Path("out/trace.json").exists()


def test_a_run_may_write_no_events(write_module: WriteModule, invoke: Invoke) -> None:
    name = f"{write_module(CALLING)}:pipeline"
    assert invoke("run", name, "--records", "5", "--write-events", "none").exit_code == 0
    assert not list(Path("out/events").iterdir())


@pytest.mark.parametrize("command", ["why", "report", "trace"])
def test_a_folder_without_a_run_is_bad_input(write_module: WriteModule, invoke: Invoke, command: str) -> None:
    write_module("")
    Path("empty").mkdir()
    refused = invoke(command, "empty")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: 'empty' has no events to read")
    assert invoke(command, "nowhere").exit_code == 2


def test_rehearse_serves_until_ctrl_c() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from trio_sched._cli import main; main()"
    )
    command = [sys.executable, "-c", program, "rehearse", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{base_url}/models") as answer:
            assert "rehearsal-chat" in answer.read().decode()
        server.send_signal(signal.SIGINT)
        _, said = server.communicate()
    assert server.returncode == 0
    assert said == f"Try: OPENAI_BASE_URL={base_url} OPENAI_API_KEY=rehearsal; end with Ctrl-C.\nstopped\n"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("x", "scripts.json: scripts must be JSON (Expecting value"),
        ('{"a": {"phases": [{"max_in_fligt": 8}]}}', "the nearest is 'max_in_flight'"),
    ],
)
def test_a_script_that_is_none_is_bad_input(
    write_module: WriteModule, invoke: Invoke, script: str, problem: str
) -> None:
    write_module("")
    Path("scripts.json").write_text(script, encoding="utf-8")
    refused = invoke("rehearse", "--scripts", "scripts.json")
    assert refused.exit_code == 2
    assert problem in refused.stderr


def test_rehearse_listens_on_loopback_only(invoke: Invoke) -> None:
    refused = invoke("rehearse", "--host", "0.0.0.0")
    assert refused.exit_code == 2
    assert "loopback" in refused.stderr


def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules['click'] = None; from trio_sched._cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "trio-sched: click is not installed; run: pip install 'trio_sched[cli]'\n",
    )
