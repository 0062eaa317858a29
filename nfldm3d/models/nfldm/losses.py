"""What training compares: pictures, depths, and which voxels hold matter."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.camera import Camera
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.lifting import sunken_points

SSIM_WINDOW = 7
SSIM_SCALES = 3
TEXTURE_WINDOW, TEXTURE_SCALES = 5, 2
TEXTURE_FLOOR = 0.03
"""Contrasts below this count as none."""
LUMINANCE, CONTRAST = 0.01**2, 0.03**2


def structural_loss(
    image: Float[Tensor, "views 3 height width"], target: Float[Tensor, "views 3 height width"]
) -> Float[Tensor, ""]:
    """One minus the structural similarity (Wang et al. 2004), flat windows of 7 pixels, mean over three scales."""
    total = image.new_zeros(())
    for scale in range(SSIM_SCALES):
        if scale:
            image, target = functional.avg_pool2d(image, 2), functional.avg_pool2d(target, 2)
        window = min(SSIM_WINDOW, *image.shape[-2:])
        moments = functional.avg_pool2d(
            torch.cat((image, target, image * image, target * target, image * target), dim=1), window, 1
        )
        mean, mean_target, square, square_target, product = moments.chunk(5, dim=1)
        variances = (square - mean * mean).clamp(min=0) + (square_target - mean_target * mean_target).clamp(min=0)
        covariance = product - mean * mean_target
        likeness = (2 * mean * mean_target + LUMINANCE) / (mean * mean + mean_target * mean_target + LUMINANCE)
        total = total + 1 - (likeness * (2 * covariance + CONTRAST) / (variances + CONTRAST)).mean()
    return total / SSIM_SCALES


def cross_entropy(share: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean binary cross entropy of shares strictly between 0 and 1; torch's own refuses mixed precision on GPUs."""
    return -(target * share.log() + (1 - target) * torch.log1p(-share)).mean()


def texture_loss(
    image: Float[Tensor, "views 3 height width"], target: Float[Tensor, "views 3 height width"]
) -> Float[Tensor, ""]:
    """How far local contrasts are from those of the target, whatever their phase.

    A place that a network cannot know pixel by pixel comes out blurred under errors of pixels; here it is asked for
    texture of the right strength and direction. Contrasts are mean absolute differences along rows, columns and both
    diagonals, at two scales, over windows of 5 pixels; their errors are divided by the target's own contrast.
    """
    total = image.new_zeros(())
    for scale in range(TEXTURE_SCALES):
        if scale:
            image, target = functional.avg_pool2d(image, 2), functional.avg_pool2d(target, 2)
        here, there = _contrasts(image), _contrasts(target)
        total = total + ((here - there).abs() / (there + TEXTURE_FLOOR)).mean()
    return total / TEXTURE_SCALES


def _contrasts(image: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "views 12 rows columns"]:
    corner = image[..., :-1, :-1]
    differences = (
        image[..., :-1, 1:] - corner,
        image[..., 1:, :-1] - corner,
        image[..., 1:, 1:] - corner,
        image[..., :-1, 1:] - image[..., 1:, :-1],
    )
    window = min(TEXTURE_WINDOW, *corner.shape[-2:])
    return functional.avg_pool2d(torch.cat(differences, dim=1).abs(), window, max(1, window // 2))


def relative_depth_error(
    distance: Float[Tensor, "views height width"],
    opacity: Float[Tensor, "views height width"],
    depth: Float[Tensor, "views height width"],
    cosine: Float[Tensor, "views height width"],
    inside: Float[Tensor, "views height width"],
) -> Float[Tensor, ""]:
    """Mean of |d' - d| / d where ``inside`` is 1; d' is the expected depth divided by the opacity.

    Args:
        distance: sum of weight * distance along the ray, in metres.
        depth: the truth, in metres along the optical axis.
        cosine: depth of a unit of distance.
    """
    expected = distance / opacity.clamp(min=1e-2) * cosine
    error = (expected - depth).abs() / depth.clamp(min=0.1)
    return (error * inside).sum() / inside.sum().clamp(min=1)


def observe_voxels(
    depth: Float[Tensor, "views height width"],
    camera: Camera,
    box: Box,
    resolution: tuple[int, int, int],
    stride: int = 1,
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "x y z"]]:
    """How many measured surfaces lie in each voxel, and how many samples in front of one, a voxel apart.

    Surfaces are sunken as ``sunken_points`` does; of the pixels, every ``stride``-th along each side is looked at.
    """
    size, chosen = min(box.voxel_size(resolution)), slice(stride // 2, None, stride)
    rays = camera.rays()
    distance = depth / camera.depth_per_distance(rays)
    points = sunken_points(depth, camera, box, resolution)[:, chosen, chosen].reshape(-1, 3)
    flat, distance = rays[:, chosen, chosen].reshape(-1), distance[:, chosen, chosen].reshape(-1)
    known = distance > 0
    flat, distance = flat[known], distance[known]
    hits = _count(points[known], box, resolution)
    free = torch.zeros_like(hits)
    for step in range(math.ceil(math.dist(box.lower, box.upper) / size)):
        along = (step + 0.5) * size
        ahead = along < distance - 1.5 * size
        if not bool(ahead.any()):
            break
        free += _count(flat.origins[ahead] + along * flat.directions[ahead], box, resolution)
    return hits, free


def _count(points: Float[Tensor, "points 3"], box: Box, resolution: tuple[int, int, int]) -> Float[Tensor, "x y z"]:
    place = ((points - points.new_tensor(box.lower)) / points.new_tensor(box.voxel_size(resolution))).floor().long()
    inside = ((place >= 0) & (place < torch.tensor(resolution, device=points.device))).all(-1)
    x, y, z = place[inside].unbind(-1)
    index = (x * resolution[1] + y) * resolution[2] + z
    total = resolution[0] * resolution[1] * resolution[2]
    return torch.bincount(index, minlength=total).float().reshape(resolution)
