"""explainer.inspect(): what it tells of every step of the program."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest
import torch
from browser import graphviz
from shelf import fill, hazard, hazard_images, images
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.errors import ArtefactError, GraphError
from naflow_fx.inspection import Inspection, Node
from naflow_fx.inspection.fold import fold
from naflow_fx.inspection.graphs import draw, parts_of

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


VARIED = (
    "channel_shuffle", "dense_block", "gate", "inception", "nested_residual", "padding_modes",
    "shared_conv",
)  # fmt: skip


@pytest.mark.parametrize("name", VARIED)
def test_every_step_is_told(name: str) -> None:
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


def test_an_inverse_step_tells_how_it_works() -> None:
    steps = nf.Inverse(steps=3, damping=0.02)
    nodes = by_id(explained("nested_residual", inverse=steps))
    solved = nodes["stem_least_squares"]
    assert (solved.how, solved.operators) == ("least squares", ("stem",))
    assert (solved.steps, solved.damping, solved.site) == (3, 0.02, "x")
    weight = hazard("nested_residual").get_parameter("stem.weight")
    assert solved.sigma_max is not None
    assert 0 < solved.sigma_max <= float(weight.detach().norm()) * 3  # of 3 x 3 shifts
    region = nodes["add_1_least_squares"]
    assert region.equation.startswith("Eq. 7")
    assert region.region == "residual relu -> add_1" and len(region.operators) > 2
    (held,) = nodes["relu_inverse"].captures
    shape = nodes["relu"].shape
    assert (held.name, held.dtype, held.shape) == ("relu_mask", "bool", shape)
    assert held.bytes_per_image == math.prod(shape[1:]) == nodes["relu"].bytes_per_image


def test_residuals_are_the_means_of_the_last_run_or_of_a_flow() -> None:
    x = hazard_images("nested_residual")
    explainer = nf.compile(hazard("nested_residual"), x, inverse=nf.Inverse(steps=2))
    before = by_id(explainer.inspect())
    assert all(node.residual is None for node in before.values())
    assert before["add_1_least_squares"].sigma_max is None  # of a region: the image's
    first, _ = explainer(x), explainer(2 * x)
    for flow, found in ((first, explainer.inspect(first)), (explainer(x[:1]), explainer.inspect())):
        by_site = {node.site: node for node in found.nodes if node.kind == "inverse"}
        for site in flow.maps:
            assert by_site[site].residual == pytest.approx(float(flow.residual[site].mean()))
            assert by_site[site].norm_ratio == pytest.approx(float(flow.norm_ratio[site].mean()))
        for site, node in by_site.items():
            assert (
                (node.damping is None) == (node.sigma_max is None) == (site not in flow.sigma_max)
            )
            if site in flow.sigma_max:
                assert node.sigma_max == pytest.approx(float(flow.sigma_max[site].mean()))


def test_networkx_has_the_same_graph() -> None:
    inspection = explained("inception")
    graph = inspection.to_networkx()
    assert isinstance(graph, nx.DiGraph) and nx.is_directed_acyclic_graph(graph)
    assert list(graph) == [node.id for node in inspection.nodes]
    assert graph.number_of_edges() == len(inspection.edges)
    start = [n for n, data in graph.nodes(data=True) if data["how"] == "start"]
    z = next(n for n, data in graph.nodes(data=True)
             if data["kind"] == "inverse" and data["site"] == "x")  # fmt: skip
    assert all(nx.has_path(graph, s, z) for s in start)


# The picture.


class Block(nn.Module):
    """A residual block, with a shortcut where the stride is 2."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, channels, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, 4, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(4)
        shortcut = nn.Sequential(nn.Conv2d(4, 4, 1, 2), nn.BatchNorm2d(4))
        self.downsample = shortcut if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        y: Tensor = self.relu(out + x)
        return y


