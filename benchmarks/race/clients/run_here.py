"""This project's pipeline: two columns, the second of which needs the first."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trio
from openai import AsyncOpenAI

import trio_sched as ts
from benchmarks.race.clients.outcome import FIRST, Told, race, second


def work(told: Told) -> int:
    """A run with the defaults."""
    return trio.run(run, told)


async def run(told: Told) -> int:
    """Every row to a folder that is thrown away."""
    client = AsyncOpenAI(base_url=told.base_url, api_key="race")
    racer = ts.Model("race", "racer", client=client, max_parallel_requests=told.cap)

    async def ask(model: Any, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        reply = await model.call(client.chat.completions.create, model=model.model_id, messages=messages)
        return str(reply.choices[0].message.content)

    @ts.column(needs=["number"], model=racer)
    async def draft(row: Any, model: Any) -> str:
        return await ask(model, FIRST.format(number=row["number"]))

    @ts.column(needs=["draft"], model=racer)
    async def final(row: Any, model: Any) -> str:
        return await ask(model, second(row["draft"]))

    rows = [{"number": number} for number in range(told.rows)]
    with tempfile.TemporaryDirectory() as folder:
        result = await ts.run([draft, final], rows=rows, output=Path(folder) / "run")
        return sum(str(row["final"]).endswith("finished") for row in result.rows())


if __name__ == "__main__":
    race(work, ("trio_sched", "trio", "openai"))
