"""Numbers of every call site of a flow, photo by photo: docs/statistics.md defines each.

`Statistics` are one network's, `agreement` is between two.  Call sites whose map is a single
position have none, and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from naflow_fx.errors import FlowError, check_choice, raised_as, table, unfit
from naflow_fx.flow import measures

if TYPE_CHECKING:
    from naflow_fx.evaluation.bootstrap import Estimate
    from naflow_fx.evaluation.data import Box
    from naflow_fx.flow.data import FlowData

UNLIKE = (TypeError, ValueError, RuntimeError)  # what torch says of what is no array of numbers
SETTLED = 0.5  # agreement with the last map above which a layer has settled
T = TypeVar("T", bound="DepthTable")


@dataclass(frozen=True, eq=False)
class DepthTable:
    """Measures of N photos at L layers, from the input to the decision; printed, a table.

    Attributes:
        layers: names of the L rows, in forward order.
        values: measure -> float64 [N, L] in main memory, NaN where it is not defined.
    """

    layers: tuple[str, ...]
    values: dict[str, Tensor]

    def __len__(self) -> int:
        """Number N of photos."""
        return len(next(iter(self.values.values())))

    @property
    def depth(self) -> Tensor:
        """Relative depth of every layer, float64 [L]: 0 the first, 1 the last."""
        return torch.linspace(0, 1, len(self.layers), dtype=torch.float64)

    def estimates(self, measure: str) -> list[Estimate]:
        """Each layer's mean over photos with its 95 % interval, [L]; NaN where no photo has it."""
        check_choice(FlowError, "estimates", self.values, measure=measure)
        return [_estimate(column) for column in self.values[measure].T]

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary a layer, means over photos: `pandas.DataFrame(statistics.rows())`."""
        means = {name: [e.mean for e in self.estimates(name)] for name in self.values}
        columns = {"layer": self.layers, "depth": self.depth.tolist(), **means}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @classmethod
    def joined(cls: type[T], parts: Iterable[T]) -> T:
        """The tables of several batches as one; FlowError unless layers and measures are alike."""
        given = list(parts)
        kinds = {(part.layers, tuple(part.values)) for part in given}
        if len(kinds) != 1:
            raise FlowError(f"joined: {len(given)} tables of {len(kinds)} kinds; wanted tables of "
                            "the same layers and measures, at least one")  # fmt: skip
        layers, names = kinds.pop()
        return cls(layers, {n: torch.cat([part.values[n] for part in given]) for n in names})

    def __str__(self) -> str:
        """The table; of several photos means with their 95 % intervals."""
        single, head = len(self) == 1, ["layer", *self.values]
        columns = [[_text(one, single) for one in self.estimates(name)] for name in self.values]
        body = zip(self.layers, *columns, strict=True)
        return table([head, ["-" * len(name) for name in head], *body], indent="")


@dataclass(frozen=True, eq=False)
class Statistics(DepthTable):
    """`DepthTable` of one network: "spread", "scatter", "agreement", and "inside" if asked for."""

    @property
    def settled(self) -> list[str | None]:
        """The layer from which each photo's agreement with the last map stays above 0.5.

        None where the last map is zero, constant or not finite.
        """
        return [None if at < 0 else self.layers[at] for at in self._settled()]

    @property
    def settling_depth(self) -> Tensor:
        """The relative depth of that layer, float64 [N], NaN where there is none."""
        last = max(len(self.layers) - 1, 1)
        found = [math.nan if at < 0 else at / last for at in self._settled()]
        return torch.tensor(found, dtype=torch.float64)

    def _settled(self) -> list[int]:
        """The layer's number, -1 for none."""
        return [_settles(row) for row in self.values["agreement"].tolist()]

    def __str__(self) -> str:
        """The table, and where the photos settle."""
        single = len(self) == 1
        where = f", {self.settled[0]}" if single and self.settled[0] else ""
        depth = _text(_estimate(self.settling_depth), single)
        return f"{super().__str__()}\nsettling depth {depth}{where}"


def table_of(maps: Mapping[str, Tensor], inside: Tensor | None = None) -> Statistics:
    """The table of maps, layer -> [N, *S]; FlowError if all are of one position.

    inside: pixels, bool [N, H, W], whose share of the maps is measured, too.
    """
    maps = _spatial(maps)
    found = measured(maps)
    if inside is not None:
        found["inside"] = {name: _share(m, inside) for name, m in maps.items()}
    return Statistics(tuple(maps), {n: _stacked(of.values()) for n, of in found.items()})


