"""What does Z still hold of the activation?  Ours: neither the paper nor its peers measure it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from naflow_fx import keys
from naflow_fx.errors import EvaluationError
from naflow_fx.explainer import Explainer
from naflow_fx.flow import AttentionFlow

KEEP = ("bpfm", "used")  # what an explainer must keep for it


def fidelity(flow: AttentionFlow, activation: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cosine of Z and the activation over the neurons that take part, call site -> [N].

    1 where Z is the activation there up to a factor, as at a feature node; 0 where it has nothing
    of it, or where no neuron takes part.

    Args:
        flow: of an explainer compiled with ``keep=("bpfm", "used")``.
        activation: call site -> tensor shaped as Z, of the same images; `activations` gives it.

    Raises:
        EvaluationError: the flow has not kept both.
    """
    if not flow.bpfm or not flow.used:
        raise EvaluationError(f"fidelity: wanted a flow of nf.compile(..., keep={KEEP})")
    found = {}
    for site, z in flow.bpfm.items():
        wide = torch.promote_types(z.dtype, torch.float32)
        z, x = (torch.where(flow.used[site], t.to(wide), 0.0).flatten(1)
                for t in (z, activation[site]))  # fmt: skip
        found[site] = F.cosine_similarity(z, x)
    return found


def activations(explainer: Explainer, images: Tensor) -> dict[str, Tensor]:
    """The forward activation at every call site that the explainer computes, in its own layout."""
    with torch.no_grad():
        found: dict[str, Tensor] = forward(explainer)(images)
    return found


def forward(explainer: Explainer) -> fx.GraphModule:
    """(images) -> {call site: its tensor}: the forward pass of the explainer's program."""
    source, wanted = explainer.graph_module, set(explainer.layers)
    graph, done = fx.Graph(), dict[fx.Node, Any]()
    graph.graph_copy(source.graph, done)
    sites = {n.meta[keys.SITE]: done[n] for n in source.graph.nodes
             if keys.LABELS in n.meta and n.meta.get(keys.SITE) in wanted}  # fmt: skip
    graph.output({site: sites[site] for site in explainer.layers})
    made = fx.GraphModule(source, graph)
    made.graph.eliminate_dead_code()
    for node in made.graph.find_nodes(op="placeholder"):
        if not node.users:
            made.graph.erase_node(node)  # the target
    made.recompile()
    return made
