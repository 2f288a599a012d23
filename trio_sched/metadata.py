"""What generator authors say about their work: its static kind, and nothing else.

`SchedulingMetadata` answers one question: *what kind of work is this generator, always?* It is known before a run, the
same at every call, and carries no queue depth, limit, request domain or pressure. The scheduler derives a group and a
resource request from it (`TaskSchedulingResolver`); nothing else reads it. `ColumnGenerator`, the base of all that
makes columns, has it.

| kind | identity | weight |
| --- | --- | --- |
| `local` | `("local", resource_name)` | 1 unless said |
| `model` | `("model", provider_name, canonical_model_id, generation_kind)` | the endpoint's effective static cap |
| `custom_model` | `("custom_model", namespace, resource_name, version)` | given by the author, default 1 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import attrs

from trio_sched._errors import TrioSchedError

__all__ = [
    "ColumnGenerator",
    "SchedulingKind",
    "SchedulingMetadata",
    "SchedulingMetadataError",
]

SchedulingKind = Literal["local", "model", "custom_model"]

_IDENTITY_LENGTH: dict[str, int] = {"local": 2, "model": 4, "custom_model": 4}


class SchedulingMetadataError(TrioSchedError, ValueError):
    """Metadata that cannot be used.

    Attributes: `code` (stable, machine-readable), `message`, `fallback` (metadata to go on with, or None: fatal before
    any work is scheduled), `diagnostics` (plain facts for events; never row data).
    """

    def __init__(
        self,
        code: str,
        message: str,
        fallback: SchedulingMetadata | None = None,
        diagnostics: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.fallback = fallback
        self.diagnostics: dict[str, object] = dict(diagnostics or {})

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


@attrs.frozen
class SchedulingMetadata:
    """Static scheduling identity of one generator.

    kind: `local`, `model` or `custom_model`. identity: strings from broad to specific, the first being the kind.
    weight: positive int, the group's share in fair order. Raises `SchedulingMetadataError` naming field and value.
    """

    kind: SchedulingKind
    identity: tuple[str, ...]
    weight: int = 1

    def __attrs_post_init__(self) -> None:
        kind = cast("object", self.kind)
        if not isinstance(kind, str) or kind not in _IDENTITY_LENGTH:
            raise _refuse("invalid_kind", "kind", kind, "one of 'local', 'model', 'custom_model'")
        identity = cast("object", self.identity)
        if not isinstance(identity, tuple):
            raise _refuse("invalid_identity", "identity", identity, "a tuple of strings")
        for position, part in enumerate(cast("tuple[object, ...]", identity)):
            if not isinstance(part, str) or not part:
                raise _refuse("invalid_identity", f"identity[{position}]", part, "a non-empty string")
        if self.identity[:1] != (self.kind,) or len(self.identity) != _IDENTITY_LENGTH[self.kind]:
            raise _refuse(
                "invalid_identity",
                "identity",
                self.identity,
                f"{_IDENTITY_LENGTH[self.kind]} strings of which the first is {self.kind!r}",
            )
        weight = cast("object", self.weight)
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
            raise _refuse("invalid_weight", "weight", weight, "a positive int")

    @classmethod
    def local(cls, resource_name: str = "default", *, weight: int = 1) -> SchedulingMetadata:
        """Work that calls no model: CPU, files, an in-process library."""
        return cls("local", ("local", resource_name), weight)

    @classmethod
    def model(
        cls, provider_name: str, canonical_model_id: str, generation_kind: str = "chat", *, weight: int = 1
    ) -> SchedulingMetadata:
        """Work that calls one endpoint; `weight` is that endpoint's effective static cap."""
        return cls("model", ("model", provider_name, canonical_model_id, generation_kind), weight)

    @classmethod
    def custom_model(
        cls, namespace: str, resource_name: str, version: str = "1", *, weight: int = 1
    ) -> SchedulingMetadata:
        """Work that calls models in a way of its own, such as several endpoints in one cell."""
        return cls("custom_model", ("custom_model", namespace, resource_name, version), weight)


def _refuse(code: str, field: str, value: object, expected: str) -> SchedulingMetadataError:
    return SchedulingMetadataError(
        code,
        f"SchedulingMetadata.{field} must be {expected}, got {value!r}",
        diagnostics={"field": field, "value": repr(value), "expected": expected},
    )


class ColumnGenerator:
    """Makes one or more columns. Subclasses add how; the scheduler only needs to know what kind of work it is."""

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Static metadata: the same at every call, known before the run. The default is plain local work."""
        return SchedulingMetadata.local()
