"""Example calls of every operator: what the laws in test_rule_laws.py are checked on.

A new operator needs one list, named as its rule: a few calls, the nasty ones first.
Tensors are made from a generator, in float64, two samples or more, so small that the operator's
matrix can be written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from naflow_fx.rules.laws import Case

Maker = Callable[[Generator], Any]


def normal(*shape: int) -> Callable[[Generator], Tensor]:
    """Normal random numbers."""
    return lambda g: torch.randn(shape, generator=g, dtype=torch.float64)


def positive(*shape: int) -> Callable[[Generator], Tensor]:
    """Uniform random numbers in [0.2, 1.2]: variances, gates."""
    return lambda g: torch.rand(shape, generator=g, dtype=torch.float64) + 0.2


def spread(scale: float, *shape: int) -> Callable[[Generator], Tensor]:
    """Normal random numbers of that standard deviation."""
    return lambda g: normal(*shape)(g) * scale


def zeroed(maker: Callable[[Generator], Tensor], *index: Any) -> Callable[[Generator], Tensor]:
    """The same with zeros at an index."""

    def make(g: Generator) -> Tensor:
        x = maker(g)
        x[index] = 0.0
        return x

    return make


def constant(*values: float) -> Callable[[Generator], Tensor]:
    """These numbers."""
    return lambda g: torch.tensor(values, dtype=torch.float64)


def rounded(*shape: int) -> Callable[[Generator], Tensor]:
    """Few different numbers, zeros among them: ties."""
    return lambda g: torch.randint(-2, 3, shape, generator=g).double()


def several(*makers: Any) -> Maker:
    """A list of operands; numbers stay as they are."""
    return lambda g: [make(g) if callable(make) else make for make in makers]


def by_name(**makers: Maker) -> Maker:
    """Operands by name."""
    return lambda g: {name: make(g) for name, make in makers.items()}


def conv(id: str, inputs: Maker, *weight: int, bias: bool = True, **options: Any) -> Case:
    """A convolution, with torch's defaults for what is not given."""
    rank = len(weight) - 2
    defaults = {"stride": (1,) * rank, "padding": (0,) * rank, "dilation": (1,) * rank}
    maker = normal(weight[0]) if bias else None
    return Case(id, inputs, {"weight": normal(*weight), "bias": maker, **defaults, **options})


def norm(id: str, channels: int, inputs: Maker, **options: Any) -> Case:
    """A batch norm."""
    statistics = {"running_mean": normal(channels), "running_var": positive(channels)}
    return Case(id, inputs, statistics | options)


def window(id: str, inputs: Maker, kernel: tuple[int, ...], **options: Any) -> Case:
    """A windowed pool, with torch's defaults for what is not given."""
    rank = len(kernel)
    defaults = {"kernel_size": kernel, "stride": kernel, "padding": (0,) * rank}
    return Case(id, inputs, defaults | options)


ADD = [
    Case("two", several(normal(2, 3, 4, 5), normal(2, 3, 4, 5)), {"scales": (1, 1)}),
    Case("scaled", several(normal(2, 3, 4), normal(2, 3, 4)), {"scales": (1, -0.5)}),
    Case("three", several(*[normal(2, 3, 2)] * 3), {"scales": (1, 2.0, -1)}),
    Case("channel-broadcast", several(normal(2, 3, 4, 4), normal(2, 3, 1, 1)), {"scales": (1, 1)}),
    Case("space-broadcast", several(normal(2, 1, 4, 4), normal(2, 3, 4, 4)), {"scales": (2, -1)}),
    Case("both-broadcast", several(normal(2, 3, 1, 1), normal(2, 1, 4, 4)), {"scales": (1, 1)}),
    Case("number", several(normal(2, 3, 4, 4), 0.1), {"scales": (1, 3)}),
    Case("number-first", several(1.5, normal(2, 3, 4, 4)), {"scales": (1, -2)}),
    Case("constant", several(normal(2, 3, 4, 4), normal(3, 1, 1)), {"scales": (1, -1)}, (0,)),
    Case("large-constant", several(normal(2, 3, 1, 1), normal(1, 3, 4, 4)), {"scales": (0.5, 1)},
         (0,)),
    Case("constant-between", several(normal(2, 3, 2), normal(1, 3, 1), normal(2, 3, 2)),
         {"scales": (1, 2, 1)}, (0, 2)),
    Case("vector", several(normal(2, 7), normal(2, 7)), {"scales": (1, 1)}),
]  # fmt: skip

AVG_POOL = [
    window("2d", normal(2, 3, 4, 6), (2, 2)),
    window("1d", normal(2, 3, 8), (2,)),
    window("3d", normal(2, 2, 4, 4, 2), (2, 2, 1)),
    window("overlap", normal(2, 2, 7, 7), (3, 3), stride=(2, 2)),
    window("overlap-stride-1", normal(2, 2, 5, 5), (3, 3), stride=(1, 1), padding=(1, 1)),
    window("padding", normal(2, 2, 6, 6), (3, 3), stride=(2, 2), padding=(1, 1)),
    window("padding-not-counted", normal(2, 2, 6, 6), (3, 3), stride=(2, 2), padding=(1, 1),
           count_include_pad=False),
    window("ceil", normal(2, 2, 6, 5), (3, 2), stride=(2, 2), padding=(1, 0), ceil_mode=True),
    window("ceil-not-counted", normal(2, 2, 6, 6), (3, 3), stride=(2, 2), padding=(1, 1),
           ceil_mode=True, count_include_pad=False),
    window("ceil-1d", normal(2, 2, 8), (3,), ceil_mode=True),
    window("divisor", normal(2, 2, 6, 6), (3, 2), stride=(2, 2), padding=(1, 1),
           divisor_override=5),
    window("divisor-ceil-3d", normal(2, 2, 3, 4, 3), (2, 2, 2), divisor_override=3,
           ceil_mode=True),
    window("gaps", normal(2, 2, 7, 7), (2, 2), stride=(3, 3)),
    window("unequal", normal(2, 2, 7, 5), (3, 1), stride=(2, 1)),
    window("global", normal(2, 3, 4, 5), (4, 5)),
    Case("adaptive-global", normal(2, 3, 4, 5), {"output_size": (1, 1)}),
    Case("adaptive", normal(2, 2, 7, 5), {"output_size": (3, 2)}),
    Case("adaptive-keeps-axis", normal(2, 2, 6, 5), {"output_size": (None, 2)}),
    Case("adaptive-up", normal(2, 2, 3, 4), {"output_size": (7, 7)}),
    Case("adaptive-1d", normal(2, 2, 7), {"output_size": (3,)}),
    Case("adaptive-3d", normal(2, 1, 4, 3, 5), {"output_size": (2, 2, 2)}),
]  # fmt: skip

