"""From a scene to a mesh: level set, walls at the box, cleaning, decimation, normals, colours."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.export.baking import bake_texture
from nfldm3d.export.coloring import color_points
from nfldm3d.export.levels import choose_level
from nfldm3d.export.marching_cubes import marching_cubes
from nfldm3d.export.mesh import Mesh, vertex_normals
from nfldm3d.export.occluders import Occluder
from nfldm3d.export.optional import import_optional
from nfldm3d.export.regions import find_pieces
from nfldm3d.export.surface_samples import read_density
from nfldm3d.export.visibility import Triangles, find_visible
from nfldm3d.fields import Field, VoxelField, voxelize
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

TEXTURED_FACES = 20_000
"""Default face budget of a textured mesh: unwrapping takes 1 s for 20 000 faces but 25 s for 186 000."""


@dataclass(frozen=True)
class MeshOptions:
    """What to mesh, and how finely."""

    box: Box | None = None
    """Only the part inside; None: the whole field. Where the box cuts through matter, a wall closes the mesh."""
    level: float | None = None
    """Density of the surface in 1/metre; None: ln 2 / voxel size, where one voxel absorbs half of the light, or less
    if the capture's cameras see softer surfaces (see ``levels.choose_level``)."""
    min_component_share: float = 1e-3
    """Connected pieces with less than this share of the faces are dropped; 0 keeps all."""
    max_faces: int | None = None
    """Decimate to so many faces; None: all without a texture, 20 000 with one."""
    texture_size: int | None = None
    """Bake a texture of so many pixels along each edge; None: colours at the vertices."""
    surroundings: bool = False
    """Whether the coarser fields around the field in focus are meshed, too."""
    closed: bool = False
    """Keep also what nobody can see and the walls where a box cuts through matter: a solid, but rooms are hidden."""
    ceilings: bool = False
    """Keep ceilings, too; without them one looks from above into rooms."""

    def __post_init__(self):
        if self.level is not None and not self.level > 0:
            raise ValueError(f"level is a density and must exceed 0, got {self.level}")
        if not 0 <= self.min_component_share <= 1:
            raise ValueError(f"min_component_share lies between 0 and 1, got {self.min_component_share}")
        if self.max_faces is not None and self.max_faces < 4:
            raise ValueError(f"max_faces must be 4 or more, got {self.max_faces}")
        if self.texture_size is not None and not 16 <= self.texture_size <= 16384:
            raise ValueError(f"texture_size lies between 16 and 16384 pixels, got {self.texture_size}")


