"""Lens distortion as OpenCV defines it, from and to unit rays (calib3d's pinhole and fisheye models).

Plane coordinates are OpenCV's normalised ones: x right, y down, at unit distance. Coefficients are
k1 k2 p1 p2 k3 k4 k5 k6; the fisheye model uses k1 k2 k3 k4 of them.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

NEWTON_STEPS = 12


def unproject(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 8"] | None, *, fisheye: bool = False
) -> Float[Tensor, "*batch points 3"]:
    """Unit vectors in camera axes (y up, looking along -z) through distorted plane coordinates."""
    if fisheye:
        return _unproject_fisheye(plane, distortion)
    ideal = plane if distortion is None else undistort(plane, distortion)
    x, y = ideal.unbind(-1)
    return torch.nn.functional.normalize(torch.stack((x, -y, -torch.ones_like(x)), dim=-1), dim=-1)


def project(
    local: Float[Tensor, "*batch points 3"], distortion: Float[Tensor, "*batch 8"] | None, *, fisheye: bool = False
) -> Float[Tensor, "*batch points 2"]:
    """Distorted plane coordinates of points in camera axes; NaN in the plane of the camera's centre."""
    x, y, depth = local[..., 0], -local[..., 1], -local[..., 2]
    if fisheye:
        radius = torch.hypot(x, y)
        scale = _distort_angle(torch.atan2(radius, depth), distortion) / radius.clamp(min=1e-12)
        return torch.stack((x, y), dim=-1) * scale[..., None]
    ideal = torch.stack((x, y), dim=-1) / depth[..., None]
    return ideal if distortion is None else distort(ideal, distortion)


def distort(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 8"]
) -> Float[Tensor, "*batch points 2"]:
    """Where OpenCV's rational model moves ideal plane coordinates."""
    return _distort_with_slope(plane, distortion)[0]


def undistort(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 8"]
) -> Float[Tensor, "*batch points 2"]:
    """The ideal plane coordinates that ``distort`` moves to ``plane``, by Newton's method."""
    ideal = plane
    for _ in range(NEWTON_STEPS):
        moved, slope = _distort_with_slope(ideal, distortion)
        residual = moved - plane
        xx, xy, yx, yy = slope.unbind(-1)
        determinant = xx * yy - xy * yx
        determinant = torch.where(determinant.abs() < 1e-6, torch.full_like(determinant, 1e-6), determinant)
        dx = (yy * residual[..., 0] - xy * residual[..., 1]) / determinant
        dy = (xx * residual[..., 1] - yx * residual[..., 0]) / determinant
        ideal = ideal - torch.stack((dx, dy), dim=-1).clamp(-0.5, 0.5)
    return ideal


def _distort_with_slope(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 8"]
) -> tuple[Float[Tensor, "*batch points 2"], Float[Tensor, "*batch points 4"]]:
    """Distorted coordinates and their derivatives dx/dx, dx/dy, dy/dx, dy/dy."""
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion[..., None, :].unbind(-1)
    x, y = plane.unbind(-1)
    r2 = x * x + y * y
    above, below = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = above / below
    radial_slope = (k1 + r2 * (2 * k2 + 3 * r2 * k3) - radial * (k4 + r2 * (2 * k5 + 3 * r2 * k6))) / below  # by r2
    moved = torch.stack(
        (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ),
        dim=-1,
    )
    across = 2 * x * y * radial_slope + 2 * p1 * x + 2 * p2 * y
    slope = torch.stack(
        (
            radial + 2 * x * x * radial_slope + 2 * p1 * y + 6 * p2 * x,
            across,
            across,
            radial + 2 * y * y * radial_slope + 6 * p1 * y + 2 * p2 * x,
        ),
        dim=-1,
    )
    return moved, slope


def _fisheye_coefficients(angle: Float[Tensor, "*batch points"], distortion: Float[Tensor, "*batch 8"] | None):
    if distortion is None:
        return (torch.zeros_like(angle),) * 4
    k1, k2, _, _, k3, k4, _, _ = distortion[..., None, :].unbind(-1)
    return k1, k2, k3, k4