BATCH_NORM = [
    norm("2d", 3, normal(2, 3, 4, 4), weight=normal(3), bias=normal(3)),
    norm("1d", 3, normal(2, 3, 7), weight=normal(3), bias=normal(3)),
    norm("3d", 3, normal(2, 3, 2, 3, 2), weight=normal(3), bias=normal(3)),
    norm("vector", 3, normal(2, 3), weight=normal(3), bias=normal(3)),
    norm("no-affine", 3, normal(2, 3, 4, 4)),
    norm("eps", 3, normal(2, 3, 4, 4), weight=normal(3), bias=normal(3), eps=0.1),
    norm("zero-gamma", 3, normal(2, 3, 4, 4), weight=constant(0.0, 1.5, -0.7), bias=normal(3)),
    norm("tiny-gamma", 3, normal(2, 3, 4, 4), weight=constant(1e-10, 1.5, -0.7), bias=normal(3)),
    norm("all-gamma-zero", 3, normal(2, 3, 4, 4), weight=constant(0.0, 0.0, 0.0), bias=normal(3)),
    norm("weight-only", 3, normal(2, 3, 4, 4), weight=normal(3)),
]

CAST = [
    Case("layout", normal(2, 3, 4, 4), {"dtype": None}),
]

CAT = [
    Case("two", several(normal(2, 3, 4, 4), normal(2, 2, 4, 4)), {"dim": 1}),
    Case("four", several(*[normal(2, c, 3, 3) for c in (1, 2, 3, 1)]), {"dim": 1}),
    Case("space", several(normal(2, 3, 4, 2), normal(2, 3, 4, 3)), {"dim": 3}),
    Case("negative-dim", several(normal(2, 3, 4, 2), normal(2, 3, 4, 3)), {"dim": -1}),
    Case("height", several(normal(2, 3, 1, 2), normal(2, 3, 4, 2)), {"dim": 2}),
    Case("1d", several(normal(2, 3, 4), normal(2, 1, 4)), {"dim": 1}),
    Case("vector", several(normal(2, 3), normal(2, 4)), {"dim": 1}),
    Case("constant", several(normal(2, 3, 4, 4), normal(2, 1, 4, 4)), {"dim": 1}, (0,)),
    Case("constant-first", several(normal(2, 2, 3), normal(2, 1, 3), normal(2, 2, 3)),
         {"dim": 1}, (1, 2)),
]  # fmt: skip

CLASS_SCORE = [
    Case("given", by_name(input=normal(3, 5), target=lambda g: torch.tensor([4, 0, 2]))),
    Case("predicted", by_name(input=normal(3, 5), target=lambda g: torch.tensor([-1, -1, -1]))),
    Case("mixed", by_name(input=normal(3, 5), target=lambda g: torch.tensor([1, -1, 1]))),
    Case("one-class", by_name(input=normal(2, 1), target=lambda g: torch.tensor([-1, 0]))),
    Case("one-number", by_name(input=normal(3), target=lambda g: torch.tensor([-1, 0, 0]))),
]

