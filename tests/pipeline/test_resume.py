"""Going on where an earlier attempt ended: what is kept, what is made again, what is refused untouched."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import pytest
import trio
import trio.testing
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_samples import CancelAtStep
from sequential import run_sequentially

import trio_sched as ts
from trio_sched._pipeline.folder import RunDocument
from trio_sched.lowlevel import inline

Mode = Literal["never", "always", "if-possible"]
Rows: TypeAlias = list[dict[str, object]]


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return [(span.seed + n) * 7919 % 1000 for n in range(span.start, span.start + span.count)]


@ts.column(needs=["number"])
async def double(row: dict[str, int]) -> int:
    return row["number"] * 2


class Counted:
    """A column that remembers which numbers it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.column = ts.column(needs=["number"], name="double")(self._double)

    async def _double(self, row: dict[str, int]) -> int:
        self.asked.append(row["number"])
        return row["number"] * 2


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run(
    columns: Sequence[ts.PipelineStep],
    output: Path,
    *,
    resume: Mode = "never",
    rows: Iterable[dict[str, object]] | Path | None = None,
    records: int | None = None,
    buffer_size: int = 10,
    seed: int = 0,
) -> ts.RunResult:
    async def main() -> ts.RunResult:
        config = ts.RunConfig(buffer_size=buffer_size, seed=seed, write_events="all")
        return await ts.run(
            columns, output=output, rows=rows, records=records, config=config, resume=resume, blocking=inline
        )

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def part(output: Path, row_group: int) -> Path:
    return output / "data" / f"part-{row_group:05d}.jsonl"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "run.lock"
    }


def test_a_run_that_had_nothing_left_to_do_says_so(tmp_path: Path) -> None:
    run([number, double], tmp_path / "out", records=47)
    result = run([number, double], tmp_path / "out", records=47, resume="if-possible")
    assert "before       47 rows in 5 row groups; nothing was left to do\n" in result.summary()


def test_only_what_is_missing_is_made_and_the_result_speaks_of_the_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run([number, double], out, records=47)
    part(out, 1).unlink()
    part(out, 4).unlink()
    counted = Counted()
    result = run([number, counted.column], out, records=47, resume="if-possible")
    numbers = [(n * 7919) % 1000 for n in range(47)]
    assert sorted(counted.asked) == sorted(numbers[10:20] + numbers[40:])
    assert (result.records, result.dropped) == (47, 0)
    assert (result.earlier.row_groups, result.earlier.rows, result.earlier.dropped) == (3, 30, 0)
    assert (result.scheduler.row_groups, result.scheduler.rows) == (2, 17)
    assert result.data_hash() == first.data_hash()
    assert "before       30 rows in 3 row groups\n" in result.summary()
    document = json.loads((out / "run.json").read_text())
    assert document["resumed_from"] == {
        "run_id": first.run_id,
        "status": "completed",
        "row_groups": 3,
        "rows": 30,
        "dropped": 0,
        "filtered": 0,
    }
    assert (document["status"], document["rows"]) == ("completed", 47)
    earlier = out / "attempts" / "1"
    assert json.loads((earlier / "run.json").read_text())["run_id"] == first.run_id
    assert sorted(path.name for path in earlier.iterdir()) == [
        "capacity_plan.json",
        "events",
        "report.html",
        "run.json",
        "trace.json",
    ]
    assert first.run_id in (earlier / "events" / "scheduler.jsonl").read_text()


def test_a_finished_run_is_resumed_without_making_anything(tmp_path: Path) -> None:
    first = run([number, double], tmp_path / "out", records=30)
    counted = Counted()
    for attempt in (1, 2):
        result = run([number, counted.column], tmp_path / "out", records=30, resume="always")
        assert (result.records, result.earlier.rows, result.scheduler.rows) == (30, 30, 0)
        assert (tmp_path / "out" / "attempts" / str(attempt)).is_dir()
    assert counted.asked == []
    assert result.data_hash() == first.data_hash()


SOURCES = ("scratch", "iterable", "jsonl", "csv")


