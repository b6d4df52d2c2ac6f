"""The contract of an operator: one `Rule` holds everything the compiler knows about it.

An operator is ``y = f(x, ...)``.  All nonlinearity sits in the *capture* of the forward pass;
given the captured state the operator is affine, ``y = A x + c``, exact at the captured point.
A rule is a handful of plain tensor functions; passes insert them as ``call_function`` nodes.

Functions ask for what they need **by parameter name**.  The names on offer are

* the parameters of ``forward`` (constants, and operands: ``input`` is the forward tensor),
* what ``capture`` returned, under the names in ``captures``,
* ``output`` (the forward result), ``damping``, and the static shapes ``input_shape`` and
  ``output_shape`` with -1 in the batch dimension (``input_shapes``, a list, if variadic),
* ``active``: which operands, or in variadic rules which entries of ``inputs``, are activations
  (indices); there the vectors of ``linear`` and ``transpose`` are lists, one entry each,
* ``values``, in the ``inverse`` of variadic rules: what the active inputs are worth, None at the
  one that is asked for,
* ``full``, in ``support``: whether no number of the ``kernel`` is 0,
* ``at`` and ``rank``, in ``mixes``: which of how many dimensions holds the batch.

What a function only hands on it may take as ``**options``; `asks_like` says what these are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from naflow_fx.errors import RuleError

Function = Callable[..., Any]
Asking = TypeVar("Asking", bound=Function)
Labels = tuple[str, ...]
Arguments = dict[str, Any]

# One letter per dimension of an activation.  Split and merged dimensions are tracked so that a
# channel shuffle finds its channels again; only N, C and S make a call site.
BATCH, CHANNEL, SPACE = "N", "C", "S"
CHANNEL_PART, SPACE_PART, COLLAPSED, MIXED = "c", "s", "1", "?"
TOKENS = "T"  # all of space in one dimension, in order: a reshape can bring it back

OFFERED = {"output", "active", "values", "damping", "full", "at", "rank",
           "input_shape", "output_shape", "input_shapes"}  # fmt: skip
# A rule's functions, and how many arguments each is given by place before those that it asks for.
_ROLES = {
    **dict.fromkeys(("linear", "transpose", "inverse", "vjp", "support", "labels"), 1),
    **dict.fromkeys(("capture", "shift", "has_shift", "off", "diagonal", "groups", "mixes"), 0),
    **{"scaled": 2, "infinite": 0},
}


@dataclass(frozen=True)
class Rule:
    """One operator: its affine form, its inverse and its derivative.

    Attributes:
        name: torch's name of the operator.
        forward: the canonical form; its signature names operands and parameters.
        linear: ``linear(v, ...) = A v``.
        transpose: ``transpose(w, ...) = A^T w``.
        inverse: the NA-BP step, ``inverse(z, ...)``: z at the output to z at the input.  None:
            least squares on ``linear`` and ``transpose`` (docs/method.md 3).  In variadic rules
            ``inverse(z, index, ...)``: what remains of z for input ``index``; where that depends
            on the other inputs, it asks for ``values``.
        capture: what the forward pass stores, a tensor, or a tuple of them; see ``captures``.
            The solver may hand masks (bool) to `linear` and `transpose` as numbers 0 and 1.
        captures: the names of what ``capture`` returns.
        shift: ``c``, broadcastable to the output; None: c = 0.
        has_shift: whether c is not 0, told from the constants alone (a bias may be missing);
            None: always.
        vjp: the true vector-Jacobian product where A is not the derivative; it returns a tuple
            with one entry per operand when there are several.  None: ``transpose``.
        support: ``support(w, ...) = P^T w``, P with 1 in place of each entry of A that is not 0
            (which neurons are read, Fig. 3), whole numbers.  None: `transpose` with 1 in place of
            every number that is not 0 in tensors and operands; signs in its code don't matter.
        off: where what was captured tells that ``input`` was at most 0, bool, of its shape: the
            bound of a neuron that a ReLU cut (docs/method.md 3).  None: nothing tells.
        diagonal: d, broadcastable, where ``A v = d * v``.  Such an operator joins a preceding
            convolution's least squares; standing alone it is inverted damped, and its own
            ``inverse`` serves for the map inside the chain only.
        kernel: the name of the parameter that A multiplies by; the solver keeps it in its own dtype
            and layout where it is a constant, and hands `linear` and `transpose` v in that dtype.
        scaled: ``scaled(kernel, d)``: the kernel of diag(d) A, d per channel, [1, C, 1, ...].
        groups: how many groups of channels A does not mix, on both sides; each is solved by itself.
            None: one.
        convolves: its kernel slides: what it runs along is space, and its result has channels.
        view: what comes out is some of the input's numbers, in other dimensions.
        regroups: what comes out is all of the input's numbers, in their order; the batch dimension
            may be merged with others, or split.
        mixes: ``mixes(at, rank, ...)``: what it does to the images of a batch, in words; "" where
            it keeps them apart.  None: it does where `dim` or `dims` name the batch dimension.
        infinite: whether numbers in its output may be infinite by design (what pads a max pool),
            told from the constants.
        merge: of a merge of paths: what the region that it ends is called; "": as the rule.
        operands: names of the parameters that may be activations; none: `input`, or else the first
            one, and what is in `control`.
        control: the operands that are captured, not inverted (the gate of a product).
        swap: of a product: the arguments with operand and gate in each other's place.
        gating: "squashes" where the values are bounded, so that a product with them is a gate;
            "carries" where a gate stays one (views, broadcasting, arithmetic with constants).
        variadic: the one operand is a list.
        function_inverse: `inverse` undoes ``forward`` itself, whatever was captured, not the
            captured A: ``forward(inverse(z)) = clip(z)`` (checked instead of Moore-Penrose).
        labels: ``labels(labels, ...)``: the dimension letters of the output; None: unchanged.
        equation: where the inverse comes from, shown by ``inspect``.
        targets: traced function, or method name -> adapter to the arguments of ``forward``.
            Where a call has several results, the adapter is asked for one, ``piece=i``; it may
            hand the call on to another rule: ``(that rule's forward, its arguments)``.
        modules: module class -> adapter ``module -> arguments of forward``.
    """

    name: str
    forward: Function
    linear: Function
    transpose: Function
    inverse: Function | None = None
    capture: Function | None = None
    captures: tuple[str, ...] = ()
    shift: Function | None = None
    has_shift: Function | None = None
    vjp: Function | None = None
    support: Function | None = None
    off: Function | None = None
    diagonal: Function | None = None
    kernel: str = ""
    scaled: Function | None = None
    groups: Function | None = None
    convolves: bool = False
    view: bool = False
    regroups: bool = False
    mixes: Function | None = None
    infinite: Function | None = None
    merge: str = ""
    operands: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    swap: Callable[[Arguments], Arguments] | None = None
    gating: str = ""
    variadic: bool = False
    function_inverse: bool = False
    labels: Function | None = None
    equation: str = ""
    targets: Mapping[Any, Function] = field(default_factory=dict)
    modules: Mapping[type, Function] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = parameters(self.forward)
        if not self.operands:
            first = "input" if "input" in own else own[0]
            object.__setattr__(self, "operands", (first, *self.control))
        known = {*own, *self.captures, *OFFERED}
        named = (*self.operands, *filter(None, [self.kernel]))
        problems = [f"operand {n!r} is no parameter of forward" for n in named if n not in own]
        for role, leading in _ROLES.items():
            function = getattr(self, role)
            leading += role == "inverse" and self.variadic
            asked = parameters(function)[leading:] if function else []
            unknown = [name for name in asked if name not in known]
            problems += [f"{role} asks for {name!r}, which nobody provides" for name in unknown]
        if problems:
            raise RuleError(f"rule {self.name!r} does not fit its forward: {'; '.join(problems)}")

    @property
    def invertible_operands(self) -> tuple[str, ...]:
        """The operands that the inverse runs back through."""
        return tuple(name for name in self.operands if name not in self.control)


def parameters(function: Function) -> list[str]:
    """The parameter names of a rule's function, in order."""
    return list(inspect.signature(function).parameters)


def asked(function: Function, offered: Mapping[str, Any], skip: int = 0) -> Arguments:
    """What a rule's function asks for by name, behind its first `skip` arguments."""
    return {name: offered[name] for name in parameters(function)[skip:] if name in offered}


def roles(forward: Function, *functions: Function) -> dict[str, Any]:
    """Fields of a `Rule`: `forward`, and each function for the role that its name ends in.

    A is `forward` itself where no linear is given, and symmetric where no transpose is.
    """
    found = {"forward": forward, "linear": forward}
    for function in functions:
        name = f"_{function.__name__}"
        found[max((role for role in _ROLES if name.endswith(f"_{role}")), key=len)] = function
    return {"transpose": found["linear"]} | found


def asks_like(forward: Function, *but: str) -> Callable[[Asking], Asking]:
    """Lets a function ask by ``**options`` for what `forward` takes: not its input, nor `but`."""

    def named(function: Asking) -> Asking:
        own, others = (inspect.signature(f).parameters.values() for f in (function, forward))
        known = {*but, *(p.name for p in own)}
        asked = [p for p in own if p.kind is not p.VAR_KEYWORD]
        asked += [p.replace(kind=p.KEYWORD_ONLY) for p in list(others)[1:] if p.name not in known]
        vars(function)["__signature__"] = inspect.Signature(asked)
        return function

    return named


def bind(forward: Function, *args: Any, **kwargs: Any) -> Arguments:
    """Arguments of a call in torch's own order and names -> arguments of ``forward`` by name."""
    bound = inspect.signature(forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def same(forward: Function, *ignored: str, **fixed: Any) -> Callable[..., Arguments]:
    """The adapter for a target with ``forward``'s own signature, then parameters to ignore.

    What is `fixed` is no parameter of the target, it has that value in every call; nor is the
    output's shape, which is known.  Lists become tuples.
    """
    known = {"output_shape", *fixed}
    own = [p for p in inspect.signature(forward).parameters.values() if p.name not in known]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    others = [inspect.Parameter(name, kind, default=None) for name in ignored]
    accepted = inspect.Signature([*own, *others])

    def adapt(*args: Any, **kwargs: Any) -> Arguments:
        bound = bind(adapt, *args, **kwargs)
        given = {p.name: bound[p.name] for p in own} | fixed
        return {k: tuple(x) if isinstance(x, (list, tuple)) else x for k, x in given.items()}

    vars(adapt)["__signature__"] = accepted
    return adapt