CONV = [
    conv("2d", normal(2, 3, 5, 5), 4, 3, 3, 3),
    conv("no-bias", normal(2, 3, 5, 5), 4, 3, 3, 3, bias=False),
    conv("padding", normal(2, 2, 5, 4), 3, 2, 3, 3, padding=(1, 1)),
    conv("padding-unequal", normal(2, 2, 5, 4), 3, 2, 3, 5, padding=(0, 2)),
    conv("padding-large", normal(2, 2, 3, 3), 2, 2, 2, 2, padding=(3, 2)),
    conv("stride", normal(2, 2, 7, 7), 3, 2, 3, 3, stride=(2, 2), padding=(1, 1)),
    conv("stride-rest", normal(2, 2, 8, 6), 3, 2, 3, 3, stride=(3, 2), padding=(1, 0)),
    conv("stride-above-kernel", normal(2, 2, 8, 8), 3, 2, 2, 2, stride=(3, 3)),
    conv("strided-pointwise", normal(2, 3, 5, 5), 4, 3, 1, 1, stride=(2, 2)),
    conv("pointwise", normal(2, 3, 3, 3), 4, 3, 1, 1),
    conv("pointwise-groups", normal(2, 4, 3, 3), 6, 2, 1, 1, groups=2),
    conv("pointwise-padded", normal(2, 3, 3, 3), 2, 3, 1, 1, padding=(1, 1)),
    conv("dilation", normal(2, 2, 7, 7), 2, 2, 3, 3, dilation=(2, 2)),
    conv("dilation-stride-padding", normal(2, 2, 8, 7), 2, 2, 3, 2, dilation=(2, 3),
         stride=(2, 2), padding=(2, 1)),
    conv("groups", normal(2, 4, 5, 5), 6, 2, 3, 3, groups=2, padding=(1, 1)),
    conv("depthwise", normal(2, 3, 5, 5), 3, 1, 3, 3, groups=3, padding=(1, 1)),
    conv("depthwise-multiplier", normal(2, 2, 5, 5), 4, 1, 3, 3, groups=2, stride=(2, 2)),
    conv("same", normal(2, 2, 5, 5), 3, 2, 3, 3, padding="same"),
    conv("same-asymmetric", normal(2, 2, 5, 6), 3, 2, 2, 4, padding="same"),
    conv("same-asymmetric-dilated", normal(2, 2, 6, 6), 2, 2, 4, 2, padding="same",
         dilation=(1, 3)),
    conv("same-asymmetric-circular", normal(2, 2, 5, 6), 2, 2, 2, 4, padding="same",
         padding_mode="circular"),
    conv("valid", normal(2, 2, 5, 5), 3, 2, 3, 3, padding="valid"),
    conv("reflect", normal(2, 2, 5, 6), 3, 2, 3, 3, padding=(1, 2), padding_mode="reflect"),
    conv("replicate", normal(2, 2, 5, 5), 2, 2, 3, 3, padding=(1, 1), padding_mode="replicate",
         stride=(2, 2)),
    conv("circular", normal(2, 2, 5, 6), 2, 2, 3, 3, padding=(2, 1), padding_mode="circular"),
    conv("circular-stride", normal(2, 2, 6, 5), 2, 2, 3, 3, padding=(1, 1), stride=(2, 3),
         padding_mode="circular"),
    conv("mode-without-padding", normal(2, 2, 5, 5), 2, 2, 3, 3, padding_mode="reflect"),
    conv("1d", normal(2, 3, 8), 4, 3, 3, stride=(2,), padding=(1,)),
    conv("1d-reflect-dilated", normal(2, 3, 8), 2, 3, 3, padding=(2,), dilation=(2,),
         padding_mode="reflect"),
    conv("1d-same-asymmetric", normal(2, 2, 7), 2, 2, 4, padding="same"),
    conv("3d", normal(2, 2, 3, 4, 4), 2, 2, 2, 3, 3, padding=(0, 1, 1), stride=(1, 2, 2)),
    conv("3d-circular-depthwise", normal(2, 2, 3, 3, 3), 2, 1, 3, 3, 3, padding=(1, 1, 1),
         groups=2, padding_mode="circular"),
    conv("one-input-channel", normal(2, 1, 4, 4), 5, 1, 3, 3, padding=(1, 1)),
]  # fmt: skip

FLAT_CAT = [
    Case("two", several(normal(2, 3, 2, 2), normal(2, 2, 4, 4))),
    Case("ranks", several(normal(2, 3, 2), normal(2, 2, 2, 2), normal(2, 5))),
]

GETITEM = [
    Case("channels", normal(2, 4, 3, 3), {"index": (slice(None), slice(1, 3))}),
    Case("one-channel", normal(2, 4, 3, 3), {"index": (slice(None), 2)}),
    Case("last-channel", normal(2, 4, 3, 3), {"index": (slice(None), -1)}),
    Case("step", normal(2, 4, 5, 5), {"index": (Ellipsis, slice(None, None, 2))}),
    Case("crop", normal(2, 2, 5, 5), {"index": (Ellipsis, slice(1, -1), slice(2, None))}),
    Case("corner", normal(2, 3, 4, 4), {"index": (slice(None), slice(None), 0, 0)}),
    Case("new-axis", normal(2, 3, 4), {"index": (slice(None), slice(None), None)}),
    Case("gate-axes", normal(2, 3), {"index": (slice(None), slice(None), None, None)}),
    Case("list", normal(2, 4, 3), {"index": (slice(None), [2, 0, 1])}),
    Case("list-repeats", normal(2, 4, 3), {"index": (slice(None), [2, 0, 2])}),
    Case("all", normal(2, 4, 3), {"index": slice(None)}),
]

HARDTANH = [
    Case("relu6", spread(6.0, 2, 3, 4, 4), {"min_val": 0.0, "max_val": 6.0}),
    Case("unit", spread(1.0, 2, 3, 4), {"min_val": 0.0, "max_val": 1.0}),
    Case("saturated", lambda g: positive(2, 3, 4)(g) * 40, {"min_val": 0.0, "max_val": 6.0}),
    Case("off", lambda g: -positive(2, 3, 4)(g), {"min_val": 0.0, "max_val": 6.0}),
    Case("zeros", zeroed(spread(6.0, 2, 3, 4), slice(None), 1), {"min_val": 0.0, "max_val": 6.0}),
    Case("vector", spread(6.0, 2, 9), {"min_val": 0.0, "max_val": 6.0}),
]

HOLD = [Case("2d", normal(2, 3, 4, 4)), Case("vector", normal(2, 5))]

IDENTITY = [Case("2d", normal(2, 3, 4, 4)), Case("vector", normal(2, 5))]

LEAKY_RELU = [
    Case("2d", normal(2, 3, 4, 4), {"negative_slope": 0.01}),
    Case("1d-steep", normal(2, 3, 5), {"negative_slope": 0.3}),
    Case("zero-slope", normal(2, 3, 4, 4), {"negative_slope": 0.0}),
    Case("above-one", normal(2, 3, 4, 4), {"negative_slope": 1.5}),
    Case("negative-slope", normal(2, 3, 4, 4), {"negative_slope": -0.2}),
    Case("zeros", zeroed(normal(2, 3, 4, 4), slice(None), 1), {"negative_slope": 0.1}),
    Case("prelu", normal(2, 3, 4, 4), {"negative_slope": constant(0.25)}),
    Case("prelu-per-channel", normal(2, 3, 4, 4), {"negative_slope": constant(0.1, 0.0, -0.4)}),
    Case("prelu-3d", normal(2, 2, 2, 3, 2), {"negative_slope": constant(0.1, 0.7)}),
    Case("prelu-vector", normal(2, 3), {"negative_slope": constant(0.1, 0.2, 0.3)}),
]