@settings(max_examples=share_of_profile(0.3))
@given(
    source=st.sampled_from(SOURCES),
    records=st.integers(1, 40),
    buffer_size=st.integers(1, 12),
    drop_every=st.integers(2, 5),
    lost=st.sets(st.integers(0, 40)),
)
def test_any_set_of_missing_parts_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    source: str,
    records: int,
    buffer_size: int,
    drop_every: int,
    lost: set[int],
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    out = folder / "out"
    given_rows: Rows = [{"number": n, "text": f'"{n}"\né'} for n in range(records)]
    jsonl, table = folder / "rows.jsonl", folder / "rows.csv"
    jsonl.write_text("".join(json.dumps(row) + "\n\n" for row in given_rows), encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["number", "text"])
        writer.writeheader()
        writer.writerows(given_rows)

    @ts.column(needs=["number"])
    async def picky(row: dict[str, object]) -> int:
        value = int(str(row["number"]))
        if value % drop_every == 0:
            raise LookupError
        return value

    def attempt(resume: Mode) -> ts.RunResult:
        if source == "scratch":
            return run([number, picky], out, records=records, buffer_size=buffer_size, resume=resume)
        sources: dict[str, Iterable[dict[str, object]] | Path] = {
            "iterable": iter(given_rows),
            "jsonl": jsonl,
            "csv": table,
        }
        return run([picky], out, rows=sources[source], buffer_size=buffer_size, resume=resume)

    first = attempt("never")
    rows = list(first.rows())
    for row_group in lost:
        part(out, row_group).unlink(missing_ok=True)
    second = attempt("always")
    assert list(second.rows()) == rows
    assert second.data_hash() == first.data_hash()
    assert (second.records, second.dropped) == (first.records, first.dropped)


def test_rows_that_were_dropped_are_listed_and_not_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out"

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] in (3, 14, 15):
            raise LookupError
        return row["number"]

    rows: Rows = [{"number": n} for n in range(20)]
    first = run([picky], out, rows=rows)
    assert json.loads((out / "dropped" / "part-00001.json").read_text()) == {
        "dropped_rows": [14, 15],
        "filtered_rows": [],
    }
    second = run([picky], out, rows=rows, resume="always")
    assert (second.records, second.dropped, second.earlier.dropped) == (17, 3, 3)
    assert second.data_hash() == first.data_hash()


def test_a_row_group_without_any_living_row_is_done(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def broken(row: dict[str, int]) -> int:
        raise LookupError

    run([number, broken], tmp_path / "out", records=10)
    second = run([number, broken], tmp_path / "out", records=10, resume="always")
    assert (second.earlier.row_groups, second.records, second.dropped) == (1, 0, 10)


def test_what_each_mode_does_where_there_is_no_run(tmp_path: Path) -> None:
    for mode in ("never", "if-possible"):
        assert run([number], tmp_path / mode, records=3, resume=mode).records == 3
    with pytest.raises(ts.NothingToResumeError, match=r"holds no run to go on with; .* resume=\"if-possible\"$"):
        run([number], tmp_path / "always", records=3, resume="always")
    assert not (tmp_path / "always").exists()


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(
            ts.InvalidValueError, match=r"^resume must be one of 'never', 'always', 'if-possible', got 'y'$"
        ):
            await ts.run([number], records=3, output=tmp_path / "out", resume="y")  # type: ignore[arg-type]  # bad input

    mocked(main)
    assert not (tmp_path / "out").exists()


def test_without_resume_an_existing_run_is_refused_untouched(tmp_path: Path) -> None:
    run([number], tmp_path / "out", records=3)
    before = contents(tmp_path)
    with pytest.raises(
        ts.OutputExistsError, match=r"already holds run .* go on with that run: resume=\"if-possible\"$"
    ):
        run([number], tmp_path / "out", records=3)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("mode", ["always", "if-possible"])
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"records": 31}, "records: 30 there, 31 here"),
        ({"buffer_size": 5}, "buffer_size: 10 there, 5 here"),
    ],
)
def test_another_dataset_is_refused_untouched(
    tmp_path: Path, mode: Mode, changed: dict[str, int], difference: str
) -> None:
    first = run([number, double], tmp_path / "out", records=30)
    before = contents(tmp_path)
    sizes = {"records": 30, "buffer_size": 10, "seed": 0} | changed
    with pytest.raises(ts.OutputMismatchError, match=difference) as caught:
        run(
            [number, double],
            tmp_path / "out",
            resume=mode,
            records=sizes["records"],
            buffer_size=sizes["buffer_size"],
            seed=sizes["seed"],
        )
    assert caught.value.run_id == first.run_id
    assert contents(tmp_path) == before


