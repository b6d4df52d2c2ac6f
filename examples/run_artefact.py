"""Runs what naflow_fx exported, without naflow_fx: a .pt2 (both kinds) or an .onnx file.

    python examples/run_artefact.py explainer.onnx inputs.npz results.npz

inputs.npz: the arrays of one call in their order, such as an image [N, 3, H, W] float32 and a
target [N] int64 (-1: the predicted class).  results.npz: every output by name, as `naflow-fx info`
lists them: output, score, maps.layer1.0.conv1, ...
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np


def run_onnx(path: str, inputs: list[Any]) -> dict[str, Any]:
    """An ONNX model in onnxruntime; PyTorch is not needed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    results = session.run(None, dict(zip(names, inputs, strict=True)))
    return dict(zip([value.name for value in session.get_outputs()], results, strict=True))


def run_pt2(path: str, inputs: list[Any]) -> dict[str, Any]:
    """A program of torch.export, or a package of AOTInductor."""
    import torch

    with zipfile.ZipFile(path) as archive:
        compiled = any("/aotinductor/" in name for name in archive.namelist())
    if compiled:
        program = torch._inductor.aoti_load_package(path)
    else:
        program = torch.export.load(path).module()
    with torch.no_grad():
        result = program(*map(torch.from_numpy, inputs))
    return {name: tensor.numpy() for name, tensor in flat(result)}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in nested dictionaries, their keys joined by dots."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        yield from flat(part, f"{name}.{key}" if name else key)


def main(path: str, inputs: str, results: str) -> None:
    """One artefact, one call."""
    with np.load(inputs) as given:
        arrays = [given[name] for name in given.files]
    run = run_onnx if path.endswith(".onnx") else run_pt2
    np.savez(results, **run(path, arrays))
    assert not any(name.startswith("naflow_fx") for name in sys.modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
