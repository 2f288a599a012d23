"""The parts, one by one: for pipelines of one's own, for tests, and for whoever wants to know."""

from typing import TYPE_CHECKING

from trio_sched._lazy import lazy_names

if TYPE_CHECKING:
    from trio_sched._capacity import (
        AsyncCapacityConfigured,
        AsyncCapacityObservedMaxima,
        AsyncCapacityPlan,
        AsyncCapacityRuntimeSnapshot,
        CallCeiling,
        CapacityValue,
        RowGroupAdmissionPlan,
        WorkerThreadsPlan,
    )
    from trio_sched._classify import ErrorVerdict, classify_exception, judge_exception
    from trio_sched._clients import ClientRetries, HiddenRetriesError, RetryFreeClients
    from trio_sched._events.jsonl import JsonlEventSink, event_line, open_jsonl_sink, read_event
    from trio_sched._events.records import RequestAdmissionEvent, SchedulerAdmissionEvent
    from trio_sched._events.sinks import (
        EventStream,
        FanOutEventSink,
        InMemoryAdmissionEventSink,
        RequestAdmissionEventSink,
        SchedulerAdmissionEventSink,
        request_event_stream,
        scheduler_event_stream,
        subscribe_request_admission_events,
    )
    from trio_sched._executor import ModelRequest, ModelRequestExecutor, RequestRetryConfig
    from trio_sched._fair import FairOrder
    from trio_sched._observe.executions import ColumnWaits, ExecutionView, RequestMarks, TaskMarks
    from trio_sched._observe.layers import Limit, LimitTime, ProgressStretch, WaitBreakdown
    from trio_sched._observe.recorded_run import NoEventsError, view_of_run, write_run_views
    from trio_sched._observe.view import CorrelatedRuntimeView, RuntimeViewBuilder
    from trio_sched._observe.why import Explanation, FailingCalls, explain, why
    from trio_sched._request.aimd import AimdLimit
    from trio_sched._request.attempt import AdmittedAttempt, RequestAdmissionUsageError
    from trio_sched._request.config import (
        RequestAdmissionConfig,
        RequestAdmissionConfigSnapshot,
        RequestAdmissionTuningConfig,
    )
    from trio_sched._request.controller import AdaptiveRequestAdmissionController
    from trio_sched._request.core import RequestAdmissionPolicy
    from trio_sched._request.evidence import EvidenceLimit
    from trio_sched._request.leases import (
        LeakedRequestLease,
        RequestAdmissionDecision,
        RequestAdmissionDenied,
        RequestAdmissionError,
        RequestAdmissionLease,
    )
    from trio_sched._request.limit import FixedLimit, Grant, LimitTransition, RequestLimit, RequestSample
    from trio_sched._request.limit_state import AdaptiveRequestLimitState
    from trio_sched._request.pressure import RequestPressureSnapshotProvider
    from trio_sched._request.protocol import RequestAdmissionController
    from trio_sched._request.queue import RequestFairQueue, RequestQueueSelection, RequestQueueView, RequestWaiter
    from trio_sched._request.resolver import ModelAliasError, RequestResourceResolver, ResolvedRequestResource
    from trio_sched._resources import ReleaseResult
    from trio_sched._resources.identity import (
        CorrelationToken,
        ProviderModelKey,
        ProviderModelStaticCap,
        RequestDomain,
        RequestResourceKey,
        RuntimeCorrelation,
        RuntimeCorrelationProvider,
        runtime_correlation,
    )
    from trio_sched._resources.request import (
        ProviderModelPressureSnapshot,
        RequestAdmissionItem,
        RequestEventContext,
        RequestGroupSpec,
        RequestPressureSnapshot,
        RequestReleaseOutcome,
    )
    from trio_sched._resources.task import (
        FrontierDelta,
        SchedulableTask,
        SchedulerResourceKey,
        SchedulerResourceRequest,
        SliceRef,
        Task,
        TaskGroupKey,
        TaskGroupSpec,
        TaskTrace,
        endpoint_stage_resource,
        stable_task_id,
    )
    from trio_sched._scheduler.foreign_cancel import ForeignCancellationError
    from trio_sched._scheduler.health import EarlyStop, HealthConfig
    from trio_sched._scheduler.messages import (
        FixedRowGroupPlan,
        RowDrop,
        RowFailure,
        RowFiltered,
        RowGroup,
        RowGroupPlan,
        RowGroupStore,
    )
    from trio_sched._scheduler.retry import Failure, RetryBudgetConfig, RetryConfig
    from trio_sched._scheduler.row_group_admission import AdaptiveRowGroupTargetConfig, RowGroupConfig
    from trio_sched._scheduler.scheduler import AsyncTaskScheduler, SchedulerConfig, SchedulerResult
    from trio_sched._scheduler.stall import NoProgressError, SchedulerStalledError, StallExplanation
    from trio_sched._scheduler.worker import TaskRunner
    from trio_sched._task.bounded_borrow import BoundedBorrowTaskAdmissionPolicy, BoundedBorrowTaskAdmissionPolicyConfig
    from trio_sched._task.completion import CompletionTracker
    from trio_sched._task.controller import (
        TaskAdmissionBlockSummary,
        TaskAdmissionConfig,
        TaskAdmissionController,
        TaskAdmissionDecision,
        TaskAdmissionDenied,
    )
    from trio_sched._task.graph import ExecutionGraph, GraphNode
    from trio_sched._task.ledger import TaskAdmissionLease, TaskAdmissionView
    from trio_sched._task.policies import (
        PolicyStateDelta,
        StrictFairTaskAdmissionPolicy,
        TaskAdmissionPolicy,
        TaskAdmissionPolicyDecision,
    )
    from trio_sched._task.queue import FairTaskQueue, QueueSelection, QueueView
    from trio_sched._task.resolver import ResolvedTaskScheduling, TaskSchedulingResolver
    from trio_sched._util import Blocking, in_threads, inline
    from trio_sched.metadata import ColumnGenerator, SchedulingMetadata, SchedulingMetadataError
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trio_sched._capacity": (
                "AsyncCapacityConfigured AsyncCapacityObservedMaxima AsyncCapacityPlan AsyncCapacityRuntimeSnapshot "
                "CallCeiling CapacityValue RowGroupAdmissionPlan WorkerThreadsPlan"
            ),
            "trio_sched._classify": "ErrorVerdict classify_exception judge_exception",
            "trio_sched._clients": "ClientRetries HiddenRetriesError RetryFreeClients",
            "trio_sched._events.jsonl": "JsonlEventSink event_line open_jsonl_sink read_event",
            "trio_sched._events.records": "RequestAdmissionEvent SchedulerAdmissionEvent",
            "trio_sched._events.sinks": (
                "EventStream FanOutEventSink InMemoryAdmissionEventSink RequestAdmissionEventSink "
                "SchedulerAdmissionEventSink request_event_stream scheduler_event_stream "
                "subscribe_request_admission_events"
            ),
            "trio_sched._executor": "ModelRequest ModelRequestExecutor RequestRetryConfig",
            "trio_sched._fair": "FairOrder",
            "trio_sched._observe.executions": "ColumnWaits ExecutionView RequestMarks TaskMarks",
            "trio_sched._observe.layers": "Limit LimitTime ProgressStretch WaitBreakdown",
            "trio_sched._observe.recorded_run": "NoEventsError view_of_run write_run_views",
            "trio_sched._observe.view": "CorrelatedRuntimeView RuntimeViewBuilder",
            "trio_sched._observe.why": "Explanation FailingCalls explain why",
            "trio_sched._request.aimd": "AimdLimit",
            "trio_sched._request.attempt": "AdmittedAttempt RequestAdmissionUsageError",
            "trio_sched._request.config": (
                "RequestAdmissionConfig RequestAdmissionConfigSnapshot RequestAdmissionTuningConfig"
            ),
            "trio_sched._request.controller": "AdaptiveRequestAdmissionController",
            "trio_sched._request.core": "RequestAdmissionPolicy",
            "trio_sched._request.evidence": "EvidenceLimit",
            "trio_sched._request.leases": (
                "LeakedRequestLease RequestAdmissionDecision RequestAdmissionDenied RequestAdmissionError "
                "RequestAdmissionLease"
            ),
            "trio_sched._request.limit": "FixedLimit Grant LimitTransition RequestLimit RequestSample",
            "trio_sched._request.limit_state": "AdaptiveRequestLimitState",
            "trio_sched._request.pressure": "RequestPressureSnapshotProvider",
            "trio_sched._request.protocol": "RequestAdmissionController",
            "trio_sched._request.queue": "RequestFairQueue RequestQueueSelection RequestQueueView RequestWaiter",
            "trio_sched._request.resolver": "ModelAliasError RequestResourceResolver ResolvedRequestResource",
            "trio_sched._resources": "ReleaseResult",
            "trio_sched._resources.identity": (
                "CorrelationToken ProviderModelKey ProviderModelStaticCap RequestDomain RequestResourceKey "
                "RuntimeCorrelation RuntimeCorrelationProvider runtime_correlation"
            ),
            "trio_sched._resources.request": (
                "ProviderModelPressureSnapshot RequestAdmissionItem RequestEventContext RequestGroupSpec "
                "RequestPressureSnapshot RequestReleaseOutcome"
            ),
            "trio_sched._resources.task": (
                "FrontierDelta SchedulableTask SchedulerResourceKey SchedulerResourceRequest SliceRef Task "
                "TaskGroupKey TaskGroupSpec TaskTrace endpoint_stage_resource stable_task_id"
            ),
            "trio_sched._scheduler.foreign_cancel": "ForeignCancellationError",
            "trio_sched._scheduler.health": "EarlyStop HealthConfig",
            "trio_sched._scheduler.messages": (
                "FixedRowGroupPlan RowDrop RowFailure RowFiltered RowGroup RowGroupPlan RowGroupStore"
            ),
            "trio_sched._scheduler.retry": "Failure RetryBudgetConfig RetryConfig",
            "trio_sched._scheduler.row_group_admission": "AdaptiveRowGroupTargetConfig RowGroupConfig",
            "trio_sched._scheduler.scheduler": "AsyncTaskScheduler SchedulerConfig SchedulerResult",
            "trio_sched._scheduler.stall": "NoProgressError SchedulerStalledError StallExplanation",
            "trio_sched._scheduler.worker": "TaskRunner",
            "trio_sched._task.bounded_borrow": (
                "BoundedBorrowTaskAdmissionPolicy BoundedBorrowTaskAdmissionPolicyConfig"
            ),
            "trio_sched._task.completion": "CompletionTracker",
            "trio_sched._task.controller": (
                "TaskAdmissionBlockSummary TaskAdmissionConfig TaskAdmissionController TaskAdmissionDecision "
                "TaskAdmissionDenied"
            ),
            "trio_sched._task.graph": "ExecutionGraph GraphNode",
            "trio_sched._task.ledger": "TaskAdmissionLease TaskAdmissionView",
            "trio_sched._task.policies": (
                "PolicyStateDelta StrictFairTaskAdmissionPolicy TaskAdmissionPolicy TaskAdmissionPolicyDecision"
            ),
            "trio_sched._task.queue": "FairTaskQueue QueueSelection QueueView",
            "trio_sched._task.resolver": "ResolvedTaskScheduling TaskSchedulingResolver",
            "trio_sched._util": "Blocking in_threads inline",
            "trio_sched.metadata": "ColumnGenerator SchedulingMetadata SchedulingMetadataError",
        },
    )

