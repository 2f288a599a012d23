"""Events as JSON lines, there and back: an event that is written reads back to an equal one."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

from trio_sched._events.json_text import text_writer
from trio_sched._events.json_value import JsonValue
from trio_sched._events.request import RequestAdmissionEvent
from trio_sched._events.scheduler import SchedulerAdmissionEvent

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
    """The event that `line` was written from. Raises what cattrs raises for a line that is none."""
    return _converter().loads(line, kind)


@cache
def _converter() -> JsonConverter:
    from cattrs.gen import make_dict_structure_fn, override
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    plain = override(struct_hook=_as_it_is)
    converter.register_structure_hook(
        SchedulerAdmissionEvent,
        make_dict_structure_fn(SchedulerAdmissionEvent, converter, snapshot=plain, diagnostics=plain),
    )
    converter.register_structure_hook(
        RequestAdmissionEvent, make_dict_structure_fn(RequestAdmissionEvent, converter, diagnostics=plain)
    )
    return converter


def _as_it_is(value: JsonValue, _kind: object) -> JsonValue:
    return value
