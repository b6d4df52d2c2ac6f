"""FlowData: what one call of an explainer computes, the map of every call site and the rest."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor
from typing_extensions import Self

from naflow_fx.errors import FlowError, check_choice, unfit
from naflow_fx.flow.measures import wide
from naflow_fx.guards.records import map_tensors, pick
from naflow_fx.maps.focus import LINEAR, resized

Scale = Literal["map", "shared"]
TRUST = ("residual", "norm_ratio", "sigma_max")  # how far Z at a call site can be trusted
KEPT = ("bpfm", "importance", "used", "neuron_times")  # what is there if `keep=` asks for it
PARTS = (*TRUST, *KEPT)
SHARES = 1e-2  # how far a half-precision softmax's sum may be from 1


class SiteError(FlowError, KeyError):
    """A flow has nothing of a call site of that name."""

    __str__ = Exception.__str__  # a KeyError would show the message quoted


class Sites(OrderedDict[str, Tensor]):
    """Call site -> value, in forward order.

    Attributes:
        part: the field of the flow that it is, such as "maps".
    """

    def __init__(self, entries: Iterable[tuple[str, Tensor]] = (), part: str = "maps") -> None:
        super().__init__(entries)
        self.part = part

    def __missing__(self, name: Any) -> NoReturn:
        near = difflib.get_close_matches(str(name), self, 5) or list(self)[:5]
        if not self and self.part in KEPT:
            hint = f'nothing is kept of it: nf.compile(..., keep="{self.part}")'
        else:
            hint = f"near: {', '.join(near) or 'none'}; list(flow.{self.part}) has all {len(self)}"
        raise SiteError(f"flow.{self.part} has no call site {name!r}; {hint}")


@dataclass(frozen=True)
class About:
    """What a flow that a `Subject` made knows of its images.

    photos: what the network saw, as `AttentionFlow.overlay` takes it, one an image; () unknown.
    names: what to call them. class_names: words for the classes. info: of the network, plain data.
    """

    photos: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, part: slice) -> About:
        """The same of some of the images."""
        return replace(self, photos=self.photos[part], names=self.names[part])


@dataclass(repr=False, eq=False)
class FlowData:
    """Attention maps of N images at every call site, with what is needed to judge them.

    Attributes:
        maps: call site -> [N, H_l, W_l] (1-d networks [N, L_l], 3-d ones [N, D_l, H_l, W_l]), not
            negative, raw, in forward order, on the input's device and in its dtype.
        output: the model's own output.
        score: [N], what was explained.
        target: int64 [N], its class, -1 where the target was a callable, or None.
        residual, norm_ratio: call site -> [N], how far the inverse at this site can be trusted.
        sigma_max: call site -> [N], where damping has a say: the largest singular value of what
            the step that made Z inverts, in units of its output per unit of its input. Of an
            operator that depends on the image (a region) it is estimated from the solver's own
            steps, a lower bound.
        bpfm, importance: call site -> [N, C_l, H_l, W_l], empty unless asked for with `keep=`.
        used: bool, likewise: whether a neuron reaches the feature node through the captured
            masks, indices and gates and the supports of kernels; the others are abandoned (Fig. 3).
        neuron_times: int32, likewise: how many live neurons read it; of feature nodes and of
            control branches, where nothing is abandoned, 1.
        input_size: spatial size of the network's input, (H, W).
        options: how it was computed.
        about: the photos and the classes' names, where a `Subject` made it: what saves and draws
            takes them from here.
    """

    maps: OrderedDict[str, Tensor]
    output: Any
    score: Tensor
    target: Tensor | None
    residual: dict[str, Tensor]
    norm_ratio: dict[str, Tensor]
    sigma_max: dict[str, Tensor] = field(default_factory=dict)
    bpfm: dict[str, Tensor] = field(default_factory=dict)
    importance: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, Tensor] = field(default_factory=dict)
    neuron_times: dict[str, Tensor] = field(default_factory=dict)
    input_size: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    about: About = field(default_factory=About)

    @classmethod
    def of_result(
        cls, result: Mapping[str, Any], input_size: tuple[int, ...], options: dict[str, Any]
    ) -> Self:
        """The flow of what a program gives; a part that a file has left out is empty."""
        parts: dict[str, Any] = {part: result.get(part, {}) for part in PARTS}
        return cls(maps=result["maps"], output=result["output"], score=result["score"],
                   target=result.get("target"), input_size=input_size, options=options,
                   **parts)  # fmt: skip

    def __post_init__(self) -> None:
        """Names of call sites that a part lacks are told in words."""
        for part in ("maps", *PARTS):
            setattr(self, part, Sites(getattr(self, part).items(), part))

    def __len__(self) -> int:
        """Number N of images."""
        return int(self.score.shape[0])

    def __repr__(self) -> str:
        """One line: images, layers, map sizes from first to last, target and score."""
        sizes = ["x".join(map(str, m.shape[1:])) or "1" for m in self.maps.values()]
        span = f", maps {sizes[0]} to {sizes[-1]}" if sizes else ""
        target = "callable" if self.target is None else _brief(self.target)
        return (
            f"AttentionFlow(images={len(self)}, layers={len(self.maps)}{span}, "
            f"target={target}, score={_brief(self.score)})"
        )

    def __getitem__(self, index: int | slice) -> Self:
        """The flow of one image (N = 1) or of a slice of them; IndexError outside of the batch."""
        count, part = len(self), as_slice(index, len(self), "image")
        found = self._each(lambda t: t[part] if t.ndim and t.shape[0] == count else t)
        return replace(found, about=self.about[part])

    def __iter__(self) -> Iterator[Self]:
        """The flows of the single images, in order."""
        return (self[i] for i in range(len(self)))

    def to(self, device: torch.device | str) -> Self:
        """The same flow with all its tensors on `device`."""
        return self._each(lambda t: t.to(device))

    def cpu(self) -> Self:
        """The same flow with all its tensors in main memory."""
        return self.to("cpu")

    def detach(self) -> Self:
        """The same flow with no tensor attached to an autograd graph."""
        return self._each(lambda t: t.detach())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A copy with `change` applied to every tensor, those in `output` too."""
        tensors = [f.name for f in fields(self) if f.name not in ("input_size", "options", "about")]
        changed = {name: map_tensors(change, getattr(self, name)) for name in tensors}
        return replace(self, **changed, options=dict(self.options))

    @property
    def abandoned(self) -> dict[str, Tensor]:
        """Share of neurons that take no part: call site -> [N]; needs `keep="used"`."""
        return {name: 1 - used.flatten(1).float().mean(1).to(self.score.dtype)
                for name, used in self.used.items()}  # fmt: skip

    def normalised(self, scale: Scale = "map", eps: float = 1e-7) -> OrderedDict[str, Tensor]:
        """The maps divided by their maximum, clipped at 0 first: call site -> [N, ...] in [0, 1].

        scale: "map" divides each map of each image by its own maximum; "shared" divides all maps
        of an image by the largest of them, so that layers can be compared.
        eps: share of an image's largest value below which a map is numerically nothing; such a
        map is divided by that bound, not blown up to 1. A map that is 0 stays 0.
        """
        check_choice(FlowError, "normalised", get_args(Scale), scale=scale)
        clipped = {name: wide(m).clamp_min(0) for name, m in self.maps.items()}
        peaks = {name: m[:, None].flatten(1).amax(1) for name, m in clipped.items()}
        if not peaks:
            return OrderedDict()
        largest = torch.stack([*peaks.values()]).amax(0)
        result: OrderedDict[str, Tensor] = OrderedDict()
        for name, m in clipped.items():
            bound = (largest if scale == "shared" else eps * largest).to(m.dtype)
            peak = torch.maximum(peaks[name], bound).clamp_min(torch.finfo(m.dtype).tiny)
            divided = m / peak.reshape(-1, *[1] * (m.ndim - 1))
            result[name] = divided.to(self.maps[name].dtype)
        return result

    def upsampled(self, size: int | Sequence[int] | None = None) -> OrderedDict[str, Tensor]:
        """The raw maps at the input's size, or at `size`: call site -> [N, H, W].

        Linear, bilinear or trilinear by the maps' rank, with align_corners=False. A call site
        without spatial axes (behind the flatten) has one value an image, spread over the whole.
        """
        rank = len(self.input_size)
        size = self.input_size if size is None else size
        wanted = (size,) * rank if isinstance(size, int) else tuple(size)
        if len(wanted) != rank or not all(isinstance(s, int) and s > 0 for s in wanted):
            words = f"{rank} positive integers, one an axis"
            raise unfit(FlowError, "upsampled", words, size=size)
        return OrderedDict((name, enlarge(name, m, wanted)) for name, m in self.maps.items())

    def drawable(self, scale: Scale) -> OrderedDict[str, Any]:
        """The normalised maps as float arrays [N, H_l, W_l]; FlowError unless finite and 2-d."""
        if not len(self):
            raise FlowError("A flow of no image has no pictures; take one of the batch: flow[i].")
        if len(self.input_size) != 2:
            raise FlowError(
                "Pictures can be made of 2-d maps only; this network's input has the "
                f"size {self.input_size}. Use upsampled() or normalised()."
            )
        lost = [str(i) for i, one in enumerate(self.score.isfinite().tolist()) if not one]
        if lost:
            raise FlowError(f"The score of image {', '.join(lost)} is not finite; nothing is known "
                            "of its maps (of a segmentation: the class is predicted nowhere). "
                            "Leave it out: flow[i] is one image's flow.")  # fmt: skip
        bad = [name for name, m in self.maps.items() if not bool(torch.isfinite(m).all())]
        if bad:
            raise FlowError(
                f"Maps with values that are not finite: {', '.join(bad)}. "
                "Compute them in float32, or with more damping."
            )
        return OrderedDict(
            (name, _planes(name, m).detach().float().cpu().numpy())
            for name, m in self.normalised(scale).items()
        )

    def top5(self, k: int = 5) -> list[list[tuple[int, float]]]:
        """The k likeliest classes of every image by the output that is explained; see `top5`."""
        return top5(pick(self.output, self.options.get("output")), k)


