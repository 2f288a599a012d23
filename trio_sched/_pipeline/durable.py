"""Files that are there whole or not at all, also after a crash.

The content goes to a temporary name, is flushed to the disk, and only then gets its name; the folder's entry is flushed
last. A file that has its name is therefore complete. A temporary file that a crash left over is never read, and removed
by the next attempt.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["TEMPORARY_SUFFIX", "flush_folder", "make_folder", "write_durably"]

TEMPORARY_SUFFIX = ".tmp"

_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
_MODE = 0o666
"""Left to the process's umask, as for any file."""


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path`.

    Raises `OSError`; then `path` is as before, or complete where only flushing the folder's entry failed.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        _write_and_flush(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that a crash does not take them away again."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk. Where folders cannot be opened (Windows), the system does so by itself."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_and_flush(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _OPEN_FLAGS, _MODE)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
