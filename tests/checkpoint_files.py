"""Small networks and the formats that checkpoints come in, Python 2's among them."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


def tiny() -> nn.Module:
    """Convolution, batch norm and classifier: 9 tensors."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def state_of(model: nn.Module, prefix: str = "") -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, value.clone()) for key, value in model.state_dict().items())


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


PURE: Any = vars(pickle)["_Pickler"]  # written in Python, so that its methods can be replaced


class Python2Pickler(PURE):  # type: ignore[misc]
    """Protocol 2 with every string as bytes, as Python 2's pickle wrote its str.

    Tensors are built by the function that PyTorch 0.3 had for it.
    """

    dispatch = dict(PURE.dispatch)

    def save_text(self, text: str) -> None:
        data = text.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_text

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor:
            return NotImplemented
        function, args = value.__reduce_ex__(2)  # type: ignore[no-untyped-call]
        assert function is torch._utils._rebuild_tensor_v2
        return torch._utils._rebuild_tensor, args[:4]


def python2_dump(value: Any, file: Any, protocol: int) -> None:
    Python2Pickler(file, protocol).dump(value)


PYTHON2 = SimpleNamespace(__name__="python2", Pickler=Python2Pickler, dump=python2_dump)
WAYS: dict[str, dict[str, Any]] = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
    "Python 2": {"_use_new_zipfile_serialization": False, "pickle_module": PYTHON2},
}
