"""The three formats: an exported program into a file, and a file as a function of flat tensors."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from naflow_fx.artefacts.compiled import inductor_options
from naflow_fx.artefacts.metadata import EXTRA, KEY, Kind, Metadata
from naflow_fx.errors import ArtefactError, first_line, is_out_of_memory, raised_as, required

OPSET = 18
LARGEST = 2 * 1024**3  # bytes of one ONNX file, protobuf's limit
LOGGERS = ("torch.export", "torch.onnx", "torch.utils.cpp_extension", "onnxscript", "onnx_ir")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
Run = Callable[[Sequence[Tensor]], list[Tensor]]
Write = Callable[[ExportedProgram, Metadata, Path], None]
Open = Callable[[Path, Metadata, torch.device], Run]


def write_pt2(exported: ExportedProgram, metadata: Metadata, path: Path) -> None:
    """A file that `torch.export.load` reads."""
    with quiet():
        torch.export.save(exported, path, extra_files={EXTRA: metadata.to_json()})


def write_package(exported: ExportedProgram, metadata: Metadata, path: Path) -> None:
    """A package that `torch._inductor.aoti_load_package` and its C++ twin read.

    Its metadata, which C++ programs get from the loader, holds ``inputs`` and ``outputs`` too, a
    name in each line.  It runs on as many threads as the process that loads it has.

    Raises:
        ArtefactError: there is no C++ compiler, or Inductor can't compile it, and why.
    """
    inputs, outputs = (
        "\n".join(value.name for value in values) for values in (metadata.inputs, metadata.outputs)
    )
    texts = {
        KEY: metadata.to_json(),
        "inputs": inputs,
        "outputs": outputs,
        "image_shape": " ".join(map(str, metadata.inputs[0].shape[1:])),
    }
    config = inductor_options(metadata.device) | {
        "aot_inductor.metadata": texts, "cpp.dynamic_threads": True,
    }  # fmt: skip
    failed = ArtefactError("AOTInductor can't compile the program: …")
    with raised_as(failed, RuntimeError, AssertionError), quiet(), torch.no_grad():
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(path), inductor_configs=config
        )


def write_onnx(exported: ExportedProgram, metadata: Metadata, path: Path) -> None:
    """An ONNX model of one file, its inputs and outputs named as in the metadata.

    Raises:
        ArtefactError: packages are missing, an operator can't be expressed, or it is too large.
    """
    required("onnx", "onnxscript", extra="onnx", what="an ONNX model", error=ArtefactError)
    held = [*exported.state_dict.values(), *exported.constants.values()]
    size = sum(t.numel() * t.element_size() for t in held if isinstance(t, Tensor))
    if size >= LARGEST:
        raise ArtefactError(f"the weights take {size / 1024**3:.1f} GiB; an ONNX file holds less "
                            "than 2.  Choose fewer layers, or format pt2")  # fmt: skip
    for part in exported.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            _name_dimensions(part.graph)
            _spell_out_conv3d(part)
    try:
        with quiet(), torch.no_grad():
            made: Any = torch.onnx.export(
                exported,
                dynamo=True,
                verbose=False,
                optimize=False,
                opset_version=OPSET,
                input_names=[value.name for value in metadata.inputs],
                output_names=[value.name for value in metadata.outputs],
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        if is_out_of_memory(error):
            raise
        raise _inexpressible(error) from error
    made.model.metadata_props[KEY] = metadata.to_json()
    made.save(path, external_data=False)


def open_pt2(path: Path, metadata: Metadata, device: torch.device) -> Run:
    """A program of torch.export, moved to the device."""
    _check_there(path, metadata)
    with quiet():
        exported = torch.export.load(path)
    if device.type != metadata.device or device.index:
        exported = move_to_device_pass(exported, device)
    try:  # without its guards, which are code in the file; `Artefact` checks its inputs
        return _flat(exported.module(check_guards=False))
    except TypeError:  # torch 2.11 has no guards to leave out
        return _flat(exported.module())


def open_package(path: Path, metadata: Metadata, device: torch.device) -> Run:
    """An AOTInductor package, on the kind of device that it was compiled for."""
    if device.type != metadata.device:
        raise ArtefactError(f"{path}: compiled for {metadata.device}, and can't run on {device}; "
                            f"use --device {metadata.device}, or package it again")  # fmt: skip
    _check_there(path, metadata)
    index = -1 if device.index is None else device.index
    with quiet():
        return _flat(torch._inductor.aoti_load_package(str(path), device_index=index))


def _flat(model: Callable[..., Any]) -> Run:
    """The model as a function of flat tensors."""

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


WRITERS: dict[Kind, Write] = {"pt2": write_pt2, "aoti": write_package, "onnx": write_onnx}
OPENERS: dict[Kind, Open] = {"pt2": open_pt2, "aoti": open_package, "onnx": open_onnx}


def _name_dimensions(graph: fx.Graph) -> None:
    """`amax` and `amin` over everything get their dimensions: ONNX's translation asks for them."""
    aten = torch.ops.aten
    for target in (aten.amax.default, aten.amin.default):
        for node in graph.find_nodes(op="call_function", target=target):
            if len(node.args) == 1:
                node.args = (node.args[0], list(range(node.args[0].meta["val"].dim())))


def _spell_out_conv3d(part: fx.GraphModule) -> None:
    """conv3d without a bias as a general convolution: ONNX's translation gives it a wrong one."""
    aten = torch.ops.aten
    for node in part.graph.find_nodes(op="call_function", target=aten.conv3d.default):
        call: Any = node.normalized_arguments(part, normalize_to_only_use_kwargs=True)
        *most, groups = call.kwargs.values()  # input, weight, bias, stride, padding, dilation
        if call.kwargs["bias"] is None:
            node.target, node.kwargs = aten.convolution.default, {}
            node.args = (*most, False, [0] * 3, groups)


def _inexpressible(error: BaseException) -> ArtefactError:
    """Names the operator that ONNX lacks, as far as the chain of the exporter's errors does."""
    told = "".join(traceback.format_exception(error))
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", told)
    if found:
        return ArtefactError(f"ONNX can't express the operator {found[1]}; choose layers that "
                             "don't need it, or format pt2 or aoti")  # fmt: skip
    while error.__cause__ is not None:
        error = error.__cause__
    return ArtefactError(f"ONNX can't express the program: {first_line(error)}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and notes of exporters and loaders; errors still raise."""
    with warnings.catch_warnings(), ExitStack() as levels:
        warnings.simplefilter("ignore")
        for logger in map(logging.getLogger, LOGGERS):
            levels.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield
