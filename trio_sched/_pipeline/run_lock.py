"""One run at a time in one folder.

The lock is the operating system's, on the open file `run.lock` (flock on POSIX, msvcrt on Windows, through `filelock`),
so it ends with the process that holds it, however that process dies. Children that the process forks close their copy
of the descriptor and do not keep the lock. The file itself says nothing and is never deleted: deleting it would let two
runs lock two files of one name. Who holds the lock stands beside it in `run.pid`, which is for the message only.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from trio_sched._pipeline.output_errors import OutputInUseError, OutputNotWritableError
from trio_sched._util import parse_json

__all__ = ["hold_run_lock"]

LOCK_NAME = "run.lock"
HOLDER_NAME = "run.pid"


@contextmanager
def hold_run_lock(folder: Path) -> Generator[None, None, None]:
    """Hold the folder's lock. Raises `OutputInUseError` while another run holds it, at once."""
    lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False, fallback_to_soft=False)
    holder = folder / HOLDER_NAME
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except Timeout:
            raise OutputInUseError(folder, *_read_holder(holder)) from None
        except OSError as error:
            raise OutputNotWritableError(folder / LOCK_NAME, error) from error
        with suppress(OSError):
            holder.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()


def _read_holder(holder: Path) -> tuple[int | None, str | None]:
    try:
        held = parse_json(holder.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    if not isinstance(held, dict):
        return None, None
    known = cast("dict[str, object]", held)
    pid, host = known.get("pid"), known.get("host")
    return (pid, host) if isinstance(pid, int) and isinstance(host, str) else (None, None)
