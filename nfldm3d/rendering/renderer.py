"""Looking at a scene: pictures, depth and normals from cameras, by volume rendering.

A ray runs through nested boxes B0 < B1 < ...: on its way in through the shells of the surroundings, through the field
in focus, and out through the shells again. Every piece is one call of ``integrate``; pieces are put together by the
over operator, front to back, with the background behind the last one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import ops
from nfldm3d.camera import Camera
from nfldm3d.camera_problems import find_camera_problem
from nfldm3d.fields import Field, FoundOccupancy, read_innermost
from nfldm3d.geometry import Rays
from nfldm3d.memory import require_bytes
from nfldm3d.rendering.integration import find_occupancy, integrate
from nfldm3d.scene import Scene

NUMBERS = 6
"""Kept of each pixel: three colours, opacity, distance and depth."""
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

    def __repr__(self) -> str:
        parts = [part.name for part in fields(self) if getattr(self, part.name) is not None]
        views, (height, width) = tuple(self.opacity.shape[:-2]), self.opacity.shape[-2:]
        return f"Rendering {views}: {', '.join(parts)} of {width}x{height} pixels, on {self.opacity.device}"


def render(
    scene: Scene,
    camera: Camera,
    *,
    step_in_voxels: float = 0.5,
    with_normals: bool = False,
    with_features: bool = False,
    rays_per_chunk: int = 2**18,
) -> Rendering:
    """Renders every view of ``camera``, differentiable by whatever the scene's fields depend on.

    For frames one after the other, ``prepare`` the scene once.

    Args:
        step_in_voxels: distance between samples, as a share of the smallest voxel edge of each level.
        rays_per_chunk: bounds the memory: a chunk needs about (channels + 40) * 4 bytes a ray.

    Raises:
        ValueError: if the scene and the camera live on different devices, or the camera holds NaN.
    """
    return prepare(scene).render(
        camera,
        step_in_voxels=step_in_voxels,
        with_normals=with_normals,
        with_features=with_features,
        rays_per_chunk=rays_per_chunk,
    )


def prepare(scene: Scene) -> "Renderer":
    """A renderer that looks once where the scene is empty, however many pictures follow."""
    return Renderer(scene, tuple(find_occupancy(level) for level in scene.levels))


@dataclass(frozen=True)
class Renderer:
    """A scene with what is known about it before any camera is: made by ``prepare``.

    It goes on skipping what was empty then: after densities have changed in place, prepare the scene again.
    """

    scene: Scene
    occupancies: tuple[FoundOccupancy, ...]
    """From ``find_occupancy``, one for each level of the scene."""

    def render(
        self,
        camera: Camera,
        *,
        step_in_voxels: float = 0.5,
        with_normals: bool = False,
        with_features: bool = False,
        rays_per_chunk: int = 2**18,
    ) -> Rendering:
        """As ``nfldm3d.render``."""
        scene = self.scene
        if scene.device != camera.device:
            where = repr(str(scene.device))
            raise ValueError(
                f"the scene is on {scene.device}, the camera on {camera.device}; move one with .to({where})"
            )
        if problem := find_camera_problem(camera):
            raise ValueError(f"the camera cannot be rendered: {problem}")
        if not 0 < step_in_voxels <= 4:
            raise ValueError(f"step_in_voxels must lie between 0 and 4, got {step_in_voxels}; 0.5 is usual")
        self._require_memory(camera, with_features)
        wanted = _Wanted(with_normals, with_features, step_in_voxels, rays_per_chunk)
        flat = camera.reshape(-1)
        views = [self._render_view(flat[view], wanted) for view in range(len(flat))]
        stacked = {}
        for part in fields(Rendering):
            values = [getattr(view, part.name) for view in views]
            if values and values[0] is not None:
                whole = torch.stack(values) if len(values) > 1 else values[0].contiguous()  # spares a frame its copy
                stacked[part.name] = whole.reshape(*camera.shape, *values[0].shape)
        if not views:
            raise ValueError("the camera holds no views; give at least one")
        return Rendering(**stacked)

    def _require_memory(self, camera: Camera, with_features: bool) -> None:
        """Raises a ValueError if what is asked for does not fit in memory."""
        views, features = math.prod(camera.shape), self.scene.field.channels if with_features else 0
        what = f"{views} x {camera.width} x {camera.height} pixels"
        remedy = "render fewer views at a time, or smaller ones"
        require_bytes(4 * views * camera.width * camera.height * (NUMBERS + features), what, remedy, camera.device)

    def _render_view(self, camera: Camera, wanted: "_Wanted") -> Rendering:
        """One view in pieces of whole rows; an appearance that looks at neighbours gets the picture in one piece."""
        rows = max(1, wanted.rays_per_chunk // camera.width)
        pieces: list[dict[str, Tensor]] = []
        for top in range(0, camera.height, rows):
            window = camera.cropped(0, top, camera.width, min(rows, camera.height - top))
            rays = window.rays()
            flat = rays.reshape(-1)
            piece = self._look(flat, wanted)
            piece["depth"] = piece["distance"] * (flat.directions @ camera.forward)
            pieces.append({name: value.unflatten(0, rays.shape) for name, value in piece.items()})
        whole = {name: torch.cat([piece.pop(name) for piece in pieces]) for name in list(pieces[0])}
        if not self.scene.appearance.per_ray:
            seen = (whole["features"], whole["opacity"], whole["distance"], camera.rays())
            whole["image"] = shade(self.scene, *seen, whole.get("normals"))
        if not wanted.features:
            whole.pop("features", None)
        if not wanted.normals:
            whole.pop("normals", None)
        whole["image"] = whole["image"].clamp(0, 1)
        return Rendering(**{name: value.movedim(-1, 0) if value.dim() == 3 else value for name, value in whole.items()})

    def color(self, rays: Rays, *, step_in_voxels: float = 0.5) -> Float[Tensor, "rays 3"]:
        """Colours of a flat batch of rays over the background, not clamped; not for appearances of whole pictures."""
        if not self.scene.appearance.per_ray:
            kind = type(self.scene.appearance).__name__
            raise ValueError(f"{kind} colours whole pictures, not single rays: render a camera")
        return self._look(rays, _Wanted(False, False, step_in_voxels, 0))["image"]

    def _look(self, rays: Rays, wanted: "_Wanted") -> dict[str, Tensor]:
        """What flat rays see: everything that is wanted, or that a whole picture is made of later."""
        scene, appearance = self.scene, self.scene.appearance
        sums = composite(scene.levels, rays, occupancies=self.occupancies, step_in_voxels=wanted.step_in_voxels)
        distance = mean_distance(sums)
        piece = {"opacity": sums.opacity, "distance": distance}
        if wanted.normals or appearance.needs_normals:
            visible = sums.opacity > MIN_OPACITY  # other rays end in the camera, which may stand outside all boxes
            piece["normals"] = normals = torch.zeros_like(rays.directions)
            normals[visible] = read_innermost(scene.levels, rays[visible].at(distance[visible]), _read_normals)
        if wanted.features or not appearance.per_ray:
            piece["features"] = sums.features
        if appearance.per_ray:
            piece["image"] = shade(scene, sums.features, sums.opacity, distance, rays, piece.get("normals"))
        return piece


class _Wanted(NamedTuple):
    """How to look, and for what."""

    normals: bool
    features: bool
    step_in_voxels: float
    rays_per_chunk: int


def composite(
    levels: Sequence[Field],
    rays: Rays,
    *,
    occupancies: Sequence[FoundOccupancy | None] | None = None,
    gradients: Sequence[ops.FieldGradient | None] | None = None,
    step_in_voxels: float = 0.5,
    early_stop: float = 1e-4,
) -> ops.RayIntegral:
    """Volume rendering of nested fields along a flat batch of rays, innermost field first in ``levels``.

    Args:
        occupancies: what ``find_occupancy`` gives for each level; None looks anew.
        gradients: see ``ops.integrate_rays``; for voxel fields.

    Returns:
        Sums over all samples in front of the background, as ``ops.integrate_rays`` defines them; the distortion is
        summed over the pieces of a ray, not across them.
    """
    total: ops.RayIntegral | None = None
    for number, near_far in _segments(levels, rays):
        level = levels[number]
        step = step_in_voxels * min(level.voxel_size)
        occupancy = None if occupancies is None else occupancies[number]
        gradient = None if gradients is None else gradients[number]
        piece = integrate(level, rays, near_far, step, early_stop, occupancy, gradient)
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
    normals: Float[Tensor, "*batch 3"] | None = None,
) -> Float[Tensor, "*batch 3"]:
    """Colour of composited features over the scene's background, not clamped; ``distance`` is each ray's mean.

    ``normals`` are those at that distance, for appearances that need them.
    """
    behind = scene.background_color(rays)
    transmittance = (1 - opacity)[..., None]
    if behind.shape[-1] != 3:  # a feature vector is seen through the appearance
        features, opacity = features + transmittance * behind, torch.ones_like(opacity)
        return scene.appearance.image(features, opacity, rays, distance, normals)
    return scene.appearance.image(features, opacity, rays, distance, normals) + transmittance * behind


def _segments(levels: Sequence[Field], rays: Rays) -> list[tuple[int, Float[Tensor, "rays 2"]]]:
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


def _read_normals(level: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
    return level.normals(points)
