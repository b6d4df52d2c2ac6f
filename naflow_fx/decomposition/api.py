"""`decompose`: a decision led back to the channels that support it, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from naflow_fx import options
from naflow_fx.decomposition.grow import grow
from naflow_fx.decomposition.program import build_program
from naflow_fx.decomposition.result import Decomposition
from naflow_fx.decomposition.tree import Cost
from naflow_fx.errors import InputError, OptionError, TargetError, check_positive
from naflow_fx.explainer import classes_of
from naflow_fx.guards.suits import check_examples
from naflow_fx.guards.wrappers import unwrapped
from naflow_fx.job import Job
from naflow_fx.similarity import Similarity
from naflow_fx.targets import Score, callables, class_indices
from naflow_fx.view.record import class_words

MOST = 10_000  # nodes of a tree


def decompose(
    model: nn.Module | fx.GraphModule | torch.export.ExportedProgram,
    image: Tensor,
    target: Any = None,
    layers: str | Sequence[str] | None = None,
    top_k: int = 3,
    class_names: Sequence[str] = (),
) -> Decomposition:
    """The channels that a decision rests on, those that these rest on, and so on: a tree.

    The root is the score y.  At the first layer x, channel j answers for ``sum over positions of
    (dy / dx[j]) x[j]``; the `top_k` largest become the root's children.  For a child u, the first
    factor held constant, channel j of the next layer z answers for ``sum (du / dz[j]) z[j]``,
    and so on (docs/method.md 7, our reading of arXiv 2201.09205).  At every node

        evidence = the children's + remainder + bias

    where the remainder is all other channels and the bias what is constant: biases, batch norm's
    offsets, neurons that ReLU6 cut off.  A smooth operator (SiLU, a gate, layer norm) is taken by
    its tangent, and the tangent's constant is in the bias, too, under the operator's name.

    Args:
        model: as `naflow_fx.compile` takes it, of one image; explained as in eval mode.
        image: [1, C, H, W] or [C, H, W], as the model takes it.
        target: None (the predicted class), an int, or a callable of the output that returns [1].
        layers: call-site names and globs, in any order; every path to the score must pass them.
            None: the ends of the last four stages.
        top_k: children of a node, at most; channels whose evidence is not above 0 support nothing.
        class_names: in their order; the root is called after its class ("class 967" without
            them, "score" where the target is a callable).

    Raises:
        InputError: not one image, or a score that is not finite.
        OptionError: `top_k` or `layers` is not what it should be, or the tree would be too large.
        TargetError, TraceError, UnsupportedOperator, GraphError: as `naflow_fx.compile`.
    """
    x = _one_image(image)
    chosen = options.resolve(layers=layers)
    check_positive(OptionError, "decompose", top_k=top_k)
    score = _callable(target)
    plain = unwrapped(model, hooked=False)
    forward, levels = build_program(Job(plain, (x,), score, chosen))
    _check_size(len(levels), top_k)
    classes = None if score else class_indices(target, 1, classes_of(forward, None), x.device)
    given = (x,) if classes is None else (x, classes)
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        found = forward(*given)
        once = count.get_total_flops()
        if not found["score"].isfinite().all():
            raise InputError(f"image: the score is {float(found['score'])}; look for NaN and "
                             "infinity in the image and the model's weights")  # fmt: skip
        tree, rows, batches = grow(levels, found["values"], found["score"], top_k)
    backward = (count.get_total_flops() - once) / max(once, 1)
    index = None if found["target"] is None else int(found["target"])
    name = "score" if index is None else class_words(class_names, index)
    sites = tuple(level.site for level in levels)
    cost = Cost(1, backward, rows, batches)
    return Decomposition(tree, name, index, sites, cost, x[0].detach().cpu())


def _one_image(image: Any) -> Tensor:
    if isinstance(image, Tensor) and image.dim() == 3:
        image = image[None]
    (x,) = check_examples(image)
    if len(x) != 1:
        raise InputError(f"image: got a batch of {len(x)}; a decomposition is of one, "
                         "[1, C, H, W] or [C, H, W]")  # fmt: skip
    return x


def _callable(target: Any) -> Score | None:
    """The target if it is a callable; None if it names a class.

    Raises:
        TargetError: a similarity.
    """
    if isinstance(target, Similarity):
        raise TargetError("target: a decomposition is of a score of one image, not a Similarity")
    found = None if target is None else callables(target, 1)
    return found[0] if isinstance(found, list) else found


def _check_size(levels: int, top_k: int) -> None:
    """Raises where the tree could have too many nodes to be of use."""
    if sum(top_k**level for level in range(levels + 1)) > MOST:
        raise OptionError(f"decompose: {levels} layers with top_k={top_k} could make a tree of "
                          f"more than {MOST:,} nodes; take fewer of either")  # fmt: skip
