"""Guards in front of the kernels, which would read beyond the ends of tensors that do not fit together."""

import torch
from torch import Tensor

from nfldm3d.ops.records import BRICK, PoolMap

POOL_LIMIT = 2**31 // BRICK**3
"""Bricks that a pool may hold: its rows are counted in 32 bits."""


def require(
    name: str, tensor: Tensor, shape: tuple[int | str, ...], device: torch.device, *dtypes: torch.dtype
) -> None:
    """Raises a ValueError unless a tensor has this shape (a name stands for any size), device and one of the dtypes."""
    fits = tensor.dim() == len(shape) and all(
        isinstance(size, str) or size == got for size, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name} must have the shape ({wanted}), got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, but must be on {device} with the other tensors")
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{name} must be {wanted} on {device.type}, got {tensor.dtype}: convert it with .to()")


def require_rays(
    origins: Tensor, directions: Tensor, near_far: Tensor | None, device: torch.device, rays: int | str = "rays"
) -> None:
    """Raises a ValueError unless rays are float32 tensors of one length that ask for no gradient."""
    require("origins", origins, (rays, 3), device, torch.float32)
    require("directions", directions, (len(origins), 3), device, torch.float32)
    if near_far is not None:
        require("near_far", near_far, (len(origins), 2), device, torch.float32)
    for name, tensor in (("origins", origins), ("directions", directions), ("near_far", near_far)):
        if tensor is not None and tensor.requires_grad:
            raise ValueError(f"{name} requires a gradient, but the kernels have none for rays: detach() it")


def field_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """The dtypes in which a device may keep a field; all sums are float32."""
    return (torch.float32, torch.float16) if device.type == "cuda" else (torch.float32,)


def require_pool(name: str, pool: Tensor, places: PoolMap, *channels: int | str) -> None:
    """Raises a ValueError unless a pool (bricks, 8, 8, 8, *channels) and the map of its bricks belong together."""
    require(name, pool, ("bricks", BRICK, BRICK, BRICK, *channels), pool.device, *field_dtypes(pool.device))
    if len(pool) >= POOL_LIMIT:
        raise ValueError(f"{name} has {len(pool)} bricks, a pool holds fewer than {POOL_LIMIT}; split the field")
    if len(pool) != places.count:
        raise ValueError(f"{name} has {len(pool)} bricks, but the map is of a pool of {places.count}: make it anew")
    require_map(places, pool.device)


def require_map(places: PoolMap, device: torch.device) -> None:
    """Raises a ValueError unless a map has a number for each brick of its grid."""
    grid = tuple(-(-size // BRICK) for size in places.resolution)
    require("numbers", places.numbers, grid, device, torch.int32)
