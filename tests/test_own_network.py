"""A network of the user's own, in every command: the same maps, under the user's own names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import naflow_fx as nf
from naflow_fx.cli import main
from naflow_fx.dataset.spec import as_spec
from naflow_fx.errors import ModelError, NaflowError, PhotoError, TargetError
from naflow_fx.subjects import Recipe

NETS = """
import torch
from torch import nn
from helpers import normalisation

class Crack(nn.Module):
    def __init__(self, width=6, classes=5):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, width, 5, 2, 2), normalisation(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), normalisation(width)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(width, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(x.mean((2, 3)))

class Both(Crack):
    def forward(self, x):
        scores = super().forward(x)
        return {"logits": scores, "shares": scores.softmax(1)}

class Mask(Crack):
    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

def wide():
    return Crack(12)

def needy(width):
    return Crack(width)

def number():
    return 3

def grey(photo):
    import numpy
    pixels = torch.from_numpy(numpy.array(photo.convert("L").resize((96, 96), 2)))
    return (pixels[None].float() / 255 - 0.5) / 0.25

def of_no_use(photo):
    return photo.size
"""
NAMES = ["sound", "crack", "spall", "<b>rust</b>", "plant"]
INPUT = ["--size", "96", "--mean", "0.5", "--std", "0.25", "--channels", "1"]
CRACK = ["--model", "nets.py:Crack", "--weights", "crack.pt", "--classes", "names.txt"]
OWN = [*CRACK, *INPUT]
NUMBERS: dict[str, Any] = {"size": 96, "mean": 0.5, "std": 0.25, "channels": 1}
ALIKE = 5e-3  # between programs: the solver rounds to bfloat16 where that is faster

Maps = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the user's files, which is the current one."""
    place = tmp_path_factory.mktemp("work")
    (place / "nets.py").write_text(NETS)
    (place / "helpers.py").write_text("from torch.nn import BatchNorm2d as normalisation\n")
    (place / "names.txt").write_text("\n".join(NAMES) + "\n")
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        torch.manual_seed(4)
        network = nf.subject("nets.py:Crack").build()
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 7}, place / "crack.pt")
        pixels = np.random.default_rng(0).integers(0, 255, (3, 9, 12, 3), dtype=np.uint8)
        (place / "photos" / "spall").mkdir(parents=True)
        for i, one in enumerate(pixels):
            Image.fromarray(one).resize((150, 120), Image.Resampling.BICUBIC).save(
                place / "photos" / "spall" / f"{i}.png"
            )
        yield place


@pytest.fixture(scope="module")
def photo(work: Path) -> str:
    return str(Path("photos", "spall", "0.png"))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command line prints that succeeds."""
    assert main(argv) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of a command line that fails."""
    assert main(argv) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"naflow-fx: error: [^\n]+\n", line)
    return line


def explained(capsys: pytest.CaptureFixture[str], out: str, *argv: str) -> tuple[Maps, Any, str]:
    """Maps, record and what is printed of `explain`, which saves its numbers."""
    printed = run(capsys, "explain", *argv, "--out", out, "--save-arrays")
    (record,) = Path(out).glob("*/flow.json")
    with np.load(record.parent / "maps.npz") as file:
        return dict(file), json.loads(record.read_text()), printed


@pytest.fixture(scope="module")
def right(photo: str) -> dict[str, Maps]:
    """Target -> maps, of `nf.compile` of a network that is built by hand."""
    space: dict[str, Any] = {"__name__": "by_hand"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path.cwd()))
        exec(NETS, space)
    network = space["Crack"]().eval()
    state = torch.load("crack.pt")["state_dict"]
    network.load_state_dict({key.removeprefix("module."): v for key, v in state.items()})
    with Image.open(photo) as image:
        grey = np.asarray(image.convert("L").resize((120, 96), Image.Resampling.BILINEAR))
    image = torch.from_numpy(grey.copy())[None, None, :, 12:108].float() * (1 / 255)
    explainer = nf.compile(network, (image - 0.5) / 0.25)
    flows = {"": explainer((image - 0.5) / 0.25), "spall": explainer((image - 0.5) / 0.25, 2)}
    return {key: {n: m[0].numpy() for n, m in flow.maps.items()} for key, flow in flows.items()}


