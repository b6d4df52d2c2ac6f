"""Hierarchical decomposition: which channels of which layers a decision rests on, as a tree."""

from __future__ import annotations

from naflow_fx.decomposition.api import decompose
from naflow_fx.decomposition.cost import Cost
from naflow_fx.decomposition.result import Decomposition

__all__ = ["Cost", "Decomposition", "decompose"]