@torch.no_grad()
def extract_mesh(scene: Scene, *, options: MeshOptions | None = None) -> Mesh:
    """The surface of a scene with normals and colours, in world metres.

    Only the field in focus is meshed unless ``options.surroundings``. Its faces look into the space that they are seen
    from. What the scene's cameras, or somebody who walks where they are, cannot see is left out, and so are ceilings:
    one looks from outside into rooms. Objects that cameras stand around stay whole but for the walls where the box cuts
    through matter; see ``visibility``. Scenes without cameras, and all with ``options.closed``, are closed: at the box
    (the field's or the one given) matter ends in a plane wall. Surroundings are left open where the inner field begins.

    Raises:
        ValueError: if there is no surface; it names the range of densities and what to change.
    """
    options = options or MeshOptions()
    levels = scene.levels if options.surroundings else scene.levels[:1]
    holes = (None, *(field.box for field in levels))
    surfaces = []
    for field, hole in zip(levels, holes, strict=False):
        if options.box is None or field.box.overlaps(options.box):
            grid = voxelize(field, options.box, with_features=False)
            level = options.level or choose_level(scene, grid, hole)
            surfaces.append(Surface(grid, _crop(field.box, options.box), level, hole, field))
    if not surfaces:
        raise ValueError(f"the box {options.box} lies outside the field's, {levels[-1].box}; choose one that overlaps")
    parts = [(surface, _extract_level_set(surface, options.min_component_share)) for surface in surfaces]
    parts = [(surface, part) for surface, part in parts if len(part[1])]
    if not parts:
        raise ValueError(_describe_emptiness(surfaces[0]))
    parts, from_inside = (parts, False) if options.closed else _keep_visible(scene, parts, options)
    total = sum(len(faces) for _, (_, faces) in parts)
    budget = options.max_faces or (TEXTURED_FACES if options.texture_size else total)
    if total > budget:
        parts = [(surface, _decimate(part, budget * len(part[1]) // total)) for surface, part in parts]
    closed = options.closed or scene.cameras is None
    mesh = _join([Mesh(*part, _find_normals(surface, part, closed)) for surface, part in parts])
    mesh = replace(mesh, single_sided=from_inside)
    height = 1.5 if total > budget else 0.5
    if options.texture_size is not None:
        return bake_texture(scene, mesh, options.texture_size, height=height)
    return replace(mesh, colors=color_points(scene, mesh.vertices, mesh.normals, height=height))


class Surface(NamedTuple):
    """A level set to extract: the part of a field inside ``box`` and outside ``hole``."""

    field: VoxelField
    box: Box
    level: float
    hole: Box | None
    source: Field
    """What ``field`` was read from, if it kept no grid."""


def _keep_visible(
    scene: Scene, parts: list[tuple[Surface, Triangles]], options: MeshOptions
) -> tuple[list[tuple[Surface, Triangles]], bool]:
    """The parts without what nobody sees, all where that is not known; and whether they are seen from inside."""
    if scene.cameras is None or not scene.cameras.shape.numel():
        return parts, False
    occluders = [Occluder.inside(surface.field, surface.level, surface.hole) for surface, _ in parts]
    triangles = [part for _, part in parts]
    kept, from_inside = find_visible(triangles, occluders, options.box, scene.cameras, ceilings=options.ceilings)
    visible = [
        (surface, _compact(vertices, faces[keep]))
        for (surface, (vertices, faces)), keep in zip(parts, kept, strict=True)
        if bool(keep.any())
    ]
    return (visible, from_inside) if visible else (parts, False)


def _extract_level_set(surface: Surface, min_component_share: float) -> Triangles:
    """The cleaned triangles of one field."""
    values, nodes = sample_grid(surface.field, surface.box)
    padded = torch.nn.functional.pad(values, (1, 1) * 3)
    position, faces = marching_cubes(padded, surface.level)
    vertices = torch.stack(
        [
            _to_world(position[:, axis], torch.cat((node[:1], node, node[-1:])))  # the padding lies on the wall
            for axis, node in enumerate(nodes)
        ],
        dim=-1,
    )
    vertices, faces = _weld(position, vertices, faces, padded.shape)
    if surface.hole is not None:
        faces = faces[~surface.hole.contains(vertices[faces].mean(1))]
    return _compact(vertices, _drop_small_components(faces, len(vertices), min_component_share))


def sample_grid(field: VoxelField, box: Box) -> tuple[Float[Tensor, "x y z"], list[Float[Tensor, " nodes"]]]:
    """Densities at the voxel centres inside the box and on its faces, and the world coordinates of these nodes.

    Between the nodes the field is trilinear, so marching cubes sees exactly the field inside the box.
    """
    values, nodes = field.density.float(), []
    for axis, (size, origin) in enumerate(zip(field.voxel_size, field.box.lower, strict=True)):
        count = values.shape[axis]
        start, end = ((corner[axis] - origin) / size - 0.5 for corner in (box.lower, box.upper))  # in voxels
        centers = [i for i in range(count) if start + 1e-3 < i < end - 1e-3]
        first, between = (centers[0], len(centers)) if centers else (0, 0)
        faces = [_interpolate_layer(values, axis, min(max(edge, 0.0), count - 1.0)) for edge in (start, end)]
        values = torch.cat((faces[0], values.narrow(axis, first, between), faces[1]), dim=axis)
        inner = [origin + (i + 0.5) * size for i in centers]
        nodes.append(torch.tensor([box.lower[axis], *inner, box.upper[axis]], dtype=torch.float64, device=field.device))
    return values, nodes


def _interpolate_layer(values: Float[Tensor, "x y z"], axis: int, position: float) -> Float[Tensor, "..."]:
    first = int(position)
    second = min(first + 1, values.shape[axis] - 1)
    return torch.lerp(values.narrow(axis, first, 1), values.narrow(axis, second, 1), position - first)


def _to_world(position: Float[Tensor, " vertices"], nodes: Float[Tensor, " nodes"]) -> Float[Tensor, " vertices"]:
    first = position.long().clamp(max=len(nodes) - 2)
    return torch.lerp(nodes[first], nodes[first + 1], position.double() - first).to(position.dtype)


def _weld(position: Float[Tensor, "vertices 3"], vertices: Tensor, faces: Tensor, shape: torch.Size) -> Triangles:
    """Joins vertices that coincide (on walls, and where a node holds the level exactly) and drops empty faces."""
    last = position.new_tensor(shape) - 2
    exact = (position == position.round()).all(-1)
    candidates = (exact | (position < 1).any(-1) | (position > last).any(-1)).nonzero()[:, 0]
    _, first, inverse = np.unique(vertices[candidates].cpu().numpy(), axis=0, return_index=True, return_inverse=True)
    target = torch.arange(len(vertices), device=vertices.device)
    twin = torch.from_numpy(first[inverse.reshape(-1)]).to(vertices.device)
    target[candidates] = candidates[twin]
    faces = target[faces]
    a, b, c = faces.unbind(1)
    return vertices, faces[(a != b) & (b != c) & (c != a)]


def _drop_small_components(faces: Int[Tensor, "faces 3"], count: int, share: float) -> Int[Tensor, "kept 3"]:
    if share == 0 or len(faces) == 0:
        return faces
    piece, size = find_pieces(faces, count)
    keep = size >= min(share * len(faces), float(size.max()))
    return faces[keep[piece]]


def _decimate(part: Triangles, budget: int) -> Triangles:
    fast_simplification = import_optional("fast_simplification")
    vertices, faces = part
    if len(faces) <= budget:
        return part
    points, triangles = fast_simplification.simplify(
        vertices.cpu().numpy(), faces.cpu().numpy().astype(np.int32), target_count=max(4, budget)
    )
    return _compact(
        torch.from_numpy(np.asarray(points, dtype=np.float32)).to(vertices),
        torch.from_numpy(np.asarray(triangles, dtype=np.int64)).to(faces.device),
    )


def _find_normals(surface: Surface, part: Triangles, closed: bool) -> Float[Tensor, "_ 3"]:
    """Minus the density gradient; across walls on walls; from the faces where the gradient contradicts them."""
    vertices, faces = part
    field, box = surface.field, surface.box
    flat = vertex_normals(vertices, faces)
    smooth = surface.source.normals(vertices)
    normals = torch.where((smooth * flat).sum(-1, keepdim=True) > 0.5, smooth, flat)
    lower, upper = vertices.new_tensor(box.lower), vertices.new_tensor(box.upper)
    slack = 1e-3 * vertices.new_tensor(field.voxel_size)
    wall = (vertices > upper - slack).to(vertices) - (vertices < lower + slack).to(vertices)
    if not closed:  # the walls are gone, and the gradient at the border of a field leads out of it
        return torch.where((wall != 0).any(-1, keepdim=True), flat, normals)
    matter = read_density(field, vertices.clamp(lower + slack, upper - slack)) > 1.01 * surface.level
    on_wall = matter[:, None] & (wall != 0).any(-1, keepdim=True)
    return torch.where(on_wall, torch.nn.functional.normalize(wall, dim=-1), normals)


def _join(parts: list[Mesh]) -> Mesh:
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)]).tolist()
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False)]
    return Mesh(torch.cat([p.vertices for p in parts]), torch.cat(faces), torch.cat([p.normals for p in parts]))


def _compact(vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"]) -> Triangles:
    """Without the vertices that no face uses."""
    used = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
    used[faces.reshape(-1)] = True
    return vertices[used], (used.cumsum(0) - 1)[faces]


def _crop(whole: Box, box: Box | None) -> Box:
    return whole if box is None else whole.intersection(box)


def _describe_emptiness(surface: Surface) -> str:
    low, high = (float(value) for value in sample_grid(surface.field, surface.box)[0].aminmax())
    where = f"from {surface.box.lower} to {surface.box.upper}"
    if high <= 0:
        return f"the field is empty {where}: there is nothing to export; fit the scene first or choose another box"
    return (
        f"no surface at the level {surface.level:.4g}/m: {where} the density goes from {low:.4g} to {high:.4g}/m; "
        f"give a level below {high:.4g}, e.g. level={high / 2:.2g}, or fit the scene for longer"
    )
