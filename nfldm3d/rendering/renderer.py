"""Looking at a scene: pictures, depth and normals from cameras, by volume rendering.

A ray runs through nested boxes B0 < B1 < ...: on its way in through the shells of the surroundings, through the field
in focus, and out through the shells again. Every piece is one call of ``integrate_rays``; pieces are put together by
the over operator, front to back, with the background behind the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d.camera import Camera
from nfldm3d.fields import VoxelField
from nfldm3d.geometry import Rays
from nfldm3d.scene import Scene

MIN_OPACITY = 1e-3
"""Below this opacity a ray has met no surface: its distance and depth are reported as 0."""


@dataclass(frozen=True)
class Rendering:
    """What cameras see of a scene; batch axes are those of the camera."""

    image: Float[Tensor, "*views 3 height width"]
    """sRGB in [0, 1] over the scene's background."""
    opacity: Float[Tensor, "*views height width"]
    """Share of light absorbed before the background, 0 to 1."""
    distance: Float[Tensor, "*views height width"]
    """Expected distance along the ray in metres; 0 where the ray meets nothing."""
    depth: Float[Tensor, "*views height width"]
    """Expected depth along the optical axis in metres; 0 where the ray meets nothing."""
    normals: Float[Tensor, "*views 3 height width"] | None = None
    """World-space unit normals at the expected distance; 0 where there is none. Only on request."""
    features: Float[Tensor, "*views channels height width"] | None = None
    """Composited features, before the appearance and without background. Only on request."""


def render(
    scene: Scene,
    camera: Camera,
    *,
    step_in_voxels: float = 0.5,
    with_normals: bool = False,
    with_features: bool = False,
    rays_per_chunk: int = 2**18,
) -> Rendering:
    """Renders every view of ``camera``, differentiable by the scene's tensors.

    Args:
        step_in_voxels: distance between samples, as a share of the smallest voxel edge of each level.
        rays_per_chunk: bounds the memory: a chunk needs about (channels + 40) * 4 bytes a ray.

    Raises:
        ValueError: if the scene and the camera live on different devices.
    """
    if scene.device != camera.device:
        raise ValueError(
            f"the scene is on {scene.device}, the camera on {camera.device}; move one with .to({str(scene.device)!r})"
        )
    if not 0 < step_in_voxels <= 4:
        raise ValueError(f"step_in_voxels must lie between 0 and 4, got {step_in_voxels}; 0.5 is usual")
    occupancies = [level.occupancy() for level in scene.levels]
    flat = camera.reshape(-1)
    views = [
        _render_view(scene, flat[view], occupancies, step_in_voxels, (with_normals, with_features), rays_per_chunk)
        for view in range(len(flat))
    ]
    stacked = {}
    for part in fields(Rendering):
        values = [getattr(view, part.name) for view in views]
        if values and values[0] is not None:
            stacked[part.name] = torch.stack(values).reshape(*camera.shape, *values[0].shape)
    if not views:
        raise ValueError("the camera holds no views; give at least one")
    return Rendering(**stacked)


