from __future__ import annotations

import pytest
import torch

from naflow_fx.evaluation.synthetic import PATTERNS, SmallCNN, draw, synthetic, train, trained


@pytest.fixture(scope="module")
def network() -> SmallCNN:
    return trained()


def test_pictures_are_the_same_for_a_seed_and_others_for_another() -> None:
    one, same, other = synthetic(6, 4), synthetic(6, 4), synthetic(6, 5)
    assert torch.equal(one.images, same.images) and not torch.equal(one.images, other.images)
    assert one.target.tolist() == list(range(len(PATTERNS)))
    assert one.share.min() > 0.03 and one.share.max() < 0.3


def test_training_is_deterministic_and_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    one, same = train(steps=2, batch=4), train(steps=2, batch=4)
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_network_reads_the_shape_and_nothing_else(network: SmallCNN) -> None:
    images, target, mask = draw(120, seed=9)
    others, _, _ = draw(120, seed=10)
    shift = len(PATTERNS) // 2  # shapes on the backgrounds of pictures of other classes
    with torch.no_grad():
        right = network(images).argmax(1) == target
        alone = network(torch.where(mask[:, None], images, 0.0)).argmax(1) == target
        without = network(torch.where(mask[:, None], 0.0, images)).argmax(1) == target
        moved = torch.where(mask[:, None], images, others.roll(shift, 0))
        elsewhere = network(moved).argmax(1)
    assert right.float().mean() > 0.97
    assert alone.float().mean() > 0.9
    assert without.float().mean() < 0.4  # 1 / 6 by chance
    both = elsewhere == target, elsewhere == target.roll(shift)  # both shapes may be visible
    assert (both[0] | both[1]).float().mean() > 0.97
    assert both[0].float().mean() > 2 * both[1].float().mean()
