"""What does Z still hold of the activation?  Ours: neither the paper nor its peers measure it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx import keys
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.modules import until
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
    forward = until(explainer.graph_module, explainer.layers, keys.LABELS)
    unread = len(forward.graph.find_nodes(op="placeholder")) - 1  # the target, if it is an input
    with torch.no_grad():
        found: dict[str, Tensor] = forward(images, *[None] * unread)
    return found
