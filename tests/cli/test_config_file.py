"""Settings from TOML: what is taken, what is refused, and what goes before what."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

import trio_sched as ts
from trio_sched._cli.options import ConfigFileError, Settings, build_config, read_settings


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        buffer_size = 1
        max_concurrent_row_groups = 2
        max_admitted_rows = 7
        max_outage_seconds = 60.0
        submission_capacity = 3
        max_attempts = 4
        stop_error_rate = 0.25
        no_progress_seconds = 5
        seed = 6
        write_events = false
        format = "parquet"
        [request_admission]
        multiplicative_decrease_factor = 0.5
        additive_increase_step = 7
        successes_until_increase = 8
        cooldown_seconds = 9.0
        startup_ramp_seconds = 10.0
        """,
    )
    config = Settings(path, None, None).run_config()
    assert config == ts.RunConfig(
        buffer_size=1,
        max_concurrent_row_groups=2,
        max_admitted_rows=7,
        max_outage_seconds=60.0,
        submission_capacity=3,
        max_attempts=4,
        stop_error_rate=0.25,
        no_progress_seconds=5,
        seed=6,
        write_events=False,
        format="parquet",
        request_admission=ts.RequestAdmissionTuningConfig(
            multiplicative_decrease_factor=0.5,
            additive_increase_step=7,
            successes_until_increase=8,
            cooldown_seconds=9.0,
            startup_ramp_seconds=10.0,
        ),
    )
    default = ts.RunConfig()
    untouched = [name for name in attrs.fields_dict(ts.RunConfig) if getattr(config, name) == getattr(default, name)]
    assert untouched == [], "a new setting needs its place in this test"


def test_false_switches_off_what_may_be_off(tmp_path: Path) -> None:
    path = write(tmp_path, "stop_error_rate = false\nno_progress_seconds = false")
    config = Settings(path, None, None).run_config()
    assert (config.stop_error_rate, config.no_progress_seconds) == (None, None)


def test_without_a_file_everything_is_as_by_default() -> None:
    assert Settings(None, None, None).run_config() == ts.RunConfig()


def test_what_equals_its_default_counts_as_given_wherever_it_is_said(tmp_path: Path) -> None:
    assert Settings(None, None, None).run_config().given == set()
    assert Settings(None, 0, "jsonl").run_config().given == {"seed", "format"}
    path = write(tmp_path, "buffer_size = 100\nstop_error_rate = 0.5")
    assert Settings(path, None, None).run_config().given == {"buffer_size", "stop_error_rate"}


def test_the_record_of_what_was_given_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="'given' is no setting of the top level"):
        read_settings(write(tmp_path, 'given = ["seed"]'))
    with pytest.raises(ConfigFileError) as caught:
        read_settings(write(tmp_path, "zzzzzz = 1"))
    assert "known there: buffer_size" in str(caught.value)
    assert "given" not in str(caught.value).partition("known there")[2]


def test_command_line_before_file_before_the_resumed_run(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 2\nmax_attempts = 2\n[request_admission]\nadditive_increase_step = 2")
    earlier = {
        "seed": 1,
        "max_attempts": 1,
        "buffer_size": 1,
        "request_admission": {"additive_increase_step": 1, "cooldown_seconds": 1.0},
    }
    config = Settings(path, 3, None).run_config(of_the_run=earlier)
    assert (config.seed, config.max_attempts, config.buffer_size, config.max_concurrent_row_groups) == (3, 2, 1, 4)
    assert config.given == {"seed", "max_attempts", "buffer_size", "request_admission"}
    assert config.request_admission is not None
    assert config.request_admission.additive_increase_step == 2
    assert config.request_admission.cooldown_seconds == 1.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "cooldown_seconds = 2",
            "'cooldown_seconds' is no setting of the top level; it belongs to [request_admission]",
        ),
        (
            "[request_admission]\nseed = 2",
            "'seed' is no setting of [request_admission]; it belongs to the top level",
        ),
        (
            "max_parallel_requests = 8",
            (
                "'max_parallel_requests' is no setting of the top level; "
                "it belongs to a model: ts.Model(..., max_parallel_requests=...)"
            ),
        ),
        ("bufer_size = 3", "'bufer_size' is no setting of the top level; did you mean 'buffer_size'?"),
        (
            "[request_admission]\ncooldown_second = 2",
            "'cooldown_second' is no setting of [request_admission]; did you mean 'cooldown_seconds'?",
        ),
        ('buffer_size = "ten"', "buffer_size in the top level must be a positive int, got the string 'ten'"),
        ("buffer_size = 0", "buffer_size in the top level must be a positive int, got the integer 0"),
        ("buffer_size = true", "buffer_size in the top level must be a positive int, got the boolean True"),
        ("seed = 1.0", "seed in the top level must be an int of at least 0, got the float 1.0"),
        (
            'stop_error_rate = "x"',
            "stop_error_rate in the top level must be false or a number from 0 to 1, got the string 'x'",
        ),
        ("seed = [1]", "seed in the top level must be an int of at least 0, got the array [1]"),
        ("write_events = 1", "write_events in the top level must be 'all', 'summary' or 'none', got the integer 1"),
        ("request_admission = 3", "request_admission in the top level must be a table, got the integer 3"),
        ('format = "xml"', "format in the top level must be 'jsonl' or 'parquet', got the string 'xml'"),
        (
            '[request_admission]\ncooldown_seconds = "2"',
            "cooldown_seconds in [request_admission] must be a finite number of at least 0, got the string '2'",
        ),
        (
            "[request_admission]\ncooldown_seconds = nan",
            "cooldown_seconds in [request_admission] must be a finite number of at least 0, got the float nan",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_file_table_and_type(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigFileError, match=f"^{re.escape(f'{path}: {problem}')}$"):
        read_settings(path)


def test_a_name_like_no_other_is_refused_with_all_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="'zebra' is no setting of the top level; known there: buffer_size, "):
        read_settings(write(tmp_path, "[zebra]\na = 1"))


@pytest.mark.parametrize("text", ["x =", b"\xff"])
def test_what_is_no_toml_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigFileError, match=r"run\.toml: is not TOML: "):
        read_settings(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"cannot be read: Is a directory$"):
        read_settings(tmp_path)


def test_settings_of_an_earlier_run_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"run\.json: 'sed' is no setting of the top level; did you mean 'seed'"):
        build_config(tmp_path / "run.json", {"sed": 1})


@pytest.mark.parametrize("depth", [50, 300, 600, 900, 950, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a = ", "}")])
def test_what_is_nested_deeply_is_refused_at_any_depth(tmp_path: Path, depth: int, opening: str, closing: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"seed = {opening * depth}1{closing * depth}", encoding="utf-8")
    with pytest.raises(ConfigFileError) as caught:
        read_settings(file)
    assert "nested too deeply" in str(caught.value) or "seed in the top level must be" in str(caught.value)