def test_other_columns_are_refused_and_named(tmp_path: Path) -> None:
    run([number], tmp_path / "out", records=3)
    with pytest.raises(ts.OutputMismatchError, match="column 'double': only here; choose another folder") as caught:
        run([number, double], tmp_path / "out", records=3, resume="always")
    assert caught.value.differences == ("column 'double': only here",)


def test_several_differences_are_told_one_on_each_line(tmp_path: Path) -> None:
    @ts.batch_column(needs=["number"], name="double")
    def doubled(rows: Rows) -> list[object]:
        return [row["number"] for row in rows]

    run([number, double], tmp_path / "out", records=3)
    with pytest.raises(ts.OutputMismatchError) as caught:
        run([number, doubled], tmp_path / "out", records=3, seed=1, resume="always")
    assert str(caught.value).splitlines()[1:] == [
        '  columns, double, task_type: "cell" there, "batch" here',
        "  seed: 0 there, 1 here",
        "choose another folder, or give what that run was given",
    ]


def test_a_run_of_columns_that_are_all_others_is_of_another_pipeline(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def letter(span: ts.RowSpan) -> list[str]:
        return ["a"] * span.count

    run([number, double], tmp_path / "out", records=3)
    with pytest.raises(ts.OutputMismatchError) as caught:
        run([letter], tmp_path / "out", records=4, seed=1, resume="always")
    assert caught.value.differences == ("another pipeline (columns double, number there; letter here)",)


@pytest.mark.parametrize("mode", ["never", "always", "if-possible"])
@pytest.mark.parametrize(
    "files",
    [
        {"run.json": "{}"},
        {"run.json": "not json"},
        {"run.json": "[1]"},
        {"data/mine.txt": "x"},
        {"events/mine.txt": "x"},
        {"data/part-00000.jsonl": '{"number": 0}\n'},
    ],
)
def test_a_folder_that_is_not_a_runs_is_refused_untouched(tmp_path: Path, mode: Mode, files: dict[str, str]) -> None:
    out = tmp_path / "out"
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(ts.OutputExistsError, match="already holds files that are not a run's") as caught:
        run([number], out, records=3, resume=mode)
    assert caught.value.run_id is None
    assert contents(tmp_path) == before
    assert not (out / "run.lock").exists()


LINE = '{"number": 919, "double": 1838}\n'


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[:-1], "line 10 is torn off"),
    (
        lambda text: text[: text.rindex("{")],
        "it holds 9 rows, and 0 are known to be missing, of 10;",
    ),
    (lambda text: "", "it holds 0 rows, and 0 are known to be missing, of 10;"),
    (lambda text: text + LINE, "it holds 11 rows"),
    (lambda text: text.replace("{", "[", 1), "line 1 is not JSON"),
    (lambda text: "\0" * len(text) + "\n", "line 1 is not JSON"),
    (lambda text: "3\n" * 10, "line 1 is not a JSON object"),
    (lambda text: text.replace('"double"', '"triple"', 1), "row 1 has the columns"),
]


@pytest.mark.parametrize(("damage", "problem"), DAMAGES)
@pytest.mark.parametrize("row_group", [0, 1])
def test_a_part_that_is_not_whole_is_refused_with_its_name(
    tmp_path: Path, damage: Callable[[str], str], problem: str, row_group: int
) -> None:
    out = tmp_path / "out"
    run([number, double], out, records=20)
    broken = part(out, row_group)
    broken.write_text(damage(broken.read_text()), encoding="utf-8")
    before = contents(tmp_path)
    with pytest.raises(ts.OutputDamagedError, match=problem) as caught:
        run([number, double], out, records=20, resume="if-possible")
    assert caught.value.path == broken
    assert contents(tmp_path) == before


