"""explainer.inspect(): what it tells of every step of the program."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

import naflow_fx as nf
from naflow_fx.inspection import Inspection, Node
from naflow_fx.models.hazards import HAZARDS
from tests.shelf import hazard, hazard_images

STARTS = ("start", "control")


@cache
def explained(name: str, **options: Any) -> Inspection:
    """The inspection of a hazard model after a run."""
    explainer = nf.compile(hazard(name), hazard_images(name), **options)
    explainer(hazard_images(name))
    return explainer.inspect()


def by_id(inspection: Inspection) -> dict[str, Node]:
    return {node.id: node for node in inspection.nodes}


def test_the_json_is_plain_and_complete() -> None:
    found = json.loads(explained("nested_residual").to_json())
    assert list(found) == ["version", "model", "blocks", "nodes", "edges"]
    assert found["version"] == 1 and found == explained("nested_residual").to_dict()
    fields = {"id", "kind", "site", "block", "operator", "equation", "shape", "how", "captures",
              "steps", "damping", "sigma_max", "residual", "norm_ratio", "doc"}  # fmt: skip
    assert all(fields <= set(node) for node in found["nodes"])
    ids = [node["id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {e[end] for e in found["edges"] for end in ("source", "target")} <= set(ids)
    blocks = {block["id"]: block for block in found["blocks"]}
    assert {node["block"] for node in found["nodes"]} <= set(blocks)
    assert all(b["parent"] in blocks or b["id"] == "" for b in found["blocks"])


@pytest.mark.parametrize("name", [name for name in HAZARDS if name != "two_heads"])
def test_every_step_of_every_hazard_model(name: str) -> None:
    inspection = explained(name)
    assert {node.kind for node in inspection.nodes} >= {"forward", "importance", "inverse", "map"}
    sites = {row.layer for row in inspection.rows}
    for kind in ("forward", "importance", "inverse", "map"):  # one of each at every call site
        found = [n.site for n in inspection.nodes if n.kind == kind and n.site in sites]
        assert sorted(found) == sorted(sites), kind
    targets = {edge.target for edge in inspection.edges}
    for node in inspection.nodes:
        assert node.doc and node.shape, node
        assert node.id in targets or node.operator == "input" or node.kind == "capture", node
        if node.kind == "inverse":
            assert node.how and node.equation and (node.operators or node.how in STARTS), node
            assert node.site not in sites or node.residual is not None is not node.norm_ratio
