"""One run at a time in a folder, also after the holder died, and whatever it forked."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trio_sched as ts
from trio_sched._pipeline.folder import hold_run_lock

HOLDER = """
import os, sys, time
from pathlib import Path
from trio_sched._pipeline.folder import hold_run_lock

with hold_run_lock(Path(sys.argv[1])):
    if sys.argv[2] == "alone" or os.fork() == 0:
        print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


def test_a_second_holder_is_refused_with_pid_and_host(tmp_path: Path) -> None:
    with hold_run_lock(tmp_path):
        expected = f"output {str(tmp_path)!r} is in use by process {os.getpid()} on {platform.node()}; wait for it"
        with pytest.raises(ts.OutputInUseError, match=re.escape(expected)) as caught, hold_run_lock(tmp_path):
            raise AssertionError("must not be held twice")
        assert (caught.value.pid, caught.value.host) == (os.getpid(), platform.node())
    with hold_run_lock(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"pid": "x", "host": "y"}'])
def test_a_holder_of_whom_nothing_is_known(tmp_path: Path, text: str | None) -> None:
    with hold_run_lock(tmp_path):
        (tmp_path / "run.pid").unlink()
        if text is not None:
            (tmp_path / "run.pid").write_text(text, encoding="utf-8")
        with pytest.raises(ts.OutputInUseError, match="in use by another process") as caught, hold_run_lock(tmp_path):
            raise AssertionError("must not be held twice")
        assert (caught.value.pid, caught.value.host) == (None, None)


@pytest.mark.skipif(sys.platform == "win32", reason="kills and forks")
@pytest.mark.parametrize("fork", ["alone", "fork"])
def test_the_lock_ends_with_its_holder_and_not_with_a_forked_child(tmp_path: Path, fork: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HOLDER, str(tmp_path), fork]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        other = int(holder.stdout.readline())
        with pytest.raises(ts.OutputInUseError) as caught, hold_run_lock(tmp_path):
            raise AssertionError("must not be held twice")
        assert caught.value.pid == holder.pid
        holder.kill()
        holder.wait()
        if fork == "fork":
            os.kill(other, 0)  # The child lives, with every descriptor that it inherited.
        with hold_run_lock(tmp_path):
            assert json.loads((tmp_path / "run.pid").read_text())["pid"] == os.getpid()


async def test_a_run_in_progress_is_not_resumed_beside_itself(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused: list[ts.OutputInUseError] = []

    @ts.column(needs=["number"])
    async def nested(row: dict[str, int]) -> int:
        try:
            await ts.run([number, nested], records=1, output=out, resume="if-possible")
        except ts.OutputInUseError as error:
            refused.append(error)
        return row["number"]

    result = await ts.run([number, nested], records=1, output=out)
    assert result.records == 1
    assert [error.pid for error in refused] == [os.getpid()]
    again = await ts.run([number, nested], records=1, output=out, resume="always")
    assert again.earlier.rows == 1


async def test_a_lock_that_cannot_be_made_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(ts.OutputNotWritableError, match=r"run\.lock' cannot be written: Is a directory"):
        await ts.run([number], records=1, output=tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="locks are msvcrt's there")
@pytest.mark.parametrize(
    ("number_of_error", "remedy"),
    [
        (errno.ENOSYS, "its file system has no locks, and a run locks its folder; choose a folder on a local disk"),
        (errno.ENOLCK, "its file system has no locks, and a run locks its folder; choose a folder on a local disk"),
        (errno.EOPNOTSUPP, "its file system has no locks, and a run locks its folder; choose a folder on a local disk"),
        (errno.EIO, "look at the disk, or what else is behind it, or choose a folder on another one"),
        (errno.EROFS, "choose a folder you may write to"),
    ],
)
async def test_a_lock_that_the_system_refuses_says_what_helps(
    number_of_error: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(number_of_error, os.strerror(number_of_error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ts.OutputNotWritableError) as caught:
        await ts.run([number], records=1, output=tmp_path / "out")
    assert str(caught.value).endswith(f"cannot be written: {os.strerror(number_of_error)}; {remedy}")