def test_parts_beyond_the_dataset_and_of_another_format_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([number], out, records=20)
    part(out, 2).write_text('{"number": 1}\n', encoding="utf-8")
    with pytest.raises(ts.OutputDamagedError, match="are known to be missing, of 0;"):
        run([number], out, records=20, resume="always")
    part(out, 2).rename(out / "data" / "part-00000.parquet")
    with pytest.raises(ts.OutputDamagedError, match="it is not jsonl, as the other parts are"):
        run([number], out, records=20, resume="always")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"dropped_rows": []}',
        '{"dropped_rows": 1, "filtered_rows": []}',
        '{"dropped_rows": ["1"], "filtered_rows": []}',
        '{"dropped_rows": [1], "filtered_rows": []}',
        '{"dropped_rows": [], "filtered_rows": [1]}',
    ],
)
def test_a_bad_list_of_dropped_rows_is_refused(tmp_path: Path, text: str) -> None:
    run([number], tmp_path / "out", records=10)
    listed = tmp_path / "out" / "dropped" / "part-00000.json"
    listed.parent.mkdir()
    listed.write_text(text, encoding="utf-8")
    with pytest.raises(ts.OutputDamagedError):
        run([number], tmp_path / "out", records=10, resume="always")


def test_what_a_crash_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([number], out, records=20)
    part(out, 1).unlink()
    (out / "dropped").mkdir()
    ours = [
        out / "data" / "part-00001.jsonl.tmp",
        out / "data" / "probe.tmp",
        out / "dropped" / "part-00001.json",
        out / "dropped" / "part-00000.json.tmp",
        out / "run.json.tmp",
    ]
    others = [out / "data" / "mine.tmp", out / "notes.tmp", out / "data" / "README"]
    for path in ours + others:
        path.write_text('{"dropped_rows": [11]}', encoding="utf-8")
    result = run([number], out, records=20, resume="always")
    assert result.records == 20
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_an_attempt_that_never_began_leaves_no_trace_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = run([number], out, records=20)
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(RunDocument, "write_start", refuse)
            with pytest.raises(ts.OutputNotWritableError):
                run([number], out, records=20, resume="always")
    assert [path.name for path in (out / "attempts").iterdir()] == ["1"]
    assert first.run_id in (out / "attempts" / "1" / "events" / "scheduler.jsonl").read_text()
    part(out, 1).unlink()
    second = run([number], out, records=20, resume="always")
    run([number], out, records=20, resume="always")
    assert sorted(path.name for path in (out / "attempts").iterdir()) == ["1", "2"]
    assert second.run_id in (out / "attempts" / "2" / "events" / "scheduler.jsonl").read_text()


def refuse(document: RunDocument) -> None:
    raise ts.OutputNotWritableError(Path("run.json"), OSError(errno.ENOSPC, "No space left on device"))


def test_a_crash_before_the_first_document_leaves_a_folder_to_begin_in(tmp_path: Path) -> None:
    for name in ("data", "events", "dropped"):
        (tmp_path / "out" / name).mkdir(parents=True)
    for name in ("run.lock", "run.json.tmp", "data/probe.tmp", "notes.txt"):
        (tmp_path / "out" / name).write_text("", encoding="utf-8")
    assert run([number], tmp_path / "out", records=3).records == 3
    assert (tmp_path / "out" / "notes.txt").exists()


def test_an_input_file_may_move_but_not_change(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"number": {n}}}\n' for n in range(25)), encoding="utf-8")
    first = run([double], tmp_path / "out", rows=rows)
    part(tmp_path / "out", 1).unlink()
    rows = rows.rename(tmp_path / "moved.jsonl")
    assert run([double], tmp_path / "out", rows=rows, resume="always").data_hash() == first.data_hash()
    rows.write_text(rows.read_text().replace("24", "25"), encoding="utf-8")
    with pytest.raises(ts.OutputMismatchError, match=r'input, sha256: "[0-9a-f]{64}" there'):
        run([double], tmp_path / "out", rows=rows, resume="always")


def without(rows: Rows, index: int) -> Rows:
    return rows[:index] + rows[index + 1 :]


CHANGES: list[tuple[Callable[[Rows], Rows], str]] = [
    (lambda rows: [*rows[:4], {"number": -1}, *rows[5:]], "row 5 has another 'number'"),
    (lambda rows: without(rows, 4), "row 5 has another 'number'"),
    (lambda rows: [*rows[:4], {"number": {1, 2}}, *rows[5:]], "row 5 has another 'number'"),
    (lambda rows: rows[:15], "row groups 0 to 2 hold 30 rows, and it has 15 for them"),
    (lambda rows: rows[:24], "row groups 0 to 2 hold 25 rows, and it has 24 for them"),
    (lambda rows: [*rows, {"number": 25}], "row groups 0 to 2 hold 25 rows, and it has 26 for them"),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
def test_an_iterable_that_gives_other_rows_is_noticed(
    tmp_path: Path, change: Callable[[Rows], Rows], problem: str
) -> None:
    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] == 2:
            raise LookupError
        return row["number"]

    rows: Rows = [{"number": n} for n in range(35)]
    run([picky], tmp_path / "out", rows=rows)
    part(tmp_path / "out", 3).unlink()
    if "25 rows" in problem:
        rows = rows[:25]
        part(tmp_path / "out", 2).write_text("".join(f'{{"number": {n}, "picky": {n}}}\n' for n in range(20, 25)))
    with pytest.raises(ts.InputChangedError, match=f"changed since the earlier attempt: {problem}"):
        run([picky], tmp_path / "out", rows=change(rows), resume="always")


