"""What torch puts around a network is taken off again; a ScriptModule is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import naflow_fx as nf
from naflow_fx.errors import TraceError


def body() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*layers).double().eval()


def images() -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "AveragedModel": AveragedModel,
    "compile": torch.compile,
    "several": lambda model: nn.DataParallel(AveragedModel(nn.DataParallel(model))),
}


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_network_inside_is_explained(kind: str) -> None:
    model, x = body(), images()
    wrapped, wanted = WRAPPERS[kind](model), nf.compile(model, x)(x)
    explainer = nf.compile(wrapped, x)
    assert explainer.layers == ["input", "0", "1"]
    flow = explainer(x)
    for name, found in flow.maps.items():
        torch.testing.assert_close(found, wanted.maps[name])
    evidence = nf.decompose(wrapped, x[:1], layers="0").tree.nodes["root"]["evidence"]
    assert evidence == pytest.approx(flow.score[0].item())


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrappers_inside_of_a_network(kind: str) -> None:
    class Whole(nn.Module):
        def __init__(self, part: Any) -> None:
            super().__init__()
            self.stem, self.part = nn.Conv2d(3, 3, 1).double(), part

        def forward(self, x: Tensor) -> Any:
            return self.part(self.stem(x))

    torch.manual_seed(1)
    whole, x = Whole(body()), images()
    wanted = nf.compile(whole, x)(x)
    part = whole.part
    whole.part = WRAPPERS[kind](part)
    flow = nf.compile(whole, x)(x)
    assert list(flow.maps) == ["x", "stem", "part.0", "part.1"]
    for name, found in flow.maps.items():
        torch.testing.assert_close(found, wanted.maps[name])
    assert type(whole.part) is type(WRAPPERS[kind](part))  # the user's model stays as it was


def test_a_wrappers_hook_that_changes_something_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1).double(), nn.DataParallel(body())).eval()
    hook = model[1].register_forward_hook(lambda module, args, output: None)
    assert nf.compile(model, images()).layers == ["input", "0", "1.0", "1.1"]
    hook.remove()
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(TraceError, match="a hook changes what the model computes: 1: .*lambda"):
        nf.compile(model, images())


@pytest.mark.parametrize("kind", ["DataParallel", "AveragedModel", "compile"])
def test_a_hook_of_the_outermost_wrapper_is_looked_at(kind: str) -> None:
    model, x = WRAPPERS[kind](body()), images()
    hook = model.register_forward_hook(lambda module, args, output: None)
    flow = nf.compile(model, x)(x)
    assert list(flow.maps) == ["input", "0", "1"]
    hook.remove()
    model.register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(TraceError, match="a hook changes .*: the model: .*lambda"):
        nf.compile(model, x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", ["script", "trace"])
def test_a_script_module_is_refused_in_one_line(make: str) -> None:
    model, x = body(), images()
    scripted = getattr(torch.jit, make)(*((model,) if make == "script" else (model, x)))
    for given, where in ((scripted, "model"), (nn.Sequential(nn.ReLU(), scripted), "model.1"),
                         (nn.DataParallel(scripted), "model")):  # fmt: skip
        with pytest.raises(TraceError) as refused:
            nf.compile(given, x)
        assert str(refused.value) == (
            f"{where}: a ScriptModule (Sequential), which can't be traced; give the nn.Module that "
            "it was made from"
        )
