"""Does the network read what the map marks, and does the map stay under noise?

Images are changed and classified, or explained, again.  Functions take a `Classifier` of N images
[N, C, H, W], and their maps [N, h, w], which are brought to the images' size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from naflow_fx.evaluation.localisation import at_size

Probability = Callable[[Tensor], Tensor]  # images [M, C, H, W] -> of the classes, [M, K]
Maps = Mapping[str, Tensor]  # layer -> [N, h, w]
SIGMA = 1 / 20  # of the image's height: no object's detail is left


def blurred(images: Tensor) -> Tensor:
    """Images [N, C, H, W] under a Gaussian of `SIGMA`, borders mirrored."""
    from torchvision.transforms.functional import gaussian_blur

    sigma = SIGMA * images.shape[-2]
    reach = min(int(3 * sigma), *(s - 1 for s in images.shape[-2:]))
    for size in ([2 * reach + 1, 1], [1, 2 * reach + 1]):  # one axis, then the other: far cheaper
        images = gaussian_blur(images, size, [sigma, sigma])
    return images


@dataclass(frozen=True, eq=False)
class Classifier:
    """N images, and how probable a network finds each one's class in changed versions of them.

    Attributes:
        probability: images -> class probabilities.
        images: [N, C, H, W].
        target: int64 [N].
        batch: images a call of the network.
    """

    probability: Probability
    images: Tensor
    target: Tensor
    batch: int = 64

    @cached_property
    def blurred(self) -> Tensor:
        """The images without detail."""
        return blurred(self.images)

    def __call__(self, versions: Iterable[Tensor]) -> Tensor:
        """The target's probability for each of several versions of the N images, [versions, N]."""
        rest, rows, count = iter(versions), [], max(1, self.batch // len(self.target))
        with torch.no_grad():
            while some := list(islice(rest, count)):
                parts = torch.split(torch.cat(some), self.batch)
                given = torch.cat([self.probability(part) for part in parts])
                classes = self.target.repeat(len(some))[:, None]
                rows.append(given.gather(1, classes).view(len(some), -1))
        return torch.cat(rows)

    def ranks(self, maps: Tensor) -> Tensor:
        """`ranks` of maps at the images' size."""
        return ranks(at_size(maps, tuple(self.images.shape[2:])))


def ranks(maps: Tensor) -> Tensor:
    """Each pixel's place in the order of falling values, as a share in [0, 1), [N, H, W].

    Pixels of the same value come in one random order, the same for all maps of a size: in reading
    order, a map's zeros would favour what is at the top.
    """
    flat = maps.flatten(1)
    count = flat.shape[1]
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(maps.device)
    order = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    place = torch.arange(count, device=maps.device, dtype=torch.float32).expand_as(order) / count
    return torch.empty_like(place).scatter(1, order, place).reshape(maps.shape)


def curves(classifier: Classifier, maps: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Class probability while pixels are inserted, and deleted, in the map's order.

    At step s of `steps`, the first s / steps of the pixels are the photo's and the others the
    blurred photo's (insertion), or the other way round (deletion).

    Args:
        classifier: of the images.
        maps: [N, h, w].
        steps: parts of the image.

    Returns:
        two tensors [N, steps + 1], from 0 to all of the pixels.
    """
    images, base = classifier.images, classifier.blurred
    rank = classifier.ranks(maps)[:, None]

    def mixed() -> Iterator[Tensor]:
        yield images
        yield base
        for step in range(1, steps):
            first = rank < step / steps
            yield torch.where(first, images, base)
            yield torch.where(first, base, images)

    values = classifier(mixed())  # [2 * steps, N]
    photo, empty, inserted, deleted = values[0:1], values[1:2], values[2::2], values[3::2]
    return torch.cat([empty, inserted, photo]).T, torch.cat([photo, deleted, empty]).T


def insertion_deletion(classifier: Classifier, maps: Tensor, steps: int) -> dict[str, Tensor]:
    """Areas under both curves and their difference: "insertion", "deletion", "i_d", each [N].

    Over [0, 1], by trapezoids (Petsiuk et al., BMVC 2018).
    """
    inserted, deleted = (torch.trapezoid(curve, dx=1 / steps, dim=1)
                         for curve in curves(classifier, maps, steps))  # fmt: skip
    return {"insertion": inserted, "deletion": deleted, "i_d": inserted - deleted}


def average_drop(classifier: Classifier, maps: Tensor) -> dict[str, Tensor]:
    """Drop max(y - o, 0) / y and increase o > y of the probability, each [N].

    y is the photo's, o that of the photo times the map in [0, 1], each pixel (Chattopadhay et
    al., WACV 2018).  0 of a photo is the mean colour for the usual preprocessing.
    """
    images = classifier.images
    shares = at_size(maps, tuple(images.shape[2:]))
    largest = shares.flatten(1).amax(1)[:, None, None]
    shares = shares / torch.where(largest > 0, largest, 1.0)
    y, o = classifier([images, images * shares[:, None]])
    return {"drop": (y - o).clamp_min(0) / y.clamp_min(1e-12), "increase": (o > y).to(y)}


GAP_STEPS, NOISE = 40, 0.01  # of ROAD
KERNEL = torch.tensor([[1.0, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12


def road(
    classifier: Classifier, maps: Tensor, percentiles: tuple[int, ...], noise: float = NOISE
) -> Tensor:
    """Probability without the least relevant pixels minus without the most relevant, over 2, [N].

    Mean over the percentages of removed pixels; pytorch-grad-cam's "ROADCombined", whose
    percentiles count what is kept.
    """
    images, rank = classifier.images, classifier.ranks(maps)
    scores = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for percent in percentiles:
        for sign, gone in ((-1, rank < percent / 100), (1, rank >= 1 - percent / 100)):
            (given,) = classifier([impute(images, gone, noise)])
            scores += sign * given / (2 * len(percentiles))
    return scores


def impute(images: Tensor, gone: Tensor, noise: float = NOISE) -> Tensor:
    """Images [N, C, H, W] whose pixels `gone`, bool [N, H, W], are what their neighbours say.

    Each such pixel is the weighted mean of its eight neighbours (4 straight ones 1/6, 4 diagonal
    ones 1/12, of those inside the image), which are solved for together by conjugate gradients,
    from a start that is right at coarse scales, plus a little noise.

    Args:
        images: the photos.
        gone: what is removed.
        noise: standard deviation, in units of the images.
    """
    known = ~gone[:, None]
    unknown = gone[:, None].to(images)
    x = torch.where(known, images, pyramid(images, known.to(images)))
    weights = _neighbours(torch.ones_like(unknown))  # less than 1 at the border

    def normal(v: Tensor) -> Tensor:
        return unknown * (weights * v - _neighbours(v))

    v = unknown * x
    residual = unknown * _neighbours(torch.where(known, images, 0.0)) - normal(v)
    direction, size = residual, _dot(residual, residual)
    for _ in range(GAP_STEPS):
        image = normal(direction)
        length = size / _dot(direction, image).clamp_min(1e-30)
        v = v + length * direction
        residual = residual - length * image
        smaller = _dot(residual, residual)
        direction, size = residual + smaller / size.clamp_min(1e-30) * direction, smaller
    generator = torch.Generator().manual_seed(0)
    speckle = noise * torch.randn(images.shape[1:], generator=generator).to(images)
    return torch.where(known, images, v + speckle)


def pyramid(images: Tensor, known: Tensor) -> Tensor:
    """Known values spread over the gaps from coarse to fine: a start for `impute`."""
    height, width = images.shape[-2:]
    if known.all() or min(height, width) < 2:
        return images
    half = (height // 2, width // 2)
    share = F.adaptive_avg_pool2d(known, half)
    mean = F.adaptive_avg_pool2d(images * known, half) / torch.where(share > 0, share, 1.0)
    coarse = torch.where(share > 0, mean, pyramid(mean, (share > 0).to(images)))
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def _neighbours(x: Tensor) -> Tensor:
    """The weighted sum of each pixel's eight neighbours; outside of the image is 0."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    return F.conv2d(flat, KERNEL.to(x)[None, None], padding=1).reshape(x.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each image's channels, [N, C, 1, 1]."""
    return (a * b).sum((-2, -1), keepdim=True)


def max_sensitivity(
    explain: Callable[[Tensor, Tensor], Maps],
    images: Tensor,
    target: Tensor,
    maps: Maps,
    radius: float,
    draws: int,
    batch: int,
) -> dict[str, Tensor]:
    """max over noises of ||map(x + noise) - map(x)|| / ||map(x)||, layer -> [N].

    Noise is uniform in [-radius, radius], each value of the input by itself (Yeh et al.,
    NeurIPS 2019); a Monte Carlo estimate from below.

    Args:
        explain: (images, target) -> layer -> [N, h, w].
        images: [N, C, H, W].
        target: int64 [N].
        maps: of `explain` without noise.
        radius: in units of the network's input.
        draws: of the noise; all methods see the same.
        batch: images a call of `explain`.
    """
    worst = {name: torch.zeros(len(images)) for name in maps}
    for start in range(0, len(images), batch):
        some, generator = slice(start, start + batch), torch.Generator().manual_seed(start)
        for _ in range(draws):
            noise = 2 * torch.rand(images[some].shape, generator=generator) - 1
            found = explain(images[some] + radius * noise.to(images), target[some])
            for name, before in maps.items():
                change = (found[name] - before[some]).flatten(1).norm(dim=1).cpu()
                size = before[some].flatten(1).norm(dim=1).cpu()
                ratio = change / torch.where(size > 0, size, 1.0)
                worst[name][some] = torch.maximum(worst[name][some], ratio.float())
    return worst
