"""From a scene to a mesh: level set, walls at the box, cleaning, decimation, normals, colours."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.export.baking import bake_texture
from nfldm3d.export.coloring import color_points
from nfldm3d.export.level_sets import Surface, compact, extract_level_set, find_range
from nfldm3d.export.levels import choose_level
from nfldm3d.export.mesh import Mesh, vertex_normals
from nfldm3d.export.occluders import Occluder
from nfldm3d.export.optional import import_optional
from nfldm3d.export.surface_samples import read_density
from nfldm3d.export.visibility import Triangles, find_visible
from nfldm3d.fields import SparseField, voxelize
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
    mesh, height = extract_surface(scene, options)
    if options.texture_size is not None:
        return bake_texture(scene, mesh, options.texture_size, height=height)
    return replace(mesh, colors=color_points(scene, mesh.vertices, mesh.normals, height=height))


@torch.no_grad()
def extract_surface(scene: Scene, options: MeshOptions) -> tuple[Mesh, float]:
    """The mesh of ``extract_mesh`` without colours, and how far above it a look at it begins, in voxels."""
    levels = scene.levels if options.surroundings else scene.levels[:1]
    holes = (None, *(field.box for field in levels))
    surfaces = []
    for field, hole in zip(levels, holes, strict=False):
        if options.box is None or field.box.overlaps(options.box):
            grid = field if isinstance(field, SparseField) else voxelize(field, options.box, with_features=False)
            level = options.level or choose_level(scene, grid, hole)
            surfaces.append(Surface(grid, _crop(field.box, options.box), level, hole, field))
    if not surfaces:
        raise ValueError(f"the box {options.box} lies outside the field's, {levels[-1].box}; choose one that overlaps")
    parts = [(surface, extract_level_set(surface, options.min_component_share)) for surface in surfaces]
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
    return replace(mesh, single_sided=from_inside), 1.5 if total > budget else 0.5


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
        (surface, compact(vertices, faces[keep]))
        for (surface, (vertices, faces)), keep in zip(parts, kept, strict=True)
        if bool(keep.any())
    ]
    return (visible, from_inside) if visible else (parts, False)


def _decimate(part: Triangles, budget: int) -> Triangles:
    fast_simplification = import_optional("fast_simplification")
    vertices, faces = part
    if len(faces) <= budget:
        return part
    points, triangles = fast_simplification.simplify(
        vertices.cpu().numpy(), faces.cpu().numpy().astype(np.int32), target_count=max(4, budget)
    )
    return compact(
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


def _crop(whole: Box, box: Box | None) -> Box:
    return whole if box is None else whole.intersection(box)


def _describe_emptiness(surface: Surface) -> str:
    low, high = find_range(surface.field, surface.box)
    where = f"from {surface.box.lower} to {surface.box.upper}"
    if high <= 0:
        return f"the field is empty {where}: there is nothing to export; fit the scene first or choose another box"
    return (
        f"no surface at the level {surface.level:.4g}/m: {where} the density goes from {low:.4g} to {high:.4g}/m; "
        f"give a level below {high:.4g}, e.g. level={high / 2:.2g}, or fit the scene for longer"
    )
