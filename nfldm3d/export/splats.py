"""A scene as 3-D Gaussians, one for each voxel that can be seen, and the PLY file that splat viewers open.

The file is that of 3-D Gaussian splatting (Kerbl et al. 2023): opacities as logits, scales as logarithms, rotations as
quaternions w x y z, colours as coefficients of spherical harmonics; here in world metres with z up.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.appearance import IDENTITY, SphericalHarmonics
from nfldm3d.export.coloring import color_features
from nfldm3d.export.surface_samples import CHUNK
from nfldm3d.fields import VoxelField, voxelize
from nfldm3d.files import atomic_write
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene

SPLAT_SUFFIXES = (".ply",)
WIDTH, THICKNESS = 0.5, 0.3
"""Standard deviations of a Gaussian along an opaque surface and across it, in voxels: those that showed fields best."""
MIN_OPACITY, MAX_OPACITY = 0.02, 0.99
"""Fainter Gaussians are left out; splat renderers stop at the upper bound."""
HIDING = 0.9
"""A voxel that absorbs more than this hides what is behind it."""
LAYERS = 2
"""How many voxels deep Gaussians lie below a surface: light gets through the gaps of one layer."""
MAX_DETAIL = 4
MEAN_COLOR = 0.5 / math.sqrt(math.pi)
"""The constant basis function of spherical harmonics."""


@dataclass(frozen=True)
class Splats:
    """3-D Gaussians."""

    centers: Float[Tensor, "points 3"]
    """Positions in world metres."""
    scales: Float[Tensor, "points 3"]
    """Standard deviations in metres along the axes of the rotation; the last one points out of the matter."""
    rotations: Float[Tensor, "points 4"]
    """Unit quaternions w x y z: world from the axes of the scales."""
    opacities: Float[Tensor, " points"]
    """What the middle of each absorbs, 0 to 1."""
    coefficients: Float[Tensor, "points basis 3"]
    """Spherical harmonics of sRGB less 0.5, in the basis of ``appearance.spherical_harmonics`` and world axes."""

    def __len__(self) -> int:
        return len(self.centers)


@torch.no_grad()
def extract_splats(scene: Scene, *, box: Box | None = None, detail: int = 1) -> Splats:
    """Gaussians that look like a scene's matter; the background is not among them.

    Their optical depth is that of their voxels. Colours are those of the appearance, view-dependent ones in full; what
    a learned decoder draws into pictures is left out.

    Args:
        box: only those whose centre lies inside.
        detail: into how many parts voxels are divided along each axis, each with a Gaussian of its own: 2 shows
            surfaces better, and takes eight times as many.

    Raises:
        ValueError: if nothing can be seen there, or ``detail`` is not 1 to 4.
    """
    if not 1 <= detail <= MAX_DETAIL:
        raise ValueError(f"splat detail must lie between 1 and {MAX_DETAIL}, got {detail}: 2 makes eight of each")
    parts, hole = [], None
    for level in scene.levels:
        inside = box if box is not None and level.box.overlaps(box) else None
        parts.append(_splat_level(scene, voxelize(level, inside), detail, box, hole))
        hole = level.box
    splats = Splats(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))
    if not len(splats):
        where = "" if box is None else f" from {box.lower} to {box.upper}"
        raise ValueError(f"nothing can be seen{where}: fit the scene first, or choose another box")
    return splats


def export_splats(source: Scene | Splats, path: PathName, *, box: Box | None = None, detail: int = 1) -> Splats:
    """Writes Gaussians, or those of a scene, as a .ply file for splat viewers, and returns them.

    Args:
        box, detail: as for ``extract_splats``, for a scene.

    Raises:
        ValueError: if there is nothing to see, the suffix is not .ply, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SPLAT_SUFFIXES:
        raise ValueError(f"cannot write {path}: splats are written as .ply, not {path.suffix or 'without suffix'!r}")
    with atomic_write(path) as temporary:
        splats = source if isinstance(source, Splats) else extract_splats(source, box=box, detail=detail)
        temporary.write_bytes(encode_splats(splats))
    return splats


def encode_splats(splats: Splats) -> bytes:
    """The file's content."""
    count, basis = splats.coefficients.shape[:2]
    rest = splats.coefficients[:, 1:].transpose(1, 2).reshape(count, -1)  # (points 3*(basis-1)): red, green, blue
    opacity = splats.opacities.clamp(1e-6, 1 - 1e-6)
    columns = {
        ("x", "y", "z"): splats.centers,
        ("nx", "ny", "nz"): torch.zeros_like(splats.centers),
        ("f_dc_0", "f_dc_1", "f_dc_2"): splats.coefficients[:, 0],
        tuple(f"f_rest_{number}" for number in range(3 * (basis - 1))): rest,
        ("opacity",): torch.logit(opacity)[:, None],
        ("scale_0", "scale_1", "scale_2"): splats.scales.log(),
        ("rot_0", "rot_1", "rot_2", "rot_3"): splats.rotations,
    }
    names = [name for group in columns for name in group]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment nfldm3d: z up, metres, sRGB",
        f"element vertex {count}",
    ]
    header += [f"property float {name}" for name in names]
    body = torch.cat(list(columns.values()), dim=1).float().cpu().numpy().astype(np.float32, order="C")
    return "\n".join([*header, "end_header", ""]).encode("ascii") + body.astype("<f4").tobytes()


