"""torch.compile of an explainer's program, in an explainer that is called as the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from naflow_fx.errors import OptionError, one_of, unfit
from naflow_fx.job import Build, Job
from naflow_fx.passes import _module

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


@dataclass(frozen=True)
class CompiledBuild:
    """Builds a job's program and lets torch.compile take it whole; so do later targets.

    Attributes:
        device: "cpu", "cuda": where the programs run, wherever the job's example is.
        mode: see `Explainer.compiled`.
    """

    build: Build
    device: str
    mode: str | None = None

    def __call__(self, job: Job) -> fx.GraphModule:
        """The program of a job, compiled when it is first called."""
        return self.compile(self.build(job))

    def compile(self, program: fx.GraphModule) -> fx.GraphModule:
        """A GraphModule that shares its tensors with `program` and runs compiled."""
        made = _module.finished(_module.copy(program))
        made.compile(fullgraph=True, options=inductor_options(self.device, self.mode))
        if self.mode in CUDA_GRAPHS:
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
    if mode is not None and mode not in known:
        raise unfit(OptionError, "compiled", one_of(sorted(known)), mode=mode)
    options: dict[str, Any] = known[mode or "default"]
    return options | ({"layout_optimization": False} if device == "cpu" else {})


def _own_results(run: Any) -> Any:
    """The results copied: the next replay of a CUDA graph writes over its own."""
    new_step: Any = torch.compiler.cudagraph_mark_step_begin

    def call(*inputs: Any) -> Any:
        new_step()
        return pytree.tree_map_only(torch.Tensor, torch.clone, run(*inputs))

    return call