def _render_view(
    scene: Scene,
    camera: Camera,
    occupancies: Sequence[ops.Occupancy],
    step_in_voxels: float,
    wanted: tuple[bool, bool],
    rays_per_chunk: int,
) -> Rendering:
    """One view in pieces of whole rows; an appearance that looks at neighbours gets the picture in one piece."""
    with_normals, with_features = wanted
    rows = max(1, rays_per_chunk // camera.width)
    keep_features = with_features or not scene.appearance.per_ray
    pieces: list[dict[str, Tensor]] = []
    for top in range(0, camera.height, rows):
        window = camera.cropped(0, top, camera.width, min(rows, camera.height - top))
        rays = window.rays()
        flat = rays.reshape(-1)
        integral = composite(scene.levels, flat, occupancies=occupancies, step_in_voxels=step_in_voxels)
        distance = mean_distance(integral)
        piece = {
            "opacity": integral.opacity,
            "distance": distance,
            "depth": distance * (flat.directions @ camera.forward),
        }
        if scene.appearance.per_ray:
            piece["image"] = shade(scene, integral.features, integral.opacity, distance, flat)
        if keep_features:
            piece["features"] = integral.features
        if with_normals:
            visible = integral.opacity > MIN_OPACITY
            piece["normals"] = torch.where(visible[:, None], _normals(scene.levels, flat.at(distance)), 0.0)
        pieces.append({name: value.unflatten(0, rays.shape) for name, value in piece.items()})
    whole = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    if not scene.appearance.per_ray:
        whole["image"] = shade(scene, whole["features"], whole["opacity"], whole["distance"], camera.rays())
    if not with_features:
        whole.pop("features", None)
    whole["image"] = whole["image"].clamp(0, 1)
    return Rendering(**{name: value.movedim(-1, 0) if value.dim() == 3 else value for name, value in whole.items()})


def composite(
    levels: Sequence[VoxelField],
    rays: Rays,
    *,
    occupancies: Sequence[ops.Occupancy | None] | None = None,
    gradients: Sequence[ops.FieldGradient | None] | None = None,
    step_in_voxels: float = 0.5,
    early_stop: float = 1e-4,
) -> ops.RayIntegral:
    """Volume rendering of nested fields along a flat batch of rays, innermost field first in ``levels``.

    Returns:
        Sums over all samples in front of the background, as ``ops.integrate_rays`` defines them; the distortion is
        summed over the pieces of a ray, not across them.
    """
    total: ops.RayIntegral | None = None
    for number, near_far in _segments(levels, rays):
        level = levels[number]
        piece = ops.integrate_rays(
            level.density,
            level.features,
            rays.origins,
            rays.directions,
            near_far,
            ops.March((level.box.lower, level.box.upper), step_in_voxels * min(level.voxel_size), early_stop),
            occupancy=None if occupancies is None else occupancies[number],
            gradient=None if gradients is None else gradients[number],
        )
        total = piece if total is None else _over(total, piece)
    assert total is not None
    return total


def mean_distance(integral: ops.RayIntegral) -> Float[Tensor, " rays"]:
    """Metres along each ray to what it meets, weighted by visibility; 0 where it meets nothing."""
    distance = integral.distance / integral.opacity.clamp(min=MIN_OPACITY)
    return torch.where(integral.opacity > MIN_OPACITY, distance, 0.0)


def shade(
    scene: Scene,
    features: Float[Tensor, "*batch channels"],
    opacity: Float[Tensor, "*batch"],
    distance: Float[Tensor, "*batch"],
    rays: Rays,
) -> Float[Tensor, "*batch 3"]:
    """Colour of composited features over the scene's background, not clamped; ``distance`` is each ray's mean."""
    behind = scene.background_color(rays)
    transmittance = (1 - opacity)[..., None]
    if behind.shape[-1] != 3:  # a feature vector is seen through the appearance
        features, opacity = features + transmittance * behind, torch.ones_like(opacity)
        return scene.appearance.image(features, opacity, rays, distance)
    return scene.appearance.image(features, opacity, rays, distance) + transmittance * behind


def _segments(levels: Sequence[VoxelField], rays: Rays) -> list[tuple[int, Float[Tensor, "rays 2"]]]:
    """Pieces of the rays from front to back as (level, near and far); pieces that no ray has are left out."""
    near, far = levels[0].box.clip(rays)
    pieces = [(0, torch.stack((near, far), dim=-1))]
    for number, level in enumerate(levels[1:], start=1):
        outer_near, outer_far = level.box.clip(rays)
        near, far = near.maximum(outer_near).minimum(outer_far), far.maximum(outer_near).minimum(outer_far)
        ahead, behind = torch.stack((outer_near, near), dim=-1), torch.stack((far, outer_far), dim=-1)
        pieces = [(number, ahead), *pieces, (number, behind)]
        near, far = outer_near, outer_far
    some = [piece for piece in pieces if bool((piece[1][:, 1] > piece[1][:, 0]).any())]
    return some or pieces[:1]


def _over(front: ops.RayIntegral, back: ops.RayIntegral) -> ops.RayIntegral:
    through = 1 - front.opacity
    return ops.RayIntegral(
        front.features + through[:, None] * back.features,
        front.opacity + through * back.opacity,
        front.distance + through * back.distance,
        front.distortion + through**2 * back.distortion,
    )


def _normals(levels: Sequence[VoxelField], points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    """Normals from the innermost level around each point."""
    result = torch.zeros_like(points)
    for level in reversed(levels):
        inside = level.box.contains(points)
        result = torch.where(inside[:, None], level.normals(points), result)
    return result
