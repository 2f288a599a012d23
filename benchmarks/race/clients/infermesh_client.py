"""infermesh: its client bounds the calls at once, keeps to hints and tries three times more, as it does by default."""

from __future__ import annotations

import asyncio

import litellm  # type: ignore[import-not-found]
from infermesh import LMClient  # type: ignore[import-not-found]

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A task for each row."""
    return asyncio.run(run(told))


async def run(told: Told) -> int:
    """All rows at once; the client lets `cap` calls through."""
    async with LMClient(
        model="openai/racer", api_base=told.base_url, api_key="race", max_parallel_requests=told.cap
    ) as client:

        async def ask(prompt: str) -> str:
            return str((await client.agenerate(prompt)).output_text)

        async def row(number: int) -> bool:
            try:
                return (await ask(second(await ask(FIRST.format(number=number))))).endswith("finished")
            except litellm.RateLimitError:
                return False

        return sum(await asyncio.gather(*map(row, range(told.rows))))


if __name__ == "__main__":
    race(work, ("infermesh", "litellm", "openai"))
