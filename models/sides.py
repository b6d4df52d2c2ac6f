"""Image sides that a network takes, checked before torch fails somewhere inside."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from naflow_fx.errors import InputError


def check_sides(name: str, images: Any, least: int, most: int | None = None, why: str = "") -> None:
    """Nothing if both sides of `images` [N, C, H, W] are `least` to `most` pixels (None: no end).

    Raises InputError elsewhere. Symbolic tracing brings no sizes, and passes; `torch.export` makes
    these bounds guards of the exported program.
    """
    if not isinstance(images, Tensor):
        return
    height, width = images.shape[-2:]
    if min(height, width) < least or (most is not None and max(height, width) > most):
        wanted = f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(
            f"{name}: got images of {height} x {width} pixels; wanted {wanted} pixels "
            f"a side{f' ({why})' if why else ''}"
        )
