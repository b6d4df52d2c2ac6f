"""find_cuts: the nodes that every path from the image to the score goes through."""

from __future__ import annotations

import networkx as nx
from torch import fx

from naflow_fx.errors import GraphError
from naflow_fx.passes import _graph
from naflow_fx.passes.find_flow import score_of


def find_cuts(graph: fx.Graph) -> tuple[str, ...]:
    """Names of the nodes that all paths pass, gates' paths included, from the score to the image.

    They are the dominators of the score: what reaches it from the image is a function of any one
    of them, and of constants.

    Raises:
        GraphError: the model takes several images.
    """
    score = score_of(graph)
    paths = _paths(score)
    inputs = [node.name for node in graph.nodes if node.op == "placeholder" and node.name in paths]
    if len(inputs) != 1:
        raise GraphError(f"the score depends on {len(inputs)} inputs ({', '.join(inputs)}); a "
                         "decomposition needs a model of one image")  # fmt: skip
    above = nx.immediate_dominators(paths, inputs[0])
    chain = [score.name]
    while chain[-1] != inputs[0]:
        chain.append(above[chain[-1]])
    return tuple(chain)


def _paths(score: fx.Node) -> nx.DiGraph:
    """What the score was computed from: an edge from each active operand to its reader."""
    found = nx.DiGraph()
    found.add_node(score.name)
    todo = [score]
    while todo:
        node = todo.pop()
        for operand in _graph.operands(node):
            if operand.name not in found:
                todo.append(operand)
            found.add_edge(operand.name, node.name)
    return found
