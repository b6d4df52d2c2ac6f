"""START HERE: `compile` runs the PIPELINE, a tuple read top to bottom.

model --trace--> fx graph --canonicalise--> one small vocabulary --captures, importance,
inverse, maps--> ONE GraphModule that computes the attention flow of every call site
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from naflow_fx import options as opts
from naflow_fx.errors import OptionError, TargetError
from naflow_fx.explainer import Explainer
from naflow_fx.guards.modes import plain_modes
from naflow_fx.guards.same_model import check_same_model
from naflow_fx.guards.suits import check_examples, check_suits
from naflow_fx.guards.wrappers import unwrapped
from naflow_fx.job import Job, Pass
from naflow_fx.pairs import PairExplainer
from naflow_fx.passes import _module
from naflow_fx.passes.add_score import add_score, check_score
from naflow_fx.passes.annotate_values import annotate_values, check_values
from naflow_fx.passes.build_importance import build_importance, check_importance
from naflow_fx.passes.build_inverse import build_inverse, check_inverse
from naflow_fx.passes.build_maps import build_maps
from naflow_fx.passes.canonicalise import canonicalise, check_canonical
from naflow_fx.passes.count_use import count_use
from naflow_fx.passes.expand_composites import expand_composites
from naflow_fx.passes.fix_masks import fix_masks
from naflow_fx.passes.fold_constants import fold_constants
from naflow_fx.passes.hold_gradients import hold_gradients
from naflow_fx.passes.insert_captures import check_captured, insert_captures
from naflow_fx.passes.join_features import join_features
from naflow_fx.passes.label_dimensions import check_labels, label_dimensions, tell_limits
from naflow_fx.passes.orient_gates import orient_gates
from naflow_fx.passes.pair_inputs import pair_inputs
from naflow_fx.passes.prune import check_outputs, prune
from naflow_fx.passes.remove_in_place import remove_in_place
from naflow_fx.passes.shorten_lives import shorten_lives
from naflow_fx.passes.trace import trace
from naflow_fx.passes.unstack import unstack
from naflow_fx.similarity import Similarity
from naflow_fx.targets import as_callable


def _check_model(gm: fx.GraphModule, job: Job) -> None:
    """`check_same_model`, which compiles a model of half precision in float32, too; warnings."""
    check_same_model(gm, job, lambda other: run_pipeline(other, CAPTURED))
    tell_limits(gm)


CAPTURED = (  # what `decompose` shares
    Pass(trace),
    Pass(remove_in_place),
    Pass(fix_masks),
    Pass(unstack),
    Pass(expand_composites),
    Pass(add_score, check_score),
    Pass(annotate_values, check_values),
    Pass(hold_gradients),
    Pass(canonicalise, check_canonical),
    Pass(orient_gates, check_canonical),
    Pass(label_dimensions, check_labels),
    Pass(join_features, _check_model),
    Pass(insert_captures, check_captured),
    Pass(fold_constants, check_captured),
)
PIPELINE = (
    *CAPTURED,
    Pass(build_importance, check_importance),
    Pass(count_use),
    Pass(build_inverse, check_inverse),
    Pass(build_maps),
    Pass(prune),
    Pass(fold_constants),
    Pass(prune, check_outputs),
    Pass(shorten_lives, check_outputs),
    Pass(pair_inputs, check_outputs),
)


def compile(
    model: nn.Module | fx.GraphModule | torch.export.ExportedProgram,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    target: Any = None,
    layers: str | nn.Module | Sequence[str | nn.Module] | None = None,
    output: str | int | None = None,
    keep: str | Sequence[str] = (),
    inverse: opts.Inverse | None = None,
    reduction: str | None = None,
    method: str | None = None,
    **removed: Any,
) -> Explainer:
    """A trained CNN -> an explainer that computes the attention map of every call site.

    Args:
        model: any mode and device; never changed.  It is explained as in eval mode.
        example_inputs: [N, C, H, W] (or one space axis fewer or more), real or random: the
            size, dtype and device that the explainer takes; the batch size stays free.  A
            tuple of them for a model of several image inputs.
        target: what is explained; None: a class index given with each call.  A callable of the
            model's output that returns [N] is compiled into the program.  A `Similarity`
            makes a `PairExplainer`, called with queries and supports.
        layers: call-site names and globs; the others are not computed.  None: all.  A block's
            name ("layer4"), or the module itself, is its last call site.
        output: of a model that returns several, the key or index of the one that is explained;
            a callable target gets it alone.  None: the only one; a callable gets all.
        keep: "bpfm" and "importance": also return Z and Lambda, [N, C, H, W]; "used" and
            "neuron_times": which neurons take part, and how often each is read.
        inverse: how convolutions and regions are inverted.
        reduction: "sum" (Eq. 2), or "channelwise" (max(., 0) before the sum): more of the map lies
            on the object, less of it tells classes apart.
        method: "naflow", or a gradient method at every call site: "gradcam", "hirescam",
            "layercam", "gradcam++", "xgradcam", "focused" (ours: `naflow_fx.maps.focus`).
        removed: options of earlier versions, each an error that names what serves now.

    Raises:
        TraceError, UnsupportedOperator, GraphError: the model can't be compiled, and why.
        OptionError, TargetError, InputError: an argument is not what it should be.
    """
    opts.refuse_removed("compile", removed)
    if removed:
        raise TypeError(f"compile() got an unexpected keyword argument {next(iter(removed))!r}")
    plain = unwrapped(model, hooked=False)
    chosen = opts.resolve(
        layers=_names(layers, plain), keep=keep, inverse=inverse, reduction=reduction,
        method=method, output=output,
    )  # fmt: skip
    examples = check_examples(example_inputs)
    chosen = opts.on_device(chosen, examples[0].device)
    if isinstance(target, Similarity):
        job = Job(plain, _batch_of_pairs(examples, target), target, chosen)
        return PairExplainer(run_pipeline(job), job, run_pipeline)
    job = Job(plain, examples, as_callable(target), chosen)
    return Explainer(run_pipeline(job), job, run_pipeline)


def _names(layers: Any, model: Any) -> Any:
    """The layers, modules among them by their names in the model."""
    if isinstance(layers, nn.Module):
        layers = [layers]
    if not isinstance(layers, (list, tuple)):
        return layers
    named = model.named_modules() if isinstance(model, nn.Module) else ()
    names = {module: name for name, module in named}
    strange = [one for one in layers if isinstance(one, nn.Module) and not names.get(one)]
    if strange:
        raise OptionError(
            f"compile(layers=...): {type(strange[0]).__name__} is no module inside of the model; "
            "give one of model.named_modules(), or its name"
        )
    return [names[one] if isinstance(one, nn.Module) else one for one in layers]


def _batch_of_pairs(examples: tuple[Tensor, ...], target: Similarity) -> tuple[Tensor, ...]:
    """The example's images as one batch of pairs."""
    if len(examples) != 1:
        raise TargetError(f"Similarity: the encoder takes one image, got {len(examples)} examples")
    count = 2 * target.images_per_sample
    return (torch.cat([examples[0]] * -(-count // len(examples[0])))[:count],)


def run_pipeline(job: Job, steps: tuple[Pass, ...] = PIPELINE) -> fx.GraphModule:
    """The generated GraphModule of one job."""
    check_suits(job.model, job.examples)
    state: Any = job.model
    with plain_modes(job.examples[0].device.type):
        for step in steps:
            state = step(state, job)
    return _module.finished(state)


__all__ = ["PIPELINE", "compile", "run_pipeline"]
