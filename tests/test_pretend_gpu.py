"""The rules of CUDA that the pretended GPU keeps; on a machine with a GPU the real one is asked, which judges them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pretend_gpu import pretend_gpu
from torch import Tensor, nn

from nfldm3d.ops import interpolate
from nfldm3d.ops.launch import launch
from nfldm3d.ops.occupancy_kernels import mark_cells

BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def there(*shape: int) -> Tensor:
    return torch.ones(shape, device="cuda")


@pytest.mark.cuda
def test_tensors_say_where_they_are() -> None:
    made = torch.arange(6, device="cuda").view(2, 3)
    assert made.device == torch.device("cuda:0") and made.is_cuda and not made.cpu().is_cuda
    assert (made + 1).is_cuda and made.new_zeros(2).is_cuda and torch.zeros_like(made).is_cuda
    assert made.tolist() == [[0, 1, 2], [3, 4, 5]] and float(made[1, 2]) == 5.0 and f"{made[0, 1]:02d}" == "01"
    assert made[[1, 0]].tolist() == [[3, 4, 5], [0, 1, 2]] and made.new_tensor([7]).item() == 7


REFUSED: list[Callable[[], object]] = [
    lambda: there(3) + torch.ones(3),
    lambda: torch.ones(3).add_(there(3)),
    lambda: torch.ones(3) * there(),
    lambda: there(2, 3) @ torch.ones(3, 2),
    lambda: torch.cat((there(3), torch.ones(3))),
    lambda: torch.stack((there(3), torch.ones(3))),
    lambda: torch.where(there(3) > 0, torch.ones(3), there(3)),
    lambda: torch.lerp(there(3), there(3), torch.ones(3)),
    lambda: torch.searchsorted(there(3), torch.ones(3)),
    lambda: torch.ones(3)[torch.tensor([0], device="cuda")],
    lambda: there(3).index_add_(0, torch.tensor([0]), there(1)),
    lambda: there(3).gather(0, torch.tensor([0])),
    lambda: there(3).index_put_((torch.tensor([0, 1]),), torch.zeros(2)),
    lambda: nn.functional.grid_sample(there(1, 1, 3, 3), torch.zeros(1, 2, 2, 2), align_corners=False),
    lambda: nn.functional.embedding(torch.tensor([0]), there(2, 2)),
    lambda: nn.Linear(3, 2)(there(1, 3)),
    lambda: torch.rand(3, generator=torch.Generator("cuda")),
    lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
    lambda: torch.randperm(3, generator=torch.Generator(), device="cuda"),
]


@pytest.mark.parametrize("mix", REFUSED)
@pytest.mark.cuda
def test_devices_do_not_mix(mix: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError):
        mix()


@pytest.mark.cuda
def test_arrays_are_made_of_tensors_of_the_cpu_only() -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        there(3).numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        np.asarray(there(3))
    assert there(3).cpu().numpy().sum() == 3


@pytest.mark.cuda
def test_what_cuda_lets_mix() -> None:
    values = torch.arange(6.0, device="cuda").view(2, 3)
    assert (values + torch.tensor(1.0)).is_cuda and torch.where(values > 2, values, torch.tensor(0.0)).is_cuda
    assert values[torch.tensor([1])].tolist() == [[3.0, 4.0, 5.0]]  # indices of the CPU
    assert values[values.cpu() > 4].tolist() == [5.0]
    values[torch.tensor([0])] = torch.tensor(-1.0)
    values[1] = torch.tensor([7.0, 8.0, 9.0])  # a copy
    assert values.tolist() == [[-1.0] * 3, [7.0, 8.0, 9.0]]
    host = torch.zeros(3)
    host[1:] = values[1, 1:]
    assert host.tolist() == [0.0, 8.0, 9.0]


@pytest.mark.cuda
def test_gradients_come_back_to_their_device() -> None:
    leaf = torch.ones(3, requires_grad=True)
    (leaf.cuda() * 2).sum().backward()
    assert leaf.grad is not None and not leaf.grad.is_cuda and leaf.grad.tolist() == [2.0] * 3
    other = torch.ones(3, device="cuda", requires_grad=True)
    (other * leaf.detach().cuda()).sum().backward()
    assert other.grad is not None and other.grad.is_cuda


class _Astray(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # type: ignore[override]
        return values * 2

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return grads[0].cpu()


@pytest.mark.cuda
def test_a_gradient_on_the_wrong_device_is_caught() -> None:
    values = torch.ones(3, device="cuda", requires_grad=True)
    with pytest.raises(RuntimeError, match="gradient.* is on cpu|but got cpu"):
        _Astray.apply(values).sum().backward()


@pytest.mark.cuda
def test_modules_move_with_their_buffers() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to("cuda")
    assert all(value.is_cuda for value in network.state_dict().values())
    network(there(5, 3)).square().sum().backward()
    step = torch.optim.AdamW(network.parameters(), lr=0.1)
    step.step()
    assert all(value.is_cuda for state in step.state.values() for name, value in state.items() if name != "step")
    halved = network.half()
    assert halved(there(5, 3).half()).dtype == torch.float16 and not next(network.cpu().parameters()).is_cuda


@pytest.mark.cuda
def test_autocast_multiplies_in_half_precision() -> None:
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert (there(2, 3) @ there(3, 2)).dtype == torch.bfloat16
        assert there(2).exp().dtype == torch.float32


@pytest.mark.cuda
def test_kernels_run_there() -> None:
    points = torch.full((300, 3), 0.5, device="cuda", requires_grad=True)
    values = torch.ones(2, 3, 4, 5, device="cuda", requires_grad=True)
    found = interpolate(values, points, BOX)
    assert found.is_cuda and bool((found == 1).all())
    found.sum().backward()
    assert points.grad is not None and points.grad.is_cuda and values.grad is not None and values.grad.is_cuda


def test_memory_that_nobody_filled_shows() -> None:
    with pretend_gpu() as device:
        assert bool(torch.empty(3, device=device).isnan().all())  # noqa: TID251


def test_kernels_given_memory_of_the_cpu_fail() -> None:
    density, rest = torch.ones(2, 3, 4), (torch.zeros(2, 3, 4, dtype=torch.uint8), torch.zeros(1, 1, 1).byte())
    with pretend_gpu() as device, pytest.raises(RuntimeError, match="illegal memory access"):
        launch(mark_cells, 1, [density.to(device), 0.0, *rest], device)
    with pretend_gpu() as device, pytest.raises(RuntimeError, match="illegal memory access"):
        launch(mark_cells, 1, [density.to(device), 0.0, *rest], torch.device("cpu"))


def test_nothing_is_left_behind() -> None:
    with pretend_gpu():
        pass
    assert type(torch.Generator()) is torch.Generator and type(torch.zeros(1)) is Tensor
