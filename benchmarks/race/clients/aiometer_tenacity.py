"""aiometer bounds the rows at once, tenacity tries again: what OpenAI's cookbook has for rate limits."""

from __future__ import annotations

import functools

import aiometer  # type: ignore[import-not-found,unused-ignore]
import anyio
import tenacity  # type: ignore[import-not-found,unused-ignore]
from openai import AsyncOpenAI, RateLimitError

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A row makes one call at a time, so the bound on rows is one on calls."""
    return anyio.run(run, told)


async def run(told: Told) -> int:
    """All rows through one aiometer."""
    client = AsyncOpenAI(base_url=told.base_url, api_key="race", max_retries=0)

    async def call(prompt: str) -> str:
        reply = await client.chat.completions.create(model="racer", messages=[{"role": "user", "content": prompt}])
        return str(reply.choices[0].message.content)

    ask = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(RateLimitError),
        wait=tenacity.wait_random_exponential(min=1, max=60),
        stop=tenacity.stop_after_attempt(6),
        reraise=True,
    ).wraps(call)

    async def row(number: int) -> bool:
        try:
            return str(await ask(second(await ask(FIRST.format(number=number))))).endswith("finished")
        except RateLimitError:
            return False

    jobs = [functools.partial(row, number) for number in range(told.rows)]
    return sum(await aiometer.run_all(jobs, max_at_once=told.cap))


if __name__ == "__main__":
    race(work, ("aiometer", "tenacity", "anyio", "openai"))
