"""Binds a pipeline's declarations for one run: names to models, models to endpoints, steps to the graph.

Input rows and columns from scratch are the roots of the graph. Pre-batch processors come after all roots, one after the
other, and every other node after the last of them. Post-batch processors come after everything else, again one after
the other.

Whatever is wrong with a pipeline is found here, before a folder is made or a request goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

import attrs

from trio_sched._clients import RetryFreeClients
from trio_sched._errors import PipelineError, UnknownNameError
from trio_sched._pipeline.columns import Column, PipelineStep, SkipRule
from trio_sched._pipeline.models import Model, alias_models, model_resolver, retry_free_clients
from trio_sched._pipeline.processors import Processor
from trio_sched._pipeline.sources import RowReader
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._resources.identity import ProviderModelKey
from trio_sched._task.graph import ExecutionGraph, GraphNode
from trio_sched._task.resolver import TaskSchedulingResolver
from trio_sched.metadata import ColumnGenerator, SchedulingMetadata

__all__ = ["THREADS", "BoundNode", "BoundPipeline", "NodeOrigin", "bind_pipeline", "lower_caps", "place_steps"]

THREADS: Final = "threads"
"""The local resource that tasks of sync functions ask for."""


NodeOrigin: TypeAlias = Column | Processor | RowReader


@attrs.define(eq=False)
class BoundNode(ColumnGenerator):
    """One node of the graph with the models it calls in this run.

    origin: the declaration, or the reader of the input. skipped_with: wherever one of these nodes skips a row, this one
    skips it too.
    """

    node: GraphNode
    origin: NodeOrigin
    models: tuple[Model, ...]
    aliases: tuple[str, ...]
    request_resolver: RequestResourceResolver
    skipped_with: tuple[str, ...] = ()

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Local work without models, in a thread if it is sync; else the endpoint's, or one of its own for several."""
        if not self.models:
            is_sync = not isinstance(self.origin, RowReader) and not self.origin.is_async
            return SchedulingMetadata.local(THREADS) if is_sync else SchedulingMetadata.local()
        return self.request_resolver.scheduling_metadata(self.aliases, self.models[0].domain.value)

    @property
    def skip(self) -> SkipRule | None:
        """How it skips rows; None where it never does."""
        rule = self.origin.skip if isinstance(self.origin, Column) else None
        return rule if rule is not None and (rule.when is not None or self.skipped_with) else None


@attrs.frozen(eq=False)
class BoundPipeline:
    """A pipeline that is ready to run.

    aliases: the name under which each model is registered with `request_resolver`. task_resolver: knows the group and
    the resources of every node's tasks. clients: those of the models, without retries of their own.
    """

    graph: ExecutionGraph
    nodes: Mapping[str, BoundNode]
    aliases: Mapping[Model, str]
    request_resolver: RequestResourceResolver
    task_resolver: TaskSchedulingResolver
    clients: RetryFreeClients

    @property
    def needed_by_all(self) -> frozenset[ProviderModelKey]:
        """The endpoints of columns that skip no row."""
        bound = self.nodes.values()
        return frozenset(model.endpoint for each in bound if each.skip is None for model in each.models)

    @property
    def keeps_input(self) -> bool:
        """Whether the parts hold input rows as they came, since no processor may change them."""
        return not any(isinstance(bound.origin, Processor) for bound in self.nodes.values())


def bind_pipeline(
    steps: Sequence[PipelineStep],
    reader: RowReader | None,
    models: Mapping[str, Model],
    *,
    sync_threads: int | None = None,
) -> BoundPipeline:
    """Check and bind. Raises a `PipelineError` or `HiddenRetriesError` that names the value and the remedy.

    sync_threads: how many threads there are for sync functions, a stage resource then, so that none of their tasks runs
    before a thread is free for it; None where they run otherwise.
    """
    placed = place_steps(steps, reader)
    columns = [origin for _, origin in placed if isinstance(origin, Column)]
    used = {made.name: tuple(_model(made, model, models) for model in made.models) for made in columns}
    aliases = alias_models(model for each in used.values() for model in each)
    resolver = model_resolver(aliases)
    graph = ExecutionGraph(node for node, _ in placed)
    skipped_with = _skipped_with(graph, {made.name: made for made in columns})
    bound = {
        node.column: BoundNode(
            node=node,
            origin=origin,
            models=used.get(node.column, ()),
            aliases=tuple(aliases[model] for model in used.get(node.column, ())),
            request_resolver=resolver,
            skipped_with=skipped_with[node.column],
        )
        for node, origin in placed
    }
    task_resolver = _task_resolver(bound, sync_threads)
    return BoundPipeline(graph, bound, aliases, resolver, task_resolver, retry_free_clients(aliases))


