"""Defaults that pages state in figures are those of the code."""

from __future__ import annotations

import inspect
import re

import attrs
import pytest
from page_blocks import ROOT

import trio_sched as ts
from trio_sched._capacity import AsyncCapacityConfigured, AsyncCapacityObservedMaxima
from trio_sched._observe.view import MAX_EXECUTIONS
from trio_sched._pipeline.views import PATIENCE_AT_THE_END, PATIENCE_ON_THE_WAY_OUT
from trio_sched.lowlevel import (
    HealthConfig,
    RetryBudgetConfig,
    RowGroupConfig,
    TaskAdmissionConfig,
    open_jsonl_sink,
)

RUN, BUDGET, HEALTH = ts.RunConfig(), RetryBudgetConfig(), HealthConfig()
TUNING = ts.RequestAdmissionTuningConfig()
BUFFERED = inspect.signature(open_jsonl_sink).parameters

STATED = [
    ("plans/capacity-model.md", r"`RunConfig.buffer_size` \| (\d+) rows", [RUN.buffer_size]),
    (
        "plans/capacity-model.md",
        r"`RowGroupConfig.max_concurrent` \| (\d+) \((\d+) without a pipeline\)",
        [RUN.max_concurrent_row_groups, RowGroupConfig().max_concurrent],
    ),
    (
        "plans/architecture.md",
        r"first attempt brings ([\d.]+) of a token, a second brings (\d+), and the bucket starts with (\d+)",
        [BUDGET.share, BUDGET.per_second, BUDGET.burst],
    ),
    (
        "plans/architecture.md",
        r"`(\d+) \+ ([\d.]+) x first attempts \+ (\d+) x seconds`",
        [BUDGET.burst, BUDGET.share, BUDGET.per_second],
    ),
    ("plans/architecture.md", r"half of any (\d+) that began one after the other", [HEALTH.window]),
    ("plans/task-admission.md", r"(\d+) unless said\)", [TaskAdmissionConfig().multi_unit_skip_bound]),
    ("plans/observability.md", r"\| ([\d.]+) s after its first event", [BUFFERED["interval"].default]),
    ("plans/observability.md", r"`max_buffered` events, ([\d,]+) by default", [BUFFERED["max_buffered"].default]),
    ("plans/observability.md", r"finished executions \(([\d,]+)\)", [MAX_EXECUTIONS]),
    (
        "plans/observability.md",
        r"at most (\d+) s are spent on that, (\d+) s on the way out",
        [PATIENCE_AT_THE_END, PATIENCE_ON_THE_WAY_OUT],
    ),
    *(
        ("plans/request-admission-defaults.md", rf"\| `{name}` \| ([\d.]+)", [getattr(TUNING, name)])
        for name in (
            "multiplicative_decrease_factor",
            "additive_increase_step",
            "successes_until_increase",
            "cooldown_seconds",
            "startup_ramp_seconds",
        )
    ),
    (
        "docs/howto/tune-admission.md",
        r"multiplicative_decrease_factor=([\d.]+),",
        [TUNING.multiplicative_decrease_factor],
    ),
    ("docs/design.md", r"The places are many \((\d+)\)", [RUN.submission_capacity]),
]


@pytest.mark.parametrize(("page", "sentence", "values"), STATED, ids=lambda each: each if isinstance(each, str) else "")
def test_a_stated_default_is_the_default(page: str, sentence: str, values: list[float]) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    found = re.search(sentence, text)
    assert found is not None, f"{page} says it in other words now"
    assert [float(figure.replace(",", "")) for figure in found.groups()] == values


def test_half_of_the_attempts_and_half_an_hour_are_said_in_words() -> None:
    page = (ROOT / "plans" / "architecture.md").read_text(encoding="utf-8")
    assert "Where half of any" in page
    assert RUN.stop_error_rate == HEALTH.stop_error_rate == 0.5
    assert "`no_progress_seconds` (half an hour)" in page
    assert RUN.no_progress_seconds == 30 * 60


def test_every_value_of_the_plan_has_its_layer() -> None:
    page = (ROOT / "plans" / "capacity-model.md").read_text(encoding="utf-8")
    layers = page.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0]
    columns = zip(*(line.split("|")[2:4] for line in layers.splitlines()), strict=True)
    configured, maxima = (set(re.findall(r"`(\w+)`", " ".join(column))) for column in columns)
    assert configured == set(attrs.fields_dict(AsyncCapacityConfigured))
    assert maxima == set(attrs.fields_dict(AsyncCapacityObservedMaxima))
