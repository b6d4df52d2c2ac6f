"""The paper's networks: keys and outputs of the originals, their flows, what sizes they take.

The expected keys and outputs were made with the original code on weights that `fill_rule.py` draws
from the keys alone. They lie beside the project, in shared/models/.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shelf import Reference, fill, images, relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.errors import InputError, ModelError

SHARED = Path(__file__).parents[2] / "shared" / "models"
KEYS = sorted(path.name.partition(".")[0] for path in SHARED.glob("*.statedict.json"))
GOLDEN = sorted(path.name.partition(".")[0] for path in SHARED.glob("*.golden.pt"))
# File -> how it is built, where not by the file's name alone; the originals' activations.
BUILDS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv4net": ("conv4net", {"activation": "relu"}),
    "conv4net_meta": ("conv4net", {"activation": "relu"}),
    "conv64f_relnet": ("conv64f", {"activation": "relu"}),
    "conv64f_relnet_meta": ("conv64f", {"activation": "relu"}),
    "conv64f_dn4": ("conv64f", {"geometry": "dn4"}),
}
NINE = (
    "resnet18", "resnet50", "resnet50_cbam", "resnet50_bam", "resnet18_npid", "resnet50_npid",
    "conv64f", "conv4net", "resnet50_ms",
)  # fmt: skip


@cache
def rule() -> Any:
    """The module fill_rule.py."""
    spec = importlib.util.spec_from_file_location("fill_rule", SHARED / "fill_rule.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keys(file: str) -> dict[str, dict[str, Any]]:
    """Key -> shape, dtype, kind, of the original."""
    listed: dict[str, dict[str, Any]] = json.loads((SHARED / f"{file}.statedict.json").read_text())
    return listed["keys"]


def filled(file: str) -> dict[str, Tensor]:
    """The original's state dict, filled."""
    spec = {
        key: torch.empty(facts["shape"], dtype=getattr(torch, facts["dtype"]), device="meta")
        for key, facts in keys(file).items()
    }
    state: dict[str, Tensor] = rule().filled_state_dict(spec)
    wanted = json.loads((SHARED / f"{file}.statedict.json").read_text())["filled_sha256"]
    assert rule().sha256_state_dict(state) == wanted
    return state


def build(file: str, **options: Any) -> nn.Module:
    name, own = BUILDS.get(file, (file, {}))
    return models.build(name, **{**own, **options})


def original(file: str, **options: Any) -> nn.Module:
    """The network with the filled weights."""
    model = build(file, **options)
    state = filled(file)
    if file.endswith("_meta"):
        state = {k.removeprefix("encoder."): v for k, v in state.items() if k != "temp"}
    model.load_state_dict(state)
    return model


def golden(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(SHARED / f"{file}.golden.pt", weights_only=True)
    return loaded


def shown(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < tolerance


# Keys and outputs of the originals


@pytest.mark.skipif(not SHARED.is_dir(), reason="no originals' keys and outputs beside the project")
def test_the_expected_values_are_there() -> None:
    assert {"resnet50_cbam", "resnet50_bam", "conv64f_relnet", "resnet50_ms"} <= set(KEYS)
    assert set(GOLDEN) <= set(KEYS) and GOLDEN


@pytest.mark.parametrize("file", [file for file in KEYS if not file.endswith("_meta")])
def test_keys_shapes_and_dtypes_are_the_originals(file: str) -> None:
    with torch.device("meta"):
        model = build(file)
    found = {
        key: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in model.state_dict().items()
    }
    assert found == {key: (facts["shape"], facts["dtype"]) for key, facts in keys(file).items()}
    parameters = {key for key, _ in model.named_parameters()}
    assert parameters == {key for key, facts in keys(file).items() if facts["kind"] == "parameter"}


@pytest.mark.parametrize("file", [file for file in KEYS if file.endswith("_meta")])
def test_a_learners_file_loads_into_its_encoder(file: str, tmp_path: Path) -> None:
    state, model, path = filled(file), build(file), tmp_path / "learner.pth"
    torch.save({"model": "meta-baseline", "model_sd": state}, path)
    found = models.load_checkpoint(model, path)
    assert torch.equal(found.extras["temp"], state["temp"])
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"encoder.{key}"])


