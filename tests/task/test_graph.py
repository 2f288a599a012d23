"""The graph refuses what cannot run, naming the value and the remedy."""

import pytest

from trio_sched._errors import CycleError, DuplicateColumnError, PipelineError, UnknownNameError
from trio_sched._task.graph import ExecutionGraph, GraphNode


def test_order_follows_needs_whatever_the_order_of_declaration() -> None:
    graph = ExecutionGraph(
        [GraphNode("c", "cell", ("b",)), GraphNode("b", "cell", ("a",)), GraphNode("a", "from_scratch")]
    )
    assert graph.order == ("a", "b", "c")
    assert [node.column for node in graph.roots] == ["a"]
    assert [node.column for node in graph.downstream["a"]] == ["b"]


def test_several_outputs_feed_by_any_of_their_names() -> None:
    graph = ExecutionGraph([GraphNode("a", "from_scratch", outputs=("a", "a2")), GraphNode("b", "cell", ("a", "a2"))])
    assert graph.columns == ("a", "a2", "b")
    assert graph.needs_mask["b"] == graph.bit["a"]


def test_cycle_names_its_path() -> None:
    with pytest.raises(
        CycleError, match=r"^columns need each other in a circle: b <- d <- c <- b; remove one of these needs$"
    ):
        ExecutionGraph(
            [
                GraphNode("a", "from_scratch"),
                GraphNode("b", "cell", ("a", "d")),
                GraphNode("c", "cell", ("b",)),
                GraphNode("d", "cell", ("c",)),
            ]
        )


def test_a_column_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(CycleError) as caught:
        ExecutionGraph([GraphNode("a", "cell", ("a",))])
    assert caught.value.path == ("a", "a")


def test_unknown_need_offers_the_nearest_name() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"^column 'answer' names the column 'questoin', which does not exist; did you mean 'question'\?$",
    ) as caught:
        ExecutionGraph([GraphNode("question", "from_scratch"), GraphNode("answer", "cell", ("questoin",))])
    assert caught.value.nearest == "question"


def test_unknown_need_without_a_near_name_lists_what_is_known() -> None:
    with pytest.raises(UnknownNameError, match=r"which does not exist; known: 'answer', 'question'$"):
        ExecutionGraph([GraphNode("question", "from_scratch"), GraphNode("answer", "cell", ("zzz",))])


def test_two_owners_of_one_column() -> None:
    with pytest.raises(DuplicateColumnError, match=r"^column 'a' is made twice, by a and a; rename one of them$"):
        ExecutionGraph([GraphNode("a", "from_scratch"), GraphNode("a", "from_scratch")])


def test_a_root_cannot_need_and_a_cell_must() -> None:
    with pytest.raises(
        PipelineError, match=r"^column 'a' is made from scratch and cannot need b, c; make it a cell or batch column$"
    ):
        GraphNode("a", "from_scratch", ("b", "c"))
    with pytest.raises(
        PipelineError, match=r"^column 'a' needs no other column; say what it needs, or make it from scratch$"
    ):
        GraphNode("a", "cell")


def test_a_pipeline_without_columns() -> None:
    with pytest.raises(PipelineError, match=r"^a pipeline needs at least one column$"):
        ExecutionGraph([])


def test_wrong_task_type() -> None:
    with pytest.raises(ValueError, match=r"^GraphNode.task_type must be one of"):
        GraphNode("a", "row")  # type: ignore[arg-type]


def test_a_node_comes_after_others_of_which_it_reads_nothing() -> None:
    graph = ExecutionGraph(
        [
            GraphNode("b", "cell", ("a",), after=("check",)),
            GraphNode("check", "batch", ("a",), outputs=()),
            GraphNode("a", "from_scratch"),
            GraphNode("last", "batch", after=("b", "check"), outputs=()),
        ]
    )
    assert graph.order == ("a", "check", "b", "last")
    assert graph.columns == ("a", "b")
    assert graph.needs_mask["b"] == graph.bit["a"] | graph.bit["check"]
    assert [node.column for node in graph.downstream["check"]] == ["b", "last"]
    assert [node.column for node in graph.roots] == ["a"]


def test_after_takes_nodes_and_not_columns() -> None:
    nodes = [GraphNode("a", "from_scratch", outputs=("a", "side")), GraphNode("b", "cell", ("a",), after=("side",))]
    with pytest.raises(UnknownNameError, match=r"^column 'b' names the node 'side', which does not exist; known: 'a',"):
        ExecutionGraph(nodes)


def test_a_circle_through_after_is_a_cycle() -> None:
    with pytest.raises(CycleError, match=r"in a circle: b <- c <- b;"):
        ExecutionGraph(
            [
                GraphNode("a", "from_scratch"),
                GraphNode("b", "cell", ("a",), after=("c",)),
                GraphNode("c", "cell", ("b",)),
            ]
        )


def test_a_node_without_outputs_still_owns_its_name_and_makes_no_column() -> None:
    check = GraphNode("check", "batch", ("a",), outputs=())
    with pytest.raises(DuplicateColumnError):
        ExecutionGraph([GraphNode("a", "from_scratch", outputs=("a", "check")), check])
    with pytest.raises(UnknownNameError, match="names the column 'check'"):
        ExecutionGraph([GraphNode("a", "from_scratch"), check, GraphNode("b", "cell", ("check",))])


def test_outputs_are_refused_unless_they_begin_with_the_column() -> None:
    with pytest.raises(ValueError, match=r"^GraphNode.outputs must be empty, or begin with 'a', got \('b', 'a'\)$"):
        GraphNode("a", "from_scratch", outputs=("b", "a"))
    with pytest.raises(ValueError, match=r"^GraphNode.outputs must be not empty unless the node is a batch node"):
        GraphNode("b", "cell", ("a",), outputs=())
    with pytest.raises(PipelineError, match="made from scratch and cannot need b"):
        GraphNode("a", "from_scratch", after=("b",))


def test_whether_anything_may_run_beside_a_node() -> None:
    root, b, c = GraphNode("a", "from_scratch"), GraphNode("b", "cell", ("a",)), GraphNode("c", "cell", ("b",))
    chain = ExecutionGraph([c, b, root])
    assert [chain.may_run_beside_another(column) for column in "abc"] == [False, False, False]
    roots = ExecutionGraph([root, GraphNode("r", "from_scratch")])
    assert [roots.may_run_beside_another(column) for column in "ar"] == [True, True]
    fork = ExecutionGraph([root, b, c, GraphNode("d", "cell", ("b",)), GraphNode("e", "batch", ("c", "d"))])
    assert [fork.may_run_beside_another(column) for column in "abcde"] == [False, False, True, True, False]
