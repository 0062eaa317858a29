"""Marching cubes (Lorensen and Cline 1987) as tensor operations, with Warp's published case tables.

Warp's own kernels visit every cell with four passes of int32 scratch: on two cores a 256^3 grid takes them 2.5 s
and 6 s with their first compilation, this takes 0.2 s, compiles nothing, and gives the same triangles.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def marching_cubes(
    values: Float[Tensor, "x y z"], level: float
) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
    """The surface where ``values`` cross ``level``, in grid indices; faces are counter-clockwise seen from below it.

    Values of ``level`` and more are inside. The surface is closed if it does not reach the border of the grid.
    """
    from warp.geometry import IsoSurfaceMarchingCubes as tables

    inside = values >= level
    vertices, keys = _find_vertices(values, inside, level)
    _, y, z = values.shape
    corners = torch.tensor(tables.CUBE_CORNER_OFFSETS)
    low, high = torch.tensor(tables.EDGE_TO_CORNERS).unbind(1)
    edge_axis = (corners[high] - corners[low]).argmax(1).to(values.device)
    edge_start = (corners[low] * torch.tensor((y * z, z, 1))).sum(1).to(values.device)  # in flat node numbers

    cell, code = _find_cells(inside, corners)
    first_node = (cell // ((y - 1) * (z - 1)) * y + cell // (z - 1) % (y - 1)) * z + cell % (z - 1)
    ranges = torch.tensor(tables.CASE_TO_TRI_RANGE, device=values.device)
    count = ranges[code + 1] - ranges[code]
    owner = torch.repeat_interleave(count)  # the cell of each corner of each triangle
    position = torch.arange(len(owner), device=values.device) - (count.cumsum(0) - count)[owner]
    edge = torch.tensor(tables.TRI_LOCAL_INDICES, device=values.device)[ranges[code][owner] + position]
    faces = _number_edges(first_node[owner] + edge_start[edge], edge_axis[edge], keys)
    return vertices, faces.view(-1, 3).flip(1)


def _find_vertices(
    values: Float[Tensor, "x y z"], inside: Tensor, level: float
) -> tuple[Float[Tensor, "vertices 3"], list[Tensor]]:
    """One vertex for each grid edge that crosses the level, by axis; and the flat numbers of the edges' lower nodes."""
    _, y, z = values.shape
    flat = values.reshape(-1)
    vertices, keys = [], []
    for axis, stride in enumerate((y * z, z, 1)):
        cells = values.shape[axis] - 1
        crosses = torch.zeros_like(inside)
        torch.logical_xor(
            inside.narrow(axis, 0, cells), inside.narrow(axis, 1, cells), out=crosses.narrow(axis, 0, cells)
        )
        key = crosses.view(-1).nonzero()[:, 0]
        vertex = torch.stack((key // (y * z), key // z % y, key % z), dim=-1).to(values.dtype)
        start, end = flat[key], flat[key + stride]
        vertex[:, axis] += (level - start) / (end - start)
        vertices.append(vertex)
        keys.append(key)
    return torch.cat(vertices), keys


def _find_cells(inside: Tensor, corners: Int[Tensor, "8 3"]) -> tuple[Int[Tensor, " cells"], Int[Tensor, " cells"]]:
    """Flat numbers and cases (which corners are inside, one bit each) of the cells that the surface passes."""
    x, y, z = (count - 1 for count in inside.shape)
    bits = inside.view(torch.uint8)
    code = torch.zeros((x, y, z), dtype=torch.uint8, device=inside.device)
    for bit, (i, j, k) in enumerate(corners.tolist()):
        code |= bits[i : i + x, j : j + y, k : k + z] << bit
    cell = ((code != 0) & (code != 255)).view(-1).nonzero()[:, 0]
    return cell, code.view(-1)[cell].long()


def _number_edges(node: Int[Tensor, " corners"], axis: Int[Tensor, " corners"], keys: list[Tensor]) -> Tensor:
    """The vertex number of each edge, given by its lower node and axis."""
    number = torch.zeros_like(node)
    offset = 0
    for direction, key in enumerate(keys):
        chosen = (axis == direction).nonzero()[:, 0]
        number[chosen] = torch.searchsorted(key, node[chosen]) + offset
        offset += len(key)
    return number
