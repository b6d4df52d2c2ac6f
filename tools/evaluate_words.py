"""What docs/evaluation.md says in words: in short, methods, the focused map, what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluate_sections import LAST

from naflow_fx.evaluation import report
from naflow_fx.evaluation.bootstrap import Estimate
from naflow_fx.evaluation.methods import CHANNELWISE
from naflow_fx.evaluation.metrics import METRICS
from naflow_fx.evaluation.result import Evaluation

FORMER = {"naflow": "naflow-0.01", "naflow-channelwise": "naflow-channelwise-0.01"}
TEXTS = {
    "naflow": "the default: Eq. 2, damping 0.1, abandoned neurons have no equation, cut "
              "ones a bound",
    "naflow-all": "`Inverse(rows=\"all\")`: abandoned neurons have the equation `= 0`, Eq. 12 to "
                  "the letter",
    "naflow-channelwise": "`reduction=\"channelwise\"`: the default, cut at 0 per channel",
    "naflow-0.01, naflow-channelwise-0.01": "the default until now, and cut per channel: damping "
                                            "0.01, inner layers solved again; figures as recorded",
    "focused": "`method=\"focused\"`: gradient x activation where the last map looks, below",
    "layercam, gradcam, gradcam++, xgradcam": "`method=` of this library, exact at every call site",
    "hirescam": "gradient x activation, cut after the sum",
    CHANNELWISE: "gradient x activation, cut at 0 per channel",
    "lift-cam": "channels weighted by what captum's DeepLIFT says that they contribute",
    "relevance-cam": "channels weighted by their relevance (z+ rule, other classes taken off), "
                     "zennit",
    "score-cam, ablation-cam, full-grad": "pytorch-grad-cam",
    "integrated-gradients, deep-lift": "captum, from an input of 0",
    "lrp": "zennit, sums shared out",
    "rise": "ours, 500 masks",
}  # fmt: skip

HEAD = """# Is the explanation any good?

`make evaluate` (minutes) or `make evaluate-full` (about two hours on one core; stopped and started
again, it keeps the methods that were finished) writes this page; its last lines tell how it was
made. `naflow-fx evaluate` and `nf.evaluate` measure your own networks and photos the same way.
Brackets are 95 % intervals of a bootstrap that draws photos. Where NAFlow loses, the table says so.
"""

LIBRARIES = """What the libraries do not do by themselves, and what was done about it
(`pytest tests/test_evaluation_peers.py`):

* captum has no DeepLIFT rule for ReLU6 and takes it for linear, without a word: it is given
  relu(x) - relu(x - 6), which is the same function and has the same multiplier.
* captum replaces the whole gradient of what a ReLU reads, a shortcut's part of it, too: each ReLU
  is given a copy. A module that is called twice it refuses: each call is given a module of its own.
* zennit knows no sum but its own module: each `x + y` is given one. Batch norms are merged.
* pytorch-grad-cam's FullGrad adds up the biases of convolutions and batch norms; what a ReLU6 adds
  where it saturates belongs to none, and is missing from the sum.
* A network with a step that the library has no rule for (a gate, `F.relu`) is refused, by name.
"""

FOCUSED = """## The focused map

    map_l = G_l * smooth( sum over channels of  max(Lambda_l x_l, 0) )
    G_l   = min(F_l / mean F_l, 1)^4

Ours, not the paper's, and without an inverse. x_l is the activation; `smooth` is a Gaussian of a
56th of the side, which spreads out what stands alone at a pixel and does nothing to maps of
14 x 14 and smaller; F_l is the feature node's map at the size of l. Positions where F is below its
mean are abandoned, by the fourth power of the ratio; the others are left as they are.

* Energy rewards any sharpening (a map times itself has more of it); pointing game and insertion
  minus deletion look at the order of the values alone. What the gate wins in energy is not all won.
* The fourth power of F below its mean was taken, not F itself: F itself has a higher pointing game,
  but where the last map knows less of the shape than the layers before (6 x 6 in the small CNN),
  it costs insertion minus deletion there. Both were chosen on the "choose" photos and other
  pictures than those of this page.
"""

CHANGES = """## The default, the one until now, and `rows`

