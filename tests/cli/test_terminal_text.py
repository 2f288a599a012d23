"""No command prints what a terminal obeys, and nothing foreign passes for a line of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from click.testing import Result

from trio_sched._cli.outcome import say_json
from trio_sched._observe.why import why
from trio_sched._util import page, printable

Invoke = Callable[..., Result]
WriteModule = Callable[[str], str]

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b2J\r\u202e\u2028\x00\ud800\nrows         999 written, 0 dropped\nerror: forged\n"
FORGED = ("rows         999", "error: forged", "completed in 999")
PIPELINE = f"""
import trio_sched as ts

H = {HOSTILE!r}
NAME = H.replace("\\ud800", "").replace("\\0", "")
# Of three million letters, as the body of an error may be.
LONG = H + "x" * 3_000_000

class Refused(Exception):
    status_code = 400

Refused.__name__ = Refused.__qualname__ = NAME

@ts.column(needs=["topic"], name="question" + NAME, model=ts.Model("p" + NAME, "m" + NAME))
async def question(row, model):
    async def answer():
        if row["topic"] == "bad":
            raise Refused(LONG) from ValueError(LONG + "!")
        return "fine"
    return await model.call(answer)

@ts.column(needs=["topic"], model=ts.Model("q" + NAME, "m"), name="quiet" + NAME)
async def quiet(row, model):
    return None

@ts.post_batch_processor()
async def breaks(rows):
    raise KeyError(LONG)

pipeline = [question, quiet]
broken = [question, breaks]
"""


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"topic": topic}) + "\n" for topic in ["good", "bad", "good"]))
    return str(path)


def assert_harmless(done: Result, longest: int = 20_000) -> None:
    """Only lines of printable letters, none of them forged, and not too much of it all."""
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    for text in (done.stdout, done.stderr):
        assert [line for line in text.split("\n") if not line.isprintable()] == []
        assert [line for line in text.split("\n") if line.startswith(FORGED)] == []
        assert len(text) <= longest


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("name", ["pipeline", "broken"])
def test_names_and_errors_of_a_pipeline(
    command: str, name: str, write_module: WriteModule, invoke: Invoke, rows: str
) -> None:
    done = invoke(command, f"{write_module(PIPELINE)}:{name}", "--rows", rows)
    assert_harmless(done)
    assert "?]0;owned??[2J?2J" in done.output
    ran = 3 if name == "broken" else 1
    assert done.exit_code == (ran if command == "run" else 0)


def test_json_of_a_plan_is_the_same_json(write_module: WriteModule, invoke: Invoke, rows: str) -> None:
    done = invoke("plan", f"{write_module(PIPELINE)}:pipeline", "--rows", rows, "--json")
    assert_harmless(done)
    name = HOSTILE.replace("\ud800", "").replace("\0", "")
    assert name in "".join(strings_of(json.loads(done.stdout)))


@pytest.mark.parametrize(
    "error", ["RuntimeError(H)", "SyntaxError(H)", "ModuleNotFoundError(H)", "ts.TrioSchedError(H)"]
)
def test_an_error_of_the_module(error: str, write_module: WriteModule, invoke: Invoke) -> None:
    module = write_module(f"import trio_sched as ts\nH = {HOSTILE!r} * 100_000\nraise {error}\n")
    done = invoke("plan", f"{module}:pipeline")
    assert done.exit_code == 2
    assert_harmless(done)


def test_a_warning(write_module: WriteModule, invoke: Invoke, rows: str) -> None:
    warns = f"import logging\nlogging.getLogger('trio_sched.x').warning('%s', {HOSTILE!r} * 100_000)\n"
    done = invoke("plan", f"{write_module(warns + PIPELINE)}:pipeline", "--rows", rows)
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: ?]0;owned")
    assert_harmless(done)


def strings_of(value: object) -> Iterator[str]:
    """Every string of a document, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            yield from strings_of(each)
    elif isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            yield name
            yield from strings_of(each)


def places_of(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a document has a string, outside of lists."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for name, each in cast("dict[str, object]", value).items():
            yield from places_of(each, (*path, name))


def with_hostile(value: object, path: tuple[str, ...]) -> object:
    """The document with a hostile string at one place, where it has a string there."""
    if not path:
        return HOSTILE + "x" * 100_000 if isinstance(value, str) else value
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, object]", value)
    return {**fields, path[0]: with_hostile(fields[path[0]], path[1:])} if path[0] in fields else fields