@pytest.mark.parametrize("file", [file for file in GOLDEN if not file.endswith("_meta")])
@torch.inference_mode()
def test_outputs_are_the_originals(file: str) -> None:
    model, wanted = original(file), golden(file)
    shown(model(wanted["input"]), wanted["output"], 1e-4)
    model.double()
    shown(model(wanted["input"].double()), wanted["output_f64"], 1e-9)
    for extra in wanted["extra"]:
        x = rule().make_input(extra["input_name"], extra["shape"]).double()
        shown(model(x), extra["output_f64"], 1e-9)


@pytest.mark.parametrize("file", [file for file in GOLDEN if "leaky" in golden(file)])
@torch.inference_mode()
def test_outputs_with_leaky_relu_are_the_originals(file: str) -> None:
    wanted = golden(file)
    for slope, expected in wanted["leaky"].items():
        model = original(file, activation="leaky_relu", negative_slope=slope).double()
        run = episode if file.endswith("_meta") else forward
        shown(run(model, wanted["input"], float(filled(file).get("temp", 1))),
              expected["output_f64"], 1e-9)  # fmt: skip


@pytest.mark.parametrize("file", [file for file in GOLDEN if file.endswith("_meta")])
@torch.inference_mode()
def test_episodes_are_the_originals(file: str) -> None:
    wanted, temperature = golden(file), float(filled(file)["temp"])
    found = episode(original(file).double(), wanted["input"], temperature)
    shown(found, wanted["output_f64"], 1e-9)


def forward(model: nn.Module, x: Tensor, _: float) -> Tensor:
    output: Tensor = model(x.double())
    return output


def episode(encoder: nn.Module, x: dict[str, Tensor], temperature: float) -> Tensor:
    """Meta-Baseline: temperature times the cosine of queries and means of shots."""
    shots, queries = x["x_shot"].double(), x["x_query"].double()
    means = torch.stack([encoder(way).mean(0) for way in shots[0]])
    return temperature * F.normalize(encoder(queries[0])) @ F.normalize(means).T[None]


@pytest.mark.parametrize("file", ["resnet50_cbam", "resnet50_bam", "resnet50_npid", "resnet50_ms"])
def test_no_activation_writes_over_its_input(file: str) -> None:
    model = build(file)
    kinds = [m.inplace for m in model.modules() if isinstance(m, (nn.ReLU, nn.LeakyReLU))]
    assert kinds and not any(kinds)


def test_batch_norms_have_the_originals_settings() -> None:
    for file in ("resnet50_cbam", "resnet50_bam", "conv64f_relnet", "conv4net", "resnet50_ms"):
        for name, module in build(file).named_modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                momentum = 0.01 if "SpatialGate" in name else 1 if file == "conv64f_relnet" else 0.1
                assert (module.eps, module.momentum) == (1e-5, momentum), (file, name)


def test_output_shapes() -> None:
    wanted = {("conv64f_relnet", 84): (64, 19, 19), ("conv64f_relnet", 80): (64, 18, 18),
              ("conv64f_dn4", 84): (64, 21, 21), ("conv4net", 84): (1600,)}  # fmt: skip
    for (file, side), shape in wanted.items():
        assert build(file)(torch.zeros(1, 3, side, side)).shape == (1, *shape)


