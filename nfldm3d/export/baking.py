"""Texture baking: unwrap a mesh with xatlas, find each texel's place on the surface, ask the scene for its colour."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.export.coloring import color_points
from nfldm3d.export.mesh import Mesh
from nfldm3d.export.optional import import_optional
from nfldm3d.scene import Scene

PADDING = 12
"""Texels between charts before the atlas, often larger than asked for, is scaled to its size: leaves 8 or more, four
for each chart, so that bilinear filtering and two mip levels stay inside."""
TEXELS_AT_ONCE = 2**20


@torch.no_grad()
def bake_texture(scene: Scene, mesh: Mesh, size: int, *, height: float = 1.5) -> Mesh:
    """The mesh with texture coordinates and a texture of ``size`` pixels along each edge.

    Unwrapping takes about a second for 20 000 faces and grows faster than their number: decimate first.

    Args:
        height: as in ``color_points``.
    """
    source, faces, texels = _unwrap(mesh, size)
    vertices, normals = mesh.vertices[source], mesh.normals[source]
    pieces = []
    for column, row, face, share in rasterize(texels, faces):
        corners = faces[face]
        point = (share[..., None] * vertices[corners]).sum(1)
        normal = torch.nn.functional.normalize((share[..., None] * normals[corners]).sum(1), dim=-1)
        pieces.append((row.clamp(0, size - 1) * size + column.clamp(0, size - 1), point, normal))
    texel, points, directions = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    canvas = vertices.new_zeros(size * size, 3)
    canvas[texel] = color_points(scene, points, directions, height=height)
    covered = torch.zeros(size * size, dtype=torch.bool, device=vertices.device)
    covered[texel] = True
    filled = canvas[_nearest_covered(covered.view(size, size))]
    uv = torch.stack((texels[:, 0] / size, 1 - texels[:, 1] / size), dim=-1)  # rows count down, v counts up
    texture = filled.view(size, size, 3).permute(2, 0, 1).contiguous()
    return Mesh(vertices, faces, normals, None, uv, texture, mesh.single_sided)


def rasterize(
    texels: Float[Tensor, "vertices 2"], faces: Int[Tensor, "faces 3"]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Column, row, face and barycentric coordinates of all texel centres inside triangles, a million candidates a time.

    Args:
        texels: vertex positions in texels; the first texel's centre is (0.5, 0.5).
    """
    corners = texels[faces]  # (faces 3 2)
    low = (corners.amin(1) - 0.5).ceil().long()
    extent = ((corners.amax(1) - 0.5).floor().long() - low + 1).clamp(min=0)
    count = extent.prod(1)
    ends = count.cumsum(0)
    start, done = 0, 0
    while start < len(faces):
        stop = max(start + 1, int(torch.searchsorted(ends, done + TEXELS_AT_ONCE, right=True)))
        face = torch.repeat_interleave(torch.arange(start, stop, device=faces.device), count[start:stop])
        position = torch.arange(len(face), device=faces.device) + done - (ends - count)[face]
        column = low[face, 0] + position % extent[face, 0]
        row = low[face, 1] + position // extent[face, 0]
        share = _barycentric(torch.stack((column, row), dim=-1) + 0.5, corners[face])
        inside = (share >= -1e-4).all(-1)
        yield column[inside], row[inside], face[inside], share[inside]
        start, done = stop, int(ends[stop - 1])


def _barycentric(points: Float[Tensor, "points 2"], corners: Float[Tensor, "points 3 2"]) -> Float[Tensor, "points 3"]:
    """Barycentric coordinates; negative infinity in triangles without area."""
    a, b, c = corners.unbind(1)
    area = _cross(b - a, c - a)
    second, third = _cross(points - a, c - a) / area, _cross(b - a, points - a) / area
    shares = torch.stack((1 - second - third, second, third), dim=-1)
    return torch.where((area.abs() > 1e-12)[:, None], shares, -torch.inf)


def _cross(first: Float[Tensor, "points 2"], second: Float[Tensor, "points 2"]) -> Float[Tensor, " points"]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _unwrap(
    mesh: Mesh, size: int
) -> tuple[Int[Tensor, " corners"], Int[Tensor, "faces 3"], Float[Tensor, "corners 2"]]:
    """For the vertices of the cut mesh: their old numbers, the faces, and their places in texels."""
    xatlas = import_optional("xatlas")
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = size, PADDING, True
    atlas = xatlas.Atlas()
    vertices, normals = mesh.vertices.cpu().numpy(), mesh.normals.cpu().numpy()
    atlas.add_mesh(vertices, mesh.faces.cpu().numpy().astype(np.uint32), normals)
    atlas.generate(pack_options=options)
    source, faces, uv = atlas.get_mesh(0)
    device = mesh.vertices.device
    return (
        torch.from_numpy(source.astype(np.int64)).to(device),
        torch.from_numpy(faces.astype(np.int64)).to(device),
        torch.from_numpy(uv * np.float32(size)).to(mesh.vertices),
    )


def _nearest_covered(covered: Tensor) -> Int[Tensor, " texels"]:
    """For each texel the number of the nearest one that a triangle covers."""
    import_optional("scipy")
    from scipy.ndimage import distance_transform_edt

    nearest = np.asarray(distance_transform_edt(~covered.cpu().numpy(), return_distances=False, return_indices=True))
    flat = nearest[0].astype(np.int64) * covered.shape[1] + nearest[1]
    return torch.from_numpy(flat.reshape(-1)).to(covered.device)
