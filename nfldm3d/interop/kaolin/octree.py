"""Octrees of occupied voxels in the bytes of Kaolin's structured point clouds, on any device.

A cell of level l is one of 2^l x 2^l x 2^l equal parts of a cube and is named by its Morton code: the bits of its
x, y and z, interleaved with x in front. Its eight children have the codes ``8 * code + 4 * x + 2 * y + z``. The
octree holds one byte for each occupied cell above the leaves, level by level from the root and sorted by code within
a level; bit ``4 * x + 2 * y + z`` of a byte says whether that child is occupied.
"""

from itertools import pairwise

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

MAX_LEVEL = 15  # Kaolin keeps coordinates as int16
SHIFTS = (16, 8, 4, 2)
RUNS = (0xFFFF, 0xFF0000FF, 0xF00F00F00F, 0xC30C30C30C3, 0x249249249249)
"""Where the 16 bits of a coordinate stand while shifts cut them into shorter runs, until two zeros follow each bit."""


def octree_level(resolution: tuple[int, int, int]) -> int:
    """How many times a cube must be halved to hold a grid, one voxel for each leaf (at least once)."""
    level = max(1, (max(resolution) - 1).bit_length())
    if level > MAX_LEVEL:
        raise ValueError(f"a grid of {resolution} voxels exceeds Kaolin's {2**MAX_LEVEL} on a side; resample it")
    return level


def morton_from_points(points: Int[Tensor, "points 3"]) -> Int[Tensor, " points"]:
    """Morton codes of cells at the coordinates x, y, z, each in 0 ... 2^15 - 1."""
    bits = points.long()
    for shift, run in zip(SHIFTS, RUNS[1:], strict=True):
        bits = (bits | bits << shift) & run
    x, y, z = bits.unbind(-1)
    return x << 2 | y << 1 | z


def points_from_morton(codes: Int[Tensor, " points"]) -> Int[Tensor, "points 3"]:
    """Coordinates x, y, z of cells with the given Morton codes."""
    bits = (codes[:, None] >> torch.tensor((2, 1, 0), device=codes.device)) & RUNS[-1]
    for shift, run in zip(reversed(SHIFTS), reversed(RUNS[:-1]), strict=True):
        bits = (bits | bits >> shift) & run
    return bits


def cells_above(leaves: Int[Tensor, " leaves"], level: int) -> list[Int[Tensor, " _"]]:
    """Sorted Morton codes of the occupied cells of every level, from the root to the given sorted leaves."""
    cells = [leaves]
    for _ in range(level):
        cells.insert(0, torch.unique_consecutive(cells[0] >> 3))
    return cells


def encode_octree(cells: list[Int[Tensor, " _"]]) -> UInt8[Tensor, " bytes"]:
    """The octree's bytes, given the sorted Morton codes of every level's cells from the root to the leaves."""
    parts = []
    for parents, children in pairwise(cells):
        row = torch.searchsorted(parents, children >> 3)
        parts.append(torch.zeros_like(parents).index_add_(0, row, 1 << (children & 7)).to(torch.uint8))
    return torch.cat(parts)


def decode_octree(octree: UInt8[Tensor, " bytes"]) -> list[Int[Tensor, " _"]]:
    """Sorted Morton codes of every level's cells, from the root to the leaves."""
    bits = torch.arange(8, device=octree.device)
    cells, used = [torch.zeros(1, dtype=torch.long, device=octree.device)], 0
    while used < len(octree):
        parents = cells[-1]
        part = octree[used : used + len(parents)]
        if len(part) < len(parents) or not bool(part.all()) or len(cells) > MAX_LEVEL:
            raise ValueError(
                f"byte {used} and on do not form level {len(cells)} of an octree: {len(parents)} bytes are due there, "
                f"none of them zero, and {MAX_LEVEL} levels at most; check octrees and lengths"
            )
        row, child = (part.long()[:, None] >> bits & 1).nonzero(as_tuple=True)
        cells.append(parents[row] * 8 + child)
        used += len(parents)
    return cells
