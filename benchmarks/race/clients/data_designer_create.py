"""DataDesigner: a dataset of two columns made by a model, the second of which refers to the first."""

from __future__ import annotations

import tempfile

import data_designer.config as dd  # type: ignore[import-not-found]
import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]
import tiktoken  # type: ignore[import-not-found]
from data_designer.interface import DataDesigner  # type: ignore[import-not-found]

from benchmarks.race.clients.outcome import FIRST, Told, race, second


def no_encoding(name: str) -> None:
    """The profile of the finished dataset counts tokens by a table that would be fetched; it does without."""
    raise LookupError(f"{name} is not fetched")


def work(told: Told) -> int:
    """`create`, with the defaults but for health check and metrics endpoint, which are no part of the work."""
    tiktoken.get_encoding = no_encoding
    with tempfile.TemporaryDirectory() as folder:
        provider = dd.ModelProvider(name="race", endpoint=told.base_url, api_key="race")
        model = dd.ModelConfig(
            alias="racer",
            model="racer",
            provider="race",
            inference_parameters=dd.ChatCompletionInferenceParams(max_parallel_requests=told.cap),
            skip_health_check=True,
        )
        designer = DataDesigner(artifact_path=folder, model_providers=[provider])
        designer.set_run_config(dd.RunConfig(otel_metrics_port=None))
        builder = dd.DataDesignerConfigBuilder(model_configs=[model])
        numbers = pd.DataFrame({"number": range(told.rows)})
        builder.with_seed_dataset(dd.DataFrameSeedSource(df=numbers))
        for name, prompt in (
            ("draft", FIRST.replace("{number}", "{{ number }}")),
            ("final", second("{{ draft }}")),
        ):
            builder.add_column(dd.LLMTextColumnConfig(name=name, prompt=prompt, model_alias="racer"))
        results = designer.create(builder, num_records=told.rows, dataset_name="race")
        finals = results.load_dataset()["final"]
        return int(finals.str.endswith("finished").sum())


if __name__ == "__main__":
    race(work, ("data-designer", "data-designer-engine", "httpx"))
