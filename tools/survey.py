"""Which networks compile, and how well: a table, one row per model.

    python tools/survey.py torchvision                 every model of torchvision.models
    python tools/survey.py torchvision resnet18 vgg11  these rows only; the others stay
    python tools/survey.py timm                        one model of every family named below

Weights are drawn from the parameters' names, such that activations stay of order one; two random
images, 64 x 64 or the smallest size that the model takes.  Importance is compared with autograd
in float64, everything else is measured in float32.
"""

from __future__ import annotations

import argparse
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.passes.expand_composites import expand_composites
from naflow_fx.passes.remove_in_place import overwritten, remove_in_place
from naflow_fx.passes.trace import trace

DOCS = Path(__file__).parent.parent / "docs"
HEADER = (
    "model", "size", "call sites", "regions", "worst residual", "largest norm ratio",
    "compile [s]", "importance error",
)  # fmt: skip
TRANSFORMERS = ("vit", "swin", "maxvit")
# "resnet50, cbam" is timm's resnet50 with that attention layer in every block
SIZES = {"inception_v3": 96, "alexnet": 96}
TIMM = (
    "resnet18d", "resnet50d", "resnest14d", "seresnet50", "ecaresnet50d", "cspresnet50",
    "skresnet18", "res2net50_26w_4s", "res2next50", "dla34", "dla60_res2net", "hrnet_w18_small",
    "repvgg_a0", "ghostnet_100", "ghostnetv2_100", "mobilenetv3_large_100",
    "mobilenetv4_conv_small", "efficientnet_b0", "tf_efficientnetv2_b0", "efficientnetv2_rw_t",
    "nfnet_f0", "nf_resnet50", "nf_regnet_b1", "dm_nfnet_f0", "convnext_atto", "convnextv2_atto",
    "regnetx_002", "regnety_002", "densenet121", "ese_vovnet19b_dw", "cspdarknet53", "darknet53",
    "inception_v3", "inception_v4", "inception_resnet_v2", "inception_next_atto", "xception41",
    "legacy_xception", "lcnet_050", "tinynet_e", "mnasnet_100", "spnasnet_100", "fbnetc_100",
    "fbnetv3_b", "hardcorenas_a", "mixnet_s", "selecsls42b", "hardcorenas_f", "rexnet_100",
    "resnetv2_50", "resnetv2_50x1_bit", "resnet50_gn", "resnetblur50", "resnetaa50",
    "seresnext50_32x4d", "gcresnet33ts", "senet154", "dpn68", "gernet_s", "semnasnet_100",
    "vgg11_bn", "wide_resnet50_2", "tresnet_m", "pnasnet5large", "nasnetalarge", "hgnet_tiny",
    "hgnetv2_b0", "repghostnet_050", "mobileone_s0", "fastvit_t8", "edgenext_xx_small",
    "starnet_s1", "rdnet_tiny", "tf_mobilenetv3_small_075", "halonet26t", "botnet26t_256",
    "lambda_resnet26t", "eca_resnet33ts", "cs3darknet_s", "darknetaa53", "bat_resnext26ts",
    "focalnet_tiny_srf", "poolformer_s12", "mobilevit_xxs", "coat_tiny", "convmixer_768_32",
    "resmlp_12_224", "levit_128s", "efficientformer_l1", "repvit_m1", "shvit_s1",
    "efficientvit_b0", "resnet50, cbam", "resnet50, lcbam", "resnet50, gc",
)  # fmt: skip


def fill(model: nn.Module) -> nn.Module:
    """Weights from the parameters' names: activations stay of order one, in any network."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(_drawn(name, tensor))
    return model


def _drawn(name: str, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    u = (torch.rand(like.shape, generator=generator) - 0.5) * 12**0.5
    kind, fan_in = name.rsplit(".", 1)[-1], like[0].numel() if like.dim() else 1
    if kind in ("running_mean", "bias"):
        return 0.1 * u
    if kind == "running_var":
        return 1 + 0.25 * u
    if like.dim() < 2:
        return 0.6 + 0.15 * u
    return u * ((2 if like.dim() > 2 else 1) / fan_in) ** 0.5


class _Hardsigmoid(nn.Module):
    """torch's own, but its derivative is 1 / 6 in float64, not in float32."""

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        return F.relu6(x + 3) / 6


