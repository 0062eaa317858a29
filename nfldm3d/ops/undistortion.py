"""Undoing lens distortion of many points, each with coefficients of its own, on plain tensors."""

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.ops.checks import require
from nfldm3d.ops.launch import launch

COEFFICIENTS = 12


def undistort_points(
    points: Float[Tensor, "points 2"],
    lenses: Float[Tensor, "points coefficients"],
    *,
    fisheye: bool = False,
    tolerance: float = 1e-6,
    steps: int = 10,
) -> Float[Tensor, "points 2"]:
    """The ideal plane coordinates that OpenCV's model moves to ``points``, by at most so many steps of Newton's method.

    Lenses hold k1 to k6, p1, p2 and s1 to s4; fisheye ones k1 to k4 (points for which no angle is found become zero).

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    from nfldm3d.ops import undistortion_kernels as kernels

    device = points.device
    require("uv", points, ("points", 2), device, torch.float32)
    require("params", lenses, (len(points), 4 if fisheye else COEFFICIENTS), device, torch.float32)
    results = torch.zeros(len(points), 2, device=device)
    kernel = kernels.undistort_fisheye_points if fisheye else kernels.undistort_points
    launch(kernel, len(points), [points.contiguous(), lenses.contiguous(), tolerance, steps, results], device)
    return results