LINEAR = [
    Case("wide", normal(2, 6), {"weight": normal(4, 6), "bias": normal(4)}),
    Case("tall", normal(2, 3), {"weight": normal(5, 3), "bias": normal(5)}),
    Case("no-bias", normal(2, 4), {"weight": normal(4, 4), "bias": None}),
    Case("channels-last", normal(2, 3, 3, 4), {"weight": normal(5, 4), "bias": normal(5)}),
    Case("tokens", normal(2, 3, 4), {"weight": normal(2, 4), "bias": normal(2)}),
]

MAX_POOL = [
    window("2d", normal(2, 3, 4, 6), (2, 2)),
    window("1d", normal(2, 3, 8), (2,)),
    window("3d", normal(2, 2, 4, 4, 2), (2, 2, 1)),
    window("overlap", normal(2, 2, 7, 7), (3, 3), stride=(2, 2)),
    window("stem", normal(2, 2, 6, 6), (3, 3), stride=(2, 2), padding=(1, 1)),
    window("stride-1", normal(2, 2, 5, 5), (3, 3), stride=(1, 1), padding=(1, 1)),
    window("dilation", normal(2, 2, 7, 7), (2, 3), stride=(1, 2), dilation=(3, 2)),
    window("ceil", normal(2, 2, 6, 5), (3, 2), stride=(2, 2), ceil_mode=True),
    window("ceil-padding", normal(2, 2, 6, 6), (3, 3), stride=(2, 2), padding=(1, 1),
           ceil_mode=True),
    window("gaps", normal(2, 2, 7, 7), (2, 2), stride=(3, 3)),
    window("ties", rounded(2, 2, 6, 6), (3, 3), stride=(1, 1)),
    window("all-negative", lambda g: -positive(2, 2, 5, 5)(g), (3, 3), stride=(2, 2),
           padding=(1, 1)),
    window("1d-overlap", normal(2, 2, 9), (4,), stride=(2,), padding=(2,)),
    window("3d-overlap", normal(2, 1, 4, 4, 4), (3, 3, 3), stride=(1, 2, 2), padding=(1, 1, 1)),
    window("global", normal(2, 3, 4, 5), (4, 5)),
    Case("adaptive-global", normal(2, 3, 4, 5), {"output_size": (1, 1)}),
    Case("adaptive", normal(2, 2, 7, 5), {"output_size": (3, 2)}),
    Case("adaptive-keeps-axis", normal(2, 2, 6, 5), {"output_size": (None, 2)}),
    Case("adaptive-up", normal(2, 2, 3, 4), {"output_size": (5, 7)}),
    Case("adaptive-1d", normal(2, 2, 7), {"output_size": (3,)}),
    Case("adaptive-3d", normal(2, 1, 4, 3, 5), {"output_size": (2, 2, 2)}),
]  # fmt: skip


def unpool(id: str, *shape: int, into: tuple[int, ...]) -> Case:
    """Places drawn without repetition, as pools whose windows don't overlap give them."""

    def indices(g: Generator) -> Tensor:
        size, count = math.prod(into), math.prod(shape[2:])
        rows = [torch.randperm(size, generator=g)[:count] for _ in range(math.prod(shape[:2]))]
        return torch.stack(rows).reshape(shape)

    return Case(id, by_name(input=normal(*shape), indices=indices),
                {"output_shape": (-1, shape[1], *into)})  # fmt: skip


MAX_UNPOOL = [
    unpool("2d", 2, 3, 2, 3, into=(4, 6)),
    unpool("2d-odd", 2, 2, 2, 2, into=(5, 5)),
    unpool("1d", 2, 2, 3, into=(7,)),
    unpool("3d", 2, 1, 2, 1, 2, into=(4, 2, 4)),
]

MEAN = [
    Case("space", normal(2, 3, 4, 5), {"dim": (2, 3)}),
    Case("space-kept", normal(2, 3, 4, 5), {"dim": (2, 3), "keepdim": True}),
    Case("negative-dims", normal(2, 3, 4, 5), {"dim": (-1, -2)}),
    Case("unordered", normal(2, 3, 4, 5), {"dim": (-1, 1)}),
    Case("channels-kept", normal(2, 3, 4, 5), {"dim": (1,), "keepdim": True}),
    Case("all", normal(2, 3, 4), {"dim": (1, 2)}),
    Case("sum", normal(2, 3, 4, 5), {"dim": (2, 3), "total": True}),
    Case("sum-all", normal(2, 3, 4), {"dim": (1, 2), "total": True}),
    Case("1d", normal(2, 3, 7), {"dim": (2,)}),
    Case("3d", normal(2, 2, 2, 3, 2), {"dim": (2, 3, 4)}),
]

