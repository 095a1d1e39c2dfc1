"""Diagrams of random residual networks: they say what the search found, and nothing else."""

from hypothesis import given

from gradflow.diagram import Diagram
from gradflow.profiling import graph, profile
from gradflow.render.graph import code, dot, table
from gradflow.residual import find_skips

from .networks import Network, Plan, loss, random_networks


def _drawn(plan: Plan) -> tuple[Network, Diagram, list[tuple[object, ...]]]:
    network = Network(plan)
    lifted = graph(network, network.inputs(), loss=loss)
    lifted.graph.lint()
    paths = [(s, tuple((n.name, i) for n, i in reversed(s.path))) for s in find_skips(lifted.graph)]
    return network, lifted.diagram, [(s.fork.name, s.join.name, s.kind, s.form, s.bypassed_layers, path) for s, path in paths]


@given(random_networks())
def test_skips(plan: Plan) -> None:
    """They are find_skips', in its order, with their paths, and every node's marks agree with them."""
    _, diagram, found = _drawn(plan)
    skips = diagram.skips
    assert [(s.fork, s.join, s.kind, s.form, s.bypassed_layers, tuple((e.consumer, e.argument) for e in s.path)) for s in skips] == found
    for node in diagram.nodes:
        assert set(node.fork_of) == {s.id for s in skips if s.fork == node.name}
        assert set(node.join_of) == {s.id for s in skips if s.join == node.name}
        assert set(node.on_path_of) == {s.id for s in skips for e in s.path[:-1] if e.consumer == node.name and node.name != s.join}
    _check_edges(diagram)


def _check_edges(diagram: Diagram) -> None:
    """Every endpoint exists, consumers come later, operands agree; a path leads from the fork to the join along edges of the graph."""
    nodes = {node.name: node for node in diagram.nodes}
    assert [node.id for node in diagram.nodes] == list(range(len(nodes)))
    for edge in diagram.edges:
        assert nodes[edge.source].id < nodes[edge.consumer].id
        assert nodes[edge.consumer].operands[edge.argument] == edge.source
    assert sum(o in nodes for n in diagram.nodes for o in n.operands) == len(diagram.edges)
    for skip in diagram.skips:
        assert {*skip.path, *skip.branch_edges} <= set(diagram.edges)
        assert (skip.path[0].source, skip.path[-1].consumer) == (skip.fork, skip.join)
        assert {e.source for e in skip.path} - {skip.fork} == {e.consumer for e in skip.path} - {skip.join}  # a chain, or both ways of x + z·(F(x) − x)
        assert {e.source for e in skip.branch_edges} <= {skip.fork}


@given(random_networks())
def test_the_report_says_the_same(plan: Plan) -> None:
    """Ids, names, kinds, places and highways are those of a profile of the same network."""
    network, diagram, _ = _drawn(plan)
    report = profile(network, network.inputs(), loss=loss)
    fields = ("id", "name", "kind", "form", "fork", "join", "path_ops", "branch", "bypassed_layers", "location")
    firsts = [s for s in diagram.skips if s.call == 0]
    assert [tuple(getattr(s, f) for f in fields) for s in firsts] == [tuple(getattr(s, f) for f in fields) for s in report.skips]
    assert [(h.name, h.skips, h.trunk_ops) for h in diagram.highways] == [(h.name, h.skips, h.trunk_ops) for h in report.highways]
    _check_views(diagram)


def _check_views(diagram: Diagram) -> None:
    """Each is written, the code compiles, and every skip's id stands in the unfolded table and in the code."""
    shown, written = table.render(diagram, width=200, unfold=True), code.render(diagram)
    compile(written, "graph", "exec")
    assert dot.render(diagram).startswith("digraph ")
    assert all(s.id in shown and f"join of {s.id} (" in written for s in diagram.skips)
