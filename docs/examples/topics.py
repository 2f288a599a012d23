"""The tutorial's pipeline: a question, an answer and its length for each documentation topic that ships with Python.

The provider is a rehearsal one: it takes four calls at once and answers 429 to any other, while the pipeline believes
that it takes sixteen. Start it again after a kill, and it goes on where it was.
"""

import pydoc_data.topics

import trio
from openai import AsyncOpenAI

import trio_sched as ts
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, rehearsal_process

STRICT = RehearsalScript(
    phases=(Phase(latency=Latency(mean=0.2, sigma=0.2), max_in_flight=4, retry_after_seconds=0.25),)
)


def pipeline(client: AsyncOpenAI) -> list[ts.Column]:
    """Three columns, two of which call a model."""
    writer = ts.Model("tutorial", "writer-1", client=client, max_parallel_requests=16)

    async def ask(model: ts.ModelHandle, prompt: str) -> str:
        reply = await model.call(
            client.chat.completions.create, model=model.model_id, messages=[{"role": "user", "content": prompt}]
        )
        return reply.choices[0].message.content or ""

    @ts.column(needs=["topic"], model=writer)
    async def question(row: dict[str, str], model: ts.ModelHandle) -> str:
        return await ask(model, f"Ask one question about {row['topic']} in Python.")

    @ts.column(needs=["question"], model=writer)
    async def answer(row: dict[str, str], model: ts.ModelHandle) -> str:
        return await ask(model, row["question"])

    @ts.column(needs=["answer"])
    async def words(row: dict[str, str]) -> int:
        return len(row["answer"].split())

    return [question, answer, words]


async def main() -> None:
    """Run it, or go on with it."""
    rows = [{"topic": topic} for topic in sorted(pydoc_data.topics.topics)]
    async with rehearsal_process({"tutorial": STRICT}) as provider:
        client = AsyncOpenAI(base_url=provider.base_url("tutorial"), api_key="rehearsal")
        result = await ts.run(
            pipeline(client),
            rows=rows,
            output="out/topics",
            config=ts.RunConfig(buffer_size=10, max_concurrent_row_groups=2),
            resume="if-possible",
        )
    print(result.summary())
    print(f"data hash    {result.data_hash()}")


if __name__ == "__main__":
    trio.run(main)
