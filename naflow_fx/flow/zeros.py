"""Why a map of Eq. 2 is zero everywhere: Lambda, Z, where the two meet, or the sign."""

from __future__ import annotations

from naflow_fx.errors import FlowError
from naflow_fx.flow.data import FlowData
from naflow_fx.flow.measures import wide

UNKNOWN = "not finite: the photo, the score or a square of Z overflowed; nothing is known"
LAMBDA = "Lambda: importance is 0 everywhere, no gradient of the score reaches this call site"
Z = "Z: bpfm is 0 everywhere, the inverse brings nothing back to this call site"
APART = "apart: no neuron has both importance and bpfm; what the score depends on is abandoned"
SIGN = {
    "sum": "sign: Lambda Z adds up to no more than 0 over the channels, at every position",
    "channelwise": "sign: Lambda Z is no more than 0 in every channel, at every position",
}


def why_zero(flow: FlowData, site: str) -> list[str]:
    """What `AttentionFlow.why_zero` documents."""
    flow.maps[site]  # a name that it lacks is told
    method = flow.options.get("method", "naflow")
    if method != "naflow":
        raise FlowError(f"why_zero tells of Lambda Z; a map of method={method!r} has no Z.  Ask a "
                        'flow of the default, method="naflow"')  # fmt: skip
    if site not in flow.importance or site not in flow.bpfm:
        raise FlowError(f"why_zero({site!r}) needs Lambda and Z, which this flow doesn't hold: "
                        'nf.compile(..., keep=("bpfm", "importance"))')  # fmt: skip
    return [_reason(one, site) for one in flow]


def _reason(flow: FlowData, site: str) -> str:
    """Why the map of one image is zero: a flow of one image, N = 1."""
    m, importance, bpfm = flow.maps[site], flow.importance[site], flow.bpfm[site]
    if not m.isfinite().all():
        return UNKNOWN
    if m.any():
        return f"not zero: {float((m > 0).float().mean()):.0%} of the positions are above 0"
    if not importance.any():
        return LAMBDA
    if not bpfm.any():
        return Z
    products = wide(importance) * wide(bpfm)
    if not products.any():
        return APART
    over, under = float(products.clamp_min(0).sum()), float(products.clamp_max(0).sum())
    return f"{SIGN[flow.options.get('reduction', 'sum')]}; in all {over:+.3g} and {under:+.3g}"
