"""The provider in a process of its own: reached, steered, and gone when it should be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import trio

from trio_sched import InvalidValueError
from trio_sched._rehearsal.process import main
from trio_sched.rehearsal import (
    NotLoopbackError,
    Phase,
    RehearsalProcess,
    RehearsalScript,
    RehearsalStartError,
    open_rehearsal,
    rehearsal_process,
)

pytest.importorskip("hypercorn", reason="needs trio_sched[rehearsal]")
pytest.importorskip("starlette", reason="needs trio_sched[rehearsal]")

SCRIPTS = {"a": RehearsalScript(seed=3), "b": RehearsalScript(phases=(Phase(name="only", max_in_flight=2),))}
COMMAND = [sys.executable, "-m", "trio_sched._rehearsal.process"]


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_process_serves_the_scripts_it_was_given_and_is_steered() -> None:
    async with rehearsal_process(SCRIPTS) as process:
        assert process.pid != os.getpid()
        assert repr(process) == f"<RehearsalProcess for 127.0.0.1:{process.port}>"
        assert process.base_url("b") == f"http://127.0.0.1:{process.port}/b/v1"
        assert {name: await process.script(name) for name in SCRIPTS} == SCRIPTS
        await process.replace_script("a", SCRIPTS["b"])
        assert (await process.counters("a")).phase == "only"


async def test_the_process_ends_with_the_block_also_on_an_error() -> None:
    opened: list[RehearsalProcess] = []
    error = RuntimeError("of the block")

    async def fail() -> None:
        async with rehearsal_process(SCRIPTS) as process:
            opened.append(process)
            raise error

    with pytest.raises(RuntimeError) as caught:
        await fail()
    assert caught.value is error
    assert_gone(opened[0].pid)
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(opened[0].host, opened[0].port)


async def test_a_process_that_does_not_listen_to_reason_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sched._rehearsal.process._GRACE_SECONDS", 0.0)
    pids: list[int] = []
    with trio.CancelScope() as scope:
        async with rehearsal_process(SCRIPTS) as process:
            pids.append(process.pid)
            os.kill(process.pid, signal.SIGSTOP)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert_gone(pids[0])


async def test_a_process_that_cannot_start_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_rehearsal({"a": RehearsalScript()}) as server:
        with pytest.raises(RehearsalStartError, match=r"ended with exit code 2 before it was ready$") as caught:
            async with rehearsal_process(SCRIPTS, port=server.port):
                raise AssertionError("opened")
    assert caught.value.returncode == 2
    assert "port must be a port that can be bound on 127.0.0.1" in capfd.readouterr().err


async def test_a_process_that_takes_too_long_is_reported() -> None:
    with pytest.raises(RehearsalStartError, match=r"did not get ready in time$") as caught:
        async with rehearsal_process(SCRIPTS, start_timeout_seconds=0.0):
            raise AssertionError("opened")
    assert caught.value.returncode is None


async def test_what_can_be_refused_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    with pytest.raises(NotLoopbackError):
        async with rehearsal_process(SCRIPTS, host="0.0.0.0"):
            raise AssertionError("opened")
    with pytest.raises(InvalidValueError):
        async with rehearsal_process({}):
            raise AssertionError("opened")


def communicate_or_kill(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Close its standard input and wait for it to end, but not forever."""
    try:
        return process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_a_process_whose_parent_is_gone_ends_by_itself() -> None:
    with subprocess.Popen([*COMMAND, "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["host"] == "127.0.0.1"
        communicate_or_kill(process)
    assert process.returncode == 0


def test_ctrl_c_ends_one_that_is_run_by_hand() -> None:
    # A child inherits that a signal is ignored, as it is for whatever a shell runs in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["port"] > 0
        process.send_signal(signal.SIGINT)
        _, printed = communicate_or_kill(process)
    assert (process.returncode, printed) == (130, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "host must be localhost, ::1 or an address in 127.0.0.0/8, got '0.0.0.0'"),
        (["--scripts", "{"], "scripts must be JSON"),
        (
            ["--scripts", '{"a": {"sed": 1}}'],
            "a name in a must be one of its fields (the nearest is 'seed'), got 'sed'",
        ),
    ],
)
def test_a_bad_argument_is_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("python -m trio_sched._rehearsal.process: ")
    assert message in printed.err
