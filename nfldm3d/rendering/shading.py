"""Light on any field: albedo, Lambertian and textureless views with normals, and what keeps learned shapes sound.

A point with albedo a and normal n that is lit from l has the colour a (ambient + diffuse max(0, n · l)); textureless,
a is 1 (Poole et al. 2022). Every sample of a ray is shaded by itself, so that gradients reach the density through the
normals; ``Appearance`` shades once for each ray.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.fields import Field, occupied_cells
from nfldm3d.geometry import Rays
from nfldm3d.ops.compositing import composite_samples
from nfldm3d.rendering.integration import find_samples
from nfldm3d.rendering.renderer import MIN_OPACITY, Rendering

Shading = Literal["albedo", "lambertian", "textureless"]
RAYS_AT_ONCE = 2**13
SOFTNESS = 0.01
"""Below its root an opacity counts as nearly nothing."""
# The corners of a tetrahedron: four differences along them give a gradient without a bias to any side.
TETRAHEDRON = ((1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0))


@dataclass(frozen=True)
class Light:
    """A lamp and what comes from everywhere."""

    position: Float[Tensor, "3"]
    """In metres."""
    diffuse: float = 0.9
    """Strength of the lamp."""
    ambient: float = 0.1
    """Strength of the rest."""


@dataclass(frozen=True)
class ShadingOptions:
    """How a field is looked at."""

    shading: Shading = "lambertian"
    """``albedo`` ignores the light, ``textureless`` the albedo."""
    normals: Literal["field", "differences"] = "field"
    """The field's own, which are exact for neural ones, or by four differences of its density: for any, at once."""
    difference: float | None = None
    """Distance of these in metres; by default the smallest edge of a voxel."""
    step_in_voxels: float = 1.0
    """Distance between samples, as a share of the smallest voxel edge."""
    early_stop: float = 1e-3
    """Transmittance behind which samples are left out."""

    def __post_init__(self):
        if self.shading not in ("albedo", "lambertian", "textureless"):
            raise ValueError(f"shading must be albedo, lambertian or textureless, got {self.shading!r}")
        if self.normals not in ("field", "differences"):
            raise ValueError(f"normals must be 'field' or 'differences', got {self.normals!r}")
        if not 0 < self.step_in_voxels <= 4 or not 0 <= self.early_stop < 1:
            raise ValueError(
                "step_in_voxels must lie between 0 and 4 and early_stop between 0 and 1, got "
                f"{self.step_in_voxels} and {self.early_stop}"
            )
        if self.difference is not None and not self.difference > 0:
            raise ValueError(f"the difference for normals must be metres above 0, got {self.difference}")


@dataclass(frozen=True)
class ShadedRays:
    """What rays see of a field, over black."""

    color: Float[Tensor, "rays 3"]
    opacity: Float[Tensor, " rays"]
    distance: Float[Tensor, " rays"]
    """Sum of weight times metres, as in ``ops.RayIntegral``."""
    normals: Float[Tensor, "rays 3"] | None = None
    """Weighted sum of the samples'; None if the shading needed none."""
    away: Float[Tensor, " rays"] | None = None
    """Weighted sum of max(0, n · direction)²: how far what is seen faces away from its viewer (Verbin et al. 2022). Its
    weights have no gradient."""
    shade: Float[Tensor, " rays"] | None = None
    """Weighted sum of how bright the samples are: the bare shape, in grey. None as for ``normals``."""


def look_shaded(
    field: Field,
    rays: Rays,
    light: Light,
    options: ShadingOptions | None = None,
    *,
    cells: Bool[Tensor, "x y z"] | None = None,
    with_normals: bool = False,
) -> ShadedRays:
    """Volume rendering of a field that is lit, along a flat batch of rays; differentiable by whatever it depends on.

    Args:
        cells: of ``fields.occupied_cells``; None looks anew.
        with_normals: computes them for plain albedo, too.
    """
    options = options or ShadingOptions()
    cells = occupied_cells(field) if cells is None else cells
    step = options.step_in_voxels * min(field.voxel_size)
    near_far = torch.stack(field.box.clip(rays), dim=-1)
    distances, counts = find_samples(field, rays, near_far, step, options.early_stop, cells)
    lines = rays[torch.repeat_interleave(counts)]
    points = lines.at(distances)
    density, features = field.query(points)
    albedo = features[:, :3]
    if options.shading == "albedo" and not with_normals:
        sums = composite_samples(density, albedo, distances, counts, step)
        return ShadedRays(sums.features, sums.opacity, sums.distance)
    normals = field_normals(field, points, options)
    shade = shade_points(points, normals, light)
    color = {"albedo": albedo, "lambertian": albedo * shade, "textureless": shade.expand_as(albedo)}[options.shading]
    sums = composite_samples(density, torch.cat((color, normals, shade), dim=-1), distances, counts, step)
    away = (normals * lines.directions).sum(-1, keepdim=True).relu().square()
    turned = composite_samples(density.detach(), away, distances, counts, step)
    seen, turned_away = sums.features, turned.features[:, 0]
    return ShadedRays(seen[:, :3], sums.opacity, sums.distance, seen[:, 3:6], turned_away, seen[:, 6])


