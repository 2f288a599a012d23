"""inspect_ai on its Trio backend: an evaluation whose solver asks twice, with adaptive connections up to the cap."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import inspect_ai  # type: ignore[import-not-found]
from inspect_ai.dataset import MemoryDataset, Sample  # type: ignore[import-not-found]
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model  # type: ignore[import-not-found]
from inspect_ai.solver import solver  # type: ignore[import-not-found]

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def ask_twice() -> Any:
    """A solver: the second call quotes the answer of the first."""

    async def solve(state: Any, generate: Any) -> Any:
        state = await generate(state)
        state.messages.append(ChatMessageUser(content=second(state.output.completion)))
        return await generate(state)

    return solve


def work(told: Told) -> int:
    """One task with a sample for each row; the log goes to a folder that is thrown away."""
    os.environ["INSPECT_ASYNC_BACKEND"] = "trio"  # read when an evaluation begins
    model = get_model(
        "openai-api/race/racer",
        base_url=told.base_url,
        api_key="race",
        config=GenerateConfig(adaptive_connections=told.cap),
    )
    samples = [Sample(input=FIRST.format(number=number)) for number in range(told.rows)]
    with tempfile.TemporaryDirectory() as folder:
        logs = inspect_ai.eval(
            inspect_ai.Task(dataset=MemoryDataset(samples), solver=solver(ask_twice)()),
            model=model,
            log_dir=folder,
            display="none",
            fail_on_error=False,
        )
        finals = [sample.output.completion for log in logs for sample in log.samples or []]
    return sum(final.endswith("finished") for final in finals)


if __name__ == "__main__":
    race(work, ("inspect-ai", "trio", "openai"))
