"""Events as JSON lines, there and back: an event that is written reads back to an equal one.

A line leaves out what is None and what is empty; whoever reads it fills that in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

import attrs

from trio_sched._events.both_streams import AdmissionEvent
from trio_sched._events.json_text import line_writer
from trio_sched._events.request import (
    REQUEST_EVENT_KINDS,
    RequestAdmissionEvent,
    RequestEventParts,
    RequestEventSubject,
    make_request_event,
    parts_of_request_event,
)
from trio_sched._events.scheduler import (
    SCHEDULER_EVENT_KINDS,
    SchedulerAdmissionEvent,
    SchedulerEventParts,
    SchedulerEventSubject,
    make_scheduler_event,
    parts_of_scheduler_event,
)
from trio_sched._resources.identity import RequestDomain, RequestResourceKey, RuntimeCorrelation, make_correlation
from trio_sched._resources.request import RequestPressureSnapshot, make_pressure_snapshot

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["event_line", "read_event", "request_event_line", "scheduler_event_line"]

_decode = json.JSONDecoder().raw_decode

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)

scheduler_event_line: Callable[[SchedulerEventParts], str] = line_writer(SchedulerAdmissionEvent, SchedulerEventSubject)
request_event_line: Callable[[RequestEventParts], str] = line_writer(RequestAdmissionEvent, RequestEventSubject)


def event_line(event: AdmissionEvent) -> str:
    """The event as one line of JSON, with its newline. Raises ValueError for a number that JSON does not know."""
    if isinstance(event, SchedulerAdmissionEvent):
        return scheduler_event_line(parts_of_scheduler_event(event))
    return request_event_line(parts_of_request_event(event))


def read_event(line: str | bytes, kind: type[E]) -> E:
    """The event that `line` was written from. Raises ValueError for a line that is none."""
    text = (line if isinstance(line, str) else line.decode()).strip()
    told: Any
    told, end = _decode(text)
    if not isinstance(told, dict) or end != len(text):
        raise ValueError("an event is one JSON object and nothing else")
    fields = cast("dict[str, Any]", told)
    try:
        known = _KINDS[kind].get(fields["event_kind"])
        if known is None or type(fields["captured_at_monotonic"]) is not float or type(fields["sequence"]) is not int:
            return _converter().structure(fields, kind)
        # As it was written here, and as millions of lines are: what cattrs would check is checked.
        fields["event_kind"] = known
        for name, read in _READERS.items():
            if name in fields:
                fields[name] = read(fields[name], None)
        return cast("E", _MAKERS[kind](**fields))
    except Exception as error:
        raise ValueError(f"its fields are not those of a {kind.__name__}: {error!r}") from error


@cache
def _converter() -> Converter:
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
    if told is None:
        return None
    return make_correlation(**(told if len(told) == _CORRELATED else {**_NO_CORRELATION, **told}))


def _pressure(told: dict[str, Any] | None, _kind: object) -> RequestPressureSnapshot | None:
    if told is None:
        return None
    fields: dict[str, Any] = {**_NO_PRESSURE, **told}
    fields["resource"] = _resource(told["resource"], None)
    for name in _COUNTS:
        if type(fields[name]) is not int:
            raise TypeError(f"{name} of a pressure snapshot must be an int, got {fields[name]!r}")
    return make_pressure_snapshot(**fields)


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
_COUNTS: Final = ("current_limit", "in_flight_count", "waiters")
"""What views count with, and the trace writes as it is."""
_READERS: Final[dict[str, Callable[[Any, object], Any]]] = {
    "captured_correlation": _correlation,
    "request_resource_key": _resource,
    "request_group_key": _resource,
    "pressure_snapshot": _pressure,
}
_KINDS: Final[dict[type, dict[str, str]]] = {
    SchedulerAdmissionEvent: {kind: kind for kind in SCHEDULER_EVENT_KINDS},
    RequestAdmissionEvent: {kind: kind for kind in REQUEST_EVENT_KINDS},
}
_MAKERS: Final[dict[type, Callable[..., object]]] = {
    SchedulerAdmissionEvent: make_scheduler_event,
    RequestAdmissionEvent: make_request_event,
}
_CORRELATED: Final = len(attrs.fields(RuntimeCorrelation))
_NO_CORRELATION: Final = _left_out(RuntimeCorrelation)
_NO_PRESSURE: Final = _left_out(RequestPressureSnapshot)
