"""inspect: the generated program as tables, JSON, a networkx graph, DOT and SVG."""

from naflow_fx.inspection.build import inspect_graph
from naflow_fx.inspection.inspection import Inspection
from naflow_fx.inspection.records import Block, Captured, Edge, Node, Row

__all__ = ["Block", "Captured", "Edge", "Inspection", "Node", "Row", "inspect_graph"]
