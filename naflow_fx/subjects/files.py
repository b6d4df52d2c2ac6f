"""Networks as files: programs of torch.export, .pt2, and .onnx.

Of ONNX, constants are folded by onnxruntime; what is left becomes modules of torch, and is
compared with it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from naflow_fx.artefacts import read
from naflow_fx.artefacts.formats import quiet
from naflow_fx.artefacts.untrusted import check_archive
from naflow_fx.errors import ArtefactError, ModelError, raised_as, required
from naflow_fx.models.unpickle import check_readable
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe

CLOSE = 1e-4  # of the outputs of torch and onnxruntime, as a share of the largest value
BATCH = 7  # while constants are folded; a size that nothing else is likely to have
OPSET = 17  # what onnx2torch's converters go up to
FUSIONS = (
    "ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "ConvActivationFusion", "MatMulAddFusion",
    "MatMulBNFusion", "MatMulScaleFusion", "GemmActivationFusion", "GemmTransposeFusion",
    "PadFusion", "ReluClipFusion", "TransposeOptimizer",
    "TransposeOptimizer_CPUExecutionProvider",
)  # fmt: skip
CPU = ["CPUExecutionProvider"]


def open_exported(recipe: Recipe) -> Network:
    """`FILE.pt2`: a program of torch.export, checked before it is loaded.

    Raises:
        ModelError: not such a file.  ArtefactError: it could run code.
    """
    path = _checked(recipe)
    check_archive(path)
    return Network(path.stem, lambda _: _loaded(path), weights=path.name)


def _loaded(path: Path) -> torch.export.ExportedProgram:
    unread = ModelError(f"{path}: no program of torch.export, or of another version of torch (…)")
    with raised_as(unread, Exception), quiet():  # of many kinds: a damaged file fails anywhere
        return torch.export.load(path)


def _checked(recipe: Recipe) -> Path:
    """The file; ModelError for none, for an artefact of ours, for options that it can't take."""
    path = Path(recipe.model)
    check_readable(path)
    if recipe.weights is not None or recipe.model_args:
        raise ModelError(f"{path}: has its weights in it; leave weights and model_args out")
    try:
        read(path)
    except ArtefactError:
        return path
    raise ModelError(f"{path}: a network with its explainer; give it as --artefact {path}")


def open_onnx(recipe: Recipe) -> Network:
    """`FILE.onnx`: the network as modules of torch, named as the nodes are.

    Raises:
        ModelError: not such a file; when it is built: a package is missing, an operator that
            can't be converted, other outputs than onnxruntime's.
    """
    path = _checked(recipe)
    return Network(path.stem, lambda _: _converted(path), weights=path.name)


def _converted(path: Path) -> nn.Module:
    """The network, its batch open where the file's is."""
    onnx, onnx2torch, runtime = required(
        "onnx", "onnx2torch", "onnxruntime", extra="onnx", what=str(path), error=ModelError
    )
    unread = ModelError(f"{path}: not ONNX that can be read (…)")
    lacking = ModelError(f"{path}: …; its operator has no counterpart in onnx2torch")
    with raised_as(unread, Exception), raised_as(lacking, NotImplementedError):
        model = onnx.load(path)
        shape = _input_shape(model, path)
        folded = _folded(model, onnx, runtime)
        if folded.opset_import[0].version > OPSET:
            folded = onnx.version_converter.convert_version(folded, OPSET)
        found: fx.GraphModule = onnx2torch.convert(folded).eval().requires_grad_(False)
        session = runtime.InferenceSession(str(path), providers=CPU)
    _compare(found, session, shape, path)
    return _channels_first(found) if shape[-1] in (1, 3) and shape[1] not in (1, 3) else found


def _input_shape(model: Any, path: Path) -> list[int]:
    """Sizes of the one input of images; 0: an open batch.

    ModelError for other inputs, and where another size is open.
    """
    inputs = _inputs(model)
    sizes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in inputs]
    if len(sizes) != 1 or len(sizes[0]) != 4 or not all(sizes[0][1:]):
        told = ", ".join(f"{v.name} {s}" for v, s in zip(inputs, sizes, strict=True))
        raise ModelError(f"{path}: wanted one input of images of fixed size, [N, C, H, W] or "
                         f"[N, H, W, C]; got {told} (0: open)")  # fmt: skip
    return sizes[0]


def _inputs(model: Any) -> list[Any]:
    """The inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _folded(model: Any, onnx: Any, runtime: Any) -> Any:
    """The model, its shapes and constants computed by onnxruntime, its nodes as they are named."""
    (images,) = _inputs(model)
    dimension = images.type.tensor_type.shape.dim[0]
    batch = dimension.dim_value = dimension.dim_value or BATCH
    del model.graph.value_info[:]  # what the file says of shapes, with an open batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        runtime.InferenceSession(model.SerializeToString(), options, providers=CPU,
                                 disabled_optimizers=list(FUSIONS))  # fmt: skip
        folded = onnx.load(options.optimized_model_filepath)
    _open_batch(folded, batch, onnx)
    return folded


def _open_batch(model: Any, batch: int, onnx: Any) -> None:
    """Reshapes to `batch` rows become such that keep the rows there are (0, in ONNX).

    `allowzero`, which would make 0 mean no row, goes where no size is 0.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in values:
            continue
        old = onnx.numpy_helper.to_array(values[node.input[1]])
        if not old.all():
            continue
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
        if old.size and old[0] == batch:
            node.input[1] = f"{node.name}_rows_kept"
            new = onnx.numpy_helper.from_array(np.array([0, *old[1:]], old.dtype), node.input[1])
            model.graph.initializer.append(new)


def _compare(found: nn.Module, session: Any, shape: list[int], path: Path) -> None:
    """ModelError unless the network gives what onnxruntime gives, for noise."""
    seeded = torch.Generator().manual_seed(0)
    images = torch.rand([shape[0] or 3, *shape[1:]], generator=seeded)
    (value, *_) = session.get_inputs()
    wanted = session.run(None, {value.name: images.numpy()})
    with torch.no_grad(), quiet():
        given = found(images)
    for got, want in zip([given] if isinstance(given, Tensor) else given, wanted, strict=True):
        right = torch.from_numpy(want)
        error = float((got - right).abs().max() / right.abs().max().clamp_min(1e-30))
        if not error < CLOSE:
            raise ModelError(f"{path}: converted to torch it gives other outputs than onnxruntime "
                             f"(by {error:.1e} of the largest)")  # fmt: skip


def _channels_first(network: fx.GraphModule) -> fx.GraphModule:
    """A network of images [N, H, W, C] as one of [N, C, H, W]."""
    graph = network.graph
    (images,) = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(images):
        turned = graph.call_method("permute", (images, 0, 2, 3, 1))
    images.replace_all_uses_with(turned, delete_user_cb=lambda user: user is not turned)
    network.recompile()
    return network