MUL = [
    Case("squeeze-excite", by_name(input=normal(2, 3, 4, 4), gate=positive(2, 3, 1, 1))),
    Case("spatial", by_name(input=normal(2, 3, 4, 4), gate=positive(2, 1, 4, 4))),
    Case("full", by_name(input=normal(2, 3, 4, 4), gate=normal(2, 3, 4, 4))),
    Case("per-sample", by_name(input=normal(2, 3, 4, 4), gate=normal(2, 1, 1, 1))),
    Case("zeros", by_name(input=normal(2, 3, 4, 4), gate=zeroed(normal(2, 3, 1, 1), 0, 1))),
    Case("sample-off", by_name(input=normal(2, 3, 4, 4), gate=zeroed(normal(2, 3, 1, 1), 0))),
    Case("spreads", by_name(input=normal(2, 3, 1, 1), gate=positive(2, 1, 4, 4))),
    Case("1d", by_name(input=normal(2, 3, 5), gate=positive(2, 3, 1))),
    Case("vector", by_name(input=normal(2, 5), gate=normal(2, 5))),
    Case("constant", normal(2, 3, 4, 4), {"gate": normal(1, 3, 1, 1)}),
    Case("constant-no-batch", normal(2, 3, 4, 4), {"gate": normal(3, 1, 1)}),
    Case("constant-spreads", normal(2, 3, 1, 1), {"gate": normal(1, 3, 4, 4)}),
    Case("constant-scalar", normal(2, 3, 4, 4), {"gate": lambda g: normal(1)(g)[0]}),
    Case("number", normal(2, 3, 4, 4), {"gate": -0.3}),
    Case("number-zero", normal(2, 3, 4, 4), {"gate": 0.0}),
]

PAD = [
    Case("zero", normal(2, 2, 3, 4), {"pad": (1, 2, 0, 1)}),
    Case("value", normal(2, 2, 3, 4), {"pad": (1, 2, 0, 1), "value": 0.1}),
    Case("one-axis", normal(2, 2, 3, 4), {"pad": (1, 2)}),
    Case("channels", normal(2, 2, 3, 4), {"pad": (0, 0, 0, 0, 1, 2)}),
    Case("channels-value", normal(2, 2, 3, 4), {"pad": (0, 1, 0, 0, 1, 0), "value": -2.5}),
    Case("crop", normal(2, 2, 5, 5), {"pad": (-1, -2, 0, -1)}),
    Case("crop-and-pad", normal(2, 2, 5, 5), {"pad": (-1, 2, 1, -1), "value": 0.3}),
    Case("reflect", normal(2, 2, 4, 5), {"pad": (2, 1, 1, 3), "mode": "reflect"}),
    Case("replicate", normal(2, 2, 4, 4), {"pad": (3, 1, 0, 2), "mode": "replicate"}),
    Case("circular", normal(2, 2, 4, 4), {"pad": (2, 1, 4, 0), "mode": "circular"}),
    Case("replicate-crop", normal(2, 2, 4, 4), {"pad": (-1, 2, 1, -1), "mode": "replicate"}),
    Case("reflect-1d", normal(2, 2, 5), {"pad": (2, 4), "mode": "reflect"}),
    Case("replicate-3d", normal(2, 1, 2, 3, 3), {"pad": (1, 0, 0, 2, 1, 1), "mode": "replicate"}),
    Case("constant-3d", normal(2, 1, 2, 3, 3), {"pad": (1, 0, 0, 2, 1, 1), "value": 1.0}),
]

PERMUTE = [
    Case("channels-last", normal(2, 3, 4, 5), {"dims": (0, 2, 3, 1)}),
    Case("channels-first", normal(2, 4, 5, 3), {"dims": (0, 3, 1, 2)}),
    Case("negative", normal(2, 3, 4, 5), {"dims": (0, -1, -3, -2)}),
    Case("swap", normal(2, 3, 4, 5), {"dims": (1, 3)}),
    Case("swap-negative", normal(2, 3, 4), {"dims": (-1, 1)}),
    Case("shuffle", normal(2, 2, 3, 4, 4), {"dims": (1, 2)}),
    Case("same", normal(2, 3, 4), {"dims": (0, 1, 2)}),
]

RELU = [
    Case("2d", normal(2, 3, 4, 4)),
    Case("zeros", rounded(2, 3, 4, 4)),
    Case("all-off", lambda g: -positive(2, 3, 4)(g)),
    Case("all-zero", zeroed(normal(2, 3, 4), slice(None))),
    Case("vector", normal(2, 7)),
]

RESHAPE = [
    Case("flatten", normal(2, 3, 4, 5), {"output_shape": (-1, 60)}),
    Case("unflatten", normal(2, 12), {"output_shape": (-1, 3, 2, 2)}),
    Case("split-channels", normal(2, 6, 4, 4), {"output_shape": (-1, 2, 3, 4, 4)}),
    Case("merge-channels", normal(2, 2, 3, 4, 4), {"output_shape": (-1, 6, 4, 4)}),
    Case("tokens", normal(2, 3, 4, 4), {"output_shape": (-1, 3, 16)}),
    Case("squeeze", normal(2, 3, 1, 1), {"output_shape": (-1, 3)}),
    Case("unsqueeze", normal(2, 3), {"output_shape": (-1, 3, 1, 1)}),
]

SIGMOID = [
    Case("2d", normal(2, 3, 4, 4)),
    Case("wide", spread(5.0, 2, 3, 4)),
    Case("vector", normal(2, 7)),
]

ABS = [
    Case("2d", normal(2, 3, 4, 4)),
    Case("zeros", zeroed(normal(2, 3, 4), slice(None), 1)),
    Case("vector", normal(2, 7)),
]

AMAX = [
    Case("space", normal(2, 3, 4, 4), {"dim": (2, 3)}),
    Case("space-kept", normal(2, 3, 4, 4), {"dim": (2, 3), "keepdim": True}),
    Case("channels", normal(2, 3, 4, 4), {"dim": (1,), "keepdim": True, "first": True}),
    Case("dropped", normal(2, 3, 4, 4), {"dim": (1,), "first": True}),
    Case("negative-dim", normal(2, 3, 4), {"dim": (-1,)}),
    Case("smallest", normal(2, 3, 4, 4), {"dim": (-1, -2), "largest": False}),
    Case("ties", rounded(2, 3, 4, 4), {"dim": (2, 3)}),
]