__all__ = [
    "AdaptiveRequestAdmissionController",
    "AdaptiveRequestLimitState",
    "AdaptiveRowGroupTargetConfig",
    "AdmittedAttempt",
    "AimdLimit",
    "AsyncCapacityConfigured",
    "AsyncCapacityObservedMaxima",
    "AsyncCapacityPlan",
    "AsyncCapacityRuntimeSnapshot",
    "AsyncTaskScheduler",
    "Blocking",
    "BoundedBorrowTaskAdmissionPolicy",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "CallCeiling",
    "CapacityValue",
    "ClientRetries",
    "ColumnGenerator",
    "ColumnWaits",
    "CompletionTracker",
    "CorrelatedRuntimeView",
    "CorrelationToken",
    "EarlyStop",
    "ErrorVerdict",
    "EventStream",
    "EvidenceLimit",
    "ExecutionGraph",
    "ExecutionView",
    "Explanation",
    "FailingCalls",
    "Failure",
    "FairOrder",
    "FairTaskQueue",
    "FanOutEventSink",
    "FixedLimit",
    "FixedRowGroupPlan",
    "ForeignCancellationError",
    "FrontierDelta",
    "Grant",
    "GraphNode",
    "HealthConfig",
    "HiddenRetriesError",
    "InMemoryAdmissionEventSink",
    "JsonlEventSink",
    "LeakedRequestLease",
    "Limit",
    "LimitTime",
    "LimitTransition",
    "ModelAliasError",
    "ModelRequest",
    "ModelRequestExecutor",
    "NoEventsError",
    "NoProgressError",
    "PolicyStateDelta",
    "ProgressStretch",
    "ProviderModelKey",
    "ProviderModelPressureSnapshot",
    "ProviderModelStaticCap",
    "QueueSelection",
    "QueueView",
    "ReleaseResult",
    "RequestAdmissionConfig",
    "RequestAdmissionConfigSnapshot",
    "RequestAdmissionController",
    "RequestAdmissionDecision",
    "RequestAdmissionDenied",
    "RequestAdmissionError",
    "RequestAdmissionEvent",
    "RequestAdmissionEventSink",
    "RequestAdmissionItem",
    "RequestAdmissionLease",
    "RequestAdmissionPolicy",
    "RequestAdmissionTuningConfig",
    "RequestAdmissionUsageError",
    "RequestDomain",
    "RequestEventContext",
    "RequestFairQueue",
    "RequestGroupSpec",
    "RequestLimit",
    "RequestMarks",
    "RequestPressureSnapshot",
    "RequestPressureSnapshotProvider",
    "RequestQueueSelection",
    "RequestQueueView",
    "RequestReleaseOutcome",
    "RequestResourceKey",
    "RequestResourceResolver",
    "RequestRetryConfig",
    "RequestSample",
    "RequestWaiter",
    "ResolvedRequestResource",
    "ResolvedTaskScheduling",
    "RetryBudgetConfig",
    "RetryConfig",
    "RetryFreeClients",
    "RowDrop",
    "RowFailure",
    "RowFiltered",
    "RowGroup",
    "RowGroupAdmissionPlan",
    "RowGroupConfig",
    "RowGroupPlan",
    "RowGroupStore",
    "RuntimeCorrelation",
    "RuntimeCorrelationProvider",
    "RuntimeViewBuilder",
    "SchedulableTask",
    "SchedulerAdmissionEvent",
    "SchedulerAdmissionEventSink",
    "SchedulerConfig",
    "SchedulerResourceKey",
    "SchedulerResourceRequest",
    "SchedulerResult",
    "SchedulerStalledError",
    "SchedulingMetadata",
    "SchedulingMetadataError",
    "SliceRef",
    "StallExplanation",
    "StrictFairTaskAdmissionPolicy",
    "Task",
    "TaskAdmissionBlockSummary",
    "TaskAdmissionConfig",
    "TaskAdmissionController",
    "TaskAdmissionDecision",
    "TaskAdmissionDenied",
    "TaskAdmissionLease",
    "TaskAdmissionPolicy",
    "TaskAdmissionPolicyDecision",
    "TaskAdmissionView",
    "TaskGroupKey",
    "TaskGroupSpec",
    "TaskMarks",
    "TaskRunner",
    "TaskSchedulingResolver",
    "TaskTrace",
    "WaitBreakdown",
    "WorkerThreadsPlan",
    "classify_exception",
    "endpoint_stage_resource",
    "event_line",
    "explain",
    "in_threads",
    "inline",
    "judge_exception",
    "open_jsonl_sink",
    "read_event",
    "request_event_stream",
    "runtime_correlation",
    "scheduler_event_stream",
    "stable_task_id",
    "subscribe_request_admission_events",
    "view_of_run",
    "why",
    "write_run_views",
]
