"""Z as a picture: what the inverse brings back of the image, at every call site."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from naflow_fx.errors import FlowError
from naflow_fx.flow.data import FlowData
from naflow_fx.flow.measures import wide

SHOWN = (1, 3)  # channels that are grey or colours as they are
PERIOD = 4  # in pixels: the stride of first layers is 2 or 4
LOW, HIGH = 0.01, 0.99  # shares of an image's values that become 0 and 1


def reconstruct(flow: FlowData) -> OrderedDict[str, Tensor]:
    """What `AttentionFlow.reconstruction` documents."""
    if not flow.bpfm:
        method = flow.options.get("method", "naflow")
        why = "was not kept" if method == "naflow" else f"is no part of the maps of {method!r}"
        raise FlowError(f'This flow has no Z: it {why}. Make it with nf.compile(..., keep="bpfm").')
    return OrderedDict((name, _picture(name, z, flow.maps[name])) for name, z in flow.bpfm.items())


def channels_first(values: Tensor, maps: Tensor) -> Tensor:
    """Z or Lambda of a call site in whichever layout as [N, C, *S]; maps: [N, *S], its map.

    Where C is as long as every spatial axis the shapes don't tell; C then counts as first.
    """
    first = tuple(values.shape[2:]) == tuple(maps.shape[1:])
    return values if first else values.movedim(-1, 1)


def _picture(name: str, z: Tensor, maps: Tensor) -> Tensor:
    """Z [N, C, *S] (or channels last), as [N, 1 or 3, *S] in [0, 1]."""
    if not z.isfinite().all():
        raise FlowError(
            f"Z of {name!r} has values that are not finite. "
            "Compute it in float32, or with more damping."
        )
    planes = channels_first(wide(z), maps)
    if planes.shape[1] not in SHOWN:
        planes = torch.linalg.vector_norm(planes, dim=1, keepdim=True)
    elif min(planes.shape[2:], default=0) >= 16 * PERIOD:  # a smaller one is itself mostly pattern
        planes = _unpatterned(planes)
    return _scaled(planes).to(z.dtype)


def _unpatterned(planes: Tensor) -> Tensor:
    """Each value less the mean of its channel at places of the same phase, [N, C, *S]."""
    space = planes.shape[2:]
    pattern = planes
    for axis, size in enumerate(space, 2):
        whole = pattern.narrow(axis, 0, size // PERIOD * PERIOD)
        before, after = pattern.shape[:axis], pattern.shape[axis + 1 :]
        pattern = whole.reshape(*before, -1, PERIOD, *after).mean(axis)
    for axis, size in enumerate(space, 2):
        pattern = torch.cat([pattern] * -(-size // PERIOD), axis).narrow(axis, 0, size)
    return planes - pattern


def _scaled(planes: Tensor) -> Tensor:
    """Each image's values from the percentile LOW to HIGH of all of them, as 0 to 1."""
    values = planes.flatten(1)
    last = values.shape[1] - 1
    shape = (-1, *[1] * (planes.ndim - 1))
    low, high = (
        values.kthvalue(1 + round(share * last), dim=1).values.reshape(shape)
        for share in (LOW, HIGH)
    )
    span = high - low
    return ((planes - low) / torch.where(span > 0, span, 1)).clamp(0, 1)
