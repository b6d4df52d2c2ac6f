"""Reading checkpoint files: state dicts, plain or wrapped, into a model, strictly."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from naflow_fx.errors import ModelError

# Where training scripts put the state dict, and what wrapped models put before every key.
WRAPPERS = ("state_dict", "model_sd", "model")
PREFIXES = ("module.", "_orig_mod.")
OPTIONAL = "num_batches_tracked"  # a counter of batch norm, absent from files before 2018
SHOWN = 3


def load_checkpoint(
    model: nn.Module,
    path: str | PathLike[str],
    *,
    rename: Callable[[str], str] = str,
) -> None:
    """Copy the tensors of the checkpoint file `path` into `model`, every one or none.

    Accepts what `torch.save` wrote: a state dict, or a dict that holds one under `state_dict`,
    `model` or `model_sd`; a `module.` before every key is removed, then each key is passed through
    `rename`. Only tensors and plain containers are unpickled, so that a file cannot run code.
    Raises ModelError, and leaves the model as it was, if the file is missing, damaged, no
    checkpoint, or of another network.
    """
    state = _state_dict(_read(path), path)
    own = model.state_dict()
    for prefix in PREFIXES:
        while not own.keys() & state.keys() and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    state = {rename(key): value for key, value in state.items()}
    _check_fits(type(model).__name__, own, state, path)
    own.update(state)  # absent counters stay as they are, and so do the versions of its modules
    model.load_state_dict(own)


def _read(path: str | PathLike[str]) -> Any:
    """What the file holds, on the CPU; ModelError in one line if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "looks like a TorchScript archive"
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"no checkpoint file at {path}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise ModelError(f"{path}: {_refusal(error)}") from error


def _refusal(error: Exception) -> str:
    """One line on a file that the tensors-only reader refused."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return (
            f"holds a Python object ({found[1]}), and only tensors are read; "
            "save it again with torch.save(model.state_dict(), path)"
        )
    return "not a complete checkpoint of torch.save; damaged, cut short, or of another format"


def _state_dict(content: Any, path: str | PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a checkpoint's content, unwrapped; ModelError if there is none."""
    wrapped = content
    while isinstance(wrapped, Mapping):
        if wrapped and all(_is_entry(key, value) for key, value in wrapped.items()):
            return dict(wrapped)
        wrapped = next((wrapped[k] for k in WRAPPERS if isinstance(wrapped.get(k), Mapping)), None)
    what = f"keys {', '.join(map(str, content))}"[:80] if isinstance(content, Mapping) else ""
    raise ModelError(
        f"{path}: no state dict in it ({what or type(content).__name__}); looked at the top and "
        f"under {', '.join(WRAPPERS)}"
    )


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _check_fits(
    model: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | PathLike[str]
) -> None:
    """Nothing if every key and shape agrees; else a ModelError that lists the differences."""
    missing = [k for k in own if k not in state and not k.endswith(OPTIONAL)]
    unexpected = [k for k in state if k not in own]
    misshaped = [
        f"{k} is {list(state[k].shape)}, wanted {list(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    lines = [f"  {len(keys)} {what}: {_first(keys)}" for what, keys in groups.items() if keys]
    if lines:
        head = f"{path}: the checkpoint of another network, not of {model} ({len(own)} tensors)"
        raise ModelError("\n".join([head, *lines]))


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
