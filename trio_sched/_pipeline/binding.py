"""Binds a pipeline's declarations for one run: names to models, models to endpoints, columns to the graph.

Everything that can be wrong with a pipeline is found here, before a folder is made or a request goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from trio_sched._errors import UnknownNameError
from trio_sched._pipeline.columns import Column
from trio_sched._pipeline.models import Model, alias_models, model_resolver
from trio_sched._pipeline.nodes import NodeOrigin, place_steps
from trio_sched._pipeline.processors import Processor
from trio_sched._pipeline.skipping import SkipRule
from trio_sched._pipeline.sources import RowReader
from trio_sched._pipeline.steps import PipelineStep
from trio_sched._request.resolver import RequestResourceResolver
from trio_sched._task.graph import ExecutionGraph, GraphNode
from trio_sched.metadata import ColumnGenerator, SchedulingMetadata

__all__ = ["BoundNode", "BoundPipeline", "bind_pipeline"]


@attrs.define(eq=False)
class BoundNode(ColumnGenerator):
    """One node of the graph with the models it calls in this run.

    origin: what was declared, or the reader of the input. skipped_with: the nodes which, where they skip a row, have
    this one skip it too.
    """

    node: GraphNode
    origin: NodeOrigin
    models: tuple[Model, ...]
    aliases: tuple[str, ...]
    resolver: RequestResourceResolver
    skipped_with: tuple[str, ...] = ()

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Local work without models; else the endpoint's, or one of its own for several endpoints."""
        if not self.models:
            return SchedulingMetadata.local()
        return self.resolver.scheduling_metadata(self.aliases, self.models[0].domain.value)

    @property
    def skip(self) -> SkipRule | None:
        """How it skips rows; None where it never does, whatever its cells would hold then."""
        rule = self.origin.skip if isinstance(self.origin, Column) else None
        return rule if rule is not None and (rule.when is not None or self.skipped_with) else None


@attrs.frozen(eq=False)
class BoundPipeline:
    """A pipeline that is ready to run. aliases: the name under which each model is registered."""

    graph: ExecutionGraph
    nodes: Mapping[str, BoundNode]
    aliases: Mapping[Model, str]
    resolver: RequestResourceResolver

    @property
    def keeps_input(self) -> bool:
        """Whether input rows become cells as they are, since no processor may change them."""
        return not any(isinstance(bound.origin, Processor) for bound in self.nodes.values())


def bind_pipeline(
    steps: Sequence[PipelineStep], reader: RowReader | None, models: Mapping[str, Model]
) -> BoundPipeline:
    """Check and bind. Raises a `PipelineError` that names the value and the remedy."""
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
            resolver=resolver,
            skipped_with=skipped_with[node.column],
        )
        for node, origin in placed
    }
    return BoundPipeline(graph, bound, aliases, resolver)


def _skipped_with(graph: ExecutionGraph, columns: Mapping[str, Column]) -> dict[str, tuple[str, ...]]:
    """For every node, those of the nodes it reads from that may skip a row, and take it along."""
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
