"""Scripts, counters and addresses as JSON: the names of the fields, nothing else.

A script from outside goes through the constructors of `script`, so it is checked exactly as one built in Python, and
with the same errors. What is added here is only what Python's own syntax would refuse: a wrong name, a wrong nesting.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._events.records import JsonValue
from trio_sched._rehearsal.provider import CountersView, TallyView
from trio_sched._rehearsal.script import Drift, Latency, Neighbour, Phase, RehearsalScript
from trio_sched._util import parse_json

__all__ = [
    "address_from_json",
    "address_to_json",
    "control_port_from_json",
    "counters_from_json",
    "counters_to_json",
    "script_from_json",
    "script_to_json",
    "scripts_from_json",
    "scripts_to_json",
]

T = TypeVar("T", bound=attrs.AttrsInstance)


def script_to_json(script: RehearsalScript) -> bytes:
    """The whole script, defaults included."""
    return json.dumps(attrs.asdict(script)).encode("ascii")


def script_from_json(text: bytes | str) -> RehearsalScript:
    """Read a script, or raise `InvalidValueError` or its subclass `InvalidTypeError`."""
    return _script("script", _parse("script", text))


def scripts_to_json(scripts: Mapping[str, RehearsalScript]) -> str:
    """Scripts by the name of their provider."""
    return json.dumps({name: attrs.asdict(script) for name, script in scripts.items()})


def scripts_from_json(text: bytes | str) -> dict[str, RehearsalScript]:
    """Read what `scripts_to_json` has written."""
    return {name: _script(name, script) for name, script in _object("scripts", _parse("scripts", text)).items()}


def counters_to_json(counters: CountersView) -> bytes:
    """The counters, with those of domains and phases inside."""
    return json.dumps(attrs.asdict(counters)).encode("ascii")


def counters_from_json(text: bytes | str) -> CountersView:
    """Read what `counters_to_json` has written."""
    fields = _object("counters", _parse("counters", text))
    for part in ("by_domain", "by_phase"):
        tallies = _object(part, fields[part])
        fields[part] = cast("JsonValue", {name: _build(TallyView, name, tally) for name, tally in tallies.items()})
    return _build(CountersView, "counters", fields)


def address_to_json(host: str, port: int, control_port: int | None = None) -> str:
    """Where a server listens, and where it is steered if that is elsewhere."""
    where: dict[str, JsonValue] = {"host": host, "port": port}
    return json.dumps(where if control_port is None else {**where, "control_port": control_port})


def address_from_json(text: bytes | str) -> tuple[str, int]:
    """Read what `address_to_json` has written."""
    fields = _object("address", _parse("address", text))
    return check.check_text("host", fields.get("host")), check.check_int("port", fields.get("port"), minimum=1)


def control_port_from_json(text: bytes | str) -> int:
    """The port at which the server is steered."""
    fields = _object("address", _parse("address", text))
    return check.check_int("control_port", fields.get("control_port", fields.get("port")), minimum=1)


def _parse(where: str, text: bytes | str) -> JsonValue:
    try:
        return cast("JsonValue", parse_json(text))
    except ValueError as error:
        raise InvalidValueError(where, text, f"JSON ({error})") from error


def _script(where: str, value: JsonValue) -> RehearsalScript:
    fields = _object(where, value)
    phases = fields.get("phases")
    if isinstance(phases, list):
        built = [_phase(f"{where}.phases[{index}]", phase) for index, phase in enumerate(phases)]
        fields["phases"] = cast("JsonValue", built)
    return _build(RehearsalScript, where, fields)


def _phase(where: str, value: JsonValue) -> Phase:
    fields = _object(where, value)
    for name, cls in (("latency", Latency), ("drift", Drift), ("neighbour", Neighbour)):
        if fields.get(name) is not None:
            fields[name] = cast("JsonValue", _build(cls, f"{where}.{name}", fields[name]))
    return _build(Phase, where, fields)


def _object(where: str, value: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise InvalidTypeError(where, value, "a JSON object")
    return dict(value)


def _build(cls: type[T], where: str, value: JsonValue) -> T:
    fields = _object(where, value)
    known = [attribute.name for attribute in attrs.fields(cls)]
    for name in fields:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
            raise InvalidValueError(f"a name in {where}", name, f"one of its fields (the nearest is {nearest!r})")
    return cast("Callable[..., T]", cls)(**fields)