class _Reference(fx.Interpreter):
    """Runs a traced graph out of place and keeps every floating point value that autograd sees."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.values: dict[str, Tensor] = {}
        for name, module in list(gm.named_modules()):
            if isinstance(module, nn.Hardsigmoid):
                gm.set_submodule(name, _Hardsigmoid())

    def run_node(self, n: fx.Node) -> Any:
        written = overwritten(self.module, n)  # type: ignore[arg-type]
        if written is not None:
            self.env[written] = self.env[written].clone()
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and n.op != "get_attr":
            if any(self.env.get(s) is value for s in n.all_input_nodes) and written is None:
                value = value.view_as(value)  # an identity: another site
            self.values[n.meta[keys.SITE]] = value
        if isinstance(value, (list, tuple)):  # several results, used as one list
            self.values |= {f"{n.meta.get(keys.SITE)}.{i}": v for i, v in enumerate(value)}
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        exact = target in (F.hardsigmoid, torch.ops.aten.hardsigmoid.default,
                           torch.ops.aten.hardsigmoid_.default)  # fmt: skip
        return super().call_function(_Hardsigmoid() if exact else target, args, kwargs)


def importance_error(model: nn.Module, x: Tensor) -> float:
    """The largest relative difference to autograd over all call sites."""
    explainer = nf.compile(model, x, method="layercam", keep=("importance",))
    flow = explainer(x)
    reference = _Reference(expand_composites(remove_in_place(trace(model, (x,)))))
    leaf = x.clone().requires_grad_()
    score = reference.run(leaf)[torch.arange(len(x)), flow.target].sum()
    sites = list(flow.importance)
    wanted = torch.autograd.grad(score, [reference.values[site] for site in sites])
    return max(
        float((flow.importance[site] - g).norm() / g.norm().clamp(min=1e-300))
        for site, g in zip(sites, wanted, strict=True)
    )


def row(name: str, model: nn.Module, size: int) -> tuple[str, ...]:
    """The model's row; an error's first line where it does not compile."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    x = _drawn("image", torch.empty(2, 3, size, size))
    try:
        start = time.perf_counter()
        explainer = nf.compile(model, x)
        seconds = time.perf_counter() - start
        flow = explainer(x)
        if not all(bool(m.isfinite().all()) for m in flow.maps.values()):
            raise ArithmeticError("maps are not finite")
        residual = max(float(r.max()) for r in flow.residual.values())
        ratio = max(float(r.max()) for r in flow.norm_ratio.values())
        regions = Counter(
            r.split()[0] for r in {r.region for r in explainer.inspect().rows} - {"-"}
        )
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(regions.items())) or "-"
        error = importance_error(model.double(), x.double())
    except Exception as error:
        lines = " ".join(str(error).split("Rules exist")[0].split())
        return (name, str(size), f"{type(error).__name__}: {lines[:300]}", *[""] * 5)
    return (name, str(size), str(len(explainer.layers)), kinds, f"{residual:.2f}", f"{ratio:.2f}",
            f"{seconds:.1f}", f"{error:.0e}")  # fmt: skip


def smallest(model: nn.Module, sizes: Iterable[int]) -> int:
    """The first size that the model takes."""
    for size in sizes:
        try:
            with torch.no_grad():
                model(torch.zeros(2, 3, size, size))
        except Exception:
            continue
        return size
    return 224


def torchvision_models() -> list[str]:
    """Every classification network of torchvision."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def build(library: str, name: str) -> nn.Module:
    """A network with seeded weights, in eval mode."""
    if library == "torchvision":
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        made: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    else:
        import timm

        base, _, attention = name.partition(", ")
        blocks = {"block_args": {"attn_layer": attention}} if attention else {}
        made = timm.create_model(base, pretrained=False, **blocks)
    return fill(made).eval()


def read(path: Path) -> dict[str, tuple[str, ...]]:
    """The rows that a table holds, by model."""
    lines = path.read_text().splitlines() if path.exists() else []
    cells = [tuple(c.strip() for c in line.strip("|").split("|")) for line in lines
             if line.startswith("| ")]  # fmt: skip
    return {c[0]: c for c in cells if len(c) == len(HEADER) and c[0] != HEADER[0]}


def write(path: Path, library: str, rows: dict[str, tuple[str, ...]], order: list[str]) -> None:
    """The table as markdown."""
    found = [rows[name] for name in order if name in rows]
    good = sum(bool(r[-1]) and r[-1] != "-" for r in found)
    left_out = sum(r[-1] == "-" for r in found)
    versions = f"torch {torch.__version__.split('+')[0]}, {library} {_version(library)}"
    text = [
        f"# Survey: {library}",
        "",
        f"Made by `python tools/survey.py {library}` ({versions}). "
        f"{good} of {len(found) - left_out} models compile"
        + (f"; {left_out} are left out, the table says why" if left_out else "")
        + ". Residual and norm ratio are the largest over "
        "all call sites and two random images, with random weights; importance error is the "
        "largest relative difference to autograd over all call sites, in float64.",
        "",
    ]
    for cells in (HEADER, ("---",) * len(HEADER), *found):
        text.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    path.write_text("\n".join(text) + "\n")


def _version(library: str) -> str:
    from importlib.metadata import version

    return version(library)


def main() -> None:
    """Surveys a library, or some of its models; updates the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("library", choices=("torchvision", "timm"))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--missing", action="store_true", help="only rows not yet in the table")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    path = DOCS / f"survey-{given.library}.md"
    path.parent.mkdir(exist_ok=True)
    order = torchvision_models() if given.library == "torchvision" else list(TIMM)
    rows = read(path)
    for name in given.models or order:
        if given.missing and name in rows:
            continue
        if given.library == "torchvision" and name.startswith(TRANSFORMERS):
            reason = "left out: a transformer, its nodes are not batch, channel, space"
            rows[name] = (name, "-", reason, *["-"] * 5)
        else:
            model = build(given.library, name)
            size = smallest(model, (SIZES.get(name, 64), 96, 128, 224, 256, 299))
            rows[name] = row(name, model, size)
        print(" | ".join(rows[name]), flush=True)
        write(path, given.library, read(path) | {name: rows[name]}, order)


if __name__ == "__main__":
    main()
