"""inspect_ai's models on Trio, with adaptive connections up to the cap; no evaluation around them, which costs more."""

from __future__ import annotations

import trio
from inspect_ai.model import GenerateConfig, get_model  # type: ignore[import-not-found]

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A task for each row."""
    return trio.run(run, told)


async def run(told: Told) -> int:
    """All rows at once; the model lets calls through, and tries again for as long as it takes."""
    config = GenerateConfig(adaptive_connections=told.cap)
    finals: list[str] = []
    async with (
        get_model("openai-api/race/racer", base_url=told.base_url, api_key="race", config=config) as model,
        trio.open_nursery() as nursery,
    ):

        async def ask(prompt: str) -> str:
            return str((await model.generate(prompt)).completion)

        async def row(number: int) -> None:
            finals.append(await ask(second(await ask(FIRST.format(number=number)))))

        for number in range(told.rows):
            nursery.start_soon(row, number)
    return sum(final.endswith("finished") for final in finals)


if __name__ == "__main__":
    race(work, ("inspect-ai", "trio", "openai"))
