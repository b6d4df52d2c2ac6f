"""Loading checkpoint files: state dicts, plain or wrapped, into a model, strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.errors import ModelError, raised_as, required
from naflow_fx.models.unpickle import Inert, check_readable, read

# Where training scripts put the state dict.
WRAPPERS = ("state_dict", "model_sd", "model")
# What stands before the network's keys -> how the keys may begin that are no network's, beside
# them: of DataParallel and torch.compile none but the counter of torch's AveragedModel (SWA, EMA);
# of Lightning's modules any; of a few-shot learner, which holds its network as `encoder`, its head.
WORDS = {
    "module.": ("n_averaged",),
    "_orig_mod.": ("n_averaged",),
    "model.": ("",),
    "net.": ("",),
    "encoder.": ("temp", "classifier."),
}
SAFETENSORS = ".safetensors"
OPTIONAL = "num_batches_tracked"  # a counter of batch norm, absent from files before 2018
SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds beside the model's weights.

    `path`: the file. `loaded`: the model's keys that were in it. `extras`: everything else by its
    name in the file, as tensors, plain containers, numbers and strings (`epoch`, `optimizer`, a
    few-shot learner's `temp`), and `Inert` records of objects of other classes.
    """

    path: str
    loaded: tuple[str, ...]
    extras: Mapping[str, Any] = field(repr=False)

    @property
    def memory_bank(self) -> Tensor | None:
        """NPID's embeddings of its training images, [images, dimension]; None if there are none.

        Images are in the order of torchvision's ImageFolder.
        """
        for value in self.extras.values():
            tensors = dict(value.tensors()) if isinstance(value, Inert) else {}
            if "memory" in tensors and tensors["memory"].dim() == 2:
                return tensors["memory"]
        return None


def load_checkpoint(
    model: nn.Module,
    path: str | PathLike[str],
    *,
    rename: Callable[[str], str] = str,
) -> Checkpoint:
    """Copy the tensors of the checkpoint file `path` into `model`, every one or none.

    Accepts what `torch.save` wrote, in its older format, too, and from Python 2: a state dict, or
    a dict that holds one under `state_dict`, `model` or `model_sd`; and `.safetensors`. Any of
    `module.`, `_orig_mod.`, `model.`, `net.` and a few-shot learner's `encoder.` before the
    network's keys are removed, and what a Lightning module, AveragedModel or learner (`temp` and
    `classifier.*`) has beside them are extras. Then each key is passed through `rename`. Batch
    norm's `num_batches_tracked` may be absent.

    No file can run code: only tensors and plain containers are built (see `unpickle.py`).

    Returns what else was in the file, such as the epoch and NPID's memory bank.
    Raises ModelError, and leaves the model as it was, if the file is missing, damaged, no
    checkpoint, or of another network.
    """
    content = _safetensors(path) if fspath(path).endswith(SAFETENSORS) else read(path)
    state, extras = _state_dict(content, path)
    own = model.state_dict()
    state, beside = _unwrapped(own, state, path)
    state = {rename(key): value for key, value in state.items()}
    _check_fits(type(model).__name__, own, state, path)
    own.update(state)  # absent counters stay as they are, and so do the versions of its modules
    model.load_state_dict(own)
    return Checkpoint(fspath(path), tuple(state), {**extras, **beside})


def _safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file; ModelError if it can't be read."""
    torch_files = required("safetensors.torch", extra="hub", what=f"{path}", error=ModelError)
    check_readable(path)
    unread = ModelError(f"{path}: damaged, or no file of safetensors (…)")
    with raised_as(unread, Exception):  # the reader's own kind is made in Rust
        found: dict[str, Tensor] = torch_files.load_file(path)
    return found


def _unwrapped(
    own: Mapping[str, Tensor], state: dict[str, Tensor], path: str | PathLike[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors without the words before their keys, and what else there was.

    Where a wrapper that holds more than a network is not known, all of it stays.  ModelError where
    two networks fit.
    """
    fits = {p: len(_below(state, p).keys() & own.keys()) for p in ("", *_prefixes(state))}
    most = max(fits.values())
    best = [p for p, count in fits.items() if count == most]
    if not most or best[0] == "":
        return state, {}
    if len(best) > 1:
        raise ModelError(f"{path}: holds {len(best)} networks that fit, under {', '.join(best)}; "
                         "save the state dict of one alone")  # fmt: skip
    rest = {key: value for key, value in state.items() if not key.startswith(best[0])}
    known = tuple(start for word in _words(best[0]) for start in WORDS[word])
    return (_below(state, best[0]), rest) if all(k.startswith(known) for k in rest) else (state, {})


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Every run of WORDS that keys begin with, the shorter ones first."""
    found = {"".join(words[:n]) for words in map(_words, state) for n in range(1, len(words) + 1)}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _words(key: str) -> list[str]:
    """Those of WORDS that a key begins with, in order."""
    word = next((word for word in WORDS if key.startswith(word)), None)
    return [] if word is None else [word, *_words(key.removeprefix(word))]


def _state_dict(
    content: Any, path: str | PathLike[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict in a checkpoint's content, unwrapped, and what was beside it.

    Raises ModelError if there is none.
    """
    wrapped = content
    extras: dict[str, Any] = {}
    while isinstance(wrapped, Mapping):
        if wrapped and all(_is_entry(key, value) for key, value in wrapped.items()):
            return dict(wrapped), extras
        wrapper = next((w for w in WRAPPERS if isinstance(wrapped.get(w), Mapping)), None)
        extras |= {str(key): value for key, value in wrapped.items() if key != wrapper}
        wrapped = None if wrapper is None else wrapped[wrapper]
    objects = [c for c in [content, *extras.values()] if isinstance(c, Inert)]
    if objects:
        raise ModelError(
            f"{path}: holds a Python object ({objects[0].name}) instead of a state dict; "
            "save it again with torch.save(model.state_dict(), path)"
        )
    what = f"keys {', '.join(map(str, content))}"[:80] if isinstance(content, Mapping) else ""
    raise ModelError(
        f"{path}: no state dict in it ({what or type(content).__name__}); looked at "
        f"the top and under {', '.join(WRAPPERS)}"
    )


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _check_fits(
    model: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | PathLike[str]
) -> None:
    """Nothing if every key, shape and kind agrees; else a ModelError that lists the differences."""
    missing = [k for k in own if k not in state and not k.endswith(OPTIONAL)]
    unexpected = [k for k in state if k not in own]
    both = {k: (list(state[k].shape), list(own[k].shape)) for k in own if k in state}
    misshaped = [f"{k} is {got}, wanted {want}" for k, (got, want) in both.items() if got != want]
    strange = [f"{k} is {_kind(state[k])}" for k in both if _kind(state[k])]
    groups = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": misshaped,
        "not of plain numbers": strange,
    }
    lines = [f"  {len(keys)} {what}: {_first(keys)}" for what, keys in groups.items() if keys]
    if lines:
        told = "\n".join(lines)
        raise ModelError(f"{path}: the checkpoint of another network, not of {model} "
                         f"({len(own)} tensors)\n{told}")  # fmt: skip


def _kind(tensor: Tensor) -> str:
    """What keeps a tensor from being copied into a weight; empty for an ordinary one."""
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.is_meta:
        return "without numbers (meta)"
    return "quantized" if tensor.is_quantized else "complex" if tensor.is_complex() else ""


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