def test_rows_that_processors_removed_and_changed_stay_so(tmp_path: Path) -> None:
    @ts.pre_batch_processor()
    def even(rows: list[dict[str, int]]) -> list[dict[str, int] | None]:
        return [{"number": row["number"] * 10} if row["number"] % 2 == 0 else None for row in rows]

    @ts.column(needs=["number"])
    async def picky(row: dict[str, int]) -> int:
        if row["number"] == 40:
            raise LookupError
        return row["number"]

    rows: Rows = [{"number": n} for n in range(25)]
    out = tmp_path / "out"
    first = run([even, picky], out, rows=rows)
    assert json.loads((out / "dropped" / "part-00000.json").read_text()) == {
        "dropped_rows": [4],
        "filtered_rows": [1, 3, 5, 7, 9],
    }
    part(out, 1).unlink()
    second = run([even, picky], out, rows=rows, resume="always")
    assert second.data_hash() == first.data_hash()
    assert (second.records, second.dropped, second.filtered) == (12, 1, 12)
    assert (second.earlier.rows, second.earlier.dropped, second.earlier.filtered) == (7, 1, 7)
    assert "12 written, 1 dropped, 12 filtered" in second.summary()
    with pytest.raises(ts.InputChangedError, match="row groups 0 to 2 hold 25 rows, and it has 24 for them"):
        run([even, picky], out, rows=rows[:24], resume="always")


def test_an_ordered_column_is_told_when_a_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @ts.column(needs=["number"], ordered=True)
    async def chained(row: dict[str, int]) -> int:
        return row["number"]

    run([number, chained], tmp_path / "out", records=20)
    assert caplog.records == []
    run([number, chained], tmp_path / "out", records=20, resume="always")
    (record,) = caplog.records
    assert "the ordered columns 'chained' are made for the missing row groups only" in record.getMessage()


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interrupt = True

    @ts.column(needs=["number"])
    async def interrupted(row: dict[str, int]) -> int:
        if interrupt and row["number"] == 25:
            raise KeyboardInterrupt
        return row["number"]

    rows: Rows = [{"number": n} for n in range(30)]
    with pytest.raises(KeyboardInterrupt) as caught:
        run([interrupted], tmp_path / "out", rows=rows)
    kept = len(list((tmp_path / "out" / "data").iterdir()))
    advice = f"{kept} row groups are kept in {str(tmp_path / 'out' / 'data')!r}; the same run goes on from there with"
    (record,) = caplog.records
    assert record.getMessage() == f'run ended by KeyboardInterrupt: {advice} resume="if-possible"'
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == [f'{advice} resume="if-possible"']
    interrupt = False
    result = run([interrupted], tmp_path / "out", rows=rows, resume="if-possible")
    assert (result.records, result.earlier.rows) == (30, 10 * kept)
    resumed_from = json.loads((tmp_path / "out" / "run.json").read_text())["resumed_from"]
    assert resumed_from["status"] == "interrupted"


def test_a_run_that_stopped_because_too_much_failed_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    healthy = False

    @ts.column(needs=["number"])
    async def flaky(row: dict[str, int]) -> int:
        if not healthy and row["number"] >= 200:
            raise LookupError
        return row["number"]

    rows: Rows = [{"number": n} for n in range(500)]
    with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
        first = run([flaky], tmp_path / "out", rows=rows)
    assert first.status == "stopped"
    kept = len(list((tmp_path / "out" / "data").iterdir()))
    assert f"run stopped: {kept} row groups are kept" in caplog.text
    assert 'mend the cause, then the same run goes on from there with resume="if-possible"' in caplog.text
    stop = str(first.scheduler.early_stop)
    assert (
        f'stopped      before the end: {stop}; to go on: mend the cause, then resume="if-possible"' in first.summary()
    )
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (document["status"], document["early_stop"]) == ("stopped", stop)
    healthy = True
    second = run([flaky], tmp_path / "out", rows=rows, resume="if-possible")
    assert second.status == "completed"
    assert second.records + second.dropped == 500
    assert second.dropped == first.dropped < 200


