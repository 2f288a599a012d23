"""Events as JSON lines, there and back: an event that is written reads back to an equal one."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from trio_sched._events.json_text import text_writer
from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent
from trio_sched._resources.correlation import RuntimeCorrelation
from trio_sched._resources.identity import RequestDomain, RequestResourceKey
from trio_sched._resources.pressure import RequestPressureSnapshot

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

__all__ = ["event_line", "read_event"]

E = TypeVar("E", SchedulerAdmissionEvent, RequestAdmissionEvent)

_scheduler_text = text_writer(SchedulerAdmissionEvent)
_request_text = text_writer(RequestAdmissionEvent)


def event_line(event: SchedulerAdmissionEvent | RequestAdmissionEvent) -> str:
    """The event as one line of JSON, with its newline. Raises ValueError for a number that JSON does not know."""
    if isinstance(event, SchedulerAdmissionEvent):
        return _scheduler_text(event) + "\n"
    return _request_text(event) + "\n"


def read_event(line: str, kind: type[E]) -> E:
    """The event that `line` was written from. Raises ValueError, or what cattrs raises, for a line that is none."""
    fields: object = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"an event is a JSON object, got {type(fields).__name__}")
    return _converter().structure(fields, kind)


@cache
def _converter() -> JsonConverter:
    from cattrs.gen import make_dict_structure_fn, override
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    plain, correlation = override(struct_hook=_as_it_is), override(struct_hook=_correlation)
    resource, pressure = override(struct_hook=_resource), override(struct_hook=_pressure)
    converter.register_structure_hook(
        SchedulerAdmissionEvent,
        make_dict_structure_fn(
            SchedulerAdmissionEvent, converter, captured_correlation=correlation, snapshot=plain, diagnostics=plain
        ),
    )
    converter.register_structure_hook(
        RequestAdmissionEvent,
        make_dict_structure_fn(
            RequestAdmissionEvent,
            converter,
            captured_correlation=correlation,
            request_resource_key=resource,
            request_group_key=resource,
            pressure_snapshot=pressure,
            diagnostics=plain,
        ),
    )
    return converter


# Millions of lines are read, and these values make most of each: they are made directly, the few resources once.


def _correlation(fields: dict[str, Any] | None, _kind: object) -> RuntimeCorrelation | None:
    return None if fields is None else RuntimeCorrelation(**fields)


def _pressure(fields: dict[str, Any] | None, _kind: object) -> RequestPressureSnapshot | None:
    if fields is None:
        return None
    known: dict[str, Any] = {"resource": _known_resource(**fields["resource"])}
    return RequestPressureSnapshot(**{**fields, **known})


def _resource(fields: dict[str, str] | None, _kind: object) -> RequestResourceKey | None:
    return None if fields is None else _known_resource(**fields)


@lru_cache(maxsize=1024)
def _known_resource(provider_name: str, model_id: str, domain: str) -> RequestResourceKey:
    return RequestResourceKey(provider_name, model_id, RequestDomain(domain))


def _as_it_is(value: JsonValue, _kind: object) -> JsonValue:
    return value
