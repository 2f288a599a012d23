"""Parquet parts: the same rows, the same hash, the same resumption as JSON lines; what a column's type is."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import pytest
import trio
import trio.testing
from examples import share_of_profile
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_sched as ts
from trio_sched.lowlevel import inline

Format = Literal["jsonl", "parquet"]

PARQUET: ModuleType = importlib.import_module("pyarrow.parquet")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)


def make(values: list[object], output: Path, part_format: Format, *, resume: bool = False) -> ts.RunResult:
    @ts.from_scratch_column()
    async def value(span: ts.RowSpan) -> list[object]:
        return values[span.start : span.start + span.count]

    @ts.from_scratch_column()
    async def odd(span: ts.RowSpan) -> list[object]:
        return [{1, 2} if (span.start + n) % 7 == 3 else "é" for n in range(span.count)]

    async def main() -> ts.RunResult:
        config = ts.RunConfig(buffer_size=3, format=part_format)
        return await ts.run(
            [value, odd],
            records=len(values),
            output=output,
            config=config,
            blocking=inline,
            resume="always" if resume else "never",
        )

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def kinds(value: object) -> object:
    """A value with its types, since 1 equals 1.0 and True."""
    if isinstance(value, dict):
        return {key: kinds(held) for key, held in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [kinds(held) for held in cast("list[object]", value)]
    return type(value), value


@settings(max_examples=share_of_profile(0.25))
@given(values=st.lists(VALUES, max_size=12) | st.lists(st.integers() | st.none()) | st.lists(st.floats(-9, 9)))
def test_rows_and_hash_are_those_of_json_lines(tmp_path_factory: pytest.TempPathFactory, values: list[object]) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    lines, parquet = make(values, folder / "jsonl", "jsonl"), make(values, folder / "parquet", "parquet")
    assert kinds(list(parquet.rows())) == kinds(list(lines.rows()))
    assert parquet.data_hash() == lines.data_hash()
    parts = sorted((folder / "parquet" / "data").iterdir())
    assert [part.suffix for part in parts] == [".parquet"] * len(parts)
    for part in parts[::2]:
        part.unlink()
    resumed = make(values, folder / "parquet", "parquet", resume=True)
    assert resumed.data_hash() == lines.data_hash()
    assert (resumed.records, resumed.dropped) == (lines.records, lines.dropped)


@pytest.mark.parametrize(
    ("values", "arrow_type", "as_json"),
    [
        (["a", None, "b"], "string", False),
        ([1, None, -(2**63)], "int64", False),
        ([0.5, None, 2.0], "double", False),
        ([True, None, False], "bool", False),
        ([None, None, None], "null", False),
        ([1, 2.5, 3], "string", True),
        ([1, True, 0], "string", True),
        ([1, 2**63, 3], "string", True),
        ([1, "a", None], "string", True),
        ([{"a": 1}, {"b": [2]}, None], "string", True),
        ([[1], [], ["x"]], "string", True),
    ],
)
def test_a_columns_type_is_that_of_its_values_or_json_text(
    tmp_path: Path, values: list[object], arrow_type: str, as_json: bool
) -> None:
    result = make(values, tmp_path / "out", "parquet")
    assert kinds([row["value"] for row in result.rows()]) == kinds(values)
    schema = PARQUET.read_schema(tmp_path / "out" / "data" / "part-00000.parquet")
    field = schema.field("value")
    assert str(field.type) == arrow_type
    metadata: dict[bytes, bytes] = field.metadata or {}
    assert metadata.get(b"trio_sched.encoding") == (b"json" if as_json else None)


def test_mixed_types_are_told_once_for_each_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trio_sched.run"):
        make([1, 2.5, 3] * 4, tmp_path / "out", "parquet")
    assert [record.getMessage() for record in caplog.records] == [
        "column 'value' holds float and int in one part: Parquet keeps that as JSON text"
    ]


@pytest.mark.parametrize("torn", [slice(None, -1), slice(None, 40), slice(1, None), slice(0, 0)])
def test_a_torn_part_is_refused_with_its_name(tmp_path: Path, torn: slice) -> None:
    make([1, 2, 3], tmp_path / "out", "parquet")
    part = tmp_path / "out" / "data" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[torn])
    with pytest.raises(ts.OutputDamagedError) as caught:
        make([1, 2, 3], tmp_path / "out", "parquet", resume=True)
    assert caught.value.path == part


def test_a_flipped_bit_in_a_page_is_noticed(tmp_path: Path) -> None:
    make(list(range(3)), tmp_path / "out", "parquet")
    part = tmp_path / "out" / "data" / "part-00000.parquet"
    column = PARQUET.ParquetFile(part).metadata.row_group(0).column(0)
    content = bytearray(part.read_bytes())
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    part.write_bytes(content)
    with pytest.raises(ts.OutputDamagedError) as caught:
        make(list(range(3)), tmp_path / "out", "parquet", resume=True)
    assert caught.value.path == part


def test_a_run_keeps_its_format(tmp_path: Path) -> None:
    make([1], tmp_path / "out", "jsonl")
    with pytest.raises(ts.OutputMismatchError, match='format: "jsonl" there, "parquet" here'):
        make([1], tmp_path / "out", "parquet", resume=True)


def test_other_formats_are_refused() -> None:
    with pytest.raises(ts.InvalidValueError, match=r"^RunConfig.format must be 'jsonl' or 'parquet', got 'csv'$"):
        ts.RunConfig(format="csv")  # type: ignore[arg-type]  # bad input


def test_without_pyarrow_a_run_is_refused_before_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ts.MissingExtraError, match=r"pip install 'trio_sched\[parquet\]'"):
        make([1], tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()