def test_bams_gate_is_one_plus_the_sigmoid_of_a_product() -> None:
    gate = fill(models.build("resnet50_bam")).double().get_submodule("bam1")
    x = images((256, 6, 6))
    channel, spatial = gate.get_submodule("channel_att"), gate.get_submodule("spatial_att")
    with torch.inference_mode():
        left, right = channel(x), spatial(x)
        shown(gate(x), x * (1 + (left * right).sigmoid()), 1e-12)
        mean = x.mean((2, 3))
        shown(left, channel.get_submodule("gate_c")(mean)[..., None, None].expand_as(x), 1e-12)
        assert torch.equal(right, right[:, :1].expand_as(x))
        wide = torch.cat([x, images((256, 6, 2))], 3)  # the pool reads the left square alone
        shown(channel(wide)[..., :6], left, 1e-12)


def test_ms_keeps_batch_norm_in_eval_mode() -> None:
    model = build("resnet50_ms").train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.training and len(norms) == 53 and not any(m.training for m in norms)


def test_embeddings_have_length_one() -> None:
    x = torch.randn(2, 3, 193, 193, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for name, dimension in (("resnet18_npid", 128), ("resnet50_ms", 512)):
            found = models.build(name)(x)
            assert found.shape == (2, dimension)
            torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
        assert models.build("resnet18_npid", dimension=7)(x).shape == (2, 7)
        unit: nn.Module = models.build("resnet18_npid").get_submodule("l2norm")
        assert unit(torch.zeros(1, 4)).isnan().all()  # no epsilon, as in the original


# Sizes and options


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("resnet50_cbam", [(193, 193), (193, 416)], [(192, 224), (224, 417), (448, 448)]),
        ("resnet50_bam", [(193, 193), (193, 224)], [(192, 192), (417, 417)]),
        ("resnet18_npid", [(193, 224)], [(192, 224), (224, 225), (256, 256)]),
        ("resnet50_npid", [(193, 224)], [(192, 224), (224, 225)]),
        ("conv4net", [(16, 84)], [(15, 84)]),
        ("conv64f", [(10, 10)], [(9, 84)]),
        ("resnet50_ms", [(32, 50)], []),
    ],
)
def test_sizes(name: str, good: list[tuple[int, int]], bad: list[tuple[int, int]]) -> None:
    model = models.build(name)
    with torch.inference_mode():
        for size in good:
            assert model(torch.zeros(1, 3, *size)).isfinite().all() or "npid" in name
        for size in bad:
            with pytest.raises(InputError, match=f"{name}: got images of {size[0]} x {size[1]} "):
                model(torch.zeros(1, 3, *size))


def test_bam_takes_no_map_that_is_higher_than_wide() -> None:
    with pytest.raises(InputError, match="a map of 56 x 50; .* square"), torch.inference_mode():
        models.build("resnet50_bam")(torch.zeros(1, 3, 224, 200))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv4net", {"activation": "gelu"}),
        ("conv4net", {"geometry": "relnet"}),
        ("conv64f", {"geometry": "square"}),
        ("resnet50_cbam", {"reduction": 8}),
        ("resnet50_ms", {"num_classes": 8}),
    ],
)
def test_options_that_are_none(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"{name}: cannot be built with"):
        models.build(name, **options)


def test_the_papers_activation_is_the_default() -> None:
    for name in ("conv4net", "conv64f"):
        slopes = [
            m.negative_slope for m in models.build(name).modules() if isinstance(m, nn.LeakyReLU)
        ]
        assert slopes == [0.2] * 4
    assert models.build("resnet50_cbam", num_classes=7).get_parameter("fc.weight").shape[0] == 7


@pytest.mark.parametrize("name", [*NINE, "alexnet", "efficientnet_lite0"])
def test_cards(name: str) -> None:
    card, use = models.card(name), models.card(name).preprocessing
    sides = {"conv4net": (80, 80), "conv64f": (84, 84), "resnet50_ms": (256, 227)}
    assert (use.resize, use.crop) == sides.get(name, (232 if name == "resnet50" else 256, 224))
    if name != "efficientnet_lite0":
        assert use.mean == (0.485, 0.456, 0.406) and use.std == (0.229, 0.224, 0.225)
    encoders = ("conv64f", "conv4net", "resnet18_npid", "resnet50_npid", "resnet50_ms")
    assert len(card.class_names) == card.num_classes == (0 if name in encoders else 1000)
    assert card.weights or card.checkpoint


