"""What a call gives on the CPU and what it gives on the GPU, side by side; and a scene with everything in it."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from nfldm3d import Box, Camera, EnvironmentMap, Rgb, Scene, SphericalHarmonics, VoxelField
from nfldm3d.fields import surface_density

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BOX = Box((-1.0, 0.5, 2.0), (1.2, 3.0, 3.1))


def tensors_in(value: object) -> list[Tensor]:
    """All tensors that a result holds, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, nn.Module):
        return list(value.state_dict().values())
    if is_dataclass(value):
        return [tensor for part in fields(value) for tensor in tensors_in(getattr(value, part.name))]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in tensors_in(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []


def assert_same_on_gpu(
    call: Callable[[torch.device], object], *, stays: bool = True, atol: float = 1e-4, rtol: float = 1e-3
) -> None:
    """Calls on both devices and compares; what a call on the GPU gives is there if it ``stays``, else on the CPU."""
    pairs = zip(tensors_in(call(CPU)), tensors_in(call(GPU)), strict=True)
    for here, there in pairs:
        assert not here.is_cuda and there.is_cuda == stays, (
            f"a result of shape {tuple(there.shape)} is on {there.device}"
        )
        assert here.shape == there.shape and here.dtype == there.dtype
        assert torch.allclose(here.double(), there.detach().cpu().double(), atol=atol, rtol=rtol, equal_nan=True)


def cameras(device: torch.device, views: int = 3) -> Camera:
    """Cameras around the scene that look inwards."""
    return Camera.orbit(BOX.center, 4.0, views=views, width=14, height=10).to(device)


def ball(device: torch.device, *, degree: int | None = 1) -> Scene:
    """A ball with a hole in it, off the middle of a box that is no cube, with surroundings, sky, cameras and extras.

    A ``degree`` of None gives plain colours.
    """
    draws = torch.Generator().manual_seed(0)
    appearance = Rgb() if degree is None else SphericalHarmonics(degree)
    empty = VoxelField.zeros(BOX, (11, 13, 7), appearance.channels)
    distance = (empty.voxel_centers() - torch.tensor((0.2, 1.6, 2.5))).norm(dim=-1)
    density = (distance < 0.5) * (distance > 0.2) * 20 * surface_density(empty.voxel_size)
    features = 0.3 * torch.randn(11, 13, 7, appearance.channels, generator=draws)
    outer = 0.2 * torch.rand(5, 4, 6, generator=draws)
    surroundings = VoxelField(outer, torch.rand(5, 4, 6, appearance.channels, generator=draws), BOX.scaled(2.0))
    sky = EnvironmentMap(torch.rand(5, 10, 3, generator=draws))
    made = Scene(
        VoxelField(density, features, BOX),
        appearance,
        sky,
        (surroundings,),
        cameras(CPU),
        metadata={"name": "ball"},
        extras={"code": torch.arange(4.0)},
    )
    return made.to(device)
