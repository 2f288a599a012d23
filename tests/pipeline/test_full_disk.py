"""A disk that refuses, at any call: reported with path and cause, nothing corrupted, and the run goes on afterwards."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
from pipeline_samples import status

import trio_sched as ts
from trio_sched.lowlevel import inline

CALLS = ("open", "write", "fsync", "replace", "mkdir", "rename", "unlink")


@ts.column(needs=["number"])
async def picky(row: dict[str, int]) -> int:
    if row["number"] == 2:
        raise LookupError
    return row["number"]


class RefusingDisk:
    """From the given call on, every call that changes a file is refused; or only that one."""

    def __init__(self, refused: int, error: int, *, for_good: bool) -> None:
        self.calls = 0
        self._refused = refused
        self._error = error
        self._for_good = for_good

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, self._refusing(getattr(os, name)))

    def _refusing(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.calls == self._refused or (self._for_good and self.calls > self._refused > 0):
                raise OSError(self._error, os.strerror(self._error))
            return function(*args, **kwargs)

        return call


def rows() -> Iterator[dict[str, int]]:
    return ({"number": n} for n in range(10))


def run(output: Path, resume: Literal["always", "if-possible"] = "if-possible") -> ts.RunResult:
    async def main() -> ts.RunResult:
        config = ts.RunConfig(buffer_size=4, write_events=False)
        return await ts.run([picky], rows=rows(), output=output, config=config, resume=resume, blocking=inline)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("for_good", "number"), [(True, errno.ENOSPC), (False, errno.EIO)])
@pytest.mark.parametrize("begun", [True, False])
def test_refused_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, begun: bool, for_good: bool
) -> None:
    expected = [{"number": n, "picky": n} for n in range(10) if n != 2]
    refused = 0
    told: list[ts.OutputNotWritableError] = []
    while True:
        refused += 1
        out = tmp_path / str(refused)
        if begun:
            run(out)
            (out / "data" / "part-00000.jsonl").unlink()
        disk = RefusingDisk(refused, number, for_good=for_good)
        with monkeypatch.context() as patch:
            disk.install(patch)
            try:
                run(out)
                assert status(out) == "completed"
            except ts.OutputNotWritableError as refusal:
                told.append(refusal)
                if (out / "run.json").exists():
                    # A disk that refuses all, renames too, leaves what was there before.
                    assert status(out) in ({"running", "failed", "completed"} if for_good else {"failed", "completed"})
                    assert status(out) != "completed" or begun
        result = run(out)
        assert list(result.rows()) == expected
        assert (result.records, result.dropped) == (9, 1)
        assert not list(out.rglob("*.tmp"))
        assert json.loads((out / "run.json").read_text())["status"] == "completed"
        if disk.calls < refused:
            break
    assert len(told) > 30
    for error in told:
        assert error.errno == number
        assert str(error.path).startswith(str(tmp_path))
        assert f"{str(error.path)!r} cannot be written: {os.strerror(number)}; " in str(error)
        assert ("make room" in str(error)) == (number == errno.ENOSPC)


def full(refuses: Callable[[], bool], patch: pytest.MonkeyPatch) -> None:
    """A disk without room: names may be changed, and nothing may be written or made."""
    for name in ("write", "mkdir"):
        function = getattr(os, name)

        def call(*args: object, function: Callable[..., object] = function) -> object:
            if refuses():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args)

        patch.setattr(os, name, call)


def test_on_a_full_disk_the_document_says_that_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    full(lambda: (out / "data" / "part-00000.jsonl").exists(), monkeypatch)
    with pytest.raises(ts.OutputNotWritableError, match="make room and go on"):
        run(out)
    document = json.loads((out / "run.json").read_text())
    assert (document["status"], document["ended_at"]) == ("failed", None), "the word that was there before the run"
    assert not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    assert run(out).records == 9


def test_a_full_disk_that_lets_files_be_overwritten_has_the_true_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", os.write

    def overwriting(descriptor: int, content: memoryview) -> int:
        if (out / "data" / "part-00000.jsonl").exists() and not os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", overwriting)
    with pytest.raises(ts.OutputNotWritableError):
        run(out)
    text = (out / "run.json").read_text()
    document = json.loads(text)
    assert (document["status"], document["error"]) == ("failed", "OutputNotWritableError")
    assert document["ended_at"] is not None
    assert text.endswith("\n}\n"), "nothing is left of the room that was kept"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
async def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys, trio, trio_sched as ts\n"
        "@ts.from_scratch_column()\n"
        "async def text(span):\n"
        "    return ['x' * 10_000 * (span.start > 0)] * span.count\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "config = ts.RunConfig(buffer_size=10)\n"
        "async def main():\n"
        "    await ts.run([text], records=20, output=sys.argv[1], config=config)\n"
        "try:\n"
        "    trio.run(main)\n"
        "except ts.OutputNotWritableError as error:\n"
        "    print(error)\n"
    )
    out = tmp_path / "out"
    child = await trio.run_process([sys.executable, "-c", program, str(out)], capture_stdout=True, capture_stderr=True)
    said = child.stdout.decode()
    assert f"{str(out / 'data' / 'part-00001.jsonl')!r} cannot be written: File too large; make room" in said
    assert [path.name for path in (out / "data").iterdir()] == ["part-00000.jsonl"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_became_read_only_is_told_before_any_work(tmp_path: Path) -> None:
    run(tmp_path / "out")
    (tmp_path / "out" / "data").chmod(0o500)
    with pytest.raises(ts.OutputNotWritableError, match="choose a folder you may write to"):
        run(tmp_path / "out", "always")
