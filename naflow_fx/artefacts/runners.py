"""The three formats: one file -> a function of flat tensors, on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from naflow_fx.artefacts.files import quiet
from naflow_fx.artefacts.metadata import Kind, Metadata
from naflow_fx.errors import ArtefactError, required

Run = Callable[[Sequence[Tensor]], list[Tensor]]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_pt2(path: Path, metadata: Metadata, device: torch.device) -> Run:
    """A program of torch.export, moved to the device."""
    _check_there(path, metadata)
    with quiet():
        exported = torch.export.load(path)
    if device.type != metadata.device or device.index:
        from torch.export.passes import move_to_device_pass

        exported = move_to_device_pass(exported, device)
    module = _unguarded(exported)

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return pytree.tree_leaves(module(*inputs))

    return run


def _unguarded(exported: torch.export.ExportedProgram) -> torch.nn.Module:
    """The module without its guards, which are code in the file; `Artefact` checks its inputs."""
    try:
        return exported.module(check_guards=False)
    except TypeError:  # torch 2.11 has no guards to leave out
        return exported.module()


def open_package(path: Path, metadata: Metadata, device: torch.device) -> Run:
    """An AOTInductor package, on the kind of device that it was compiled for."""
    if device.type != metadata.device:
        raise ArtefactError(f"{path}: compiled for {metadata.device}, and can't run on {device}; "
                            f"use --device {metadata.device}, or package it again")  # fmt: skip
    _check_there(path, metadata)
    index = -1 if device.index is None else device.index
    with quiet():
        model = torch._inductor.aoti_load_package(str(path), device_index=index)

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return pytree.tree_leaves(model(*inputs))

    return run


def _check_there(path: Path, metadata: Metadata) -> None:
    """Raises where the device that a file's tensors are on is not to be had: torch can't load it.

    Raises:
        ArtefactError: what to do instead.
    """
    if metadata.device == "cuda" and not torch.cuda.is_available():
        raise ArtefactError(f"{path}: its tensors are on cuda, and this machine has none; export "
                            "it again from explainer.to('cpu')")  # fmt: skip


def open_onnx(path: Path, metadata: Metadata, device: torch.device) -> Run:
    """An ONNX model in onnxruntime."""
    what = f"{path}: running an ONNX model"
    onnxruntime = required("onnxruntime", extra="onnx", what=what, error=ArtefactError)
    provider = PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise ArtefactError(f"{path}: this onnxruntime doesn't run on {device}; use --device cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # its errors share no class
        raise ValueError(str(error)) from error
    names = [value.name for value in metadata.inputs]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        arrays = (x.detach().cpu().contiguous().numpy() for x in inputs)
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(array).to(device) for array in found]

    return run


OPENERS: dict[Kind, Callable[[Path, Metadata, torch.device], Run]] = {
    "pt2": open_pt2,
    "aoti": open_package,
    "onnx": open_onnx,
}
