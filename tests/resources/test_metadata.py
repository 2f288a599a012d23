"""Scheduling metadata: the three kinds, and what each refuses."""

from __future__ import annotations

import pytest

from trio_sched.metadata import SchedulingMetadata, SchedulingMetadataError


def test_the_three_kinds() -> None:
    assert SchedulingMetadata.local() == SchedulingMetadata("local", ("local", "default"), 1)
    assert SchedulingMetadata.local("gpu", weight=2) == SchedulingMetadata("local", ("local", "gpu"), 2)
    assert SchedulingMetadata.model("p", "m", "chat", weight=64).identity == ("model", "p", "m", "chat")
    assert SchedulingMetadata.custom_model("n", "r", "2").identity == ("custom_model", "n", "r", "2")


@pytest.mark.parametrize(
    ("kind", "identity", "weight", "code", "message"),
    [
        (
            "remote",
            ("remote", "x"),
            1,
            "invalid_kind",
            "kind must be one of 'local', 'model', 'custom_model', got 'remote'",
        ),
        ("local", ["local", "x"], 1, "invalid_identity", r"identity must be a tuple of strings, got \['local', 'x'\]"),
        ("local", ("local", ""), 1, "invalid_identity", r"identity\[1\] must be a non-empty string, got ''"),
        ("local", ("local", 3), 1, "invalid_identity", r"identity\[1\] must be a non-empty string, got 3"),
        ("local", ("model", "x"), 1, "invalid_identity", "identity must be 2 strings of which the first is 'local'"),
        (
            "model",
            ("model", "p", "m"),
            1,
            "invalid_identity",
            "identity must be 4 strings of which the first is 'model'",
        ),
        ("local", ("local", "x"), 0, "invalid_weight", "weight must be a positive int, got 0"),
        ("local", ("local", "x"), 1.5, "invalid_weight", "weight must be a positive int, got 1.5"),
        ("local", ("local", "x"), True, "invalid_weight", "weight must be a positive int, got True"),
    ],
)
def test_what_is_refused(kind: str, identity: object, weight: object, code: str, message: str) -> None:
    with pytest.raises(SchedulingMetadataError, match=f"^SchedulingMetadata.{message}") as caught:
        SchedulingMetadata(kind, identity, weight)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.fallback is None
    assert str(caught.value).endswith(f"[{code}]")


def test_an_error_may_carry_a_fallback() -> None:
    error = SchedulingMetadataError("no_model", "model is not known yet", SchedulingMetadata.local(), {"alias": "x"})
    assert error.fallback == SchedulingMetadata.local()
    assert error.diagnostics == {"alias": "x"}
