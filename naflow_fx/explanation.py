"""Explanation: a generated GraphModule, which prints itself as a program that a person can read."""

from __future__ import annotations

from typing import Any

from torch import fx


class Draft(fx.GraphModule):
    """A graph between two passes: its code is written when it is first asked for, if it ever is.

    Writing and compiling the code of a large graph takes as long as several passes over it.
    """

    def recompile(self) -> Any:
        """Notes that the code is out of date."""
        forward: Any = _Forward(self)
        type(self).forward = forward  # each GraphModule is of a class of its own


class _Forward:
    """Takes the place of a class's `forward` until somebody reads or calls it."""

    def __init__(self, module: Draft) -> None:
        self._module = module

    def __get__(self, instance: Draft | None, owner: type[Draft]) -> Any:
        fx.GraphModule.recompile(self._module)  # which puts the real one into the class
        return owner.__dict__["forward"].__get__(instance, owner)


class Explanation(fx.GraphModule):
    """What the passes make: a `torch.fx.GraphModule` that differs in how it prints alone."""

    def print_readable(self, print_output: bool = True, *args: Any, **options: Any) -> str:
        """The program in sections, a line a step, with the names of call sites; also printed.

        It is for reading: constants stand where they are used, results of one step in one line,
        and what a rule is told beside tensors is left out behind the forward pass.  `code` is
        what runs.  With other arguments of torch's `print_readable`, torch's own text.
        """
        if args or options:
            found: str = super().print_readable(print_output, *args, **options)
            return found
        from naflow_fx.inspection.readable import readable

        text = readable(self)
        if print_output:
            print(text)
        return text