class Small(nn.Module):
    """Named as torchvision names its ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Block(4, 1), Block(4, 1))
        self.layer2 = nn.Sequential(Block(4, 2), *(Block(4, 1) for _ in range(5)))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.maxpool(self.conv1(x))))
        score: Tensor = self.fc(x.mean((2, 3)))
        return score


@cache
def small() -> Inspection:
    """Of a ResNet of eight blocks."""
    explainer = nf.compile(fill(Small()), images((3, 14, 14), 1, torch.float32))
    return explainer.inspect()


SHELF = (
    "inception",
    "dense_block",
    "channel_shuffle",
    "nested_residual",
    "gate",
    "nested_concat",
    "shared_conv",
)


@pytest.mark.parametrize("expand", [None, ["layer1.0", "layer2*"], "*"], ids=str)
def test_every_node_is_in_one_box_and_every_link_between_boxes_is_drawn(expand: Any) -> None:
    for inspection in (small(), *map(explained, SHELF if expand in (None, "*") else ())):
        parts = parts_of(inspection, fold(inspection, expand))
        drawn = [node.id for part in parts for node in part.nodes]
        assert sorted(drawn) == sorted(node.id for node in inspection.nodes)  # each once
        text = inspection.to_dot(expand)
        box = {node.id: part.key for part in parts for node in part.nodes}
        assert set(re.findall(r'"([^"]*)" \[label=', text)) == set(box.values())
        links = {(box[e.source], box[e.target]) for e in inspection.edges}
        lines = re.findall(r'^  "([^"]*)" -> "([^"]*)" \[color=', text, re.M)
        assert sorted(lines) == sorted((a, b) for a, b in links if a != b)


def test_graphviz_draws_the_forward_pass_down_and_the_inverse_up_beside_it() -> None:
    graphviz()
    inspection = explained("nested_residual")
    plain = draw(inspection.to_dot(None), "svg").decode()
    assert plain == inspection.to_svg()
    space = {"s": "http://www.w3.org/2000/svg"}
    places, told = {}, {}
    for group in ElementTree.fromstring(plain).iterfind(".//s:g[@class='node']", space):
        text = group.find(".//s:text", space)
        assert text is not None
        key = group.findtext("s:title", "", space)
        places[key] = float(text.attrib["x"]), float(text.attrib["y"])
        told[key] = next(iter(group.iterfind(".//s:a", space))).attrib.values()
    parts = parts_of(inspection, fold(inspection))
    forward = [places[part.key] for part in parts if part.column == "forward"]
    assert [y for _, y in forward] == sorted(y for _, y in forward)
    assert max(x for x, _ in forward) < min(places[p.key][0] for p in parts if p.column == "map")
    for words in ("Eqs. 6-10", "3 steps", "damping 0.1", "sigma_max", "residual", "norm_ratio"):
        assert any(words in text for text in told["inverse:stem_least_squares"]), words
    assert any("captured relu_mask: bool" in text for text in told["inverse:relu_inverse"])


def test_files_by_their_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection = explained("gate")
    assert inspection.save(tmp_path / "a.dot").read_text() == inspection.to_dot()
    assert json.loads(inspection.save(str(tmp_path / "a.JSON")).read_text())["version"] == 1
    assert inspection.save(tmp_path / "a.txt").read_text() == f"{inspection}\n"
    assert inspection.save(tmp_path / "a.html").read_text().startswith("<!doctype html>")
    with pytest.raises(ArtefactError, match=r"a\.gif: the name must end in one of \.svg"):
        inspection.save(tmp_path / "a.gif")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ArtefactError, match="install the package graphviz"):
        inspection.save(tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_what_graphviz_refuses_is_told() -> None:
    graphviz()
    with pytest.raises(ArtefactError, match="could not draw the graph: .*syntax error"):
        draw("digraph {", "svg")


def test_blocks_fold() -> None:
    inspection = small()
    rows = [row.id for row in fold(inspection)]
    assert rows[:5] == ["x", "conv1", "maxpool", "layer1.0", "layer1.1"] and len(rows) < 20
    opened = [row.id for row in fold(inspection, "layer1.0")]
    assert "layer1_0_conv1" in opened and "layer1.1" in opened and "layer2" in opened
    assert len(fold(inspection, ["*"])) == sum(n.kind == "forward" for n in inspection.nodes)
    alone = inspection.to_dot(only="layer1.0")
    assert "layer1_0_conv2" in alone and "forward:maxpool" in alone and "layer2" not in alone
    assert "layer1_1_conv1" not in alone and "forward:layer1.1" in alone  # who reads it


@pytest.mark.parametrize("options", [{"expand": "layer9"}, {"only": "layer9"}])
def test_blocks_that_are_not_there(options: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"no block is named layer9 \(of .*layer1"):
        small().to_dot(**options)


def test_a_network_without_blocks() -> None:
    inspection = explained("functional")
    assert inspection.to_dot("*") == inspection.to_dot(None)
    with pytest.raises(GraphError, match="no block is named stem .*this network has none"):
        inspection.to_dot(only="stem")


def test_a_gradient_method_has_no_inverse() -> None:
    explainer = nf.compile(hazard("gate"), hazard_images("gate"), method="layercam")
    inspection = explainer.inspect()
    assert not any(node.kind == "inverse" for node in inspection.nodes)
    assert {node.equation for node in inspection.nodes if node.kind == "map"} == {"layercam"}
    assert "inverse" not in inspection.to_dot() + str(inspection)


def test_a_pair_and_a_batch_free_program() -> None:
    encoder = fill(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()))
    explainer = nf.compile(encoder.double(), images((1, 6, 6)), target=nf.Similarity())
    inspection = explainer.inspect()
    (mask,) = (node for node in inspection.nodes if node.kind == "capture" and node.name == "1")
    assert mask.captures[0].shape == (-1, 2, 4, 4) and mask.bytes_per_image == 32


# The program as text.


def test_the_program_prints_in_sections_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    explainer = nf.compile(hazard("nested_residual"), hazard_images("nested_residual"), keep="used")
    gm = explainer.graph_module
    text = gm.print_readable()
    assert capsys.readouterr().out == text + "\n"
    heads = ("# Forward", "# Importance", "# Inverse", "# Use", "# Maps", "return {")
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    made = [line.split(" = ")[0].strip() for line in text.splitlines() if " = " in line]
    names = [name for names in made if "#" not in names for name in names.split(", ")]
    steps = {n.name for n in gm.graph.nodes if n.op not in ("placeholder", "get_attr", "output")}
    assert steps - set(names) <= {n.name for n in gm.graph.nodes if len(n.users) != 1}
    assert len(names) == len(set(names)) and set(names) <= steps
    assert "relu_inverse = relu.inverse(" in text and "mask=relu_mask" in text
    assert "# Z of stem: exact, Eq. 12" in text and "self.stem.weight" in text
    assert "'maps': {...},  # by call site" in text


def test_blocks_are_named_and_torchs_own_text_is_there() -> None:
    encoder = fill(nn.Sequential(Block(4, 1), nn.Flatten(), nn.Linear(64, 2)))
    gm = nf.compile(encoder, images((4, 4, 4), 1, torch.float32), method="gradcam").graph_module
    text = gm.print_readable(False)
    assert "\n    # outside of blocks\n" in text and "\n    # 0\n" in text
    assert "class Explanation" in gm.print_readable(False, include_device=False)
    assert "class Explanation" not in text
