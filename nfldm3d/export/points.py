"""From a scene to a coloured point cloud, and on to a file."""

from dataclasses import replace
from pathlib import Path

import torch

from nfldm3d._types import PathName
from nfldm3d.export.coloring import color_points
from nfldm3d.export.mesh import PointCloud
from nfldm3d.export.meshes import MeshOptions, extract_mesh, extract_surface
from nfldm3d.export.ply import encode_ply
from nfldm3d.files import atomic_write
from nfldm3d.scene import Scene

POINT_SUFFIXES = (".ply",)


def extract_points(
    scene: Scene,
    *,
    options: MeshOptions | None = None,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> PointCloud:
    """Points on the surface of a scene, with normals and colours.

    Args:
        options: as for ``extract_mesh``; a texture size has no effect.
        count: how many points to draw, spread evenly over the area; None takes the vertices of the mesh, two to
            three for each voxel on the surface.
    """
    options = replace(options or MeshOptions(), texture_size=None)
    if count is None:
        mesh = extract_mesh(scene, options=options)
        assert mesh.colors is not None
        return PointCloud(mesh.vertices, mesh.normals, mesh.colors)
    if count < 1:
        raise ValueError(f"a point cloud needs at least one point, got count={count}")
    mesh, _ = extract_surface(scene, options)  # its vertices are not shown, so nobody asks for their colours
    corners = mesh.vertices[mesh.faces]  # (faces 3 3)
    a, b, c = corners.unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1).double().cumsum(0)
    where = None if generator is None else generator.device
    draw = torch.rand(count, 3, generator=generator, dtype=torch.float64, device=where).to(area.device)
    order = draw[:, 0].argsort()  # by face, so that points beside each other read the same part of the field
    drawn = draw[order]
    face = torch.searchsorted(area, drawn[:, 0] * area[-1]).clamp(max=len(area) - 1)
    root = drawn[:, 1].sqrt()  # uniform in a triangle: Osada et al. 2002, eq. 1
    share = torch.stack((1 - root, root * (1 - drawn[:, 2]), root * drawn[:, 2]), dim=-1).to(a.dtype)[..., None]
    points = (share * corners[face]).sum(1)
    normals = torch.nn.functional.normalize((share * mesh.normals[mesh.faces[face]]).sum(1), dim=-1)
    height = 0.5 if options.max_faces is None else 1.5
    colors, drawn_as = color_points(scene, points, normals, height=height), torch.zeros_like(order)
    drawn_as[order] = torch.arange(count, device=order.device)
    return PointCloud(points[drawn_as], normals[drawn_as], colors[drawn_as])


def export_points(
    source: Scene | PointCloud,
    path: PathName,
    *,
    options: MeshOptions | None = None,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> PointCloud:
    """Writes a point cloud, or that of a scene, as a binary .ply file with normals and colours, and returns it.

    Args:
        options, count, generator: as for ``extract_points``, for a scene.

    Raises:
        ValueError: if there is no surface, the suffix is not .ply, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in POINT_SUFFIXES:
        raise ValueError(
            f"cannot write {path}: point clouds are written as .ply, not {path.suffix or 'without suffix'!r}"
        )
    with atomic_write(path) as temporary:
        cloud = source
        if isinstance(cloud, Scene):
            cloud = extract_points(cloud, options=options, count=count, generator=generator)
        temporary.write_bytes(encode_ply(cloud.points, cloud.normals, cloud.colors))
    return cloud
