"""The Ray engine: two workers on this machine, one of them killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_tiny import draw_photos, run, unlike

import naflow_fx as nf

pytest.importorskip("ray")
HERE = Path(__file__).parent
CHILD = """
import sys
from functools import partial
from pathlib import Path
import torch
import dataset_tiny
from naflow_fx.errors import DatasetError

torch.set_num_threads(1)
photos, flag, out = sys.argv[1:]
import os
import ray
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal")
ray.init(num_cpus=3, object_store_memory=100_000_000, include_dashboard=False,
         _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR")
deadly = dataset_tiny.spec(make=partial(dataset_tiny.make_deadly, flag))
done = dataset_tiny.run(photos, Path(out), explainer=deadly, engine="ray", actors=2, progress=True)
print(done.done, done.failed)
wrong = dataset_tiny.spec(make=str)
try:
    dataset_tiny.run(photos, Path(out + "2"), explainer=wrong, engine="ray", actors=1)
except DatasetError as error:
    print(error)
"""


@pytest.mark.slow
def test_an_actor_is_killed_in_the_middle(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    (photos / "empty.png").write_bytes(b"")
    run(photos, tmp_path / "alone")
    flag = tmp_path / "killed"
    words = [sys.executable, "-c", CHILD, str(photos), str(flag), str(tmp_path / "ray")]
    env = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300)
    assert flag.exists(), done.stderr
    assert "61 1" in done.stdout.splitlines(), done.stderr
    assert "gave a str; wanted an Explainer of photos" in done.stdout, done.stderr
    assert "61/61 photos, 1 failed" in done.stderr
    assert unlike(tmp_path / "alone", tmp_path / "ray") == []
    assert nf.open_results(tmp_path / "ray").complete
