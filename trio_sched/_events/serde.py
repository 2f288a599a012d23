"""Events as JSON lines, there and back: an event that is written reads back to an equal one.

A line leaves out what is None and what is empty; whoever reads it fills that in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin, get_type_hints

import attrs

from trio_sched._events.both_streams import AdmissionEvent
from trio_sched._events.json_text import text_writer
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["event_line", "read_event", "request_event_line", "scheduler_event_line"]

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)

scheduler_event_line = text_writer(SchedulerAdmissionEvent, end="\n")
request_event_line = text_writer(RequestAdmissionEvent, end="\n")


def event_line(event: AdmissionEvent) -> str:
    """The event as one line of JSON, with its newline. Raises ValueError for a number that JSON does not know."""
    return scheduler_event_line(event) if isinstance(event, SchedulerAdmissionEvent) else request_event_line(event)


def read_event(line: str | bytes, kind: type[E]) -> E:
    """The event that `line` was written from. Raises ValueError for a line that is none."""
    fields: object = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"an event is a JSON object, got {type(fields).__name__}")
    try:
        return _converter().structure(fields, kind)
    except Exception as error:
        raise ValueError(f"its fields are not those of a {kind.__name__}: {error!r}") from error


@cache
def _converter() -> Converter:
    # Millions of lines are read: what makes a line an event is checked by cattrs, other values are made directly.
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, override

    converter = Converter(detailed_validation=False, forbid_extra_keys=True)
    for kind in (SchedulerAdmissionEvent, RequestAdmissionEvent):
        hooks = {field.name: _READERS.get(field.name, _as_it_is) for field in attrs.fields(kind)}
        for checked in _CHECKED:
            del hooks[checked]
        overrides: dict[str, Any] = {name: override(struct_hook=hook) for name, hook in hooks.items()}
        converter.register_structure_hook(kind, make_dict_structure_fn(kind, converter, **overrides))
    return converter


def _as_it_is(told: Any, _kind: object) -> Any:
    return told


def _correlation(told: dict[str, Any] | None, _kind: object) -> RuntimeCorrelation | None:
    return None if told is None else RuntimeCorrelation(**{**_NO_CORRELATION, **told})


def _pressure(told: dict[str, Any] | None, _kind: object) -> RequestPressureSnapshot | None:
    if told is None:
        return None
    told["resource"] = _resource(told["resource"], None)
    return RequestPressureSnapshot(**{**_NO_PRESSURE, **told})


def _resource(told: dict[str, str] | None, _kind: object) -> RequestResourceKey | None:
    return None if told is None else _known_resource(**told)


@lru_cache(maxsize=1024)
def _known_resource(provider_name: str, model_id: str, domain: str) -> RequestResourceKey:
    return RequestResourceKey(provider_name, model_id, RequestDomain(domain))


def _left_out(cls: type[attrs.AttrsInstance]) -> dict[str, Any]:
    """What the fields are that `text_writer` may leave out, where it did."""
    return {
        name: None if type(None) in get_args(hint) else MappingProxyType[str, Any]({})
        for name, hint in get_type_hints(cls).items()
        if type(None) in get_args(hint) or get_origin(hint) is Mapping
    }


_CHECKED: Final = ("event_kind", "captured_at_monotonic", "sequence")
_READERS: Final[dict[str, Callable[[Any, object], Any]]] = {
    "captured_correlation": _correlation,
    "request_resource_key": _resource,
    "request_group_key": _resource,
    "pressure_snapshot": _pressure,
}
_NO_CORRELATION: Final = _left_out(RuntimeCorrelation)
_NO_PRESSURE: Final = _left_out(RequestPressureSnapshot)
