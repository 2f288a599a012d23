"""What goes wrong around a run: cancellation at every step, disks, sinks, odd values. Nothing leaks, causes stay."""

from __future__ import annotations

import errno
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import trio
import trio.testing
from pipeline_samples import CancelAtStep

import trio_sched as ts
from trio_sched.lowlevel import InMemoryAdmissionEventSink, SchedulerAdmissionEvent, inline

P = ParamSpec("P")
T = TypeVar("T")

MODEL = ts.Model("p", "m", max_parallel_requests=2)


class RateLimitError(Exception):
    status_code = 429


@ts.from_scratch_column()
async def number(span: ts.RowSpan) -> list[int]:
    return list(range(span.start, span.start + span.count))


async def reply(value: int) -> int:
    await trio.sleep(1)
    return value


@ts.column(needs=["number"], model=MODEL)
async def called(row: dict[str, int], handle: ts.ModelHandle) -> int:
    return await handle.call(reply, row["number"])


def mocked(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def events(out: Path) -> Counter[str]:
    texts = [(out / "events" / f"{name}.jsonl").read_text() for name in ("scheduler", "request")]
    lines = [line for text in texts for line in text.splitlines()]
    return Counter(json.loads(line)["event_kind"] for line in lines)


def assert_clean(out: Path) -> None:
    kinds = events(out)
    assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
    assert kinds["request_lease_acquired"] == kinds["request_lease_released"]
    assert not list(out.rglob("*.tmp"))
    for part in (out / "data").iterdir():
        assert len(part.read_text().splitlines()) == 2


def test_cancelled_at_every_step(tmp_path: Path) -> None:
    async def main() -> None:
        steps = cancelled = 0
        while cancelled == steps:
            steps += 1
            out = tmp_path / str(steps)
            canceller = CancelAtStep(steps)
            trio.lowlevel.add_instrument(canceller)
            with canceller.scope:
                await ts.run(
                    [number, called],
                    records=6,
                    output=out,
                    config=ts.RunConfig(buffer_size=2, write_events="all"),
                    blocking=inline,
                )
            trio.lowlevel.remove_instrument(canceller)
            cancelled += canceller.scope.cancelled_caught
            assert_clean(out)
            if canceller.scope.cancelled_caught:
                assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
        assert cancelled > 50

    mocked(main)


def test_a_deferred_cell_of_a_dropped_row_is_forgotten(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def limited(row: dict[str, int]) -> int:
        raise RateLimitError

    @ts.column(needs=["number"])
    async def broken(row: dict[str, int]) -> int:
        await trio.sleep(0.5 if row["number"] % 2 else 0)
        raise LookupError

    async def main() -> None:
        result = await ts.run([number, limited, broken], records=4, output=tmp_path / "out", blocking=inline)
        assert (result.records, result.dropped, result.leaks) == (0, 4, ())

    mocked(main)


def test_roots_that_are_deferred_after_their_rows_were_given_up(tmp_path: Path) -> None:
    @ts.from_scratch_column()
    async def first(span: ts.RowSpan) -> list[int]:
        raise RateLimitError

    @ts.from_scratch_column()
    async def second(span: ts.RowSpan) -> list[int]:
        await trio.sleep(0.5)
        raise LookupError

    async def main() -> None:
        result = await ts.run([first, second], records=4, output=tmp_path / "out", blocking=inline)
        assert (result.records, result.dropped, result.leaks) == (0, 4, ())

    mocked(main)


@pytest.mark.parametrize("value", [10**5000, {"x": float("inf")}], ids=["int", "infinite"])
def test_values_that_cannot_be_written_drop_their_row_only(tmp_path: Path, value: object) -> None:
    @ts.column(needs=["number"])
    async def odd(row: dict[str, int]) -> object:
        return value if row["number"] == 1 else "fine"

    async def main() -> None:
        result = await ts.run([number, odd], records=3, output=tmp_path / "out", blocking=inline)
        assert [row["odd"] for row in result.rows()] == ["fine", "fine"]
        assert result.scheduler.drop_causes[0].error_type == "MalformedOutputError"

    mocked(main)


def test_half_a_letter_loses_no_answer_and_is_counted(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def odd(row: dict[str, int]) -> object:
        return ["cut \ud83d", ["\ud83d"], "fine", None][row["number"]]

    @ts.column(needs=["number", "odd"])
    async def late(row: dict[str, int]) -> object:
        if row["number"] == 1:
            raise LookupError
        return row["odd"]

    async def main() -> None:
        result = await ts.run([number, odd, late], records=4, output=tmp_path / "out", blocking=inline)
        assert [row["odd"] for row in result.rows()] == ["cut \ufffd", "fine", None]
        assert result.mended_cells == {"odd": 1}
        assert "mended 1 cell of column 'odd': half a letter became U+FFFD" in result.summary()

    mocked(main)


def test_answers_that_are_null_are_told(tmp_path: Path) -> None:
    model = ts.Model("p", "m")

    async def blocked() -> None:
        await trio.sleep(1)

    def is_two(row: dict[str, int]) -> bool:
        return row["number"] == 2

    @ts.column(needs=["number"], model=model, skip_when=is_two)
    async def answer(row: dict[str, int], handle: ts.ModelHandle) -> object:
        await handle.call(blocked)
        if row["number"] == 3:
            raise LookupError
        return None if row["number"] == 1 else "answer"

    @ts.column(needs=["number"], model=model, on_failure=None)
    async def failing(row: dict[str, int], handle: ts.ModelHandle) -> object:
        await handle.call(blocked)
        raise ts.TryAgain

    @ts.column(needs=["number"])
    async def without_model(row: dict[str, int]) -> None:
        return None

    async def main() -> None:
        steps = [number, answer, failing, without_model]
        result = await ts.run(steps, records=4, output=tmp_path / "out", blocking=inline)
        assert [row["answer"] for row in result.rows()] == ["answer", None, None]
        assert result.null_cells == {"answer": 1}
        assert "null         in 1 cell of column 'answer', which has a model" in result.summary()

    mocked(main)


def test_half_a_letter_in_the_input_is_mended_and_found_again(tmp_path: Path) -> None:
    @ts.column(needs=["text"])
    async def same(row: dict[str, str]) -> str:
        return row["text"]

    rows = [{"text": "cut \ud83d"}, {"text": "whole"}]

    async def main() -> None:
        out = tmp_path / "out"
        result = await ts.run([same], rows=rows, output=out, blocking=inline)
        assert result.mended_cells == {"text": 1}
        again = await ts.run([same], rows=rows, output=out, resume="always", blocking=inline)
        assert [row["same"] for row in again.rows()] == ["cut \ufffd", "whole"]

    mocked(main)


class FullDisk:
    """Blocking work whose part files find no room."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        if "PartStore" in function.__qualname__:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args, **kwargs)


def test_a_full_disk_is_told_by_one_error_with_its_path(tmp_path: Path) -> None:
    async def main() -> None:
        out = tmp_path / "out"
        config = ts.RunConfig(buffer_size=2, write_events="all")
        with pytest.raises(ts.OutputNotWritableError, match=r"part-0000\d.jsonl' cannot be written: No space left"):
            await ts.run([number], records=6, output=out, config=config, blocking=FullDisk())
        document = json.loads((out / "run.json").read_text())
        assert (document["status"], document["error"]) == ("failed", "OutputNotWritableError")
        assert_clean(out)

    mocked(main)


def test_event_files_that_cannot_be_written_never_touch_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(sink: object, events: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trio_sched._events.jsonl.JsonlEventSink._lines", full)

    async def main() -> None:
        with caplog.at_level(logging.ERROR, logger="trio_sched.events"):
            result = await ts.run([number, called], records=4, output=tmp_path / "out", blocking=inline)
        assert result.records == 4
        assert len(caplog.records) == 1

    mocked(main)


def test_an_interrupt_in_a_sink_leaks_nothing(tmp_path: Path) -> None:
    class Interrupting(InMemoryAdmissionEventSink):
        def emit_scheduler_event(self, event: SchedulerAdmissionEvent) -> None:
            super().emit_scheduler_event(event)
            if event.event_kind == kind:
                raise KeyboardInterrupt

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            await ts.run([number], records=4, output=out, event_sink=sink, blocking=inline)

    for kind in ("selected", "task_lease_acquired", "worker_spawned", "task_completed", "task_lease_released"):
        out = tmp_path / kind
        sink = Interrupting()
        mocked(main)
        kinds = Counter(event.event_kind for event in sink.scheduler_events)
        assert kinds["task_lease_acquired"] == kinds["task_lease_released"]
        assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
        final = sink.scheduler_events[-1]
        assert final.event_kind == "scheduler_job_completed"
        assert final.snapshot is not None
        assert final.snapshot["leased_resources"] == {}


def test_an_interrupt_in_a_column_ends_the_run(tmp_path: Path) -> None:
    @ts.column(needs=["number"])
    async def interrupted(row: dict[str, int]) -> int:
        raise KeyboardInterrupt

    async def main() -> None:
        config = ts.RunConfig(write_events="all")
        with pytest.raises(KeyboardInterrupt):
            await ts.run([number, interrupted], records=4, output=tmp_path / "out", config=config, blocking=inline)

    mocked(main)
    assert_clean(tmp_path / "out")


def test_a_row_that_is_reused_by_the_iterable_is_read_when_it_is_given(tmp_path: Path) -> None:
    row: dict[str, int] = {}

    def rows() -> Iterator[dict[str, int]]:
        for n in range(3):
            row["number"] = n
            yield row

    async def main() -> None:
        result = await ts.run([called], rows=rows(), output=tmp_path / "out", blocking=inline)
        assert [each["called"] for each in result.rows()] == [0, 1, 2]

    mocked(main)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": "\xff"}\n', "row 1: not JSON in UTF-8"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": NaN}\n', "row 2: not JSON in UTF-8 .NaN is no JSON value"),
        ("a.jsonl", b"[1]\n", "row 1: a row must be a JSON object, got list"),
        ("a.csv", b"a,b\n1\n", "row 1: has 1 cells, the header 2"),
        ("a.csv", b"a,a\n1,2\n", "the header must name every column once, got .'a', 'a'."),
        ("a.csv", b"a\n\xff\n", "not CSV in UTF-8"),
        ("a.csv", b'a\n"x\n', "row 1: not CSV in UTF-8"),
    ],
)
def test_bad_files_name_file_and_row(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    @ts.column(needs=["a"])
    async def copied(row: dict[str, object]) -> object:
        return row["a"]

    async def main() -> None:
        with pytest.raises(ts.InputRowError, match=message) as caught:
            await ts.run([copied], rows=path, output=tmp_path / "out", blocking=inline)
        assert caught.value.source == str(path)

    mocked(main)


def test_no_row_value_prompt_or_message_reaches_events_or_documents(tmp_path: Path) -> None:
    marker = "canary-7f3a"

    @ts.column(needs=["text"])
    async def failing(row: dict[str, str]) -> str:
        if row["text"].endswith("1"):
            raise ValueError(f"{marker} {row['text']}")
        return row["text"] + marker

    async def main() -> None:
        rows = [{"text": f"{marker}{n}"} for n in range(4)]
        await ts.run([failing], rows=rows, output=tmp_path / "out", blocking=inline)

    mocked(main)
    found = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and marker in path.read_text()]
    assert found == ["part-00000.jsonl"]
