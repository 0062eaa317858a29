"""What nerfstudio did to the world of a capture before it wrote ``transforms.json``."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.json_record import Record
from nfldm3d.geometry import find_pose_problem, invert_pose, transform_points

FIELDS = frozenset({"applied_transform", "applied_scale"})


@dataclass(frozen=True)
class AppliedTransform:
    """Points p of the first world became ``scale * (matrix @ p)``: poses are written so, PLY and depth files are not.

    See nerfstudio's ``nerfstudio_dataparser.py``, which moves the PLY points and scales the depth when it reads them.
    """

    matrix: Float[Tensor, "4 4"]
    """Rigid, float64."""
    scale: float

    @classmethod
    def of(cls, top: Record) -> "AppliedTransform":
        """The fields ``applied_transform`` and ``applied_scale``, each of which may be missing."""
        has_matrix = "applied_transform" in top
        matrix = top.matrix("applied_transform") if has_matrix else torch.eye(4, dtype=torch.float64)
        problem = find_pose_problem(matrix)
        if problem:
            raise top.problem("applied_transform", f"it {problem}; write a rotation and a shift")
        scale = top.number("applied_scale", 1.0)
        if not scale > 0:
            raise top.problem("applied_scale", "write a positive number")
        return cls(matrix, scale)

    def apply(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Points of the first world in the world of the poses."""
        return (self.scale * transform_points(self.matrix, points.double())).to(points.dtype)

    def undo(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Points of the world of the poses in the first world."""
        return transform_points(invert_pose(self.matrix), points.double() / self.scale).to(points.dtype)

    def followed_by(self, motion: Float[Tensor, "4 4"]) -> "AppliedTransform":
        """The transform with a rigid motion after it."""
        unscaled = motion.clone()
        unscaled[:3, 3] /= self.scale
        return AppliedTransform(unscaled @ self.matrix, self.scale)

    def undo_poses(self, poses: Float[Tensor, "views 4 4"]) -> Float[Tensor, "views 4 4"]:
        """Poses as they were in the first world."""
        unscaled = poses.clone()
        unscaled[:, :3, 3] /= self.scale
        return invert_pose(self.matrix) @ unscaled
