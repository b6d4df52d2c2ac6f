"""The Ray engine on this machine: an explainer is killed in the middle, then a decoder, twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_tiny import draw_photos, run, unlike

import naflow_fx as nf
from naflow_fx.dataset.decode import KILLED

pytest.importorskip("ray")
HERE = Path(__file__).parent
START = """
import os
import sys
from functools import partial
from pathlib import Path
import torch
import dataset_tiny
from naflow_fx.errors import DatasetError

import ray
torch.set_num_threads(1)
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal")
ray.init(num_cpus=3, object_store_memory=100_000_000, include_dashboard=False,
         _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR")
"""
EXPLAINER = """
photos, out, flag = sys.argv[1:]
deadly = dataset_tiny.spec(make=partial(dataset_tiny.make_deadly, flag))
done = dataset_tiny.run(photos, Path(out), explainer=deadly, engine="ray", actors=2, progress=True)
print(done.done, done.failed)
wrong = dataset_tiny.spec(make=str)
try:
    dataset_tiny.run(photos, Path(out + "2"), explainer=wrong, engine="ray", actors=1)
except DatasetError as error:
    print(error)
"""


DECODER = """
from naflow_fx.dataset import cluster
cluster._operators = lambda *_: [
    ([step], 1, {"num_cpus": 0.2}) for step in ("decode", "explain", "write")
]
photos, out = sys.argv[1:]
done = dataset_tiny.run(dataset_tiny.deadly_source(photos), Path(out), engine="ray", actors=1)
print(done.done, done.failed)
"""


def in_ray(code: str, *words: Path) -> subprocess.CompletedProcess[str]:
    """A process with a Ray of its own."""
    env = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-c", START + code, *map(str, words)]
    return subprocess.run(start, capture_output=True, text=True, env=env, timeout=300)


@pytest.mark.slow
def test_an_explainer_is_killed_in_the_middle(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    (photos / "empty.png").write_bytes(b"")
    run(photos, tmp_path / "alone")
    flag = tmp_path / "killed"
    done = in_ray(EXPLAINER, photos, tmp_path / "ray", flag)
    assert flag.exists(), done.stderr
    assert "61 1" in done.stdout.splitlines(), done.stderr
    assert "gave a str; wanted an Explainer of photos" in done.stdout, done.stderr
    assert "61/61 photos, 1 failed" in done.stderr
    assert unlike(tmp_path / "alone", tmp_path / "ray") == []
    assert nf.open_results(tmp_path / "ray").complete


@pytest.mark.slow
def test_decoders_apart_and_a_photo_that_kills_them(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 20)
    run(photos, tmp_path / "alone")
    done = in_ray(DECODER, photos, tmp_path / "ray")
    assert "20 1" in done.stdout.splitlines(), done.stderr
    found, wanted = (nf.open_results(tmp_path / name) for name in ("ray", "alone"))
    assert [(f["id"], f["reason"]) for f in found.failed] == [("00005.png", KILLED)]
    kept = wanted.pandas().drop(5)["mean"]
    assert np.stack(found.pandas()["mean"]).tobytes() == np.stack(kept).tobytes()
    assert not list((tmp_path / "ray/parts").glob(".*"))