def shade_points(
    points: Float[Tensor, "*batch 3"], normals: Float[Tensor, "*batch 3"], light: Light
) -> Float[Tensor, "*batch 1"]:
    """How bright points are."""
    towards = torch.nn.functional.normalize(light.position.to(points) - points, dim=-1)
    return light.ambient + light.diffuse * (normals * towards).sum(-1, keepdim=True).relu()


def field_normals(
    field: Field, points: Float[Tensor, "points 3"], options: ShadingOptions | None = None
) -> Float[Tensor, "points 3"]:
    """Unit vectors out of the matter at points of a field, as the options say."""
    options = options or ShadingOptions()
    if options.normals == "field":
        return field.normals(points)
    offsets = points.new_tensor(TETRAHEDRON)
    step = min(field.voxel_size) if options.difference is None else options.difference
    lower, upper = (points.new_tensor(corner) for corner in (field.box.lower, field.box.upper))
    around = (points[:, None] + step / 3**0.5 * offsets).maximum(lower).minimum(upper)
    density = field.query_density(around.reshape(-1, 3)).view(-1, len(offsets))
    return -torch.nn.functional.normalize(density @ offsets, dim=-1)


@torch.no_grad()
def render_shaded(
    field: Field,
    camera: Camera,
    options: ShadingOptions | None = None,
    *,
    light: Light | None = None,
    background: Float[Tensor, "3"] | None = None,
) -> Rendering:
    """Pictures of a lit field with their normals, without gradients.

    Args:
        light: by default a lamp at each camera.
        background: behind the field; black if None.
    """
    return _paint(_look_around(field, camera, options, light), camera, background)


@torch.no_grad()
def render_with_shape(
    field: Field,
    camera: Camera,
    *,
    light: Light | None = None,
    background: Float[Tensor, "3"] | None = None,
) -> tuple[Rendering, Float[Tensor, "*views 3 height width"]]:
    """``render_shaded`` in lit colours, and pictures of the bare shape in the same light, at the price of one."""
    looks = _look_around(field, camera, ShadingOptions("lambertian"), light)
    bare = []
    for look in looks:
        assert look.shade is not None
        bare.append(replace(look, color=look.shade[:, None].expand(-1, 3)))
    return _paint(looks, camera, background), _paint(bare, camera, background).image


def _look_around(field: Field, camera: Camera, options: ShadingOptions | None, light: Light | None) -> list[ShadedRays]:
    """All pixels of each view."""
    cells, views = occupied_cells(field), list[ShadedRays]()
    flat_camera = camera.reshape(-1)
    for number in range(len(flat_camera)):
        view = flat_camera[number]
        rays, lamp = view.rays().reshape(-1), light or Light(view.centers)
        pieces = [
            look_shaded(field, rays[first : first + RAYS_AT_ONCE], lamp, options, cells=cells, with_normals=True)
            for first in range(0, len(rays), RAYS_AT_ONCE)
        ]
        names = [part.name for part in fields(ShadedRays)]
        views.append(ShadedRays(*(torch.cat([getattr(piece, name) for piece in pieces]) for name in names)))
    return views


def _paint(looks: list[ShadedRays], camera: Camera, background: Float[Tensor, "3"] | None) -> Rendering:
    """Pictures before a background, with depths and normals, of what all pixels of each view see."""
    views, flat_camera = [], camera.reshape(-1)
    for number, look in enumerate(looks):
        view = flat_camera[number]
        rays = view.rays()
        color, opacity, total, normals = look.color, look.opacity, look.distance, look.normals
        assert normals is not None
        seen = opacity > MIN_OPACITY
        distance = torch.where(seen, total / opacity.clamp(min=MIN_OPACITY), 0.0)
        behind = color.new_zeros(3) if background is None else background.to(color)
        image = (color + (1 - opacity[:, None]) * behind).clamp(0, 1)
        normals = torch.where(seen[:, None], torch.nn.functional.normalize(normals, dim=-1), 0.0)
        depth = distance * view.depth_per_distance(rays).reshape(-1)
        flat_maps = (image.T, opacity, distance, depth, normals.T)
        views.append([value.reshape(*value.shape[:-1], *rays.shape) for value in flat_maps])
    stacked = [torch.stack(values) for values in zip(*views, strict=True)]
    return Rendering(*(value.reshape(*camera.shape, *value.shape[1:]) for value in stacked))


def opacity_penalty(opacity: Float[Tensor, "*rays"]) -> Float[Tensor, ""]:
    """The mean of sqrt(opacity² + 0.01): keeps a scene from filling its ball."""
    return (opacity.square() + SOFTNESS).sqrt().mean()


def orientation_penalty(rays: ShadedRays) -> Float[Tensor, ""]:
    """How far surfaces face away from their viewers, in the mean over rays that see any: keeps fog from glowing.

    Raises:
        ValueError: the rays were looked at without normals.
    """
    if rays.away is None:
        raise ValueError("the orientation needs normals: look_shaded(..., with_normals=True)")
    return rays.away.sum() / (rays.opacity > 0).sum().clamp(min=1)
