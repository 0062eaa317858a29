"""Colours of surface points, asked of the appearance from the directions that cameras saw them from."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.appearance import Appearance
from nfldm3d.camera import Camera
from nfldm3d.export.sampling import CHUNK, read_surface_features
from nfldm3d.scene import Scene

VIEWS = 64
"""At most this many capture cameras are asked, evenly spread over the capture."""
NEAREST = 4
"""How many of them colour one point."""


@torch.no_grad()
def color_points(
    scene: Scene, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"], *, height: float = 0.5
) -> Float[Tensor, "points 3"]:
    """sRGB in [0, 1] of points on surfaces, each read from the innermost field that holds it.

    A view-dependent appearance is averaged over the capture cameras that saw the point best, see ``choose_views``;
    where none did, or the scene has no cameras, it is seen along minus the normal.

    Args:
        height: how far above the surface, in voxels, the look begins; more for meshes that only follow it roughly.
    """
    features = points.new_zeros(len(points), scene.field.channels)
    remaining = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for field in scene.levels:
        last = field is scene.levels[-1]
        chosen = remaining if last else remaining & field.box.scaled(1 + 1e-5).contains(points)
        features[chosen] = read_surface_features(field, points[chosen], normals[chosen], height=height)
        remaining = remaining & ~chosen
    return color_features(scene, features, points, normals)


@torch.no_grad()
def color_features(
    scene: Scene,
    features: Float[Tensor, "points channels"],
    points: Float[Tensor, "points 3"],
    normals: Float[Tensor, "points 3"],
) -> Float[Tensor, "points 3"]:
    """sRGB in [0, 1] of known features at points with known normals."""
    appearance, cameras = scene.appearance, scene.cameras
    if cameras is None or not depends_on_view(appearance, features, normals):
        return appearance.point_color(features, -normals, normals)
    cameras = spread_views(cameras).to(points.device)
    parts = []
    for feature, point, normal in zip(features.split(CHUNK), points.split(CHUNK), normals.split(CHUNK), strict=True):
        directions, weights = choose_views(cameras, point, normal)  # (points views 3), (points views)
        colors = appearance.point_color(
            feature[:, None].expand(-1, directions.shape[1], -1), directions, normal[:, None].expand_as(directions)
        )
        parts.append((weights[..., None] * colors).sum(1))
    return torch.cat(parts) if parts else torch.zeros_like(points)


def depends_on_view(
    appearance: Appearance, features: Float[Tensor, "points channels"], normals: Float[Tensor, "points 3"]
) -> bool:
    """Whether some of the points change colour when seen from the other side."""
    some = slice(None, None, max(1, len(features) // 256))
    feature, normal = features[some], normals[some]
    front, back = (appearance.point_color(feature, sign * normal, normal) for sign in (-1, 1))
    sideways = appearance.point_color(feature, normal.roll(1, dims=-1), normal)
    return not (torch.equal(front, back) and torch.equal(front, sideways))


def spread_views(cameras: Camera) -> Camera:
    """At most ``VIEWS`` of the cameras, evenly spread over their order."""
    cameras = cameras.reshape(-1)
    count = min(VIEWS, len(cameras))
    return cameras[torch.linspace(0, len(cameras) - 1, count).round().long()] if count else cameras


def choose_views(
    cameras: Camera, points: Float[Tensor, "points 3"], normals: Float[Tensor, "points 3"]
) -> tuple[Float[Tensor, "points views 3"], Float[Tensor, "points views"]]:
    """Ray directions and weights (of sum one) of the cameras that see each point best.

    A camera is weighted by cosine over squared distance, the pixels that a patch of the surface fills, and by zero
    where the point is behind it, outside its picture or turned away. Of the best views the next best one's weight
    is subtracted, so that colours blend where the choice changes. Occlusion is not looked at.
    """
    count = len(cameras)
    pixels, depth = cameras.project(points.expand(count, -1, -1))  # (views points 2), (views points)
    limit = pixels.new_tensor((cameras.width, cameras.height))
    seen = (depth > 0) & ((pixels >= 0) & (pixels <= limit)).all(-1)
    offset = points - cameras.centers[:, None]
    distance = offset.norm(dim=-1).clamp(min=1e-9)
    flat = normals.norm(dim=-1) < 0.5  # no normal: every side is the front
    cosine = torch.where(flat, 1.0, -(offset * normals).sum(-1) / distance)
    weight = torch.where(seen, cosine.clamp(min=0) / distance.square(), 0.0).T  # (points views)
    best = weight.topk(min(NEAREST + 1, count), dim=1)
    floor = best.values[:, NEAREST:] if count > NEAREST else torch.zeros_like(best.values[:, :1])
    weights, views = best.values[:, :NEAREST], best.indices[:, :NEAREST]
    weights = weights - 0.999 * floor  # the rest decides where all are alike
    total = weights.sum(1, keepdim=True)
    directions = torch.nn.functional.normalize(points[:, None] - cameras.centers[views], dim=-1)
    unseen = torch.where(flat[:, None], normals.new_tensor((0.0, 0.0, -1.0)), -normals)
    directions = torch.where(total[..., None] > 0, directions, unseen[:, None])
    return directions, torch.where(total > 0, weights / total.clamp(min=1e-30), 1.0 / weights.shape[1])