def test_weights_that_cannot_be_fetched_say_where_they_are() -> None:
    with pytest.raises(ModelError, match="Google Drive, from github.com/Jongchan/attention-module"):
        models.build("resnet50_cbam", pretrained=True)
    with pytest.raises(ModelError, match="none public.; give the path of a checkpoint"):
        models.build("conv4net", weights="DEFAULT")


# Flows


def score(output: Tensor) -> Tensor:
    """Five numbers of the output, [N, ...] -> [N]."""
    return output.flatten(1)[:, :5].sum(1)


# Sides, call sites: conv + norm + activation + pool and so on, the image counted
FLOWS = {
    "conv4net": (48, 4 * 4 + 1),
    "conv64f": (48, 4 * 3 + 2 + 1),
    "resnet18": (64, 20 + 20 + 17 + 8 + 2),
    "resnet18_npid": (193, 20 + 20 + 17 + 8 + 2),
    "resnet50": (64, 53 + 53 + 49 + 16 + 2),
    "resnet50_ms": (64, 53 + 53 + 49 + 16 + 2),
    "resnet50_npid": (193, 53 + 53 + 49 + 16 + 2),
    "resnet50_cbam": (193, 53 + 53 + 49 + 16 + 2 + 16 * 9),
    "resnet50_bam": (193, 53 + 53 + 49 + 16 + 2 + 3 * 16),
}
CBAM_GATE = (
    "ChannelGate.expand_as", "ChannelGate.mul", "SpatialGate.cat", "SpatialGate.spatial.conv",
    "SpatialGate.spatial.bn", "SpatialGate.sigmoid", "SpatialGate.mul",
)  # fmt: skip
BAM_GATE = (
    "channel_att.expand_as", "spatial_att.gate_s.gate_s_conv_reduce0", "mul", "sigmoid", "mul_1",
    "spatial_att.gate_s.gate_s_relu_di_1", "spatial_att.gate_s.gate_s_conv_final",
    "spatial_att.expand_as",
)  # fmt: skip


def gates(name: str) -> list[str]:
    """Call sites inside the attention gates."""
    if name == "resnet50_cbam":
        blocks = [f"layer{i + 1}.{j}.cbam" for i, n in enumerate((3, 4, 6, 3)) for j in range(n)]
        return [f"{block}.{site}" for block in blocks for site in CBAM_GATE]
    stages = ("bam1", "bam2", "bam3") if name == "resnet50_bam" else ()
    return [f"{stage}.{site}" for stage in stages for site in BAM_GATE]


QUICK = [name for name in NINE if not name.startswith("resnet50")]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NINE]
)
def test_flow(name: str) -> None:
    """Maps at every call site, finite, of its size; importance equal to autograd's."""
    side, count = FLOWS[name]
    model, x = fill(models.build(name)).double(), images((3, side, side), batch=1)
    inverse = nf.Inverse(steps=1, damping=0.01 if side < 193 else 0.0)  # 0 saves time: no norms
    explainer = nf.compile(model, x, target=score, inverse=inverse, keep="importance")
    flow, reference = explainer(x), Reference(model, x)
    gradients = reference.gradients(score)
    torch.testing.assert_close(flow.output, reference.output.detach(), rtol=1e-9, atol=1e-12)
    spatial = {k for k, g in gradients.items() if g.dim() == 4 and g[0, 0].numel() > 1}
    assert set(flow.maps) == set(flow.importance) == spatial and len(flow.maps) == count
    for site, found in flow.importance.items():
        assert relative_error(found, gradients[site]) < 1e-9, site
        value, drawn = reference.values[site], flow.maps[site]
        assert drawn.shape == (1, *value.shape[2:]), site
        assert drawn.isfinite().all() and (drawn >= 0).all(), site
    assert set(gates(name)) <= set(flow.maps)
    assert all(flow.maps[site].any() for site in gates(name))
