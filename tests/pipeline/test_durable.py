"""Files that are there whole or not at all: in which order things reach the disk, and what a refusal leaves."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_sched._pipeline.folder import make_folder, write_durably

pytestmark = pytest.mark.usefixtures("real_flushes")


def record(patch: pytest.MonkeyPatch, names: dict[int, str]) -> list[str]:
    """Record the calls that decide about durability, with the name of the file that each is about."""
    calls: list[str] = []
    opened, fsync, replace = os.open, os.fsync, os.replace

    def recording_open(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        names[descriptor] = path.name
        return descriptor

    def recording_fsync(descriptor: int) -> None:
        calls.append(f"flush {names[descriptor]}")
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        calls.append(f"{source.name} becomes {target.name}")
        replace(source, target)

    patch.setattr(os, "open", recording_open)
    patch.setattr(os, "fsync", recording_fsync)
    patch.setattr(os, "replace", recording_replace)
    return calls


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not flushed there")
def test_content_then_name_then_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with monkeypatch.context() as patch:
        calls = record(patch, {})
        write_durably(folder / "file", b"content")
    assert calls == ["flush file.tmp", "file.tmp becomes file", "flush folder"]
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", b"content")]


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not flushed there")
def test_each_new_folder_is_flushed_into_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        calls = record(patch, {})
        make_folder(tmp_path / "there" / "a" / "b")
        make_folder(tmp_path / "there" / "a")
    assert calls == ["flush a", "flush there"]
    assert (tmp_path / "there" / "a" / "b").is_dir()


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize(("how", "error"), [(refuse, OSError), (interrupt, KeyboardInterrupt)])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    how: Callable[..., None],
    error: type[BaseException],
) -> None:
    write_durably(tmp_path / "file", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, how)
        with pytest.raises(error):
            write_durably(tmp_path / "file", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"before")]


def test_a_write_in_small_pieces_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def write_little(descriptor: int, content: memoryview) -> int:
        return write(descriptor, content[:3])

    monkeypatch.setattr(os, "write", write_little)
    write_durably(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    write_durably(tmp_path / "empty", b"")
    assert (tmp_path / "empty").read_bytes() == b""