def test_what_was_never_made_is_made_once_the_cause_of_an_early_stop_is_mended(tmp_path: Path) -> None:
    """Row groups of which every row was rejected, before the run stopped, are not settled by it."""
    healthy = False

    @ts.column(needs=["number"])
    async def answer(row: dict[str, int]) -> int:
        if not healthy:
            raise LookupError("404")
        return row["number"]

    rows: Rows = [{"number": n} for n in range(200)]
    first = run([answer], tmp_path / "out", rows=rows, buffer_size=50)
    assert (first.status, first.records, first.dropped) == ("stopped", 0, 0)
    assert "rejected" not in first.summary()
    assert list((tmp_path / "out" / "data").iterdir()) == []
    healthy = True
    second = run([answer], tmp_path / "out", rows=rows, buffer_size=50, resume="if-possible")
    assert (second.status, second.records, second.dropped) == ("completed", 200, 0)


def test_rows_given_up_in_a_row_group_that_is_kept_are_tried_again_as_the_summary_says(tmp_path: Path) -> None:
    healthy = False

    @ts.column(needs=["number"])
    async def answer(row: dict[str, int]) -> int:
        if not healthy and row["number"]:
            raise LookupError("404")
        return row["number"]

    rows: Rows = [{"number": n} for n in range(200)]
    out = tmp_path / "out"
    first = run([answer], out, rows=rows, buffer_size=50)
    assert (first.status, first.records, first.dropped) == ("stopped", 1, 49)
    (told,) = (line for line in first.summary().splitlines() if line.startswith("rejected"))
    assert told == (
        "rejected     49 rows, in row groups that are kept: resume leaves them out; to try them again, "
        "delete each part in data/ that has a list in dropped/, and that list"
    )
    healthy = True
    second = run([answer], out, rows=rows, buffer_size=50, resume="if-possible")
    assert (second.records, second.dropped) == (151, 49)
    for missing in (out / "dropped").iterdir():
        (out / "data" / missing.name).with_suffix(".jsonl").unlink()
        missing.unlink()
    third = run([answer], out, rows=rows, buffer_size=50, resume="if-possible")
    assert (third.records, third.dropped) == (200, 0)
    assert "rejected" not in third.summary()


async def test_the_data_of_a_resumed_run_are_those_of_a_sequential_one(tmp_path: Path) -> None:
    config = ts.RunConfig(buffer_size=9, seed=5)
    await ts.run([number, double], records=50, output=tmp_path / "out", config=config)
    for row_group in (0, 2, 5):
        part(tmp_path / "out", row_group).unlink()
    result = await ts.run([number, double], records=50, output=tmp_path / "out", config=config, resume="always")
    assert result.data_hash() == await run_sequentially([number, double], records=50, seed=5)


def test_cancelled_at_every_step_and_resumed(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def slow(row: dict[str, int]) -> int:
        await trio.sleep(row["number"] % 3)
        if row["number"] == 2:
            raise LookupError
        return row["number"]

    async def attempt(output: Path) -> ts.RunResult:
        rows: Rows = [{"number": n} for n in range(7)]
        config = ts.RunConfig(buffer_size=2, write_events=False)
        return await ts.run([slow], rows=rows, output=output, config=config, resume="if-possible", blocking=inline)

    async def main() -> None:
        expected = [{"number": n, "slow": n} for n in range(7) if n != 2]
        went_on = set[int]()
        for step in itertools.count(1):
            output = tmp_path / str(step)
            canceller = CancelAtStep(step)
            trio.lowlevel.add_instrument(canceller)
            with canceller.scope:
                await attempt(output)
            trio.lowlevel.remove_instrument(canceller)
            result = await attempt(output)
            assert list(result.rows()) == expected
            assert (result.records, result.dropped, result.leaks) == (6, 1, ())
            went_on.add(result.earlier.row_groups)
            if not canceller.scope.cancelled_caught:
                break
        assert {0, 4} < went_on <= {0, 1, 2, 3, 4}

    mocked(main)
