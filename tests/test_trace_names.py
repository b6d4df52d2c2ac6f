"""Call sites carry torchvision's names, whichever way the model comes in."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torchvision
from shelf import HAZARDS, class_one, densenet, hazard, hazard_images, images, network, score_of
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import get_graph_node_names
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.errors import TraceError
from naflow_fx.passes.trace import trace

STEPS = nf.Inverse(steps=2)


def traced_names(model: nn.Module, shape: tuple[int, ...] = (3, 64, 64)) -> list[str]:
    """The names of the input and of all operators, as the first pass gives them."""
    graph = trace(model, [images(shape, dtype=torch.float32)]).graph
    return [n.meta[keys.SITE] for n in graph.nodes if n.op not in ("get_attr", "output")]


def torchvision_names(model: nn.Module) -> list[str]:
    """The same from torchvision, whose list has parameters that a model reads itself, too."""
    names = get_graph_node_names(model.eval(), suppress_diff_warning=True)[1]
    parameters = dict(model.named_parameters())
    return [name for name in names if name not in parameters]


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnext50_32x4d", "vgg11_bn", "alexnet", "densenet121",
             "squeezenet1_0", "squeezenet1_1"]
)  # fmt: skip
def test_names_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert traced_names(model) == torchvision_names(model)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "googlenet", "regnet_x_400mf"]
)
def test_names_go_inside_torchvisions_composite_leaves(name: str) -> None:
    """Conv2dNormActivation, SqueezeExcitation: one name there, one for each part here."""
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, **options)
    modules = dict(model.named_modules())
    ours, theirs = traced_names(model), torchvision_names(model)
    composite = [
        site
        for site in theirs
        if isinstance(modules.get(site), (Conv2dNormActivation, SqueezeExcitation))
    ]
    assert composite or name == "googlenet"
    assert [site for site in theirs if site not in composite and site not in ours] == []
    for site in composite:
        assert any(other.startswith(f"{site}.") for other in ours), site
    plain = [site for site in theirs if site not in composite]
    assert plain == [site for site in ours if site in set(plain)]


@pytest.mark.parametrize("name", [name for name in HAZARDS if name != "numbered_names"])
def test_names_of_hazards_are_torchvisions(name: str) -> None:
    model = hazard(name)
    if len(inspect.signature(model.forward).parameters) > 1:
        pytest.skip("torchvision traces the arguments that have defaults, too")
    assert traced_names(model, HAZARDS[name].shape) == torchvision_names(model)


@pytest.mark.parametrize("name", HAZARDS)
def test_layers_are_such_names_in_forward_order(name: str) -> None:
    model, x = hazard(name), hazard_images(name)
    layers = nf.compile(model, x, target=score_of(name), method="hirescam").layers
    names = traced_names(model, HAZARDS[name].shape)
    assert len(set(layers)) == len(layers) and layers == [n for n in names if n in set(layers)]
    assert layers[0] == "x"


def assert_same_maps(found: nf.AttentionFlow, wanted: nf.AttentionFlow) -> None:
    """Map by map, in order."""
    assert len(found.maps) == len(wanted.maps)
    for (other, a), (site, b) in zip(found.maps.items(), wanted.maps.items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=f"{other} {site}")


def test_a_graph_module_keeps_module_names() -> None:
    """Its functions are called at the top level; torchvision names those alike."""
    model, x = network("resnet18").eval(), images((3, 32, 32))
    graph_module = fx.symbolic_trace(model)
    explainer = nf.compile(graph_module, x, inverse=STEPS)
    whole = nf.compile(model, x, inverse=STEPS)
    assert traced_names(graph_module) == torchvision_names(graph_module)
    assert "layer1.0.relu_1" in explainer.layers and "add_1" in explainer.layers
    modules = [site for site in whole.layers if not site.rsplit(".", 1)[-1].startswith("add")]
    assert modules == [site for site in explainer.layers if not site.startswith("add")]
    assert_same_maps(explainer(x), whole(x))


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@pytest.mark.parametrize("name", ["resnet18", "densenet", "squeezenet1_1"])
def test_an_exported_program_has_the_same_names_and_maps(name: str) -> None:
    model, x = densenet() if name == "densenet" else network(name), images((3, 32, 32))
    whole = nf.compile(model, x, inverse=STEPS)
    explainer = nf.compile(exported(model, x), x, inverse=STEPS)
    dropped = [site for site in whole.layers if site not in explainer.layers]
    assert [site for site in explainer.layers if site not in whole.layers] == []
    assert all("dropout" in site or site == "classifier.0" for site in dropped)
    maps = whole(x)
    for site in dropped:
        maps.maps.pop(site)
    assert_same_maps(explainer(x), maps)


def test_an_exported_program_of_one_batch_size() -> None:
    """Without a dynamic batch the program holds only for the example's; the error says so."""
    model, x = hazard("view_flatten").eval(), hazard_images("view_flatten")
    program = torch.export.export(model, (x,))
    with pytest.raises(TraceError, match="(?s)batch of 3.*dynamic_shapes"):
        nf.compile(program, x, inverse=STEPS)


def test_places_are_lines_of_the_model() -> None:
    graph: Any = trace(hazard("in_place"), [hazard_images("in_place")]).graph
    places = {node.meta[keys.SITE]: node.meta[keys.WHERE] for node in graph.nodes}
    lines, start = inspect.getsourcelines(HAZARDS["in_place"].forward)
    offset = next(i for i, line in enumerate(lines) if "+=" in line)
    assert places["add"] == f"hazards.py:{start + offset}"


def test_a_score_of_the_callers_is_named_too() -> None:
    explainer = nf.compile(
        hazard("gate"), hazard_images("gate"), target=class_one, method="gradcam"
    )
    names = [n.meta.get(keys.SITE) for n in explainer.graph_module.graph.nodes]
    assert "getitem" in names
