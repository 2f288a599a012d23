"""Progress as plain lines: what they say, word by word."""

from __future__ import annotations

import io

import attrs
import pytest
from progress_values import MIDWAY

from trio_sched._observe.limiting import Limit
from trio_sched._observe.lines import ProgressLines, duration, limit_sentence, progress_line
from trio_sched._observe.waits import LAYERS


def test_a_line_says_everything() -> None:
    assert progress_line(MIDWAY) == (
        "1:23 records 1,200/4,800 (25%); 15.0/s now, 14.4/s average; left 1:01:40; dropped 3, deferred 2; "
        "openai/gpt/chat 7/8 in flight, 40 waiting, cooling 11.3 s, 905/min; "
        "limited by a cooldown after rate limits at openai/gpt/chat, 11.3 s left"
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


def test_unknown_totals_and_times() -> None:
    line = progress_line(attrs.evolve(MIDWAY, records_total=None, eta_seconds=None))
    assert "records 1,200;" in line
    assert "left unknown" in line


def test_a_resumed_run_with_nothing_left() -> None:
    assert "records 0, nothing left to do;" in progress_line(attrs.evolve(MIDWAY, records_done=0, records_total=0))


def test_each_picture_is_one_line_without_control_characters() -> None:
    file = io.StringIO()
    lines = ProgressLines(file)
    lines.start()
    lines.show(attrs.evolve(MIDWAY, limit=Limit("provider", "evil\x1b[2J\nname")))
    lines.show(MIDWAY)
    lines.stop()
    written = file.getvalue()
    assert written.count("\n") == 2
    assert "\x1b" not in written
