"""This project's request admission alone, in a nursery of one's own, as the README has it."""

from __future__ import annotations

import trio
from openai import AsyncOpenAI, RateLimitError

import trio_sched as ts
from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A task for each row."""
    return trio.run(run, told)


async def run(told: Told) -> int:
    """All rows at once; admission decides which calls go."""
    client = AsyncOpenAI(base_url=told.base_url, api_key="race", max_retries=0)
    racer = ts.Model("race", "racer", max_parallel_requests=told.cap)
    finals: list[str] = []

    async with ts.open_admission(racer) as admission, trio.open_nursery() as nursery:

        async def ask(prompt: str) -> str:
            while True:
                try:
                    async with admission.request(racer):
                        reply = await client.chat.completions.create(
                            model="racer", messages=[{"role": "user", "content": prompt}]
                        )
                except RateLimitError:
                    continue
                return str(reply.choices[0].message.content)

        async def row(number: int) -> None:
            finals.append(await ask(second(await ask(FIRST.format(number=number)))))

        for number in range(told.rows):
            nursery.start_soon(row, number)
    return sum(final.endswith("finished") for final in finals)


if __name__ == "__main__":
    race(work, ("trio_sched", "trio", "openai"))
