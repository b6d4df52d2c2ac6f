"""One thread: the tests' tensors are small, and threads that wait for each other cost most."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