New minus old, means over call sites (bold: surely better, †: surely worse). The old figures are
those that `make evaluate-full` gave at commit {commit}, where the default was damping 0.01 with 11
steps (9 in single layers, 6 in depthwise ones) and inner layers of regions were solved again. The
residual grows with the damping: it tells how much of an equation is met, not how good a map is.
"""


def in_short(results: Mapping[str, Evaluation], checks: Mapping[str, Any]) -> str:
    """When to use which, with the figures."""
    photos, pictures = results.get("photos"), results.get("pictures")
    if photos is None or pictures is None:
        return ""
    lines = [_where(photos), _paper(photos), _class(checks),
             _former(photos, "photos"), _former(pictures, "pictures"),
             _fidelity(photos, "photos"), _fidelity(pictures, "pictures")]  # fmt: skip
    return "## In short\n\n" + "\n".join(f"* {line}" for line in lines if line) + "\n"


def _where(photos: Evaluation) -> str:
    gap = photos.difference("focused", "layercam", "energy")
    word = "more" if gap.low > 0 else "less" if gap.high < 0 else "as much"
    word += " as" if word == "as much" else " than"
    energy, rival = (photos.mean(name, "energy").mean for name in ("focused", "layercam"))
    return ("Where is the object? `method=\"focused\"`, at a gradient method's price, has "
            f"{word} LayerCAM of its energy there ({energy:.3f} against {rival:.3f}, "
            f"{signed(gap)}); insertion minus deletion differs by "
            f"{signed(photos.difference('focused', 'layercam', 'i_d'))}. LayerCAM is the published "
            "choice at that price.")  # fmt: skip


def _paper(photos: Evaluation) -> str:
    names = ("naflow", "naflow-channelwise", "gradcam", "hirescam", "layercam")
    mean = {name: f"{photos.mean(name, 'energy').mean:.3f}" for name in names}
    return (f"What does a layer still hold of the decision? The default, the paper's form: energy "
            f"{mean['naflow']}, Grad-CAM {mean['gradcam']}, HiResCAM {mean['hirescam']}, LayerCAM "
            f"{mean['layercam']}, which the paper did not compare; cut per channel "
            f"{mean['naflow-channelwise']}.")  # fmt: skip


def _class(checks: Mapping[str, Any]) -> str:
    if not checks:
        return ""
    alike = {name: rows[0][0][0] for name, rows in checks["small CNN, class"].items()}
    return ("To tell classes apart, take the default: the rank correlation of its maps with those "
            f"of another class is {alike['naflow']:.2f}, cut per channel "
            f"{alike['naflow-channelwise']:.2f}, focused {alike['focused']:.2f}, LayerCAM "
            f"{alike['layercam']:.2f} (small CNN).")  # fmt: skip


def _former(found: Evaluation, what: str) -> str:
    if FORMER["naflow"] not in found.methods:
        return ""
    gaps = [f"{METRICS[m].text if m == 'i_d' else m} "
            f"{signed(found.difference('naflow', FORMER['naflow'], m))}"
            for m in ("energy", "pointing", "i_d")]  # fmt: skip
    return f"The default against the one until now, {what}: {', '.join(gaps)}."


def _fidelity(result: Evaluation, what: str) -> str:
    names = [n for n in (FORMER["naflow"], "naflow-all", "naflow") if n in result.methods]
    names = [n for n in names if "fidelity" in result.scores[n]]
    if not names:
        return ""
    found = ", ".join(f"`{n}` {result.mean(n, 'fidelity').mean:.3f}" for n in names)
    return (f"Fidelity of Z, its cosine with the activation where neurons take part, {what}: "
            f"{found}.")  # fmt: skip


def signed(found: Estimate) -> str:
    """+0.012 [-0.001, +0.030]."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def methods_text() -> str:
    """What the names stand for."""
    rows = [["method", "what"], *([name, text] for name, text in TEXTS.items())]
    return "## Methods\n\n" + report.markdown(rows, right=False) + "\n" + LIBRARIES


def changes_text(results: Mapping[str, Evaluation], commit: str) -> str:
    """The default and the one until now, every metric of every section; `rows` beside it."""
    shown = {"photos": "photos", "pictures": "pictures", "last-layer": f"photos, `{LAST}`",
             "robustness": "photos, three depths"}  # fmt: skip
    parts = [CHANGES.format(commit=commit)]
    pairs = [*FORMER.items(), ("naflow", "naflow-all")]
    for new, old in pairs:
        having = {s: r for s in shown if (r := results.get(s)) and {new, old} <= set(r.methods)}
        rows = [[f"{new} minus {old}", *(shown[s] for s in having)]]
        for metric in METRICS:
            cells = [_gap(result, new, old, metric) for result in having.values()]
            rows += [[metric, *cells]] if any(cells) else []
        if having:
            parts.append(report.markdown(rows))
    return "\n".join(parts) if len(parts) > 1 else ""


def _gap(result: Evaluation, new: str, old: str, metric: str) -> str:
    both = all(metric in result.scores[name] for name in (new, old))
    return report.marked(result.difference(new, old, metric), metric) if both else ""
