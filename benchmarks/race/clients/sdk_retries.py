"""What many write first: a bound on the calls at once, and the SDK's own retries, ten of them."""

from __future__ import annotations

import asyncio

from openai import APIStatusError, AsyncOpenAI

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A task for each row."""
    return asyncio.run(run(told))


async def run(told: Told) -> int:
    """All rows at once; the semaphore is held while the SDK waits to try again."""
    client = AsyncOpenAI(base_url=told.base_url, api_key="race", max_retries=10)
    calls = asyncio.Semaphore(told.cap)

    async def ask(prompt: str) -> str:
        async with calls:
            reply = await client.chat.completions.create(model="racer", messages=[{"role": "user", "content": prompt}])
        return str(reply.choices[0].message.content)

    async def row(number: int) -> bool:
        try:
            return (await ask(second(await ask(FIRST.format(number=number))))).endswith("finished")
        except APIStatusError:
            return False

    return sum(await asyncio.gather(*map(row, range(told.rows))))


if __name__ == "__main__":
    race(work, ("openai",))
