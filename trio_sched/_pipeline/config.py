"""The settings of a run, and the default of each."""

from __future__ import annotations

from typing import Literal, get_args

import attrs

from trio_sched import _validation as check
from trio_sched._errors import InvalidTypeError, InvalidValueError
from trio_sched._pipeline.parts import PartFormatName
from trio_sched._request.config import RequestAdmissionTuningConfig
from trio_sched._util import records_given

__all__ = ["RunConfig", "WriteEvents"]

WriteEvents = Literal["all", "summary", "none"]


def _part_format(instance: object, attribute: attrs.Attribute[PartFormatName], value: object) -> None:
    if value not in get_args(PartFormatName):
        raise InvalidValueError("RunConfig.format", value, " or ".join(map(repr, get_args(PartFormatName))))


def _event_level(value: WriteEvents | bool) -> WriteEvents:
    if isinstance(value, bool):
        return "all" if value else "none"
    return value


def _one_of_the_levels(instance: object, attribute: attrs.Attribute[WriteEvents], value: object) -> None:
    if value not in get_args(WriteEvents):
        raise InvalidValueError("RunConfig.write_events", value, "'all', 'summary' or 'none'")


def _tuning(instance: object, attribute: attrs.Attribute[RequestAdmissionTuningConfig | None], value: object) -> None:
    if value is not None and not isinstance(value, RequestAdmissionTuningConfig):
        raise InvalidTypeError("RunConfig.request_admission", value, "None or a RequestAdmissionTuningConfig")


@records_given
@attrs.frozen(kw_only=True)
class RunConfig:
    """Settings of one run. Of these, only `seed` and `buffer_size` (the spans of from-scratch columns) affect the data.

    buffer_size: rows per row group, the unit that becomes durable together.
    max_concurrent_row_groups: row groups in flight at once. Given, it is a hard bound; else as many are opened at
    first, and then further ones as long as an endpoint has room for their calls, within `max_admitted_rows`.
    max_admitted_rows: rows of all row groups in flight together; None for 10,000, or more where `buffer_size` or the
    caps of the models call for it.
    submission_capacity: tasks running at once. Where it is not given, there are more if the models' caps call for it.
    max_attempts: failures of one model call that are shown to be its own, after which its row is rejected; neither rate
    limits nor outages count; see the failures how-to.
    stop_error_rate: share of rejected rows, from 0 to 1, among a hundred that began one after the other, that stops the
    run; None for no stop. What is finished is kept.
    no_progress_seconds: how long nothing at all may happen before the run fails with the reason; None for no bound.
    max_outage_seconds: how long an endpoint may go without an answer before the run stops; None for ever. No row is
    lost to an outage: resume makes those that are left.
    seed: from-scratch columns get it, and it seeds the jitter between attempts.
    request_admission: the parameters of AIMD, which select that rule for every endpoint. See `Model.limit`.
    write_events: what is written to `events/`: `summary` for what `report.html` and `why` need; `all` for both event
    streams, of which `trace.json` is made too, at some 10 kB a model call; `none`. True is `all`, False `none`.
    format: of the part files, `jsonl`, or `parquet` with the extra of that name.
    given: names of the settings that were passed, whatever their values; the others are defaults.
    """

    buffer_size: int = attrs.field(default=100, validator=check.positive_int)
    max_concurrent_row_groups: int = attrs.field(default=4, validator=check.positive_int)
    max_admitted_rows: int | None = attrs.field(default=None, validator=check.optional_positive_int)
    submission_capacity: int = attrs.field(default=1024, validator=check.positive_int)
    max_attempts: int = attrs.field(default=5, validator=check.positive_int)
    stop_error_rate: float | None = attrs.field(default=0.5, validator=check.optional_closed_unit_interval)
    no_progress_seconds: float | None = attrs.field(default=1800.0, validator=check.optional_positive_finite)
    max_outage_seconds: float | None = attrs.field(default=1800.0, validator=check.optional_positive_finite)
    seed: int = attrs.field(default=0, validator=check.non_negative_int)
    request_admission: RequestAdmissionTuningConfig | None = attrs.field(default=None, validator=_tuning)
    write_events: WriteEvents = attrs.field(default="summary", converter=_event_level, validator=_one_of_the_levels)
    format: PartFormatName = attrs.field(default="jsonl", validator=_part_format)
    given: frozenset[str] = attrs.field(default=frozenset[str](), init=False, eq=False, repr=False)
