"""Hierarchical decomposition: which channels of which layers a decision rests on, as a tree."""

from __future__ import annotations

from naflow_fx.decomposition.api import decompose
from naflow_fx.decomposition.result import Decomposition
from naflow_fx.decomposition.tree import Cost

__all__ = ["Cost", "Decomposition", "decompose"]