CHANNEL_SHUFFLE = [
    Case("2d", normal(2, 6, 2, 3), {"groups": 2}),
    Case("1d", normal(2, 6, 3), {"groups": 3}),
    Case("one-group", normal(2, 4, 2, 2), {"groups": 1}),
]

CLAMP = [
    Case("both", normal(2, 3, 4, 4), {"min_val": -0.5, "max_val": 1.0}),
    Case("below", normal(2, 3, 4), {"min_val": 1e-6, "max_val": None}),
    Case("above", normal(2, 3, 4), {"min_val": None, "max_val": 0.5}),
    Case("all-outside", lambda g: positive(2, 3, 4)(g) + 2, {"min_val": -1.0, "max_val": 1.0}),
    Case("vector", normal(2, 7), {"min_val": -1.0, "max_val": 1.0}),
]


def conv_transpose(id: str, inputs: Maker, *weight: int, **options: Any) -> Case:
    """A transposed convolution, with torch's defaults for what is not given."""
    rank = len(weight) - 2
    defaults = {"stride": (1,) * rank, "padding": (0,) * rank, "dilation": (1,) * rank,
                "output_padding": (0,) * rank, "bias": None}  # fmt: skip
    return Case(id, inputs, {"weight": normal(*weight), **defaults, **options})


CONV_TRANSPOSE = [
    conv_transpose("2d", normal(2, 3, 3, 4), 3, 4, 3, 3, bias=normal(4)),
    conv_transpose("stride", normal(2, 2, 3, 3), 2, 3, 2, 2, stride=(2, 2)),
    conv_transpose("overlap", normal(2, 2, 3, 3), 2, 2, 4, 4, stride=(2, 2), padding=(1, 1)),
    conv_transpose("output-padding", normal(2, 2, 3, 3), 2, 3, 3, 3, stride=(2, 2),
                   padding=(1, 1), output_padding=(1, 1), bias=normal(3)),
    conv_transpose("gaps", normal(2, 2, 3, 3), 2, 2, 1, 2, stride=(3, 2)),
    conv_transpose("groups", normal(2, 4, 3, 3), 4, 1, 3, 3, groups=2, dilation=(2, 1)),
    conv_transpose("1d", normal(2, 2, 5), 2, 3, 4, stride=(3,), padding=(2,), bias=normal(3)),
    conv_transpose("3d", normal(2, 2, 2, 2, 2), 2, 2, 2, 2, 2, stride=(2, 1, 2)),
]  # fmt: skip

DIV = [
    Case("softmax-sum", by_name(input=normal(2, 3, 4, 4), gate=positive(2, 1, 4, 4))),
    Case("full", by_name(input=normal(2, 3, 4), gate=positive(2, 3, 4))),
    Case("spreads", by_name(input=normal(2, 3, 1, 1), gate=positive(2, 1, 4, 4))),
    Case("constant", normal(2, 3, 4, 4), {"gate": positive(1, 3, 1, 1)}),
    Case("constant-no-batch", normal(2, 3, 4, 4), {"gate": positive(3, 1, 1)}),
    Case("number", normal(2, 3, 4, 4), {"gate": 6}),
    Case("vector", by_name(input=normal(2, 5), gate=positive(2, 1))),
]

EINSUM = [
    Case("constant-channels", normal(2, 3, 2, 4),
         {"other": normal(3, 5), "terms": ("nchw", "cd", "ndhw")}),
    Case("constant-left", normal(2, 3, 4), {"other": normal(5, 4), "terms": ("ncv", "wv", "ncw")}),
    Case("attention", by_name(input=normal(2, 4, 3), other=normal(2, 5, 4)),
         {"terms": ("nvc", "nqv", "nqc")}),
    Case("sums", normal(2, 3, 4), {"other": None, "terms": ("nct", "", "nc")}),
    Case("permutes", normal(2, 3, 4), {"other": None, "terms": ("nct", "", "ntc")}),
    Case("gate", by_name(input=normal(2, 3, 4), other=normal(2, 3)),
         {"terms": ("nct", "nc", "nct")}),
]  # fmt: skip

ELU = [
    Case("elu", normal(2, 3, 4, 4), {"alpha": 1.0}),
    Case("alpha", normal(2, 3, 4), {"alpha": 0.4}),
    Case("selu", normal(2, 3, 4), {"alpha": 1.67, "scale": 1.05}),
    Case("celu", normal(2, 3, 4), {"alpha": 0.5, "width": 0.5}),
    Case("wide", spread(10.0, 2, 9), {"alpha": 1.0}),
]

EXP = [Case("2d", normal(2, 3, 4, 4)), Case("wide", spread(5.0, 2, 9))]

EXPAND = [
    Case("space", normal(2, 3, 1, 1), {"output_shape": (-1, 3, 4, 5)}),
    Case("channels", normal(2, 1, 4, 5), {"output_shape": (-1, 3, 4, 5)}),
    Case("same", normal(2, 3, 4), {"output_shape": (-1, 3, 4)}),
]

FLIP = [
    Case("2d", normal(2, 3, 4, 5), {"dims": (2, 3)}),
    Case("1d", normal(2, 3, 4), {"dims": (-1,)}),
]

HARDSIGMOID = HARDSWISH = MISH = SILU = [
    Case("2d", normal(2, 3, 4, 4)),
    Case("wide", spread(5.0, 2, 3, 4)),
    Case("zeros", zeroed(normal(2, 3, 4), slice(None), 1)),
    Case("vector", normal(2, 7)),
]

GELU = [
    Case(f"{case.id}-{kind}", case.inputs, {"approximate": kind})
    for case in SILU
    for kind in ("none", "tanh")
]