def find_seen(depth: Float[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Voxels of some optical depth that are not buried ``LAYERS`` deep in such as hide all behind them."""
    opacity = -torch.expm1(-depth)
    lets_through = functional.pad((opacity < HIDING).float()[None, None], [1] * 6, value=1.0)  # so does the outside
    for _ in range(LAYERS):
        lets_through = functional.max_pool3d(lets_through, 3, 1, 1)
    return (opacity > MIN_OPACITY) & (lets_through[0, 0, 1:-1, 1:-1, 1:-1] > 0)


def _splat_level(scene: Scene, field: VoxelField, detail: int, box: Box | None, hole: Box | None) -> Splats:
    """The Gaussians of one field inside a box and outside a hole."""
    density = _mean_density(field, detail)
    resolution = (density.shape[0], density.shape[1], density.shape[2])
    size = field.box.voxel_size(resolution)
    depth, centers = density * min(size), field.box.voxel_centers(resolution, density)
    mask = find_seen(depth)
    if box is not None:
        mask &= box.contains(centers)
    if hole is not None:
        mask &= ~hole.contains(centers)
    points = centers[mask]
    normals = field.normals(points)
    axes = _tangent_frames(normals)
    opaque = -torch.expm1(-depth[mask]) * (normals.norm(dim=-1) > 0.5)
    flat = WIDTH + (THICKNESS - WIDTH) * opaque  # what is transparent has no surface to lie along
    widths = torch.stack((torch.full_like(flat, WIDTH), torch.full_like(flat, WIDTH), flat), dim=-1)
    extents = (axes * points.new_tensor(size)[:, None]).norm(dim=1)  # of a voxel along each axis
    features = torch.cat([field.query(part)[1].float() for part in points.split(CHUNK)] or [field.features[:0, 0, 0]])
    colors = _coefficients(scene, features, points, normals)
    return Splats(points, widths * extents, _quaternions(axes), _peak_opacity(depth[mask]), colors)


def _mean_density(field: VoxelField, detail: int) -> Float[Tensor, "x y z"]:
    """The density of the parts of a field's voxels: a signed one, which is cut between its voxels, looks finer."""
    factor = detail if detail > 1 or not field.signed else 2
    density = field.density.float()
    if factor > 1:
        fine = replace(field, density=density, features=density[..., None])
        x, y, z = field.resolution
        density = fine.resampled((factor * x, factor * y, factor * z)).unsigned().density
    return functional.avg_pool3d(density[None], factor // detail)[0]


def _coefficients(
    scene: Scene, features: Tensor, centers: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
) -> Float[Tensor, "points basis 3"]:
    appearance = scene.appearance
    if isinstance(appearance, SphericalHarmonics):
        return appearance.change_frame(features, IDENTITY).unflatten(-1, (-1, 3))
    return ((color_features(scene, features, centers, normals) - 0.5) / MEAN_COLOR)[:, None]


def _peak_opacity(depth: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
    """What the middle of a Gaussian absorbs for a layer of them to have a voxel's mean optical depth.

    A ray through Gaussians of standard deviation w, a voxel apart, meets 2 pi w² Li2(opacity) of it on average.
    """
    opacity = torch.linspace(0, MAX_OPACITY, 256, dtype=torch.float64)
    powers = torch.arange(1, 2000, dtype=torch.float64)
    mean = 2 * math.pi * WIDTH**2 * (opacity[:, None] ** powers / powers**2).sum(-1)
    place = torch.searchsorted(mean, depth.double().cpu()).clamp(1, len(mean) - 1)
    low, high = mean[place - 1], mean[place]
    share = ((depth.double().cpu() - low) / (high - low)).clamp(0, 1)
    return torch.lerp(opacity[place - 1], opacity[place], share).to(depth)


def _tangent_frames(normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3 3"]:
    """Rotations whose last column is the normal; no rotation where there is none."""
    some = normals.norm(dim=-1, keepdim=True) > 0.5
    last = torch.where(some, normals, normals.new_tensor((0.0, 0.0, 1.0)))
    aside = torch.eye(3).to(normals)[last.abs().argmin(-1)]
    first = functional.normalize(torch.linalg.cross(aside, last), dim=-1)
    return torch.stack((first, torch.linalg.cross(last, first), last), dim=-1)


def _quaternions(rotations: Float[Tensor, "points 3 3"]) -> Float[Tensor, "points 4"]:
    """w x y z of rotation matrices, by the largest of the four (Shepperd 1978)."""
    r = rotations
    trace = r.diagonal(dim1=1, dim2=2)
    total = trace.sum(-1)
    size = torch.stack((total, *(2 * trace - total[:, None]).unbind(-1)), dim=-1)  # 4 q² - 1
    sums = (r[:, 2, 1] + r[:, 1, 2], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 0] + r[:, 0, 1])
    ways = (r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1])
    w, x, y, z = (1 + size).unbind(-1)
    rows = ((w, *ways), (ways[0], x, sums[2], sums[1]), (ways[1], sums[2], y, sums[0]), (ways[2], sums[1], sums[0], z))
    candidates = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)  # (points 4 4): 4 q_i q
    best = candidates[torch.arange(len(r)), size.argmax(-1)]
    return functional.normalize(best, dim=-1)