def assert_equal(found: Maps, wanted: Maps, tolerance: float = 1e-5) -> None:
    assert list(found) == list(wanted)
    assert any(value.any() for value in wanted.values())
    for name, value in wanted.items():
        assert np.abs(found[name] - value).max() <= tolerance * max(value.max(), 1e-20), name


def test_explain(right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    maps, record, printed = explained(capsys, "predicted", photo, *OWN)
    assert_equal(maps, right[""])
    assert record["model"] == "Crack" and record["weights"] == "crack.pt"
    assert record["subject"]["classes"] == "names.txt" and record["subject"]["channels"] == 1
    assert record["target_name"] in NAMES and record["target_name"] in printed
    assert {entry["name"] for entry in record["top5"]} == set(NAMES)
    maps, record, printed = explained(capsys, "asked", photo, *OWN, "--target", "Spall")
    assert_equal(maps, right["spall"])
    assert record["target"] == 2 and "class 2, spall" in printed


def test_a_function_of_the_users_prepares_photos(
    photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(photo) as image:
        image.crop((0, 0, 96, 96)).save("square.png")
    given = ["square.png", *CRACK, "--preprocess", "nets.py:grey"]
    maps, record, _ = explained(capsys, "prepared", *given)
    assert record["subject"]["preprocess"] == "nets.py:grey"
    assert_equal(maps, explained(capsys, "numbers", "square.png", *OWN)[0], ALIKE)
    line = refused(capsys, "explain", "square.png", *CRACK, "--preprocess", "nets.py:of_no_use")
    assert "nets.py:of_no_use: gave <class 'tuple'>; wanted a float tensor [C, H, W]" in line


def test_several_classes_and_methods_are_rows_of_one_sheet(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--target", "predicted", "spall", "--methods", "naflow", "layercam"]
    given = ["explain", photo, *OWN, *asked, "--out", "several", "--save-arrays"]
    printed = run(capsys, *given)
    assert "written: several/0/rows.png, 4 rows" in printed
    place = Path("several", "0")
    names = {f"{t}_{m}" for t in ("predicted", "spall") for m in ("naflow", "layercam")}
    assert {p.name for p in place.iterdir()} == names | {"rows.png"}
    for target in ("predicted", "spall"):
        with np.load(place / f"{target}_naflow" / "maps.npz") as file:
            assert_equal(dict(file), right["" if target == "predicted" else target])
    run(capsys, *given)
    assert [p.name for p in Path("several").iterdir()] == ["0"]  # the same question, again
    run(capsys, "explain", photo, *OWN, "--out", "several")
    assert {p.name for p in Path("several").iterdir()} == {"0", "0-2"}


def test_photos_in_the_wrong_place_are_told(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "explain", "photos/spall", *OWN)
    assert "photos/spall: is a folder; `naflow-fx batch photos/spall --out results`" in line
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "--layers", "conv1", photo])
    assert f"--layers took {photo}: give photos before" in capsys.readouterr().err


def test_inspect_and_a_subject_as_a_file(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = run(capsys, "inspect", *OWN, "--save-subject", "kept/crack.toml")
    assert "conv2" in table and "written: kept/crack.toml" in table
    assert 'weights = "../crack.pt"' in Path("kept", "crack.toml").read_text()
    kept = ["--subject", "kept/crack.toml"]
    maps, record, _ = explained(capsys, "from_file", photo, *kept, "--target", "spall")
    assert_equal(maps, right["spall"])
    assert record["subject"]["model"] == "kept/../nets.py:Crack"
    flow = nf.subject("kept/crack.toml").explain(photo, target="spall")
    assert_equal({n: m[0].numpy() for n, m in flow.maps.items()}, right["spall"])
    wide = ["--models", "new=nets.py:wide", "old=nets.py:Crack=crack.pt"]
    run(capsys, "report", photo, *kept, *wide, "--out", "wide.html")
    page = Path("wide.html").read_text()
    assert "spall" in page and "old, crack.pt" in page and "new, as made" in page
    other = nf.subject("kept/crack.toml", weights="none")
    assert other.facts["weights"] == "as made" and other.recipe is not None
    assert other.recipe.size == 96


def test_report(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "report", photo, *OWN, "--out", "page.html", "--target", "<b>RUST</b>")
    page = Path("page.html").read_text()
    assert "<b>rust" not in page and "rust" in page and '"Crack"' in page


def test_a_network_is_named_once(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "report", photo, *OWN, "--models", "resnet18")
    assert "--models and --model, --weights: give one of them" in line
    models = ["narrow=nets.py:Crack", "nets.py:Crack=crack.pt", "nets.py:wide"]
    run(capsys, "report", photo, *INPUT, "--models", *models, "--out", "models.html")
    page = Path("models.html").read_text()
    assert [name in page for name in ("narrow", "crack.pt", "wide", "narrower")] == [1, 1, 1, 0]


def test_batch(right: dict[str, Maps], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    given = ["--out", "rows", "--quiet", "--workers", "0", "--target", "spall"]
    run(capsys, "batch", "photos", *OWN, *given)
    results = nf.open_results("rows")
    assert results.class_names == NAMES
    assert_equal(
        {name: results.maps(name, raw=True)[0] for name in results.stored}, right["spall"], ALIKE
    )
    told = results.manifest["job"]["explainer"]
    assert told["model"] == "nets.py:Crack" and told["preprocessing"]["crop"] == 96
    run(capsys, "report", "rows", "--out", "rows.html")
    assert "<b>rust" not in Path("rows.html").read_text()


BOX = """<annotation><object><name>spall</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>90</xmax>
<ymax>80</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def boxed(work: Path) -> list[str]:
    """Arguments of `evaluate` for photos with boxes."""
    (work / "boxes").mkdir()
    for i in range(3):
        (work / "boxes" / f"{i}.xml").write_text(BOX)
    (work / "map.json").write_text('{"spall": 2}')
    given = "evaluate --data imagenet --root photos --annotations boxes --class-map map.json"
    return [*given.split(), "--metrics", "energy", "i_d"]


def energies(out: str) -> dict[str, Any]:
    found = json.loads(Path(out, "evaluation.json").read_text())
    return {k: v["energy"] for k, v in found["scores"].items()}


@pytest.mark.slow
def test_export_info_and_every_command_of_an_artefact(
    right: dict[str, Maps],
    boxed: list[str],
    photo: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(capsys, "export", "--format", "pt2", "--out", "crack.pt2", *OWN)
    assert "5, sound, crack, spall, ..." in run(capsys, "info", "crack.pt2")
    given = ["--artefact", "crack.pt2"]
    maps, record, _ = explained(capsys, "exported", photo, *given, "--target", "spall")
    assert_equal(maps, right["spall"], ALIKE)
    assert record["model"] == "Crack" and record["artefact"] == "crack.pt2"
    table = run(capsys, "inspect", *given)
    assert "48 x 48" in table and "residual" not in table
    assert "residual" in run(capsys, "inspect", *given, "--photo", photo)
    assert "an artefact doesn't tell" in refused(capsys, "inspect", *given, "--format", "dot")
    run(capsys, "report", photo, *given, "--out", "exported.html", "--target", "spall")
    assert '"Crack"' in Path("exported.html").read_text()
    assert "exported" in refused(capsys, "export", "--format", "pt2", "--out", "x.pt2",
                                 "--subject", subject_of_artefact())  # fmt: skip
    run(capsys, *boxed, *OWN, "--methods", "naflow", "--layers", "*", "--out", "of_network")
    run(capsys, *boxed, *given, "--out", "of_artefact")
    ours, theirs = energies("of_network")["naflow"], energies("of_artefact")["naflow"]
    wanted, got = (dict(zip(e["layers"], e["values"], strict=True))
                   for e in (ours, theirs))  # fmt: skip
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-3)
    line = refused(capsys, *boxed, *given, "--methods", "layercam", "--out", "no")
    assert "one method, naflow" in line
    line = refused(capsys, "explain", photo, *given, "--weights", "crack.pt")
    assert "--weights: the artefact was made with its own" in line


BOTH = ["--model", "nets.py:Both", *OWN[2:], "--output", "logits"]


@pytest.mark.slow
def test_one_of_several_outputs_in_every_command(
    right: dict[str, Maps], boxed: list[str], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, _, printed = explained(capsys, "both", photo, *BOTH, "--target", "spall")
    assert_equal({name: maps[name] for name in right["spall"]}, right["spall"], ALIKE)
    assert "spall" in printed
    run(capsys, "inspect", *BOTH, "--save-subject", "both.toml")
    assert Recipe.read("both.toml").output == as_spec("both.toml").output == "logits"
    run(capsys, "batch", "photos", "--subject", "both.toml", "--out", "both_rows", "--quiet",
        "--workers", "0", "--target", "spall", "--maps", "relu_1")  # fmt: skip
    stored = nf.open_results("both_rows").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": stored}, {"relu_1": right["spall"]["relu_1"]}, ALIKE)
    of_one, of_both = (
        run(capsys, "decompose", photo, *given, "--layers", "relu", "--out", f"tree{i}")
        for i, given in enumerate((OWN, BOTH))
    )
    assert of_one.replace("tree0", "tree1") == of_both
    for out, given in (("plain_scores", OWN), ("both_scores", BOTH)):
        run(capsys, *boxed, *given, "--methods", "layercam", "--layers", "relu_1", "--out", out)
    assert energies("plain_scores") == energies("both_scores")
    line = refused(capsys, "explain", photo, *BOTH[:-1], "maps")
    assert "output='maps': the model has no such output; it has 'logits', 'shares'" in line
    run(capsys, "export", "--format", "pt2", "--out", "both.pt2", *BOTH)
    line = refused(capsys, "explain", photo, "--artefact", "both.pt2", "--output", "0")
    assert "--output: the artefact was made with its own" in line


def test_targets_of_other_outputs(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    mask = ["--model", "nets.py:Mask", *OWN[2:]]
    subject = nf.subject("nets.py:Mask", weights="crack.pt", classes="names.txt", **NUMBERS)
    there = subject.build()(subject.inputs([photo]))[0].argmax(0)
    index = int(there.flatten().mode().values)
    target = f"segment:{NAMES[index]}"
    maps, record, printed = explained(capsys, "mask", photo, *mask, "--target", target)
    flow = nf.compile(subject.build(), subject.example(), target=nf.targets.segment(index))(
        subject.inputs([photo])
    )
    assert_equal(maps, {name: m[0].numpy() for name, m in flow.maps.items()}, ALIKE)
    assert f"score {float(flow.score[0]):.4g}" in printed
    run(capsys, "report", photo, *mask, "--target", target, "--out", "mask.html")
    run(capsys, "batch", "photos", *mask, "--target", target, "--out", "mask_rows", "--quiet",
        "--workers", "0")  # fmt: skip
    rows = nf.open_results("mask_rows").pandas()
    assert rows["score"][0] == pytest.approx(float(flow.score[0]), rel=1e-4)
    line = refused(capsys, "explain", photo, *mask)
    assert "not [N, classes]" in line and "--target segment:CLASS" in line
    line = refused(capsys, "explain", photo, *mask, "--target", "segment:crak")
    assert "no class 'crak'" in line
    line = refused(capsys, "explain", photo, *OWN, "--target", "number:x")
    assert "number:x: wanted a number behind the colon" in line
    _, record, _ = explained(capsys, "number", photo, *OWN, "--target", "number:2")
    assert record["score"] == pytest.approx(float(_scores(photo)[2]), rel=1e-4)


def _scores(photo: str) -> Any:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    with torch.no_grad():
        return subject.build()(subject.inputs([photo]))[0]


def test_several_targets_of_a_batch_are_folders_of_their_own(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*OWN, "--workers", "0", "--target", "spall", "predicted", "--methods", "naflow",
             "layercam"]  # fmt: skip
    printed = run(capsys, "batch", "photos", *given, "--out", "by_target")
    assert "settling depth" in printed and "naflow-fx report by_target/spall_naflow" in printed
    names = {"spall_naflow", "predicted_naflow", "spall_layercam", "predicted_layercam"}
    assert {path.name for path in Path("by_target").iterdir()} == names
    maps = nf.open_results("by_target/spall_naflow").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": maps}, {"relu_1": right["spall"]["relu_1"]}, ALIKE)
    run(capsys, "diff", "by_target/spall_naflow", "by_target/predicted_naflow")
    run(capsys, "report", "by_target/spall_naflow", "--out", "several.html")
    page = Path("several.html").read_text()
    assert "settling depth" in page and "<b>scatter</b>" in page and "<b>agreement</b>" in page
    run(capsys, "decompose", photo, *OWN, "--layers", "relu", "--target", "spall", "crack",
        "--out", "trees")  # fmt: skip
    assert len(list(Path("trees").glob("*/*/decomposition.json"))) == 2


def test_names_that_were_given_are_saved(work: Path) -> None:
    nf.subject("nets.py:Crack", classes=NAMES, **NUMBERS).recipe.save("named.toml")  # type: ignore
    assert nf.subject("named.toml").class_names == tuple(NAMES)


def test_one_number_is_of_all_colours(photo: str) -> None:
    subject = nf.subject("nets.py:wide", size=96, mean=0.5, std=0.25)
    assert subject.example().shape == (1, 3, 96, 96)


def subject_of_artefact() -> str:
    Recipe(artefact="crack.pt2").save("artefact.toml")
    return "artefact.toml"


def test_onnx(right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx2torch")
    network = nf.subject("nets.py:Crack", weights="crack.pt").build()
    program = torch.onnx.export(network, (torch.rand(2, 1, 96, 96),), dynamo=True, verbose=False,
                                dynamic_shapes=({0: torch.export.Dim("N")},))  # fmt: skip
    assert program is not None
    program.save("crack.onnx")
    given = ["--model", "crack.onnx", "--classes", "names.txt", *INPUT, "--target", "spall"]
    maps, record, _ = explained(capsys, "onnx", photo, *given)
    assert record["weights"] == "crack.onnx" and record["target_name"] == "spall"
    wanted = right["spall"]
    last = next(m for m in reversed(maps.values()) if m.shape == (24, 24))
    assert_equal({"relu_1": last}, {"relu_1": wanted["relu_1"]}, ALIKE)
    assert "leave weights" in refused(capsys, "explain", photo, *given, "--weights", "crack.pt")


def test_a_program_of_torch_export(
    right: dict[str, Maps], photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = nf.subject("nets.py:Crack", weights="crack.pt").build()
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.export.export(network, (torch.rand(2, 1, 96, 96),), dynamic_shapes=shapes)
    torch.export.save(program, "program.pt2")
    given = ["--model", "program.pt2", "--classes", "names.txt", *INPUT]
    maps, _, _ = explained(capsys, "program", photo, *given, "--target", "spall")
    assert_equal(maps, right["spall"])
    run(capsys, "export", "--format", "pt2", "--out", "ours.pt2", *OWN, "--layers", "pool")
    assert "--artefact ours.pt2" in refused(capsys, "inspect", "--model", "ours.pt2", *INPUT)


def test_from_python(right: dict[str, Maps], photo: str) -> None:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", classes="names.txt", **NUMBERS)
    flow = subject.explain([photo, photo], target=["spall", "crack"])
    assert flow.target is not None and flow.target.tolist() == [2, 1]
    assert_equal({n: m[0].numpy() for n, m in flow.maps.items()}, right["spall"], ALIKE)
    first, second = flow.save("both")
    assert json.loads((first / "flow.json").read_text())["target_name"] == "spall"
    assert json.loads((second / "flow.json").read_text())["target_name"] == "crack"
    assert flow[1].save("one") == [Path("one")]
    assert flow.overlay()["pool"].shape[0] == 2
    assert "spall" in flow.save_html("flow.html").read_text()
    given = nf.Subject(subject.build(), preprocessing=subject.preprocessing, classes=NAMES)
    again = given.explain(photo, target="spall")
    assert_equal({n: m[0].numpy() for n, m in again.maps.items()}, right["spall"])
    with pytest.raises(TargetError, match=r"no class 'spal'; near: spall \(2\)"):
        given.explain(photo, target="spal")
    with pytest.raises(ModelError, match="4 names for 5 classes"):
        nf.Subject(subject.build(), preprocessing=subject.preprocessing, classes=NAMES[:4]).explain(
            photo
        )


def test_no_photo_is_told(right: dict[str, Maps]) -> None:
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    for ask in (subject.explain, subject.inputs):
        with pytest.raises(PhotoError, match="photos: got none; give one or several"):
            ask([])


def test_a_device_that_is_not_there_is_told(photo: str) -> None:
    pytest.importorskip("pyarrow")
    subject = nf.subject("nets.py:Crack", weights="crack.pt", **NUMBERS)
    network, image = subject.build(), subject.inputs([photo])
    for ask in (
        lambda device: subject.explain(photo, device=device),
        lambda device: subject.inputs([photo], device),
        lambda device: subject.example(device),
        lambda device: subject.build(device),
        lambda device: nf.explain_dataset(subject, "photos", "nowhere", device=device),
        lambda device: nf.quantus_explain_func(network, image, torch.tensor([0]), device=device),
    ):
        for device in ("abacus", "cuda:99"):
            with pytest.raises(NaflowError, match=f"^device='{device}': not to be had on this"):
                ask(device)
    assert not Path("nowhere").exists()


def test_class_names_in_their_forms(work: Path) -> None:
    numbered = {str(i): NAMES[i] for i in (4, 2, 0, 1, 3)}
    forms = {"a.json": json.dumps(NAMES), "b.txt": "\ufeff" + "\r\n".join(NAMES),
             "c.json": json.dumps(numbered)}  # fmt: skip
    for name, text in forms.items():
        (work / name).write_text(text, "utf-8")
        assert nf.subject(classes=name).class_names == tuple(NAMES)
    assert nf.subject(classes=dict(enumerate(NAMES))).class_names == tuple(NAMES)
    (work / "d.json").write_text('{"1": "one"}')
    with pytest.raises(ModelError, match=r"d.json: wanted a name for each of the classes 0 to 0"):
        nf.subject(classes="d.json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "nets.py"}, "function .none named. in it, but Crack, .*; give nets.py:Crack"),
        ({"model": "nets.py:Krack"}, "nets.py: no class or function Krack in it, but Crack, "),
        ({"model": "none.py:Net"}, "none.py: no such file"),
        ({"model": "wrong.py:Net"}, r"wrong.py \(line 2\) raises ZeroDivisionError"),
        ({"model": "no_such_package:Net"}, "No module named 'no_such_package'"),
        ({"model": "nets.py:needy"}, "missing a required argument: 'width'; give --model-args"),
        ({"model": "nets.py:number", "size": 9, "mean": 0, "std": 1}, "gave a int; wanted a torch"),
        ({"model": "crack.pt"}, "weights, without a network; give --model file.py:Name --weights"),
        ({"model": "nets.py:Crack"}, "how photos become inputs isn't known; give its size"),
        ({"model": "nets.py:Crack", "size": 96}, "mean, std is missing"),
        ({"model": "nets.py:Crack", "size": 96, "mean": (1, 1), "std": 1}, "wanted three numbers"),
        ({"model": "nets.py:Crack", "size": 9, "preprocess": "nets.py:grey"}, "or the numbers"),
        ({"weights": "none.pt"}, "neither a checkpoint file nor public weights"),
        ({"model_args": {"weights": "DEFAULT"}}, "cannot be built with {'weights': 'DEFAULT'}: "),
        ({**NUMBERS, "model": "nets.py:wide", "weights": "crack.pt"}, "checkpoint of another"),
        ({"model": "none.toml"}, "none.toml: cannot be read"),
        ({"model": "wrong.toml"}, "wrong.toml: not a subject .*sizes"),
        ({"model": "none.onnx"}, "none.onnx: no such file"),
    ],
)  # fmt: skip
def test_wrong_references_are_answered_with_what_there_is(
    given: dict[str, Any], words: str, work: Path, photo: str
) -> None:
    (work / "wrong.py").write_text("a = 1\n1 / 0\n")
    (work / "wrong.toml").write_text('model = "nets.py:Crack"\nsizes = 96\n')
    with pytest.raises(NaflowError, match=words):
        nf.subject(**given).explain(photo)


def test_arguments_and_weights_as_made(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "nets.py:needy", "--model-args", "width=3", *INPUT]
    first = explained(capsys, "made", photo, *given)
    again = explained(capsys, "made_again", photo, *given)
    assert first[1]["weights"] == "as made"
    assert first[1]["subject"]["model_args"] == {"width": 3}
    assert_equal(first[0], again[0], 0.0)


def test_a_maker_whose_arguments_nobody_knows_is_called() -> None:
    with pytest.raises(ModelError, match="gave a dict; wanted a torch.nn.Module"):
        nf.subject("builtins:dict", size=9, mean=0, std=1).build()


def test_a_subjects_file_holds_what_was_said(work: Path, tmp_path: Path) -> None:
    (work / "resnet18").mkdir()
    (work / "hub").mkdir()
    for recipe in (
        Recipe("resnet18", "none", {"num_classes": 5, "note": 'a "b"\n\\ \x7f', "x": [1.5, True]}),
        Recipe("timm/resnet18", classes=("a", "<b>", "\u00e9"), mean=(0.1, 0.2, 0.3), std=(1.0,)),
        Recipe("torchvision.models:resnet18", size=64, mean=(0.5,), std=(0.5,), channels=3),
    ):
        recipe.save(tmp_path / "s.toml")
        assert Recipe.read(tmp_path / "s.toml") == recipe
    Recipe("hf/./hub").save(work / "kept.toml")
    assert Recipe.read("kept.toml").model == "hf/hub"
    (tmp_path / "one.toml").write_text("mean = 0.5\nstd = 1\n")
    assert Recipe.read(tmp_path / "one.toml") == Recipe(mean=(0.5,), std=(1,))
    with pytest.raises(ModelError, match="None can't be written"):
        Recipe(model_args={"width": None}).save(tmp_path / "no.toml")


def test_workers_and_pairs(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    given = [*CRACK, "--preprocess", "nets.py:grey", "--layers", "relu_1"]
    run(capsys, "batch", "photos", *given, "--out", "by_workers", "--workers", "1", "--quiet")
    assert len(nf.open_results("by_workers")) == 3
    flow = nf.subject("nets.py:Crack", weights="crack.pt", preprocess="nets.py:grey").explain(
        photo, layers="relu_1"
    )
    row = nf.open_results("by_workers").maps("relu_1", raw=True)[0]
    assert_equal({"relu_1": row}, {"relu_1": flow.maps["relu_1"][0].numpy()}, ALIKE)
    run(capsys, "compare", photo, "photos/spall/1.png", *OWN, "--out", "pair")
    record = json.loads(Path("pair", "0-1", "flow.json").read_text())
    assert record["model"] == "Crack" and record["at"] == "penultimate"
    run(capsys, "decompose", photo, *OWN, "--layers", "relu_1", "--target", "spall", "--out", "why")
    assert "spall" in Path("why", "0", "decomposition.json").read_text()


def test_several_networks_read_what_lies_beside_them(work: Path) -> None:
    """Two files of one name: each has its own code, and none of it stays on the path."""
    import sys

    before = list(sys.path)
    for folder, width in (("a", 3), ("b", 4)):
        (work / folder).mkdir()
        (work / folder / "nets.py").write_text(
            f"from torch import nn\ndef net():\n    return nn.Conv2d(1, {width}, 1)\n"
        )
    found = [nf.subject(f"{folder}/nets.py:net").build() for folder in "ab"]
    assert [net.state_dict()["weight"].shape[0] for net in found] == [3, 4]
    assert sys.path == before
