"""Example calls of every operator: what the laws in test_rule_laws.py are checked on.

A new operator needs one entry in CASES: its rule's name and a few calls, the nasty ones first.
Tensors are made from a generator, in float64, two samples or more, so small that the operator's
matrix can be written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from naflow_fx.checking import Case

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


def by_name(**makers: Callable[[Generator], Tensor]) -> Maker:
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
    norm("tiny-gamma", 3, normal(2, 3, 4, 4), weight=constant(1e-9, 1.5, -0.7), bias=normal(3)),
    norm("all-gamma-zero", 3, normal(2, 3, 4, 4), weight=constant(0.0, 0.0, 0.0), bias=normal(3)),
    norm("weight-only", 3, normal(2, 3, 4, 4), weight=normal(3)),
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

MEAN = [
    Case("space", normal(2, 3, 4, 5), {"dim": (2, 3)}),
    Case("space-kept", normal(2, 3, 4, 5), {"dim": (2, 3), "keepdim": True}),
    Case("negative-dims", normal(2, 3, 4, 5), {"dim": (-1, -2)}),
    Case("unordered", normal(2, 3, 4, 5), {"dim": (-1, 1)}),
    Case("channels-kept", normal(2, 3, 4, 5), {"dim": (1,), "keepdim": True}),
    Case("all", normal(2, 3, 4), {"dim": None}),
    Case("sum", normal(2, 3, 4, 5), {"dim": (2, 3), "total": True}),
    Case("sum-all", normal(2, 3, 4), {"dim": None, "total": True}),
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

CASES: dict[str, list[Case]] = {
    "add": ADD,
    "avg_pool": AVG_POOL,
    "batch_norm": BATCH_NORM,
    "cat": CAT,
    "class_score": CLASS_SCORE,
    "conv": CONV,
    "flat_cat": FLAT_CAT,
    "getitem": GETITEM,
    "hardtanh": HARDTANH,
    "identity": IDENTITY,
    "leaky_relu": LEAKY_RELU,
    "linear": LINEAR,
    "max_pool": MAX_POOL,
    "mean": MEAN,
    "mul": MUL,
    "pad": PAD,
    "permute": PERMUTE,
    "relu": RELU,
    "reshape": RESHAPE,
    "sigmoid": SIGMOID,
}