def measured(maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Measure -> layer -> [N], of the maps of several positions; agreement is with the last one."""
    spatial = {name: m for name, m in maps.items() if m.shape[1:].numel() > 1}
    last = list(spatial.values())[-1:]
    return {
        "spread": {name: measures.entropy(m) for name, m in spatial.items()},
        "scatter": {name: measures.scatter(m) for name, m in spatial.items()},
        "agreement": {n: measures.agreement(m, *last) for n, m in spatial.items()},
    }


def agreement(first: FlowData, second: FlowData) -> DepthTable:
    """Where two networks look at the same places of N photos, and where they part.

    Each call site of the network with fewer of them is compared with the other's at the nearest
    relative depth (of equally many: one to one) by Spearman's rank correlation on the coarser
    map's grid, -1 to 1.  A fair choice of layers is the user's: compile both with
    ``layers=["layer1", "layer2", ...]``, or compare flows of one network.

    Args:
        first: a flow of N photos.
        second: of the same photos, in the same order; of another network, target or method.

    Returns:
        One measure, "agreement" [N, L]; layers are named "a | b" where the names differ.

    Raises:
        FlowError: different numbers of photos, or no call site with a map of several positions.
    """
    if len(first) != len(second):
        raise FlowError(f"agreement: flows of {len(first)} and {len(second)} photos; wanted the "
                        "same photos in both")  # fmt: skip
    one, two = _spatial(first.maps), _spatial(second.maps)
    pairs = pairs_of(list(one), list(two))
    found = [measures.agreement(one[a], two[b].to(one[a].device)) for a, b in pairs]
    names = tuple(a if a == b else f"{a} | {b}" for a, b in pairs)
    return DepthTable(names, {"agreement": _stacked(found)})


def pairs_of(first: list[str], second: list[str]) -> list[tuple[str, str]]:
    """Layers of equal relative depth, as many as the shorter list has."""
    if len(first) > len(second):
        return [(a, b) for b, a in pairs_of(second, first)]
    last = max(len(first) - 1, 1)
    return [(a, second[round(i * (len(second) - 1) / last)]) for i, a in enumerate(first)]


def _spatial(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps of several positions, at least one."""
    found = {name: m for name, m in maps.items() if m.shape[1:].numel() > 1}
    if not found:
        raise FlowError("Statistics need a layer whose map has several positions; "
                        f"got {', '.join([*maps][:6]) or 'none'}.")  # fmt: skip
    return found


def pixels(flow: FlowData, box: Box | Sequence[Box] | None, mask: Tensor | None) -> Tensor | None:
    """The pixels of boxes or masks, bool [N, H, W]; None of neither."""
    if box is None and mask is None:
        return None
    size, count = flow.input_size, len(flow)
    if box is not None and mask is not None:
        raise FlowError("statistics: got a box and a mask; give one of them")
    if len(size) != 2:
        raise FlowError("statistics: boxes and masks are of 2-d images; this network's input has "
                        f"the size {size}")  # fmt: skip
    if box is not None:
        from naflow_fx.evaluation.data import box_mask

        wanted = "(left, top, right, bottom) in fractions of the input, or one a photo"
        with raised_as(unfit(FlowError, "statistics", wanted, box=box), *UNLIKE):
            corners = torch.as_tensor(box, dtype=torch.float64)
            corners = corners.expand(count, -1) if corners.ndim == 1 else corners
            found = torch.stack([box_mask([one], *size) for one in corners.tolist()])
    else:
        found = torch.as_tensor(mask).bool()
        found = found.expand(count, *found.shape) if found.ndim == 2 else found
    if found.shape != (count, *size):
        raise FlowError(f"statistics: got boxes or masks {list(found.shape)}; wanted one, or one a "
                        f"photo, [{count}, {size[0]}, {size[1]}]")  # fmt: skip
    return found


def _share(maps: Tensor, inside: Tensor) -> Tensor:
    """Share of the maps' energy that lies inside; NaN of a map without energy."""
    from naflow_fx.evaluation.localisation import energy

    known = maps.flatten(1).clamp_min(0).sum(1)
    known = known.isfinite() & (known > 0)
    return torch.where(known, energy(maps, inside.to(maps.device)), torch.nan)


def _settles(row: Sequence[float]) -> int:
    """The first layer from which what is known of agreements stays above SETTLED; -1: none."""
    if not row or not row[-1] > SETTLED:
        return -1
    last = max((at for at, value in enumerate(row) if value <= SETTLED), default=-1)
    return next(at for at, value in enumerate(row) if at > last and value > SETTLED)  # not NaN


def _stacked(columns: Iterable[Tensor]) -> Tensor:
    """L times [N] as float64 [N, L] in main memory."""
    return torch.stack([column.detach().cpu().double() for column in columns], 1)


def _estimate(values: Tensor) -> Estimate:
    """Mean and interval of what is known of [N]."""
    import numpy as np

    from naflow_fx.evaluation.bootstrap import Estimate, estimate

    known = values[~values.isnan()].numpy()
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan)
    return estimate(known, np.arange(len(known)))


def _text(found: Estimate, single: bool) -> str:
    if math.isnan(found.mean):
        return "-"
    return f"{found.mean:.3f}" if single else str(found)