GROUP_NORM = [
    Case("2d", normal(2, 4, 3, 3), {"num_groups": 2, "weight": normal(4), "bias": normal(4)}),
    Case("instance", normal(2, 3, 3, 4), {"num_groups": None, "weight": normal(3),
                                          "bias": normal(3), "eps": 0.1}),
    Case("layer", normal(2, 3, 4), {"num_groups": 1}),
    Case("3d", normal(2, 4, 2, 2, 2), {"num_groups": 4, "weight": normal(4)}),
    Case("zero-gamma", normal(2, 3, 4),
         {"num_groups": 3, "weight": constant(0.0, 1.0, -1.0), "bias": normal(3)}),
]  # fmt: skip


def resized(id: str, inputs: Maker, **options: Any) -> Case:
    """An interpolation."""
    return Case(id, inputs, options)


INTERPOLATE = [
    resized("nearest", normal(2, 2, 3, 4), scale_factor=2.0),
    resized("nearest-size", normal(2, 2, 3, 4), size=(7, 5)),
    resized("nearest-exact", normal(2, 2, 3, 4), size=(5, 7), mode="nearest-exact"),
    resized("bilinear", normal(2, 2, 3, 4), scale_factor=2.0, mode="bilinear"),
    resized("bilinear-corners", normal(2, 2, 3, 4), size=(7, 6), mode="bilinear",
            align_corners=True),
    resized("down", normal(2, 2, 6, 5), size=(3, 2), mode="bilinear"),
    resized("antialias", normal(2, 2, 6, 5), size=(3, 2), mode="bilinear", antialias=True),
    resized("bicubic", normal(2, 1, 4, 4), scale_factor=(1.5, 2.0), mode="bicubic"),
    resized("area", normal(2, 2, 6, 5), size=(4, 3), mode="area"),
    resized("1d", normal(2, 2, 5), size=8, mode="linear"),
    resized("trilinear", normal(2, 1, 2, 3, 2), scale_factor=2.0, mode="trilinear"),
    resized("from-one-pixel", normal(2, 3, 1, 1), size=(4, 4), mode="bilinear"),
    resized("factor-1.3", normal(2, 2, 5, 5), scale_factor=1.3, mode="bilinear"),
]  # fmt: skip

LAYER_NORM = [
    Case("channels-last", normal(2, 3, 3, 4),
         {"normalized_shape": (4,), "weight": normal(4), "bias": normal(4)}),
    Case("all", normal(2, 3, 4), {"normalized_shape": (3, 4), "weight": normal(3, 4)}),
    Case("plain", normal(2, 7), {"normalized_shape": (7,), "eps": 0.1}),
    Case("zero-gamma", normal(2, 2, 3),
         {"normalized_shape": (3,), "weight": constant(0.0, 1.0, -1.0), "bias": normal(3)}),
]  # fmt: skip

LOCAL_RESPONSE_NORM = [
    Case("2d", normal(2, 6, 3, 3), {"size": 3, "alpha": 0.5}),
    Case("even", normal(2, 5, 3, 2), {"size": 4, "alpha": 2.0, "beta": 0.5, "k": 2.0}),
    Case("1d", normal(2, 5, 4), {"size": 5, "alpha": 0.3}),
    Case("3d", normal(2, 4, 2, 2, 2), {"size": 2, "alpha": 1.0}),
]

LOG = [Case("2d", positive(2, 3, 4, 4)), Case("vector", positive(2, 7))]

LOGSUMEXP = [
    Case("space", normal(2, 3, 4, 4), {"dim": (2, 3)}),
    Case("kept", normal(2, 3, 4, 4), {"dim": (-1, -2), "keepdim": True}),
    Case("vector", normal(2, 7), {"dim": (1,)}),
]

MATMUL = [
    Case("right", normal(2, 3, 4), {"other": normal(1, 4, 5)}),
    Case("left", normal(2, 3, 4), {"other": normal(5, 3), "left": True}),
    Case("attention", by_name(input=normal(2, 4, 3), other=normal(2, 5, 4)), {"left": True}),
    Case("heads", by_name(input=normal(2, 2, 3, 4), other=normal(2, 2, 4, 3)), {"left": False}),
]

MAXIMUM = [
    Case("two", several(normal(2, 3, 4, 4), normal(2, 3, 4, 4))),
    Case("minimum", several(normal(2, 3, 4), normal(2, 3, 4)), {"largest": False}),
    Case("ties", several(rounded(2, 3, 4), rounded(2, 3, 4))),
    Case("number", several(normal(2, 3, 4), 0.1)),
    Case("broadcast", several(normal(2, 3, 4), normal(2, 3, 1))),
]

MOVEDIM = [
    Case("last", normal(2, 3, 4, 5), {"source": (1,), "destination": (-1,)}),
    Case("two", normal(2, 3, 4, 5), {"source": (1, 3), "destination": (3, 2)}),
]

NORM = [
    Case("space", normal(2, 3, 4, 4), {"ord": 2.0, "dim": (2, 3), "keepdim": True}),
    Case("channels", normal(2, 3, 4), {"ord": 2.0, "dim": (1,)}),
    Case("three", normal(2, 3, 4), {"ord": 3.0, "dim": (-1,)}),
    Case("zero", zeroed(normal(2, 3, 4), 0), {"ord": 2.0, "dim": (1,), "keepdim": True}),
]

NORMALIZE = [
    Case("vector", normal(2, 7), {"p": 2.0, "dim": 1}),
    Case("channels", normal(2, 3, 4, 4), {"p": 2.0, "dim": 1}),
    Case("p3", normal(2, 3, 4), {"p": 3.0, "dim": -1}),
    Case("below-eps", lambda g: normal(2, 3, 4)(g) * 1e-3, {"p": 2.0, "dim": 1, "eps": 0.1}),
]

