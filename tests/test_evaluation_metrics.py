from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation import faithfulness as faith
from naflow_fx.evaluation import localisation as loc
from naflow_fx.evaluation import metrics
from naflow_fx.evaluation.data import EvaluationSet, box_mask
from naflow_fx.evaluation.faithfulness import Classifier, impute, max_sensitivity, road


def random_maps(count: int = 6, size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(count, size, size, generator=generator, dtype=torch.float64)
    boxes = [(0.1 * (i % 3), 0.2, 0.5 + 0.05 * i, 0.9) for i in range(count)]
    return maps, torch.stack([box_mask([b], size, size) for b in boxes])


def test_a_box_marks_the_pixels_whose_centre_it_holds() -> None:
    assert box_mask([(0.25, 0.0, 0.75, 0.5)], 4, 4).int().tolist() == [
        [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # fmt: skip
    union = box_mask([(0, 0, 0.5, 0.5), (0.25, 0.25, 2.0, 2.0)], 4, 4)
    assert int(union.sum()) == 4 + 9 - 1


def test_localisation_of_a_map_that_is_the_evidence() -> None:
    _, evidence = random_maps()
    for metric in (loc.energy, loc.pointing, loc.iou, loc.best_iou):
        assert torch.equal(metric(evidence.double(), evidence), torch.ones(6).double()), metric
        outside = metric(1 - evidence.double(), evidence)[:3]
        assert torch.equal(outside.round(), torch.zeros(3)), metric
        assert not metric(torch.zeros(6, 12, 12), evidence).any(), metric


def test_energy_of_a_uniform_map_is_the_share_of_the_evidence() -> None:
    _, evidence = random_maps()
    share = evidence.flatten(1).double().mean(1)
    torch.testing.assert_close(loc.energy(torch.ones(6, 3, 3).double(), evidence), share)
    torch.testing.assert_close(loc.pointing(torch.ones(6, 3, 3).double(), evidence), share)


def test_iou_by_hand() -> None:
    maps = torch.tensor([[[1.0, 0.6], [0.4, 0.0]]])
    evidence = torch.tensor([[[True, False], [True, False]]])
    assert loc.iou(maps, evidence, 0.5).item() == pytest.approx(1 / 3)
    assert loc.iou(maps, evidence, 0.3).item() == pytest.approx(2 / 3)
    assert loc.iou(maps, evidence, 0.9).item() == pytest.approx(1 / 2)
    assert loc.best_iou(maps, evidence).item() == pytest.approx(2 / 3)


def test_pointing_tolerance() -> None:
    maps = torch.zeros(1, 9, 9)
    maps[0, 4, 7] = 1
    evidence = box_mask([(0.0, 0.0, 5 / 9, 1.0)], 9, 9)[None]
    assert [loc.pointing(maps, evidence, t).item() for t in (0, 2, 3)] == [0, 0, 1]


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(EvaluationError, match=r"\[2, 4, 4\] against evidence \[1, 4, 4\]"):
        loc.energy(torch.ones(2, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(EvaluationError, match="same number of images"):
        EvaluationSet(torch.ones(2, 3, 4, 4), torch.zeros(2), None, ("one",), torch.arange(2))


def test_localisation_agrees_with_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    maps, evidence = random_maps()
    batches = (np.zeros((6, 1, 12, 12)), np.zeros(6, int), maps.numpy()[:, None])
    call: dict[str, object] = dict(zip(("x_batch", "y_batch", "a_batch"), batches, strict=True))
    call |= {"model": None, "s_batch": evidence.numpy()[:, None]}
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    energy = quantus.RelevanceMassAccuracy(**options)(**call)
    np.testing.assert_allclose(loc.energy(maps, evidence), energy, rtol=1e-12)
    pointing = quantus.PointingGame(**options)(**call)
    np.testing.assert_array_equal(loc.pointing(maps, evidence), np.asarray(pointing, float))


def first_pixels(images: Tensor) -> Tensor:
    """Probabilities of two classes: the sum of the left half, and the rest."""
    p = images[..., : images.shape[-1] // 2].flatten(1).mean(1)
    return torch.stack([p, 1 - p], 1)


def test_insertion_and_deletion_of_known_evidence() -> None:
    images, target = torch.ones(2, 1, 8, 8), torch.tensor([0, 0])
    left = box_mask([(0, 0, 0.5, 1)], 8, 8).float()
    maps, classifier = torch.stack([left, 1 - left]), Classifier(first_pixels, images, target, 3)
    vars(classifier)["blurred"] = torch.zeros(2, 1, 8, 8)
    found = faith.curves(classifier, maps, 4)
    torch.testing.assert_close(found[0], torch.tensor([[0, 0.5, 1, 1, 1], [0, 0, 0, 0.5, 1]]))
    torch.testing.assert_close(found[1], torch.tensor([[1, 0.5, 0, 0, 0], [1, 1, 1, 0.5, 0]]))
    areas = faith.insertion_deletion(classifier, maps, 4)
    torch.testing.assert_close(areas["i_d"], torch.tensor([0.5, -0.5]))


def test_equal_values_are_ranked_in_no_direction() -> None:
    rank = faith.ranks(torch.zeros(1, 32, 32))[0]
    assert rank.flatten().sort().values.tolist() == [i / 1024 for i in range(1024)]
    assert all((half.mean() - 0.5).abs() < 0.05 for half in (rank[:16], rank[:, :16]))


def test_blur_keeps_a_flat_image_and_flattens_noise() -> None:
    flat = torch.full((1, 3, 40, 40), 0.3)
    torch.testing.assert_close(faith.blurred(flat), flat)
    noise = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert faith.blurred(noise).std() < 0.2


def test_drop_and_increase_agree_with_grad_cam() -> None:
    module = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 8, 8, generator=generator)
    maps = torch.rand(4, 8, 8, generator=generator)
    maps = maps / maps.flatten(1).amax(1)[:, None, None]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5), torch.nn.Softmax(1))
    target = torch.tensor([0, 1, 2, 3])
    ours = faith.average_drop(Classifier(network, images, target, batch=3), maps)
    given = (
        images,
        maps.numpy(),
        [targets.ClassifierOutputTarget(int(t)) for t in target],
        network,
    )
    with torch.no_grad():
        before = network(images).gather(1, target[:, None])[:, 0].numpy()
    np.testing.assert_allclose(ours["drop"], module.DropInConfidence()(*given) / before, rtol=1e-4,
                               atol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(ours["increase"], module.IncreaseInConfidence()(*given))


def test_complexity_of_extremes() -> None:
    one = torch.zeros(1, 4, 4)
    one[0, 1, 2] = 3.0
    maps = torch.cat([one, torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    assert metrics.entropy(maps).tolist() == pytest.approx([0, 1, 1])
    assert metrics.sparsity(maps).tolist() == pytest.approx([15 / 16, 0, 0], abs=1e-9)


def test_complexity_agrees_with_quantus() -> None:
    quantus = pytest.importorskip("quantus")
    maps, _ = random_maps()
    call = {"model": None, "x_batch": np.zeros((6, 1, 12, 12)), "y_batch": np.zeros(6, int)}
    options = {"abs": True, "normalise": False, "disable_warnings": True}
    entropy = quantus.Complexity(**options)(**call, a_batch=maps.numpy()[:, None].copy())
    np.testing.assert_allclose(metrics.entropy(maps) * math.log(144), entropy, rtol=1e-9)
    sparsity = quantus.Sparseness(**options)(**call, a_batch=maps.numpy()[:, None].copy())
    np.testing.assert_allclose(metrics.sparsity(maps), sparsity, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("percent", [20, 50])
def test_imputation_agrees_with_the_authors_direct_solver(percent: int) -> None:
    authors = pytest.importorskip("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 40, generator=generator)
    rank = faith.ranks(loc.at_size(torch.rand(2, 5, 5, generator=generator), (32, 40)))
    gone = rank < percent / 100
    theirs = torch.stack([authors(x, (~g).float()) for x, g in zip(images, gone, strict=True)])
    ours = impute(images, gone, noise=0)
    torch.testing.assert_close(ours, theirs, atol=3e-3, rtol=0)
    assert torch.equal(ours[(~gone)[:, None].expand_as(ours)],
                       images[(~gone)[:, None].expand_as(ours)])  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_road_agrees_with_grad_cam(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("pytorch_grad_cam.metrics.road")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 24, 24, generator=generator)
    maps = torch.rand(4, 24, 24, generator=generator)
    weights = torch.randn(24 * 24 * 3, 5, generator=generator) / 10
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1728, 5), torch.nn.Softmax(1))
    network[1].weight.data = weights.T.contiguous()
    target = torch.tensor([0, 1, 2, 3])
    ours = road(Classifier(network, images, target), maps, (20, 60), noise=0)
    given = (images, maps.numpy(), [targets.ClassifierOutputTarget(int(t)) for t in target])
    monkeypatch.setattr(module.torch, "randn_like", torch.zeros_like)  # their noise
    theirs = module.ROADCombined([80, 40])(*given, network)  # they count what is kept
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_max_sensitivity_agrees_with_captum() -> None:
    captum = pytest.importorskip("captum.metrics")
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 2, 6, 6, generator=generator)

    def maps(x: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        return {"a": (x**3).sum(1), "zero": 0 * x[:, 0]}

    ours = max_sensitivity(maps, images, torch.zeros(3), maps(images), 0.1, 4, 64)
    noise = torch.Generator().manual_seed(0)

    def same_noise(x: Tensor, radius: float) -> tuple[Tensor]:  # each image, repeated
        drawn = torch.stack([2 * torch.rand(images.shape, generator=noise) - 1 for _ in range(4)])
        return (x + radius * drawn.transpose(0, 1).flatten(0, 1),)

    def explain(x: tuple[Tensor]) -> tuple[Tensor]:
        return (maps(x[0])["a"],)

    theirs = captum.sensitivity_max(explain, (images,), same_noise, 0.1, 4)
    torch.testing.assert_close(ours["a"], theirs)
    assert not ours["zero"].any()


def test_blur_is_torchvisions() -> None:
    from torchvision.transforms.functional import gaussian_blur

    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(faith.blurred(images), gaussian_blur(images, [13, 13], [2, 2]))
