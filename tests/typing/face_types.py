"""What type checkers see of the faces. Nothing here runs: the session `typecheck` reads it.

A name that a face lacks has to be an error although the faces load their names at run time; checkers complain about an
ignore that ignores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import trio_sched as ts
from trio_sched import lowlevel, testing

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from trio_sched._events.records import JsonValue

    async def runs(columns: list[ts.Column], folder: Path) -> None:
        result = await ts.run(columns, rows=[{"topic": "trio"}], output=folder)
        assert_type(result, ts.RunResult)
        assert_type(result.rows(), Iterator[dict[str, JsonValue]])
        assert_type(result.static_caps, Mapping[lowlevel.ProviderModelKey, int])

    @ts.column(needs=["topic"], model="writer")
    async def question(row: dict[str, str], model: ts.ModelHandle) -> str:
        provider = testing.ScriptedProvider()
        assert_type(await model.call(provider.chat, [("user", row["topic"])]), str)
        assert_type(await provider.serve(lambda: 3), int)
        return ""

    assert_type(question, ts.Column)
    assert_type(ts.__version__, str)

    async def admits(writer: ts.Model) -> None:
        async with ts.open_admission(writer) as admission:
            assert_type(admission, ts.RequestAdmission)
            async with admission.request(writer) as lease:
                assert_type(lease, lowlevel.RequestAdmissionLease)

    _ = ts.colunm  # type: ignore[attr-defined]
    _ = lowlevel.Tasks  # type: ignore[attr-defined]
    _ = testing.fake  # type: ignore[attr-defined]
