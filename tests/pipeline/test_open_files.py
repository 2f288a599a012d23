"""Too few open files: told before a run, avoided by lower caps, and when it happens, waited out at no cost of a row."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from pipeline_samples import mocked, number, status

import trio_sched as ts
from trio_sched._capacity import CapacityValue
from trio_sched._pipeline.capacity import plan_run, raise_open_files
from trio_sched._resources.identity import ProviderModelKey
from trio_sched._util import lacks_open_files
from trio_sched.lowlevel import AsyncCapacityPlan, inline
from trio_sched.testing import simulate

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

resource: Any = pytest.importorskip("resource")

NOT_ONE_MORE = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def ask(value: int) -> int:
    await trio.sleep(1)
    return value


def calling(*models: ts.Model) -> list[Any]:
    def column(index: int, model: ts.Model) -> object:
        @ts.column(needs=["number"], model=model, name=f"called{index}")
        async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
            return await handle.call(ask, row["number"])

        return called

    return [number, *(column(*each) for each in enumerate(models))]


def client(connections: int | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=connections))


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int = 4096) -> None:
    def getrlimit(_: int) -> tuple[int, int]:
        return soft, hard

    monkeypatch.setattr(resource, "getrlimit", getrlimit)


def planned(*models: ts.Model, config: ts.RunConfig | None = None) -> AsyncCapacityPlan:
    return plan_run(calling(*models), records=10, config=config)


def caps(plan: AsyncCapacityPlan) -> dict[str, int]:
    return {str(key): cap.required.cap for key, cap in plan.configured.provider_model_static_caps.items()}


def test_the_plan_says_what_takes_open_files() -> None:
    plan = planned(
        ts.Model("a", "m", max_parallel_requests=40, client=client(1000)),
        ts.Model("b", "m", max_parallel_requests=40, client=client(7)),
        ts.Model("c", "m", max_parallel_requests=9),
    )
    by_use = plan.configured.open_files_by_use.required
    assert by_use == {
        "calls of a/m": 40,
        "calls of b/m": 7,
        "calls of c/m": 9,
        "parts": 8,
        "events": 2,
        "documents": 5,
        "program": 64,
    }
    assert plan.configured.open_files_needed == CapacityValue(sum(by_use.values()), "engine_internal_config")
    without = planned(config=ts.RunConfig(write_events="none")).configured
    assert without.open_files_needed.required == 8 + 5 + 64


def test_caps_are_lowered_to_what_is_left_and_a_warning_names_both_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited(monkeypatch, 256)
    plan = planned(ts.Model("p", "m", max_parallel_requests=400, client=client(1000)))
    left = 256 - 8 - 2 - 5 - 64
    assert caps(plan)["p/m"] <= left
    assert caps(plan)["p/m"] > left - 100, "but for what the tests have open"
    endpoint = ProviderModelKey("p", "m")
    cap = plan.configured.provider_model_static_caps[endpoint]
    assert (cap.source, cap.fallback_from) == ("environment", "max_parallel_requests=400")
    assert plan.configured.call_ceilings[endpoint].bound_by == "open files, of 256"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "p/m is lowered from 400 to" in record.getMessage()
    assert "may have 256 files open; raise that limit (ulimit -n) to at least 479" in record.getMessage()


def test_the_largest_demands_are_cut_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sched._pipeline.capacity._open_now", lambda: 0)
    limited(monkeypatch, 8 + 2 + 5 + 64 + 100)
    models = [
        ts.Model(name, "m", max_parallel_requests=cap, client=client(None))
        for name, cap in {"a": 400, "b": 20, "c": 100}.items()
    ]
    assert caps(planned(*models)) == {"a/m": 40, "b/m": 20, "c/m": 40}
    limited(monkeypatch, 10)
    assert set(caps(planned(*models)).values()) == {1}


def test_what_is_not_known_to_take_a_connection_is_warned_of_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    limited(monkeypatch, 256)
    model = ts.Model("p", "m", max_parallel_requests=400)
    assert caps(planned(model)) == {"p/m": 400}
    (record,) = caplog.records
    assert "may want 479 files and connections open at once, and this process may have 256" in record.getMessage()
    caplog.clear()
    limited(monkeypatch, 479)
    planned(model)
    limited(monkeypatch, 256)
    simulate(calling(model), records=3, output=tmp_path)
    assert not caplog.records, "a simulation opens no connection"


def test_the_limit_is_raised_to_the_most_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def grant(most: int) -> Callable[[int, tuple[int, int]], None]:
        def setrlimit(_: int, wanted: tuple[int, int]) -> None:
            if wanted[0] > most:
                raise ValueError("not allowed to exceed maximum limit")
            asked.append(wanted)

        return setrlimit

    for soft, hard, most, expected in (
        (256, 4096, 4096, [(4096, 4096)]),
        (4096, 4096, 4096, []),
        (256, resource.RLIM_INFINITY, 10_240, [(10_240, resource.RLIM_INFINITY)]),
        (256, resource.RLIM_INFINITY, 100, []),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 100, []),
    ):
        asked.clear()
        limited(monkeypatch, soft, hard)
        monkeypatch.setattr(resource, "setrlimit", grant(most))
        raise_open_files()
        assert asked == expected


def test_want_of_open_files_is_seen_wherever_it_is_in_the_chain() -> None:
    def raised(*errors: BaseException) -> BaseException:
        outer = errors[0]
        for inner in errors[1:]:
            outer.__cause__, outer = inner, inner
        return errors[0]

    connecting = OSError("all attempts to connect failed")
    assert lacks_open_files(NOT_ONE_MORE)
    assert lacks_open_files(OSError(errno.ENFILE, "too many in the system"))
    assert lacks_open_files(raised(RuntimeError("Connection error."), ConnectionError("x"), connecting, NOT_ONE_MORE))
    assert lacks_open_files(raised(connecting, ExceptionGroup("attempts", [OSError(111, "refused"), NOT_ONE_MORE])))
    loop = RuntimeError()
    loop.__cause__ = loop
    assert not lacks_open_files(loop)
    assert not lacks_open_files(raised(RuntimeError(), OSError(errno.ENOSPC, "full")))
    context = RuntimeError()
    context.__context__ = NOT_ONE_MORE
    assert lacks_open_files(context)
    context.__suppress_context__ = True
    assert not lacks_open_files(context)


def test_a_part_that_no_file_can_be_opened_for_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = {"left": 200}
    opened = os.open

    def short_of_files(path: str, *args: Any, **kwargs: Any) -> int:
        if "part-" in str(path) and refused["left"]:
            refused["left"] -= 1
            raise NOT_ONE_MORE
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", short_of_files)
    result = simulate([number], records=250, output=tmp_path)
    assert (result.records, result.status, refused["left"]) == (250, "completed", 0)
    assert [row["number"] for row in result.rows()] == list(range(250))
    told = [each.getMessage() for each in caplog.records]
    assert told == ["no further file can be opened (Too many open files): writing waits until one is closed"] * 3


def test_documents_are_written_in_place_of_the_file_that_is_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, opened, closed = tmp_path / "out", os.open, os.close
    free: list[int] = []

    def short_of_files(path: str, *args: Any, **kwargs: Any) -> int:
        if not (out / "run-end.json.tmp").exists():
            return opened(path, *args, **kwargs)
        if not free:
            raise NOT_ONE_MORE
        free.pop()
        return opened(path, *args, **kwargs)

    def close(descriptor: int) -> None:
        free.append(descriptor)
        closed(descriptor)

    @ts.column(needs=["number"])
    async def calm(row: dict[str, int]) -> int:
        monkeypatch.setattr(os, "open", short_of_files)
        monkeypatch.setattr(os, "close", close)
        return row["number"]

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await ts.run([number, calm, interrupting], records=1, output=out, blocking=inline)

    @ts.column(needs=["calm"])
    async def interrupting(row: dict[str, int]) -> int:
        raise KeyboardInterrupt

    mocked(main)
    assert status(out) == "interrupted"
    assert not list(out.glob("*.tmp"))


def test_a_call_or_a_column_in_want_of_open_files_costs_no_row(tmp_path: Path) -> None:
    made: dict[str, int] = {"called": 0, "own": 0}

    async def connect(value: int) -> int:
        made["called"] += 1
        if made["called"] < 300:
            raise ConnectionError("Connection error.") from NOT_ONE_MORE
        return value

    @ts.column(needs=["number"], model=ts.Model("p", "m"))
    async def called(row: dict[str, int], model: ts.ModelHandle) -> int:
        return await model.call(connect, row["number"])

    @ts.column(needs=["number"])
    async def own(row: dict[str, int]) -> int:
        made["own"] += 1
        if made["own"] < 300:
            raise NOT_ONE_MORE
        return row["number"]

    result = simulate([number, called, own], records=120, output=tmp_path)
    assert (result.records, result.dropped, result.status) == (120, 0, "completed")


PROGRAM = """
import resource, sys, trio, trio_sched as ts
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []

@ts.from_scratch_column()
async def number(span):
    return list(range(span.start, span.start + span.count))

@ts.column(needs=["number"])
async def hoarding(row):
    if row["number"] == 5:
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError:
            pass
        await trio.sleep(0.5)
        for file in held:
            file.close()
    return row["number"]

async def main():
    config = ts.RunConfig(buffer_size=1, max_concurrent_row_groups=10)
    print((await ts.run([number, hoarding], records=50, output=sys.argv[1], config=config)).summary())

trio.run(main)
"""


def test_a_process_that_has_every_file_open_for_a_while_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out)], capture_output=True, check=False, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "50 written, 0 dropped" in done.stdout
    assert status(out) == "completed"
    assert "writing waits until one is closed" in done.stderr
