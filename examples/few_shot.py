"""Trains Conv4Net and Conv64F to tell photos apart by a few crops, and explains their matches.

    python examples/few_shot.py [--model conv4net conv64f] [--episodes 300] [--out few_shot_out]

The photos are the 20 that scikit-image ships (pip install scikit-image).  A class is a photo, an
image of it a random crop: 12 photos for training, 8 that are never trained on for testing.
Episodes and classifier are Meta-Baseline's (Chen et al., ICCV 2021): cosine with the mean of a
class's shots, times a learned temperature.  Each network takes minutes on one core.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx.models.preprocess import Preprocessing, open_photo
from naflow_fx.pairs.embedding import compare

TRAINED = (
    "astronaut brick camera cell clock_motion color grass horse hubble_deep_field moon retina text"
)
NOVEL = "chelsea coffee coins gravel ihc motorcycle_left page rocket"
SHARES = 0.25, 0.5  # sides of a crop, of the photo's shorter side
WAY, SHOTS, QUERIES = 5, 1, 3  # of an episode
SIMILARITY = {"conv4net": nf.Similarity(), "conv64f": nf.Similarity(pool="mean")}
OPTIONS = {"conv4net": {}, "conv64f": {"momentum": 0.1}}  # batch norms that remember for eval mode


@dataclass(frozen=True)
class Photos:
    """Photos by name, and what turns a crop into an input [3, side, side]."""

    images: dict[str, Image.Image]
    preprocessing: Preprocessing

    def crop(self, name: str, rng: random.Random, side: int) -> Image.Image:
        """A random square of a photo, side x side pixels, often flipped, its light changed."""
        photo = self.images[name]
        length = min(photo.size) * rng.uniform(*SHARES)
        left, top = (rng.uniform(0, whole - length) for whole in photo.size)
        box = (left, top, left + length, top + length)
        crop = photo.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        crop = ImageOps.mirror(crop) if rng.random() < 0.5 else crop
        return ImageEnhance.Brightness(crop).enhance(rng.uniform(0.7, 1.3))

    def inputs(self, crops: Sequence[Image.Image]) -> Tensor:
        """[N, 3, side, side] of crops of any size."""
        return torch.stack([self.preprocessing(crop) for crop in crops])


@dataclass(frozen=True)
class Episode:
    """Some classes with their crops: shots[class][i], queries[class][i]."""

    names: list[str]
    shots: list[list[Image.Image]]
    queries: list[list[Image.Image]]

    @property
    def labels(self) -> Tensor:
        """The queries' classes, int64 [way * queries]."""
        return torch.arange(len(self.names)).repeat_interleave(len(self.queries[0]))


def load_photos(names: str, preprocessing: Preprocessing) -> Photos:
    """The photos of these names that scikit-image ships."""
    folder = Path(skimage.data.__file__).parent
    found = {name: open_photo(next(folder.glob(f"{name}.*g"))) for name in names.split()}
    return Photos(found, preprocessing)


def draw(photos: Photos, rng: random.Random, shots: int, queries: int, side: int) -> Episode:
    """An episode of WAY classes, its crops side x side pixels."""
    names = rng.sample(sorted(photos.images), WAY)
    parts = [
        [[photos.crop(name, rng, side) for _ in range(count)] for name in names]
        for count in (shots, queries)
    ]
    return Episode(names, *parts)


def logits_of(encoder: nn.Module, photos: Photos, episode: Episode, similarity: nf.Similarity,
              temperature: Tensor) -> Tensor:  # fmt: skip
    """Temperature x similarity of every query with the mean of each class's shots, [Q, way]."""
    crops = [c for part in (episode.shots, episode.queries) for of_class in part for c in of_class]
    v = encoder(photos.inputs(crops))
    v = v.flatten(2).mean(2) if similarity.pool == "mean" and v.dim() > 2 else v.flatten(1)
    count = WAY * len(episode.shots[0])
    means = v[:count].reshape(WAY, -1, v.shape[1]).mean(1)
    return temperature * compare(v[count:], means, similarity)