PIXEL_SHUFFLE = [Case("2d", normal(2, 8, 2, 3), {"upscale_factor": 2})]
PIXEL_UNSHUFFLE = [Case("2d", normal(2, 2, 4, 6), {"downscale_factor": 2})]

POW = [
    Case("square", normal(2, 3, 4), {"exponent": 2}),
    Case("cube", normal(2, 3, 4), {"exponent": 3}),
    Case("root", positive(2, 3, 4), {"exponent": 0.5}),
    Case("reciprocal-root", positive(2, 3, 4), {"exponent": -0.5}),
    Case("generalised-mean", positive(2, 3, 4), {"exponent": constant(3.2)}),
    Case("reciprocal", positive(2, 3, 4), {"exponent": -1, "factor": 2.0}),
]

REPEAT = [
    Case("space", normal(2, 3, 2, 1), {"repeats": (1, 1, 2, 3)}),
    Case("interleave", normal(2, 3, 4), {"repeats": (1, 2), "interleave": True}),
    Case("channels", normal(2, 3, 4), {"repeats": (1, 2, 1)}),
]

ROLL = [
    Case("2d", normal(2, 3, 4, 5), {"shifts": (1, -2), "dims": (2, 3)}),
    Case("channels", normal(2, 3, 4), {"shifts": (1,), "dims": (1,)}),
]

LOG_SOFTMAX = SOFTMAX = [
    Case("channels", normal(2, 3, 4, 4), {"dim": 1}),
    Case("vector", normal(2, 7), {"dim": -1}),
    Case("wide", spread(5.0, 2, 3, 4), {"dim": 2}),
]

SOFTPLUS = [
    Case("2d", normal(2, 3, 4, 4), {"beta": 1.0}),
    Case("beta", normal(2, 3, 4), {"beta": 3.0, "threshold": 2.0}),
    Case("log-sigmoid", normal(2, 3, 4), {"sign": -1.0, "threshold": 100.0}),
    Case("wide", spread(15.0, 2, 9), {"beta": 1.0}),
]

SPLIT = [
    Case("chunk", normal(2, 5, 3, 3), {"kind": "chunk", "sections": 2, "dim": 1, "piece": 1}),
    Case("split", normal(2, 5, 3), {"kind": "split", "sections": 2, "dim": 1, "piece": 2}),
    Case("sizes", normal(2, 5, 3), {"kind": "split", "sections": (1, 4), "dim": 1, "piece": 1}),
    Case("last", normal(2, 3, 5), {"kind": "tensor_split", "sections": 3, "dim": -1, "piece": 0}),
]

STACK = [
    Case("two", several(normal(2, 3, 4), normal(2, 3, 4)), {"dim": 1}),
    Case("last", several(*[normal(2, 3, 2)] * 3), {"dim": -1}),
    Case("constant", several(normal(2, 3, 2), normal(2, 3, 2)), {"dim": 2}, (0,)),
]

TANH = [Case("2d", normal(2, 3, 4, 4)), Case("wide", spread(5.0, 2, 3, 4))]

VAR = [
    Case("channels", normal(2, 4, 3), {"dim": (1,), "keepdim": True}),
    Case("population", normal(2, 3, 4, 4), {"dim": (2, 3), "correction": 0}),
    Case("deviation", normal(2, 3, 4, 4), {"dim": (-2, -1), "root": True, "keepdim": True}),
]

COMPARE = [
    Case("number", rounded(2, 3, 4), {"other": 0.5, "kind": "gt"}),
    Case("equal", rounded(2, 3, 4), {"other": 1.0, "kind": "eq"}),
    Case("not", rounded(2, 3, 4), {"other": None, "kind": "logical_not"}),
]


def places(*shape: int) -> Maker:
    """Places in [-1.2, 1.2], some outside."""
    return lambda g: torch.rand((1, *shape), generator=g, dtype=torch.float64) * 2.4 - 1.2


def sampled(mode: str, padding: str, align: bool) -> dict[str, Any]:
    """grid_sample's options."""
    return {"mode": mode, "padding_mode": padding, "align": align}


GRID_SAMPLE = [
    Case("2d", normal(2, 2, 4, 5), {"grid": places(3, 4, 2),
                                    **sampled("bilinear", "zeros", False)}),
    Case("border", normal(2, 2, 4, 4), {"grid": places(3, 3, 2),
                                        **sampled("bilinear", "border", True)}),
    Case("nearest", normal(2, 2, 4, 4), {"grid": places(3, 3, 2),
                                         **sampled("nearest", "zeros", False)}),
]  # fmt: skip

UNFOLD = [
    Case("3x3", normal(2, 2, 5, 4), {"kernel_size": (3, 3), "dilation": (1, 1), "padding": (1, 1),
                                     "stride": (1, 1)}),
    Case("skips", normal(2, 2, 5, 5), {"kernel_size": (2, 1), "dilation": (2, 1), "padding": (0, 0),
                                       "stride": (2, 2)}),
]  # fmt: skip

WHERE = [
    Case(
        "two", by_name(inputs=several(normal(2, 3, 4), normal(2, 3, 4)), condition=rounded(2, 3, 4))
    ),
    Case("mask", several(normal(2, 3, 4), normal(2, 3, 1)), {"condition": rounded(1, 1, 4)}),
    Case("constant", several(normal(2, 3, 4), normal(3, 1)), {"condition": rounded(1, 3, 4)}, (0,)),
]

# Not a function of one sample, as the laws have it: test_similarity.py checks it.
OF_PAIRS = {"pair_side"}

CASES: dict[str, list[Case]] = {
    name.lower(): cases for name, cases in dict(globals()).items() if isinstance(cases, list)
}
