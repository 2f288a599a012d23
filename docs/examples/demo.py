"""Questions, answers, judgements, revisions and embeddings for the documentation topics that ship with Python.

Two providers serve the models over real HTTP. By default they are the rehearsal provider that trio_sched ships:
provider A can take 24 calls at once, 8 in the middle third of its calls, and 24 again, and it answers 429 above that.
With OPENAI_BASE_URL and OPENAI_API_KEY set, the same pipeline runs against that endpoint.

What was interrupted goes on where it was when the demo is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import pydoc_data.topics
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from demo_evidence import read_evidence
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionMessageParam

import trio_sched as ts
from trio_sched.rehearsal import Latency, Phase, RehearsalScript, rehearsal_process

STATIC_CAP_A = 32
STATIC_CAP_B = 48
EXPECTED_CALLS_A = 2_400


@attrs.frozen
class Providers:
    """Where the two providers are, and which models they serve."""

    url_a: str
    url_b: str
    chat_a: str
    chat_b: str
    embedding_b: str
    api_key: str
    rehearsed: bool


def passages(minimum: int = 600) -> list[dict[str, str]]:
    """The documentation topics, cut into passages of a few sentences, each with the topic's name."""
    found: list[dict[str, str]] = []
    for topic, text in sorted(pydoc_data.topics.topics.items()):
        paragraphs = [re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n")]
        passage = ""
        for paragraph in [*paragraphs, ""]:
            if passage and (not paragraph or len(passage) + len(paragraph) > 700):
                found.append({"topic": topic, "text": passage})
                passage = ""
            passage = f"{passage} {paragraph}".strip()
    if len(found) < minimum:
        raise SystemExit(f"this Python's documentation topics give only {len(found)} passages")
    return found


def open_client(providers: Providers, url: str) -> AsyncOpenAI:
    """The SDK's client; on loopback it takes no proxy from the environment."""
    http_client = DefaultAsyncHttpxClient(trust_env=not providers.rehearsed)
    return AsyncOpenAI(base_url=url, api_key=providers.api_key, http_client=http_client)


def pipeline(texts: list[dict[str, str]], providers: Providers) -> list[ts.Column]:
    """The columns of the dataset."""
    client_a = open_client(providers, providers.url_a)
    client_b = open_client(providers, providers.url_b)
    writer = ts.Model("a", providers.chat_a, client=client_a, max_parallel_requests=STATIC_CAP_A)
    judge = ts.Model("b", providers.chat_b, client=client_b, max_parallel_requests=STATIC_CAP_B)
    embedder = ts.Model(
        "b", providers.embedding_b, client=client_b, max_parallel_requests=STATIC_CAP_B, domain="embedding"
    )

    async def chat(model: ts.ModelHandle, client: AsyncOpenAI, system: str, user: str) -> str:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        reply = await model.call(client.chat.completions.create, model=model.model_id, messages=messages)
        return reply.choices[0].message.content or ""

    @ts.from_scratch_column()
    async def passage(span: ts.RowSpan) -> list[dict[str, str]]:
        return texts[span.start : span.start + span.count]

    @ts.column(needs=["passage"], model=writer)
    async def question(row: dict[str, dict[str, str]], model: ts.ModelHandle) -> str:
        return await chat(model, client_a, "Write one question about the passage.", row["passage"]["text"])

    @ts.column(needs=["passage", "question"], model=writer)
    async def answer(row: dict[str, object], model: ts.ModelHandle) -> str:
        return await chat(model, client_a, "Answer from the passage.", f"{row['question']}\n\n{row['passage']}")

    @ts.column(needs=["question", "answer"], model=judge)
    async def judgement(row: dict[str, str], model: ts.ModelHandle) -> dict[str, object]:
        reply = await chat(
            model, client_b, 'Judge the answer. Reply as JSON: {"score": 1 to 5, "reason": "..."}.', json.dumps(row)
        )
        return dict(json.loads(reply))

    @ts.column(needs=["answer", "judgement"], model=writer)
    async def revision(row: dict[str, object], model: ts.ModelHandle) -> str:
        text = str(row["answer"])
        verdict = row["judgement"]
        assert isinstance(verdict, dict)
        for _ in range(max(0, 4 - int(verdict["score"]))):
            text = await chat(model, client_a, "Improve this answer.", f"{text}\n\n{verdict['reason']}")
        return text

    @ts.column(needs=["question", "revision"], model=embedder)
    async def embedding(row: dict[str, str], model: ts.ModelHandle) -> list[float]:
        reply = await model.call(
            client_b.embeddings.create, model=model.model_id, input=f"{row['question']} {row['revision']}"
        )
        return list(reply.data[0].embedding)

    return [passage, question, answer, judgement, revision, embedding]


@asynccontextmanager
async def open_providers() -> AsyncGenerator[Providers, None]:
    """The endpoint that the environment names, or else the rehearsal provider in a process of its own."""
    url = os.environ.get("OPENAI_BASE_URL")
    if url is not None:
        chat = os.environ.get("DEMO_CHAT_MODEL", "gpt-5-mini")
        embedding = os.environ.get("DEMO_EMBEDDING_MODEL", "text-embedding-3-small")
        yield Providers(url, url, chat, chat, embedding, os.environ["OPENAI_API_KEY"], rehearsed=False)
        return
    latency = Latency(mean=0.15, sigma=0.3, minimum=0.03)
    third = EXPECTED_CALLS_A // 3
    scripts = {
        "a": RehearsalScript(
            phases=(
                Phase(name="before", latency=latency, max_in_flight=24, retry_after_seconds=0.25),
                Phase(name="low", latency=latency, max_in_flight=8, retry_after_seconds=0.25, after_accepted=third),
                Phase(
                    name="after", latency=latency, max_in_flight=24, retry_after_seconds=0.25, after_accepted=2 * third
                ),
            )
        ),
        "b": RehearsalScript(phases=(Phase(latency=latency, max_in_flight=64),)),
    }
    async with rehearsal_process(scripts) as server:
        url_a, url_b = server.base_url("a"), server.base_url("b")
        yield Providers(url_a, url_b, "writer", "judge", "judge", "rehearsal", rehearsed=True)


async def main(output: Path, seed: int, buffer_size: int, row_groups: int) -> ts.RunResult:
    """Run the demo."""
    texts = passages()
    config = ts.RunConfig(buffer_size=buffer_size, max_concurrent_row_groups=row_groups, seed=seed, write_events="all")
    async with open_providers() as providers:
        columns = pipeline(texts, providers)
        return await ts.run(
            columns, records=len(texts), output=output, config=config, resume="if-possible", live="auto"
        )


def exit_code(result: ts.RunResult, *, rehearsed: bool) -> int:
    """Say what the run came to: 0 if that is what the demo is there to show."""
    print(result.summary())
    print(f"data hash    {result.data_hash()}")
    holds = True
    if rehearsed and result.earlier.row_groups:
        print(f"\nwhat the events show is told of a run in one go; for that, delete {result.path} and start again")
    elif rehearsed:
        evidence = read_evidence(result.path, range(EXPECTED_CALLS_A // 3, 2 * EXPECTED_CALLS_A // 3))
        print(f"\n{evidence.lines()}")
        holds = evidence.holds()
    return 0 if holds and result.status == "completed" and not result.dropped and not result.leaks else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("out/demo"), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--buffer-size", type=int, default=100)
    parser.add_argument("--row-groups", type=int, default=3)
    options = parser.parse_args()
    rehearsed = "OPENAI_BASE_URL" not in os.environ
    if rehearsed:
        print(f"makes a dataset in {options.output}, in about a minute", flush=True)
    try:
        result = trio.run(main, options.output, options.seed, options.buffer_size, options.row_groups)
        sys.exit(exit_code(result, rehearsed=rehearsed))
    except ts.TrioSchedError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        print(f"\ninterrupted; every finished row group is in {options.output}", file=sys.stderr)
        print("start the demo again with the same options, and it goes on from there", file=sys.stderr)
        sys.exit(130)