def train(name: str, episodes: int, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The network `name` in eval mode after so many episodes, and the learned temperature."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder = nf.models.build(name, **OPTIONS[name]).train()
    preprocessing = nf.models.card(name).preprocessing
    photos = load_photos(TRAINED, preprocessing)
    temperature = nn.Parameter(torch.tensor(10.0))
    groups = [{"params": encoder.parameters()}, {"params": [temperature], "lr": 0.05}]
    optimiser = torch.optim.Adam(groups, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(episodes, 1))
    for i in range(episodes):
        episode = draw(photos, rng, SHOTS, QUERIES, preprocessing.crop)
        logits = logits_of(encoder, photos, episode, SIMILARITY[name], temperature)
        loss = F.cross_entropy(logits, episode.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (i + 1) % 50 == 0:
            share = float((logits.argmax(1) == episode.labels).float().mean())
            print(
                f"  {name} episode {i + 1}: loss {loss.item():.3f}, right {share:.0%}", flush=True
            )
    return encoder.eval(), temperature.detach()


@torch.no_grad()
def accuracy(name: str, encoder: nn.Module, episodes: int, shots: int) -> tuple[float, float]:
    """Share of right answers on photos never trained on, and half its 95 % interval."""
    preprocessing = nf.models.card(name).preprocessing
    photos, rng = load_photos(NOVEL, preprocessing), random.Random(1)
    shares = []
    for _ in range(episodes):
        episode = draw(photos, rng, shots, QUERIES, preprocessing.crop)
        logits = logits_of(encoder, photos, episode, SIMILARITY[name], torch.tensor(1.0))
        shares.append((logits.argmax(1) == episode.labels).float().mean())
    values = torch.stack(shares)
    return float(values.mean()), float(1.96 * values.std() / len(values) ** 0.5)


def matches(
    name: str, encoder: nn.Module, temperature: Tensor, seed: int = 2, **options: Any
) -> dict[str, tuple]:
    """A right and a wrong match of novel photos, what is wrong also against the right class.

    Gives "right", "wrong" and "instead" -> (PairFlow, query picture, shot picture, their names).
    A network that makes no mistake in 40 episodes has no wrong match.  `options` are those of
    `nf.compile`.
    """
    photos = load_photos(NOVEL, nf.models.card(name).preprocessing)
    rng, found = random.Random(seed), {}
    for _ in range(40):
        episode = draw(photos, rng, 1, 1, 2 * photos.preprocessing.crop)
        shots, queries = ([of[0] for of in part] for part in (episode.shots, episode.queries))
        support, query = photos.inputs(shots)[:, None], photos.inputs(queries)
        task = {"similarity": SIMILARITY[name], "temperature": temperature}
        decided = nf.few_shot(encoder, support, query, **task, explain=False).prediction
        for i, best in enumerate(decided.tolist()):
            cases = {"right": best} if best == i else {"wrong": best, "instead": i}
            if not found.keys().isdisjoint(cases):
                continue
            for case, match in cases.items():
                one = nf.few_shot(
                    encoder,
                    support,
                    query[i : i + 1],
                    **task,
                    match=torch.tensor([match]),
                    **options,
                )
                names = episode.names[i], episode.names[match]
                found[case] = one.flow, queries[i], shots[match], names
        if len(found) == 3:
            break
    return found


def run(name: str, episodes: int, test_episodes: int, out: Path) -> None:
    """Train, test and explain one network."""
    torch.manual_seed(0)
    before = nf.models.build(name, **OPTIONS[name])
    encoder, temperature = train(name, episodes)
    for shots in (1, 5):
        untrained, _ = accuracy(name, before, test_episodes, shots)
        share, half = accuracy(name, encoder, test_episodes, shots)
        print(f"{name}: {WAY}-way {shots}-shot accuracy {share:.1%} +- {half:.1%} on photos never "
              f"trained on; untrained {untrained:.1%}; temperature {float(temperature):.1f}",
              flush=True)  # fmt: skip
    for case, (flow, query, shot, (true, matched)) in matches(name, encoder, temperature).items():
        title = f"{name}, {case}: a crop of {true} against one of {matched}"
        folder = out / name / case
        flow.save(folder, query, shot, names=[f"query · {true}", f"shot · {matched}"], title=title,
                  info={"model": name, "metric": "cosine"})  # fmt: skip
        print(f"{title}, similarity {float(flow.similarity[0]):.3f}: {folder / 'grid.png'}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=list(SIMILARITY), default=list(SIMILARITY))
    parser.add_argument("--episodes", type=int, default=300, help="for training (%(default)s)")
    parser.add_argument("--test-episodes", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("few_shot_out"), help="(%(default)s)")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in given.model:
        run(name, given.episodes, given.test_episodes, given.out)


if __name__ == "__main__":
    main()
