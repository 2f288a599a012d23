"""Progress as plain lines: what they say, word by word."""

from __future__ import annotations

import io

import attrs
import pytest
from progress_values import MIDWAY

from trio_sched._observe.display import ProgressLines, duration, limit_sentence, progress_line
from trio_sched._observe.layers import LAYERS, Limit
from trio_sched._observe.request_replay import Activity


def test_a_line_says_everything() -> None:
    assert progress_line(MIDWAY) == (
        "1:23 records 1,200/4,800 (25%); 15.0/s now, 14.4/s average; left 1:01:40; dropped 3, deferred 2; "
        "openai/gpt/chat 7/8 in flight, 40 waiting, cooling down 11.3 s, 905/min; "
        "limited by refusals at openai/gpt/chat: cooling down 11.3 s"
    )


def test_a_line_of_a_run_that_ended() -> None:
    ended = attrs.evolve(MIDWAY, result="completed", limit=None, endpoints=())
    line = progress_line(ended)
    assert line.endswith("dropped 3, deferred 2; run completed")
    assert "left" not in line


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599.4, "59:59"), (3600, "1:00:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_layer_has_its_sentence() -> None:
    sentences = {limit_sentence(attrs.evolve(MIDWAY, limit=Limit(layer, "x"))) for layer in LAYERS}
    assert len(sentences) == len(LAYERS)
    assert limit_sentence(attrs.evolve(MIDWAY, limit=None)) == "limited by work outside model calls"


@pytest.mark.parametrize(
    ("activity", "text"),
    [
        (Activity(), ""),
        (Activity("probing", asks_for=1), "asking for one more"),
        (Activity("probing", asks_for=5), "asking for 5 more"),
        (Activity("stopped", seconds_left=0.25, trial_follows=True), "stopped 0.2 s, then one trial"),
        (Activity("stopped", seconds_left=11.3), "cooling down 11.3 s"),
        (Activity("trial"), "one trial is out"),
        (Activity("stopped", outage=True, seconds_left=4.1, trial_follows=True), "outage: next trial in 4.1 s"),
        (Activity("trial", outage=True), "outage: one trial is out"),
        (Activity(outage=True), "outage: nothing answered yet"),
    ],
)
def test_what_an_endpoint_is_about_is_in_its_part_of_the_line(activity: Activity, text: str) -> None:
    endpoint = attrs.evolve(MIDWAY.endpoints[0], activity=activity)
    line = progress_line(attrs.evolve(MIDWAY, endpoints=(endpoint,), limit=Limit("provider", "openai/gpt/chat")))
    shown = f"openai/gpt/chat 7/8 in flight, 40 waiting{', ' if text else ''}{text}, 905/min; "
    assert line.endswith(shown + "limited by the provider's answers at openai/gpt/chat")


def test_unknown_totals_and_times() -> None:
    line = progress_line(attrs.evolve(MIDWAY, records_total=None, eta_seconds=None))
    assert "records 1,200;" in line
    assert "left unknown" in line


def test_a_resumed_run_with_nothing_left() -> None:
    assert "records 0, nothing left to do;" in progress_line(attrs.evolve(MIDWAY, records_done=0, records_total=0))


def test_each_snapshot_is_one_line_without_control_characters() -> None:
    file = io.StringIO()
    lines = ProgressLines(file)
    lines.start()
    lines.show(attrs.evolve(MIDWAY, limit=Limit("provider", "evil\x1b[2J\nname")))
    lines.show(MIDWAY)
    lines.stop()
    written = file.getvalue()
    assert written.count("\n") == 2
    assert "\x1b" not in written