@pytest.mark.parametrize(
    ("level", "events", "fields"),
    [("all", ("events/scheduler.jsonl", "events/request.jsonl"), 60), ("summary", ("events/summary.jsonl",), 40)],
)
def test_every_field_of_every_file_that_a_run_leaves(
    level: str,
    events: Sequence[str],
    fields: int,
    write_module: WriteModule,
    invoke: Invoke,
    rows: str,
    tmp_path: Path,
) -> None:
    module = write_module(PIPELINE.replace(repr(HOSTILE), "'name'"))
    run = ("run", f"{module}:pipeline", "--rows", rows, "--output", "out", "--write-events", level)
    assert invoke(*run).exit_code == 1
    folder = tmp_path / "out"
    fed = 0
    for file in (*events, "run.json", "capacity_plan.json"):
        path = folder / file
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines() if file.endswith("l") else [text]
        documents = [cast("object", json.loads(line)) for line in lines]
        for place in sorted({place for document in documents for place in places_of(document)}):
            fed += 1
            path.write_text("\n".join(json.dumps(with_hostile(document, place)) for document in documents) + "\n")
            done = invoke("why", "out")
            assert_harmless(done)
            assert_harmless(invoke("why", "out", "--json"), 10_000_000)
        path.write_text(text, encoding="utf-8")
    assert fed > fields


@pytest.mark.parametrize(
    ("command", "level", "file"),
    [
        ("report", "all", "scheduler.jsonl"),
        ("trace", "all", "scheduler.jsonl"),
        ("why", "all", "scheduler.jsonl"),
        ("report", "summary", "summary.jsonl"),
        ("why", "summary", "summary.jsonl"),
    ],
)
def test_files_that_are_damaged_throughout(
    command: str, level: str, file: str, write_module: WriteModule, invoke: Invoke, rows: str, tmp_path: Path
) -> None:
    run = ("run", f"{write_module(PIPELINE)}:pipeline", "--rows", rows, "--output", "out", "--write-events", level)
    assert invoke(*run).exit_code == 1
    (tmp_path / "out" / "events" / file).write_bytes(b"\x1b[2J\n" * 20_000)
    for document in ("run.json", "capacity_plan.json"):
        (tmp_path / "out" / document).write_text("[" * 100_000)
    assert_harmless(invoke(command, "out"))


@pytest.mark.parametrize("command", ["report", "trace", "why"])
def test_the_name_of_a_folder(
    command: str, write_module: WriteModule, invoke: Invoke, rows: str, tmp_path: Path
) -> None:
    name = "out\x1b[2J\nerror: forged"
    (tmp_path / name).mkdir()
    assert_harmless(invoke(command, name))  # which has no events
    assert_harmless(invoke("run", f"{write_module(PIPELINE)}:pipeline", "--rows", rows, "--output", name))
    assert_harmless(invoke(command, name))


def test_a_summary_is_harmless_wherever_it_is_printed(
    write_module: WriteModule, invoke: Invoke, rows: str, tmp_path: Path
) -> None:
    invoke("run", f"{write_module(PIPELINE)}:pipeline", "--rows", rows, "--output", "out")
    text = str(why(tmp_path / "out"))
    assert [line for line in text.split("\n") if not line.isprintable() or line.startswith(FORGED)] == []


@pytest.mark.parametrize("number", [*range(0x20), 0x7F, 0x85, 0x9B, 0x200B, 0x2028, 0x202E, 0x2066, 0xD800, 0xFEFF])
def test_what_a_terminal_may_obey_is_a_question_mark(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(f"a{chr(number)}b") == "a?b"
    say_json([chr(number)])
    printed = capsys.readouterr().out
    assert json.loads(printed) == [chr(number)]
    assert printed.replace("\n", "").isprintable()


def test_a_line_is_cut_and_stays_one() -> None:
    assert printable("a" * 3_000_000, longest=10) == "aaaaaaaaa\N{HORIZONTAL ELLIPSIS}"
    assert printable("ä b", longest=3) == "ä b"
    assert page(["a\nb", "c"]) == "a?b\nc"
