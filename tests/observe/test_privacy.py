"""Nothing of what a run is about leaves it but in its data: markers in rows, prompts, keys and errors are looked for.

Whatever a run leaves in its folder is searched, so an artifact that is added later is searched as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio
from simulated_runs import mocked

import trio_sched as ts
from trio_sched._observe.why import why
from trio_sched.lowlevel import FanOutEventSink, InMemoryAdmissionEventSink, inline

ROW, PROMPT, KEY, MESSAGE, ANSWER, BODY, CODE = (
    f"canary-{name}-5d1e" for name in ("row", "prompt", "key", "message", "answer", "body", "code")
)
MARKERS = (ROW, PROMPT, KEY, MESSAGE, ANSWER, BODY, CODE)


class Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        self.headers = {"retry-after": "1", "authorization": KEY}
        self.text = BODY


class StatusError(Exception):
    """An SDK's error, with everything that such errors carry."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"{MESSAGE}: {status_code}")
        self.status_code = status_code
        self.response = Response(status_code)
        self.body = {"error": {"message": BODY, "code": CODE, "type": CODE}}
        self.code = CODE


class Client:
    def __init__(self) -> None:
        self.api_key = KEY
        self.asked = 0

    async def create(self, prompt: str) -> str:
        self.asked += 1
        await trio.sleep(0.5)
        failures = {2: 429, 4: 500, 6: 400, 8: 429, 9: 403}
        if self.asked in failures:
            raise StatusError(failures[self.asked])
        return ANSWER


def pipeline(client: Client) -> list[ts.Column]:
    model = ts.Model("provider", "model", max_parallel_requests=2)

    @ts.column(needs=["text"], model=model)
    async def answer(row: dict[str, str], handle: ts.ModelHandle) -> str:
        return await handle.call(client.create, f"{PROMPT} {row['text']}")

    @ts.column(needs=["text"])
    async def broken(row: dict[str, str]) -> str:
        if row["text"].endswith("3"):
            raise ValueError(f"{MESSAGE} {row['text']}") from KeyError(ROW)
        return row["text"]

    @ts.column(needs=["text"])
    async def malformed(row: dict[str, str]) -> object:
        return {MESSAGE} if row["text"].endswith("5") else None

    return [answer, broken, malformed]


def rows() -> Iterator[dict[str, str]]:
    for number in range(9):
        yield {"text": f"{ROW} {number}"}


def assert_no_marker(where: str, text: str) -> None:
    found = [marker for marker in MARKERS if marker in text]
    assert not found, f"{found} in {where}"


@pytest.mark.parametrize(
    ("level", "files"), [("all", {"scheduler.jsonl", "request.jsonl"}), ("summary", {"summary.jsonl"})]
)
@pytest.mark.parametrize("ends", ["completed", "cancelled"])
def test_no_artifact_but_the_data_holds_anything_of_them(
    tmp_path: Path, ends: str, level: Literal["all", "summary"], files: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    out, sink = tmp_path / "out", InMemoryAdmissionEventSink()

    async def main() -> None:
        with trio.move_on_after(float("inf") if ends == "completed" else 2):
            await ts.run(
                pipeline(Client()),
                rows=rows(),
                output=out,
                config=ts.RunConfig(buffer_size=3, write_events=level),
                event_sink=FanOutEventSink(sink),
                blocking=inline,
            )

    mocked(main)
    artifacts = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "data"]
    assert {path.name for path in artifacts} >= {"run.json", "capacity_plan.json", *files}
    for path in artifacts:
        assert_no_marker(str(path), path.read_bytes().decode(errors="replace"))
        assert_no_marker("a file's name", path.name)
    for event in map(attrs.asdict, sink.scheduler_events):
        assert_no_marker("a scheduler event", str(event))
    for event in map(attrs.asdict, sink.request_events):
        assert_no_marker("a request event", str(event))
    assert_no_marker("why", str(why(out)) + str(why(out).to_json()))
    assert_no_marker("the log", caplog.text)
    if ends == "completed":
        data = b"".join(path.read_bytes() for path in (out / "data").iterdir()).decode()
        assert ROW in data
        assert ANSWER in data
        assert {event.event_kind for event in sink.scheduler_events} >= {"non_retryable_dropped"}
        assert {event.event_kind for event in sink.request_events} >= {"request_rate_limited"}
