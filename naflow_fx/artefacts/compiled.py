"""torch.compile of an explainer's program, in an explainer that is called as the first one."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from naflow_fx.errors import OptionError, check_choice
from naflow_fx.job import Build, Job
from naflow_fx.passes import _module


def build_compiled(build: Build, device: str, mode: str | None, job: Job) -> fx.GraphModule:
    """The program of a job, compiled; with all but the job bound, a `Build` of later targets."""
    return compiled(build(job), device, mode)


def compiled(program: fx.GraphModule, device: str, mode: str | None) -> fx.GraphModule:
    """A GraphModule that shares its tensors with `program`, compiled whole when first called.

    Args:
        program: left as it is.
        device: "cpu", "cuda": where it runs, wherever the job's example is.
        mode: see `Explainer.compiled`.
    """
    made, options = _module.finished(_module.copy(program)), inductor_options(device, mode)
    made.compile(fullgraph=True, options=options)
    if options.get("triton.cudagraphs"):
        run: Any = made._compiled_call_impl  # what `compile` sets, and a call looks for
        made._compiled_call_impl = _own_results(run)
    return made


def inductor_options(device: str, mode: str | None = None) -> dict[str, Any]:
    """Inductor's options for a program on a device, those of a mode of `torch.compile` among them.

    On a CPU tensors keep the layout that the program gives them: channels last in the solver, row
    by row elsewhere.

    Raises:
        OptionError: no such mode.
    """
    known: dict[str, Any] = torch._inductor.list_mode_options()
    mode = "default" if mode is None else mode
    check_choice(OptionError, "compiled", sorted(known), mode=mode)
    options: dict[str, Any] = known[mode]
    return options | ({"layout_optimization": False} if device == "cpu" else {})


def _own_results(run: Any) -> Any:
    """The results copied: the next replay of a CUDA graph writes over its own."""
    new_step: Any = torch.compiler.cudagraph_mark_step_begin

    def call(*inputs: Any) -> Any:
        new_step()
        return pytree.tree_map_only(torch.Tensor, torch.clone, run(*inputs))

    return call
