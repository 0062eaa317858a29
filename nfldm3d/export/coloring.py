"""Colours of surface points: as the capture's cameras see them, else as the appearance answers along the normal."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d.appearance import Appearance
from nfldm3d.camera import Camera
from nfldm3d.export.surface_samples import CHUNK, read_surface_features
from nfldm3d.fields import Field, SparseField, VoxelField, split_levels
from nfldm3d.geometry import Rays, invert_pose
from nfldm3d.ops.records import PinholeViews
from nfldm3d.ops.views import rank_views
from nfldm3d.rendering import Renderer, integrate, prepare
from nfldm3d.scene import Scene

VIEWS = 64
"""At most this many capture cameras are asked, evenly spread over the capture."""
MIN_VISIBLE = 0.2
"""Views whose light is absorbed on the way to a point, but for less than this share, do not count."""


@torch.no_grad()
def color_points(
    scene: Scene, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], *, height: float = 0.5
) -> Float[Tensor, "points 3"]:
    """sRGB in [0, 1] of points on surfaces.

    Where capture cameras saw the point it is rendered from the best of them, see ``choose_views``: so an opaque mesh
    shows what a half-transparent surface showed, and hidden views do not count. Elsewhere, and in scenes without
    cameras, the features at the surface are seen along minus the normal.

    Args:
        height: how far above the surface, in voxels, the look begins; more for meshes that only follow it roughly.
    """
    colors, unseen = torch.zeros_like(points), torch.ones(len(points), dtype=torch.bool, device=points.device)
    if scene.cameras is not None and scene.appearance.per_ray:
        cameras = spread_views(scene.cameras).to(points.device)
        renderer, matter = prepare(scene), _without_features(scene.field)
        for chunk in torch.arange(len(points), device=points.device).split(CHUNK):
            rays, weights = _aim(renderer, matter, cameras, points[chunk], normals[chunk], height)
            color, seen = _render_points(renderer, rays, weights)
            colors[chunk], unseen[chunk] = color, ~seen
    rest, facing = points[unseen], normals[unseen]
    features = rest.new_zeros(len(rest), scene.field.channels)
    for number, held in enumerate(_split_levels(scene, rest)):
        features[held] = read_surface_features(scene.levels[number], rest[held], facing[held], height=height)
    if scene.appearance.per_ray:
        colors[unseen] = scene.appearance.point_color(features, -facing, facing)
    else:
        colors[unseen] = color_features(scene, features, rest, facing)
    return colors.clamp(0, 1)


@torch.no_grad()
def color_features(
    scene: Scene,
    features: Float[Tensor, "points channels"],
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
) -> Float[Tensor, "points 3"]:
    """sRGB in [0, 1] that the appearance gives known features, averaged over the cameras that face the points best."""
    appearance = scene.appearance
    if scene.cameras is None or not depends_on_view(appearance, features, normals):
        return appearance.point_color(features, -normals, normals)
    cameras = spread_views(scene.cameras).to(points.device)
    parts = []
    for feature, point, normal in zip(features.split(CHUNK), points.split(CHUNK), normals.split(CHUNK), strict=True):
        views, weights = choose_views(cameras, point, normal)
        directions = torch.nn.functional.normalize(point[:, None] - cameras.centers[views], dim=-1)
        seen = (weights > 0).any(1, keepdim=True)
        fallback = torch.where(_has_normal(normal), -normal, normal.new_tensor((0.0, 0.0, -1.0)))[:, None]
        directions = torch.where(seen[..., None], directions, fallback)
        weights = torch.where(seen, weights, 1 / weights.shape[1])
        feature = feature[:, None].expand(-1, weights.shape[1], -1)
        colors = appearance.point_color(feature, directions, normal[:, None].expand_as(directions))
        parts.append((weights[..., None] * colors).sum(1))
    return torch.cat(parts) if parts else torch.zeros_like(points)


def depends_on_view(
    appearance: Appearance, features: Float[Tensor, "points channels"], normals: Float[Tensor, "points 3"]
) -> bool:
    """Whether some of the points change colour when seen from another side."""
    some = slice(None, None, max(1, len(features) // 256))
    feature, normal = features[some], normals[some]
    sides = normal.new_tensor(((0.36, 0.48, 0.8), (-0.36, -0.48, -0.8), (0.8, -0.36, 0.48)))
    front, *others = (appearance.point_color(feature, side.expand_as(normal), normal) for side in sides)
    return not all(torch.equal(front, other) for other in others)


def spread_views(cameras: Camera) -> Camera:
    """At most ``VIEWS`` of the cameras, evenly spread over their order."""
    cameras = cameras.reshape(-1)
    count = min(VIEWS, len(cameras))
    return cameras[torch.linspace(0, len(cameras) - 1, count).round().long()] if count else cameras


def choose_views(
    cameras: Camera, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
) -> tuple[Int[Tensor, "points views"], Float[Tensor, "points views"]]:
    """Numbers of the cameras that picture each point best, and their weights: of sum one, or zero if there is none.

    A camera is weighted by cosine over squared distance, the pixels that a patch of the surface fills, and by zero
    where the point is behind it, outside its picture or turned away. Of the best views the next best one's weight
    is subtracted, so that colours blend where the choice changes. Whether something stands in between is not asked.
    """
    views = PinholeViews(
        invert_pose(cameras.world_from_camera),
        cameras.centers,
        cameras.focal,
        cameras.principal,
        cameras.width,
        cameras.height,
    )
    is_pinhole = cameras.distortion is None and cameras.lens != "fisheye"
    return rank_views(points, normals, views, pictured=None if is_pinhole else find_pictured(cameras, points))


def find_pictured(cameras: Camera, points: Float[Tensor, "points 3"]) -> Bool[Tensor, "views points"]:
    """Which points lie in front of each camera and within its picture, whatever stands in between."""
    pixels, depth = cameras.project(points.expand(len(cameras), -1, -1))  # (views points 2), (views points)
    limit = pixels.new_tensor((cameras.width, cameras.height))
    return (depth > 0) & ((pixels >= 0) & (pixels <= limit)).all(-1)


def _has_normal(normals: Float[Tensor, "points 3"]) -> Bool[Tensor, "points 1"]:
    """False where the density is constant: every side is the front there."""
    return normals.norm(dim=-1, keepdim=True) > 0.5


def _without_features(field: Field) -> Field:
    """The same matter with one feature, where the many that nobody asks for would be summed up along each ray."""
    return replace(field, features=field.density[..., None]) if isinstance(field, VoxelField | SparseField) else field


def _aim(
    renderer: Renderer,
    matter: Field,
    cameras: Camera,
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
    height: float,
) -> tuple[Rays, Float[Tensor, "points views"]]:
    """Rays that arrive at each point from the cameras that see it best, starting just above; and the views' weights.

    The weights count the light that ``matter``, the field in focus, lets through on the way.
    """
    scene = renderer.scene
    views, weights = choose_views(cameras, points, normals)
    eyes = cameras.centers[views]
    offset = points[:, None] - eyes
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    directions = offset / distance[..., None]
    margin = torch.zeros_like(points[:, :1])
    for field, held in zip(scene.levels, _split_levels(scene, points), strict=True):
        margin[held] = (height + 1) * min(field.voxel_size)
    start = (distance - margin).clamp(min=0)
    asked = weights > 0
    near_far = torch.stack((torch.zeros_like(start), start), dim=-1)[asked]
    rays, step = Rays(eyes[asked], directions[asked]), min(matter.voxel_size)
    way = integrate(matter, rays, near_far, step, MIN_VISIBLE / 2, renderer.occupancies[0])
    weights[asked] *= torch.where(1 - way.opacity > MIN_VISIBLE, 1 - way.opacity, 0.0)
    return Rays(eyes + start[..., None] * directions, directions), weights


def _render_points(
    renderer: Renderer, rays: Rays, weights: Float[Tensor, "points views"]
) -> tuple[Float[Tensor, "points 3"], Bool[Tensor, " points"]]:
    """The weighted mean of what the rays see; and which points any ray of weight reaches."""
    used = weights > 0
    colors = torch.zeros_like(rays.origins)
    if bool(used.any()):
        colors[used] = renderer.color(rays[used])
    total = weights.sum(1, keepdim=True)
    return (weights[..., None] * colors).sum(1) / total.clamp(min=1e-30), total[:, 0] > MIN_VISIBLE / 2


def _split_levels(scene: Scene, points: Float[Tensor, "points 3"]) -> list[Bool[Tensor, " points"]]:
    """For each field of the scene the points that it is the innermost to hold; the outermost gets the rest."""
    inner = split_levels(scene.levels[:-1], points, slack=1e-5)
    return [*inner, ~torch.stack([torch.zeros_like(points[:, 0], dtype=torch.bool), *inner]).any(0)]
