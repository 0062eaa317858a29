"""How much memory is left, asked before a grid or a stack of pictures takes it."""

import math
from pathlib import Path

import torch


def require_memory(resolution: tuple[int, int, int], channels: int, device: torch.device, copies: int = 1) -> None:
    """Raises a ValueError that says how much a grid needs when it does not fit in the memory that is free."""
    if min(resolution) < 1 or channels < 1:
        raise ValueError(f"a grid needs at least one voxel and one channel, got {resolution} with {channels} channels")
    x, y, z = resolution
    what = f"a grid of {x}x{y}x{z} voxels with {channels} channels"
    needed = 4 * x * y * z * (channels + 1) * copies
    require_bytes(needed, what, "lower the resolution or the number of channels", device)


def require_bytes(needed: int, what: str, remedy: str, device: torch.device) -> None:
    """Raises a ValueError that says how much something needs when it does not fit in the memory that is free."""
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"{what} needs {needed / 2**30:.1f} GiB on {device}, {free / 2**30:.1f} GiB are free; {remedy}"
        )


def require_pool_memory(
    voxels: int, channels: int, resolution: tuple[int, int, int], device: torch.device, copies: int = 1
) -> None:
    """Raises a ValueError that says how much the kept voxels of a grid need, and at which resolution they would fit."""
    needed = 4 * voxels * (channels + 1) * copies
    free = free_memory(device)
    if needed > free:
        x, y, z = resolution
        share = (free / needed) ** 0.5  # bricks follow the surface
        a, b, c = (max(1, math.floor(count * share)) for count in resolution)
        raise ValueError(
            f"the bricks of a grid of {x}x{y}x{z} voxels with {channels} channels, {voxels} voxels, need "
            f"{needed / 2**30:.1f} GiB on {device}, {free / 2**30:.1f} GiB are free; a grid of {a}x{b}x{c} would fit"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; a large number where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what torch would use first
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        free = 2**50
    return min(free, _free_in_container(), free_address_space())


def require_address_space(needed: int, what: str, remedy: str) -> None:
    """Raises a ValueError where the limit of this process (ulimit -v) leaves less than a library takes that would crash
    there; how much memory the machine has does not matter."""
    free = free_address_space()
    if needed > free:
        raise ValueError(
            f"{what} needs {needed / 2**30:.1f} GiB of address space, its limit leaves {free / 2**30:.1f}; raise it "
            f"(ulimit -v), or {remedy}"
        )


def free_address_space() -> int:
    """Bytes that the limit of this process's address space (ulimit -v) leaves; a large number where there is none."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return 2**50
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # Windows, or a system that does not tell
        return 2**50
    return max(0, limit - used)


def _free_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit (cgroup version 2) leaves, not counting the files that the kernel can forget."""
    try:
        limit, used, text = (
            (root / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current", "stat")
        )
        parts = dict(line.split() for line in text.splitlines())
        return int(limit) - int(used) + int(parts["inactive_file"])
    except (OSError, KeyError, ValueError):  # no container, or none with a limit
        return 2**50
