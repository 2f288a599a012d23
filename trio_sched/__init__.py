"""Task and request admission for Trio pipelines that call models by the thousand."""

from typing import TYPE_CHECKING

from trio_sched._lazy import lazy_names
from trio_sched._version import __version__

if TYPE_CHECKING:
    from trio_sched._answers import JudgeError, ProviderAnswerError, RateLimited
    from trio_sched._capacity import AsyncCapacityPlan, CapacityValue
    from trio_sched._clients import HiddenRetriesError
    from trio_sched._errors import (
        CycleError,
        DuplicateColumnError,
        InvalidTypeError,
        InvalidValueError,
        MissingExtraError,
        PipelineError,
        TrioSchedError,
        UnknownNameError,
    )
    from trio_sched._executor import ModelTimeoutError, OpenStreamError, QuotaExhaustedError
    from trio_sched._observe.otel import OpenTelemetryEventSink
    from trio_sched._pipeline.admission import RequestAdmission, open_admission
    from trio_sched._pipeline.columns import Column, PipelineStep, RowSpan, batch_column, column, from_scratch_column
    from trio_sched._pipeline.config import RunConfig
    from trio_sched._pipeline.errors import (
        AttemptsSpentError,
        CheckError,
        InputChangedError,
        InputRowError,
        MalformedOutputError,
        NothingToResumeError,
        OutputDamagedError,
        OutputError,
        OutputExistsError,
        OutputInUseError,
        OutputMismatchError,
        OutputNotWritableError,
        ProcessorError,
        SkipRuleError,
        TryAgain,
    )
    from trio_sched._pipeline.models import Model, ModelHandle
    from trio_sched._pipeline.processors import Processor, post_batch_processor, pre_batch_processor
    from trio_sched._pipeline.result import RunResult
    from trio_sched._pipeline.run import run
    from trio_sched._request.config import RequestAdmissionTuningConfig
    from trio_sched._request.leases import RequestAdmissionError
    from trio_sched.metadata import ColumnGenerator, SchedulingMetadata, SchedulingMetadataError
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trio_sched._answers": "JudgeError ProviderAnswerError RateLimited",
            "trio_sched._capacity": "AsyncCapacityPlan CapacityValue",
            "trio_sched._clients": "HiddenRetriesError",
            "trio_sched._errors": (
                "CycleError DuplicateColumnError InvalidTypeError InvalidValueError MissingExtraError PipelineError "
                "TrioSchedError UnknownNameError"
            ),
            "trio_sched._executor": "ModelTimeoutError OpenStreamError QuotaExhaustedError",
            "trio_sched._observe.otel": "OpenTelemetryEventSink",
            "trio_sched._pipeline.admission": "RequestAdmission open_admission",
            "trio_sched._pipeline.columns": "Column PipelineStep RowSpan batch_column column from_scratch_column",
            "trio_sched._pipeline.config": "RunConfig",
            "trio_sched._pipeline.errors": (
                "AttemptsSpentError CheckError InputChangedError InputRowError MalformedOutputError "
                "NothingToResumeError OutputDamagedError OutputError OutputExistsError OutputInUseError "
                "OutputMismatchError OutputNotWritableError ProcessorError SkipRuleError TryAgain"
            ),
            "trio_sched._pipeline.models": "Model ModelHandle",
            "trio_sched._pipeline.processors": "Processor post_batch_processor pre_batch_processor",
            "trio_sched._pipeline.result": "RunResult",
            "trio_sched._pipeline.run": "run",
            "trio_sched._request.config": "RequestAdmissionTuningConfig",
            "trio_sched._request.leases": "RequestAdmissionError",
            "trio_sched.metadata": "ColumnGenerator SchedulingMetadata SchedulingMetadataError",
        },
    )

__all__ = [
    "AsyncCapacityPlan",
    "AttemptsSpentError",
    "CapacityValue",
    "CheckError",
    "Column",
    "ColumnGenerator",
    "CycleError",
    "DuplicateColumnError",
    "HiddenRetriesError",
    "InputChangedError",
    "InputRowError",
    "InvalidTypeError",
    "InvalidValueError",
    "JudgeError",
    "MalformedOutputError",
    "MissingExtraError",
    "Model",
    "ModelHandle",
    "ModelTimeoutError",
    "NothingToResumeError",
    "OpenStreamError",
    "OpenTelemetryEventSink",
    "OutputDamagedError",
    "OutputError",
    "OutputExistsError",
    "OutputInUseError",
    "OutputMismatchError",
    "OutputNotWritableError",
    "PipelineError",
    "PipelineStep",
    "Processor",
    "ProcessorError",
    "ProviderAnswerError",
    "QuotaExhaustedError",
    "RateLimited",
    "RequestAdmission",
    "RequestAdmissionError",
    "RequestAdmissionTuningConfig",
    "RowSpan",
    "RunConfig",
    "RunResult",
    "SchedulingMetadata",
    "SchedulingMetadataError",
    "SkipRuleError",
    "TrioSchedError",
    "TryAgain",
    "UnknownNameError",
    "__version__",
    "batch_column",
    "column",
    "from_scratch_column",
    "open_admission",
    "post_batch_processor",
    "pre_batch_processor",
    "run",
]
