"""A run keeps to the files it was given, whatever happens to the working directory while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pipeline_samples import Row, mocked, number

import trio_sched as ts
from trio_sched.lowlevel import Blocking, inline

CONFIG = ts.RunConfig(buffer_size=2, max_concurrent_row_groups=1, write_events="all")


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a function changes to: a folder with a folder `out` of its own, which takes parts like any other."""
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere" / "out" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "out" / "events").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "elsewhere"


def test_a_relative_output_stays_where_it_was_at_the_call(elsewhere: Path) -> None:
    here = Path.cwd()

    @ts.column(needs=["number"])
    async def changes(row: Row) -> object:
        os.chdir(elsewhere)
        return row["number"]

    async def main() -> None:
        result = await ts.run([number, changes], records=6, output="out", config=CONFIG, blocking=inline)
        assert result.path == here / "out"
        assert len(list(result.rows())) == 6

    mocked(main)
    assert files_below(elsewhere) == set()
    assert {"run.json", "capacity_plan.json", "trace.json", "report.html", "data/part-00002.jsonl"} <= files_below(
        here / "out"
    )


def test_one_that_goes_on_elsewhere_finds_its_parts_and_its_input(elsewhere: Path) -> None:
    here = Path.cwd()
    (here / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(6)))
    fails = True

    @ts.column(needs=["n"])
    async def changes(row: Row) -> object:
        os.chdir(elsewhere)
        if fails and row["n"] == 4:
            raise KeyboardInterrupt
        return row["n"]

    async def attempt() -> None:
        os.chdir(here)

        async def changes_first(function: object, /, *args: object, **kwargs: object) -> object:
            os.chdir(elsewhere)
            return await inline(function, *args, **kwargs)  # type: ignore[arg-type]  # of any shape

        blocking: Blocking = changes_first  # type: ignore[assignment]  # of any shape
        result = await ts.run(
            [changes], rows="rows.jsonl", output="out", config=CONFIG, resume="if-possible", blocking=blocking
        )
        assert (result.records, result.earlier.rows) == (6, 4)

    with pytest.raises(KeyboardInterrupt):
        mocked(attempt)
    fails = False
    mocked(attempt)
    assert files_below(elsewhere) == set()


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps a working directory")
def test_a_working_directory_that_is_gone_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    async def main() -> None:
        with pytest.raises(ts.OutputNotWritableError, match=r"^output 'out' cannot be written: No such file"):
            await ts.run([number], records=1, output="out", blocking=inline)

    mocked(main)