def lower_caps(
    pipeline: BoundPipeline, caps: Mapping[ProviderModelKey, int], *, sync_threads: int | None
) -> BoundPipeline:
    """The same pipeline, in place of the given one, with lower static caps of some endpoints."""
    resolver = pipeline.request_resolver
    for model, alias in pipeline.aliases.items():
        if model.endpoint in caps:
            resolver.register(
                provider_name=model.provider,
                model_id=model.model_id,
                alias=alias,
                max_parallel_requests=min(model.max_parallel_requests, caps[model.endpoint]),
            )
    return attrs.evolve(pipeline, task_resolver=_task_resolver(pipeline.nodes, sync_threads))


def _task_resolver(nodes: Mapping[str, BoundNode], sync_threads: int | None) -> TaskSchedulingResolver:
    return TaskSchedulingResolver(nodes, named_limits={} if sync_threads is None else {THREADS: sync_threads})


def _skipped_with(graph: ExecutionGraph, columns: Mapping[str, Column]) -> dict[str, tuple[str, ...]]:
    """For every node, those of the nodes it reads from whose skipped rows it skips too."""
    owner = {output: node.column for node in graph.nodes.values() for output in node.outputs}
    found: dict[str, tuple[str, ...]] = {}
    may_skip: set[str] = set()
    for name in graph.order:
        rule = columns[name].skip if name in columns else None
        sources = dict.fromkeys(owner[need] for need in graph.nodes[name].needs) if rule and rule.with_needs else ()
        found[name] = tuple(source for source in sources if source in may_skip)
        if found[name] or (rule and rule.when is not None):
            may_skip.add(name)
    return found


def _model(made: Column, model: Model | str, models: Mapping[str, Model]) -> Model:
    if isinstance(model, Model):
        return model
    if model not in models:
        raise UnknownNameError("model", model, used_by=f"column {made.name!r}", known=models)
    return models[model]


def place_steps(steps: Sequence[PipelineStep], reader: RowReader | None) -> list[tuple[GraphNode, NodeOrigin]]:
    """The nodes of the graph, each with its origin. Raises `PipelineError` for anything that is no step."""
    columns: list[Column] = []
    pre_batch: list[Processor] = []
    post_batch: list[Processor] = []
    for step in cast("Sequence[object]", steps):
        match step:
            case Column():
                columns.append(step)
            case Processor(stage="pre-batch"):
                pre_batch.append(step)
            case Processor():
                post_batch.append(step)
            case _:
                raise PipelineError(
                    "columns must be made with @column, @batch_column or @from_scratch_column, "
                    f"and processors with @pre_batch_processor or @post_batch_processor, got {step!r}"
                )
    if reader is None and not columns:
        raise PipelineError("a pipeline needs at least one column")
    placed: list[tuple[GraphNode, NodeOrigin]] = []
    if reader is not None:
        placed.append((GraphNode(reader.columns[0], "from_scratch", (), reader.columns), reader))
    placed += [(column.node(), column) for column in columns if column.task_type == "from_scratch"]
    last = _chain(pre_batch, placed, ())
    placed += [(column.node(after=last), column) for column in columns if column.task_type != "from_scratch"]
    _chain(post_batch, placed, last)
    return placed


def _chain(
    processors: Sequence[Processor], placed: list[tuple[GraphNode, NodeOrigin]], last: tuple[str, ...]
) -> tuple[str, ...]:
    """Place each processor after all nodes that are placed; returns the name of the last one."""
    for processor in processors:
        seen = tuple(column for node, _ in placed for column in node.outputs)
        placed.append((GraphNode(processor.node_name, "batch", seen, processor.outputs, after=last), processor))
        last = (processor.node_name,)
    return last