def _distort_angle(
    angle: Float[Tensor, "*batch points"], distortion: Float[Tensor, "*batch 8"] | None
) -> Float[Tensor, "*batch points"]:
    k1, k2, k3, k4 = _fisheye_coefficients(angle, distortion)
    squared = angle * angle
    return angle * (1 + squared * (k1 + squared * (k2 + squared * (k3 + squared * k4))))


def _unproject_fisheye(
    plane: Float[Tensor, "*batch points 2"], distortion: Float[Tensor, "*batch 8"] | None
) -> Float[Tensor, "*batch points 3"]:
    radius = plane.norm(dim=-1)
    angle = radius.clamp(max=math.pi)
    k1, k2, k3, k4 = _fisheye_coefficients(radius, distortion)
    for _ in range(NEWTON_STEPS):
        squared = angle * angle
        slope = 1 + squared * (3 * k1 + squared * (5 * k2 + squared * (7 * k3 + squared * 9 * k4)))
        slope = torch.where(slope.abs() < 1e-6, torch.full_like(slope, 1e-6), slope)
        angle = (angle - (_distort_angle(angle, distortion) - radius) / slope).clamp(0, math.pi)
    x, y = (plane / radius.clamp(min=1e-12)[..., None]).unbind(-1)
    return torch.stack((x * torch.sin(angle), -y * torch.sin(angle), -torch.cos(angle)), dim=-1)


def focal_length(width: int, horizontal_fov_degrees: float) -> float:
    """Pixels from the centre to a picture of so many pixels that spans an angle."""
    if not 0 < horizontal_fov_degrees < 180:
        raise ValueError(f"horizontal_fov_degrees must lie between 0 and 180, got {horizontal_fov_degrees}")
    return width / 2 / math.tan(math.radians(horizontal_fov_degrees) / 2)


def join_intrinsics(
    focal: Float[Tensor, "*batch 2"], principal: Float[Tensor, "*batch 2"]
) -> Float[Tensor, "*batch 3 3"]:
    """The matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."""
    matrix = torch.diag_embed(torch.cat((focal, torch.ones_like(focal[..., :1])), dim=-1))
    matrix[..., :2, 2] = principal
    return matrix


def split_intrinsics(
    matrix: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2"]]:
    """Focal lengths and principal point of such a matrix; a ValueError for one with skew or of another form."""
    focal, principal = matrix.diagonal(dim1=-2, dim2=-1)[..., :2].contiguous(), matrix[..., :2, 2].contiguous()
    if matrix.shape[-2:] != (3, 3) or not torch.allclose(matrix, join_intrinsics(focal, principal), atol=1e-6):
        raise ValueError(
            f"intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got {matrix.tolist()}; a skewed picture has to "
            "be resampled first"
        )
    if not bool((focal > 0).all()):
        raise ValueError(f"focal lengths must be above 0 pixels, got {focal.tolist()}; flip axes in the poses instead")
    return focal, principal


def pack_distortion(coefficients: Float[Tensor, "*batch terms"], *, fisheye: bool = False) -> Float[Tensor, "*batch 8"]:
    """OpenCV's 4, 5 or 8 coefficients, of a fisheye lens 4, as the eight k1 k2 p1 p2 k3 k4 k5 k6."""
    count = coefficients.shape[-1]
    if count not in ((4,) if fisheye else (4, 5, 8)):
        wanted = "k1 k2 k3 k4" if fisheye else "k1 k2 p1 p2, perhaps k3, perhaps k4 k5 k6"
        raise ValueError(f"distortion needs {wanted}, got {count} coefficients")
    packed = coefficients.new_zeros(*coefficients.shape[:-1], 8)
    packed[..., [0, 1, 4, 5] if fisheye else list(range(count))] = coefficients
    return packed
