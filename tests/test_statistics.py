"""Statistics of flows on hand-made maps whose values are known."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from small_flow import explained
from torch import Tensor

import naflow_fx as nf
from naflow_fx.errors import FlowError
from naflow_fx.flow import measures
from naflow_fx.flow.statistics import DepthTable


def flow_of(*maps: Tensor, size: tuple[int, int] = (4, 4)) -> nf.AttentionFlow:
    """A flow of hand-made maps [N, h, w], call sites "a", "b", ..."""
    named = OrderedDict(zip("abcdefgh", maps, strict=False))
    count = len(maps[0])
    score, target = torch.zeros(count), torch.zeros(count, dtype=torch.int64)
    return nf.AttentionFlow(named, score, score, target, {}, {}, input_size=size)


RISING = torch.arange(16.0).reshape(1, 4, 4)
FALLING = RISING.flip(1, 2)


def test_spread_is_entropy_in_units_of_an_even_map() -> None:
    even, spot, nothing = torch.ones(3, 3), torch.zeros(3, 3), torch.zeros(3, 3)
    spot[1, 2] = 5.0
    half = torch.zeros(3, 3)
    half[0] = 1.0
    found = measures.entropy(torch.stack([even, spot, half, nothing]))
    assert found[:3].tolist() == pytest.approx([1, 0, 0.5])  # log 3 / log 9
    assert found[3].isnan()
    assert measures.entropy(torch.ones(2)).isnan().all()


def test_scatter_is_what_lies_outside_of_the_largest_part() -> None:
    two = torch.zeros(4, 5)
    two[0, :2], two[3, 3:] = torch.tensor([4.0, 3.0]), torch.tensor([2.0, 2.0])
    two[2, 0] = 1.0  # below half of the maximum: in no part
    corner = torch.zeros(4, 5)
    corner[1, 1] = corner[2, 2] = 1.0  # they touch in a corner: two parts
    one = torch.zeros(4, 5)
    one[1, 1:4] = torch.tensor([1.0, 2.0, 1.0])
    found = measures.scatter(torch.stack([two, corner, one, -one, one * math.nan]))
    assert found[:3].tolist() == pytest.approx([5 / 12, 0.5, 0])
    assert found[3:].isnan().all()
    line = measures.scatter(torch.tensor([[3.0, 0.0, 2.0, 1.0]]))
    assert line.tolist() == pytest.approx([0.5])
    assert measures.scatter(torch.ones(1, 2, 2, 2)).tolist() == [0]
    assert measures.scatter(torch.ones(3)).isnan().all()


def test_agreement_is_rank_correlation_on_the_coarser_grid() -> None:
    assert measures.agreement(RISING, RISING**3).tolist() == pytest.approx([1])
    assert measures.agreement(RISING, FALLING).tolist() == pytest.approx([-1])
    fine = torch.tensor([[0.0, 8.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0],
                         [0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 3.0, 3.0]])[None]  # fmt: skip
    coarse = torch.tensor([[[5.0, 4.0], [0.0, 9.0]]])  # the cells' means: 2, 1; 0, 3
    assert measures.agreement(fine, coarse).tolist() == pytest.approx([1])
    assert measures.agreement(coarse, fine).tolist() == pytest.approx([1])
    wide = torch.tensor([[[1.0, 1.0, 2.0, 2.0]]]).expand(1, 4, 4)  # [4, 4] against [2, 1]
    assert measures.agreement(wide, torch.ones(1, 2, 1)).isnan().all()
    assert measures.agreement(RISING, torch.ones(1, 4, 4)).isnan().all()
    assert measures.agreement(RISING, RISING * math.inf).isnan().all()
    assert measures.agreement(RISING, torch.ones(1, 4)).isnan().all()


def test_a_table_of_a_flow() -> None:
    one = torch.zeros(1, 4, 4)
    one[0, 0, 0] = 1.0
    found = flow_of(FALLING, one, RISING * 2, torch.ones(1), RISING).statistics(
        box=(0.5, 0.0, 1.0, 1.0)
    )
    assert found.layers == ("a", "b", "c", "e")  # "d" is a single value
    assert found.depth.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.values["agreement"][0].tolist() == pytest.approx([-1, -math.sqrt(60 / 340), 1, 1])
    right = (RISING[..., 2:].sum() / RISING.sum()).item()
    wanted = [1 - right, 0, right, right]
    assert found.values["inside"][0].tolist() == pytest.approx(wanted, abs=1e-6)
    assert found.values["spread"][0, 1] == 0 and found.values["scatter"][0, 1] == 0
    assert found.settled == ["c"] and found.settling_depth.tolist() == pytest.approx([2 / 3])
    text = str(found).splitlines()
    assert text[0].split() == ["layer", "spread", "scatter", "agreement", "inside"]
    assert text[-1] == "settling depth 0.667, c"
    assert found.rows()[1]["layer"] == "b" and found.rows()[1]["inside"] == 0
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, 2:] = True
    other = flow_of(FALLING, one, RISING * 2, RISING).statistics(mask=mask)
    torch.testing.assert_close(other.values["inside"], found.values["inside"])


@pytest.mark.parametrize(
    ("agreements", "wanted"),
    [
        ([0.9, 0.1, 0.6, 0.8, 1.0], 2),
        ([0.9, 0.5, 0.6, 1.0], 2),  # above, not at
        ([0.6, math.nan, 0.8, 1.0], 0),  # nothing known says nothing
        ([0.1, math.nan, 0.8, 1.0], 2),
        ([0.1, 0.2, 0.3, 1.0], 3),
        ([0.9, 0.9, math.nan], -1),  # the last map is zero
        ([math.nan, math.nan], -1),
    ],
)
def test_where_it_settles(agreements: list[float], wanted: int) -> None:
    layers = tuple("abcde"[: len(agreements)])
    table = nf.Statistics(layers, {"agreement": torch.tensor([agreements])})
    assert table.settled == [layers[wanted] if wanted >= 0 else None]
    depth = float(table.settling_depth)
    assert math.isnan(depth) if wanted < 0 else depth == wanted / (len(layers) - 1)


def test_several_photos_have_means_and_intervals() -> None:
    maps = torch.cat([RISING, FALLING, RISING, torch.zeros(1, 4, 4)])
    last = RISING.expand(4, 4, 4)
    found = flow_of(maps, last).statistics()
    first = found.estimates("agreement")[0]  # of 1, -1, 1; the fourth is not defined
    assert first.mean == pytest.approx(1 / 3) and first.low < first.mean < first.high
    assert len(found) == 4 and "[" in str(found)
    halves = [flow_of(maps[i:j], last[i:j]).statistics() for i, j in ((0, 3), (3, 4))]
    joined = nf.Statistics.joined(halves)
    assert str(joined) == str(found) and joined.settled == found.settled
    with pytest.raises(FlowError, match="2 kinds"):
        nf.Statistics.joined([found, flow_of(last).statistics()])


def test_two_networks_are_compared_by_relative_depth() -> None:
    one = flow_of(RISING, FALLING, RISING)
    two = flow_of(RISING, RISING, RISING, FALLING, FALLING)
    table = nf.agreement(one, two)
    assert table.layers == ("a", "b | c", "c | e")
    assert table.values["agreement"].tolist() == [pytest.approx([1, -1, -1])]
    assert nf.agreement(two, one).layers == ("a", "c | b", "e | c")
    assert nf.agreement(one, one).layers == ("a", "b", "c")
    assert isinstance(table, DepthTable) and "b | c" in str(table)
    with pytest.raises(FlowError, match="flows of 1 and 2 photos"):
        nf.agreement(one, flow_of(RISING.expand(2, 4, 4)))


def test_a_real_flow() -> None:
    _, flow, _ = explained(count=2)
    found = flow.statistics(layers=["layer1.*"], box=[(0, 0, 1, 1), (0, 0, 0.5, 1)])
    assert all(name.startswith("layer1.") for name in found.layers)
    known = found.values["inside"][0]
    torch.testing.assert_close(known[~known.isnan()], torch.ones_like(known[~known.isnan()]))
    assert float(found.values["agreement"][0, -1]) == pytest.approx(1)
    shares = found.values["scatter"]
    assert bool(((shares >= 0) & (shares < 1) | shares.isnan()).all())


def test_boxes_and_masks_may_be_arrays() -> None:
    flow = flow_of(RISING.expand(2, 4, 4))
    wanted = flow.statistics(box=(0.5, 0, 1, 1)).values["inside"]
    half = np.arange(4) >= 2
    for given in ({"box": np.array([[0.5, 0, 1, 1]] * 2)}, {"mask": np.tile(half, (4, 1))}):
        assert torch.equal(flow.statistics(**given).values["inside"], wanted)


def test_no_photos() -> None:
    found = flow_of(RISING.expand(2, 4, 4))[:0].statistics()
    assert len(found) == 0 and not found.settled and str(found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layers": ["no"]}, "no call site is named no"),
        ({"layers": ["b"]}, "several positions; got b"),
        ({"box": (0, 0, 1, 1), "mask": torch.ones(4, 4)}, "a box and a mask; give one"),
        ({"mask": torch.ones(3, 4)}, r"masks \[1, 3, 4\]; wanted one.* \[1, 4, 4\]"),
        ({"box": [(0, 0, 1, 1)] * 2}, r"masks \[2, 4, 4\]"),
        ({"box": []}, r"box=\[\]\): wanted \(left, top, right, bottom\)"),
        ({"box": (0, 0, 1)}, "or one a photo"),
        ({"box": [(0, 0, 1)]}, "or one a photo"),
        ({"box": "all"}, "or one a photo"),
    ],
)
def test_what_statistics_refuse(arguments: dict[str, object], words: str) -> None:
    flow = flow_of(RISING, torch.ones(1))
    with pytest.raises(FlowError, match=words):
        flow.statistics(**arguments)  # type: ignore[arg-type]
    with pytest.raises(FlowError, match=r"estimates\(measure='x'\): wanted one of"):
        flow.statistics().estimates("x")