def as_slice(index: int | slice, count: int, what: str) -> slice:
    """The slice that an index or a slice means; IndexError outside of `count` of `what`."""
    if isinstance(index, slice):
        return index
    if not -count <= index < count:
        raise IndexError(f"No {what} {index} in a flow of {count}.")
    return slice(index % count, index % count + 1)


def top5(output: Any, k: int = 5) -> list[list[tuple[int, float]]]:
    """The k likeliest classes of every row: lists of (class, probability), best first.

    output: class scores [N, K], floating, or their softmax; fewer than k classes give K of them.
    FlowError else.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or not output.is_floating_point():
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise FlowError(f"The likeliest classes need class scores [N, K], got {got}.")
    shares = probabilities(output.detach()).topk(min(k, output.shape[1]), dim=1)
    rows = zip(shares.indices.tolist(), shares.values.tolist(), strict=True)
    return [list(zip(classes, values, strict=True)) for classes, values in rows]


def probabilities(output: Tensor) -> Tensor:
    """What an output [N, K] says of the classes, at least float32: its softmax.

    Rows that are shares already (not negative, of the sum 1, as behind a softmax of the network's
    own) stay as they are.
    """
    rows = wide(output)
    share = (rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < SHARES) & (rows.shape[1] > 1)
    return torch.where(share[:, None], rows, rows.softmax(1))


def enlarge(name: str, maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps [N, *S] at the spatial `size`, [N, *size], linear, align_corners=False."""
    if maps.ndim == 1:
        return maps.reshape(-1, *[1] * len(size)).expand(-1, *size).clone()
    if maps.ndim - 1 != len(size) or len(size) not in LINEAR:
        raise FlowError(
            f"The map of {name!r} has the shape {tuple(maps.shape)}, which cannot be "
            f"resized to {size}; one length an axis is needed."
        )
    return resized(maps, size)


def _planes(name: str, maps: Tensor) -> Tensor:
    """Maps [N, H, W], of [N, H, W] or of [N] (no spatial axes); FlowError else."""
    if maps.ndim == 1:
        return maps[:, None, None]
    if maps.ndim != 3:
        raise FlowError(f"The map of {name!r} is not 2-d: {tuple(maps.shape)}. Use layers=.")
    return maps


def _brief(values: Tensor) -> str:
    """The first three values of [N], as short text."""
    shown = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values[:3].tolist()]
    return f"[{', '.join(shown)}{', ...' if len(values) > 3 else ''}]"
