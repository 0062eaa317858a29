"""Boxes, rays and poses, and the only place where other programs' axis conventions are converted.

    world    right-handed, z up, metres              camera   x right, y up, looks along -z
                z                                                y
                |  y                                             |
                | /                                              |_____ x
                |/____ x                                        /
                                                               z  (towards the viewer)

A pose is ``world_from_camera``, a 4x4 rigid matrix: its columns are the camera's right, up and back axes and
its centre. This is OpenGL's and Blender's camera, nerfstudio's ``transform_matrix``, and Kaolin's
``inv_view_matrix``. OpenCV's and COLMAP's cameras look along +z with y down.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d._types import Vector

OPENCV_FROM_OPENGL = (1.0, -1.0, -1.0, 1.0)
"""Signs of the camera axes: right stays, up becomes down, back becomes forward."""


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in the world."""

    lower: Vector
    """The corner with the smallest x, y and z, in metres."""
    upper: Vector
    """The corner with the largest x, y and z, in metres."""

    def __post_init__(self):
        object.__setattr__(self, "lower", tuple(float(value) for value in self.lower))
        object.__setattr__(self, "upper", tuple(float(value) for value in self.upper))
        corners = (*self.lower, *self.upper)
        if len(self.lower) != 3 or len(self.upper) != 3 or not all(math.isfinite(value) for value in corners):
            raise ValueError(f"a box needs three finite numbers for lower and upper, got {self.lower} and {self.upper}")
        if any(high <= low for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(
                f"box from lower={self.lower} to upper={self.upper} has no volume; every upper must exceed its lower"
            )

    @classmethod
    def from_center(cls, center: Vector, size: Vector) -> "Box":
        """The box of extents ``size`` (metres) around ``center``."""
        pairs = list(zip(center, size, strict=True))
        return cls(tuple(c - s / 2 for c, s in pairs), tuple(c + s / 2 for c, s in pairs))  # type: ignore[arg-type]

    @classmethod
    def around(cls, points: Float[Tensor, "points 3"]) -> "Box":
        """The smallest box that holds all points."""
        return cls(tuple(points.amin(0).tolist()), tuple(points.amax(0).tolist()))

    @property
    def size(self) -> Vector:
        """Extents along x, y and z in metres."""
        return tuple(high - low for low, high in zip(self.lower, self.upper, strict=True))  # type: ignore[return-value]

    @property
    def center(self) -> Vector:
        """The middle of the box."""
        return tuple((low + high) / 2 for low, high in zip(self.lower, self.upper, strict=True))  # type: ignore[return-value]

    def scaled(self, factor: float) -> "Box":
        """The box grown by ``factor`` about its centre."""
        return Box.from_center(self.center, tuple(factor * value for value in self.size))  # type: ignore[arg-type]

    def intersection(self, other: "Box") -> "Box":
        """The box common to both; a ValueError if they do not overlap."""
        return Box(
            tuple(max(a, b) for a, b in zip(self.lower, other.lower, strict=True)),  # type: ignore[arg-type]
            tuple(min(a, b) for a, b in zip(self.upper, other.upper, strict=True)),  # type: ignore[arg-type]
        )

    def overlaps(self, other: "Box") -> bool:
        """Whether the boxes share more than a face."""
        return all(
            max(a, c) < min(b, d) for a, b, c, d in zip(self.lower, self.upper, other.lower, other.upper, strict=True)
        )

    def contains(self, points: Float[Tensor, "*batch 3"]) -> Bool[Tensor, "*batch"]:
        """Which points lie inside or on the surface."""
        lower, upper = points.new_tensor(self.lower), points.new_tensor(self.upper)
        return ((points >= lower) & (points <= upper)).all(-1)

    def voxel_size(self, resolution: tuple[int, int, int]) -> Vector:
        """Extents of one voxel in metres, for a grid of ``resolution`` voxels along x, y and z."""
        return tuple(size / count for size, count in zip(self.size, resolution, strict=True))  # type: ignore[return-value]

    def voxel_centers(self, resolution: tuple[int, int, int], like: Tensor) -> Float[Tensor, "x y z 3"]:
        """World positions of the centres of all voxels of a grid, on the device of ``like``, in float32 or better."""
        precise = torch.zeros((), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        axes = [
            low + (torch.arange(count).to(precise) + 0.5) * size
            for low, count, size in zip(self.lower, resolution, self.voxel_size(resolution), strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def resolution(self, voxel_size: float) -> tuple[int, int, int]:
        """How many voxels of about ``voxel_size`` metres fit along x, y and z (at least one each)."""
        return tuple(max(1, round(size / voxel_size)) for size in self.size)  # type: ignore[return-value]

    def clip(self, rays: "Rays") -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Distances at which each ray enters (0 if it starts inside) and leaves the box; both 0 where it misses.

        A ray that runs in a lower face meets the box, one in an upper face misses it.
        """
        lower, upper = rays.origins.new_tensor(self.lower), rays.origins.new_tensor(self.upper)
        tiny = torch.finfo(rays.directions.dtype).tiny
        inverse = 1 / torch.where(rays.directions.abs() < tiny, torch.full_like(rays.directions, tiny), rays.directions)
        first, second = (lower - rays.origins) * inverse, (upper - rays.origins) * inverse
        near = torch.minimum(first, second).amax(-1).clamp(min=0)
        far = torch.maximum(first, second).amin(-1)
        meets = near < far  # a ray beside the box and parallel to a face has infinite distances
        return torch.where(meets, near, 0.0), torch.where(meets, far, 0.0)


@dataclass(frozen=True, eq=False)
class Rays:
    """A batch of half-lines; indexing and reshaping act on the batch axes of both tensors."""

    origins: Float[Tensor, "*batch 3"]
    """Start points in metres."""
    directions: Float[Tensor, "*batch 3"]
    """Unit vectors."""

    def __post_init__(self):
        if self.origins.shape != self.directions.shape or self.origins.shape[-1:] != (3,):
            raise ValueError(
                "rays need origins and directions of one shape (..., 3), got "
                f"{tuple(self.origins.shape)} and {tuple(self.directions.shape)}"
            )

    @property
    def shape(self) -> torch.Size:
        """The batch axes."""
        return self.origins.shape[:-1]

    def __str__(self) -> str:
        return f"Rays {tuple(self.shape)} on {self.origins.device}"

    __repr__ = __str__

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("one ray has no length; index a batch, or make one with reshape(1)")
        return len(self.origins)

    def __getitem__(self, index) -> "Rays":
        return Rays(self.origins[index], self.directions[index])

    def reshape(self, *shape: int) -> "Rays":
        """The same rays with other batch axes, e.g. ``rays.reshape(-1)``."""
        return Rays(self.origins.reshape(*shape, 3), self.directions.reshape(*shape, 3))

    def to(self, target: torch.device | torch.dtype | str) -> "Rays":
        """The rays on another device or in another dtype."""
        return Rays(self.origins.to(target), self.directions.to(target))

    def at(self, distances: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
        """The points at the given distances along each ray."""
        return self.origins + self.directions * distances[..., None]


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"], up: Vector = (0.0, 0.0, 1.0)
) -> Float[Tensor, "*batch 4 4"]:
    """Poses of cameras at ``eye`` that look at ``target`` with ``up`` upwards in the picture."""
    if bool((eye == target).all(-1).any()):
        raise ValueError("look_at needs eye and target to differ; move one of them")
    if not any(up):
        raise ValueError(f"look_at needs a direction for up, got {up}")
    back = torch.nn.functional.normalize((eye - target).double(), dim=-1)
    upwards = torch.nn.functional.normalize(back.new_tensor(up), dim=-1).expand_as(back)
    # straight up or down: any horizontal axis serves as up
    parallel = (back * upwards).sum(-1, keepdim=True).abs() > 1 - 1e-6
    spare = back.new_tensor((0.0, 1.0, 0.0) if abs(up[1]) < 0.9 * math.hypot(*up) else (1.0, 0.0, 0.0))
    upwards = torch.where(parallel, spare.expand_as(back), upwards)
    right = torch.nn.functional.normalize(torch.linalg.cross(upwards, back), dim=-1)
    up_axis = torch.linalg.cross(back, right)
    return pose_from_axes(right.to(eye.dtype), up_axis.to(eye.dtype), back.to(eye.dtype), eye)


def pose_from_axes(
    right: Float[Tensor, "*batch 3"],
    up: Float[Tensor, "*batch 3"],
    back: Float[Tensor, "*batch 3"],
    center: Float[Tensor, "*batch 3"],
) -> Float[Tensor, "*batch 4 4"]:
    """The pose ``world_from_camera`` whose columns are the given axes and centre."""
    pose = torch.zeros(*center.shape[:-1], 4, 4, dtype=center.dtype, device=center.device)
    for column, value in enumerate((right, up, back, center)):
        pose[..., :3, column] = value
    pose[..., 3, 3] = 1
    return pose


def invert_pose(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of rigid poses."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    inverse = pose.clone()
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    return inverse


def transform_points(
    matrix: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch points 3"]
) -> Float[Tensor, "*batch points 3"]:
    """The points after a rigid or affine transformation."""
    return points @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]


def turn_about(box: Box, quarters: int) -> Float[Tensor, "4 4"]:
    """The motion that turns the world by quarters, counter-clockwise seen from above, about the middle of a box.

    Raises:
        ValueError: the turned box would not lie on itself.
    """
    if quarters % 2 and not math.isclose(box.size[0], box.size[1], rel_tol=1e-6):
        raise ValueError(f"a quarter turn needs a box that is square from above, got {box}; turn it by halves")
    cosine, sine = round(math.cos(quarters * math.pi / 2)), round(math.sin(quarters * math.pi / 2))
    motion, middle = torch.eye(4), torch.tensor(box.center[:2], dtype=torch.float32)
    motion[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float32)
    motion[:2, 3] = middle - motion[:2, :2] @ middle
    return motion


def flip_opencv(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Camera poses in OpenCV axes (y down, looks along +z) from ours, or ours from OpenCV's: it is its own inverse."""
    return pose * pose.new_tensor(OPENCV_FROM_OPENGL)


def find_pose_problem(pose: Float[Tensor, "4 4"], tolerance: float = 1e-3) -> str | None:
    """What keeps a matrix from being a rigid pose, in words, or None if nothing does."""
    if not bool(torch.isfinite(pose).all()):
        return "holds NaN or infinity"
    if not torch.allclose(pose[3], pose.new_tensor((0, 0, 0, 1)), atol=1e-6):
        return f"has the last row {pose[3].tolist()} instead of [0, 0, 0, 1]"
    rotation = pose[:3, :3]
    products = (rotation[:, None] * rotation[None]).sum(-1)  # of rows; a matmul would lose digits under autocast
    error = float((products - torch.eye(3, dtype=pose.dtype, device=pose.device)).abs().max())
    if error > tolerance:
        return f"is not rigid: its axes are off unit length or right angles by {error:.3g}"
    if float(torch.linalg.det(rotation)) < 0:
        return "is mirrored: its axes are left-handed"
    return None


def interpolate_poses(poses: Float[Tensor, "keys 4 4"], times: Float[Tensor, " frames"]) -> Float[Tensor, "frames 4 4"]:
    """Rigid poses at fractional key indices ``times``: Catmull-Rom positions, shortest-arc rotations."""
    last = len(poses) - 1
    start = times.floor().clamp(0, max(last - 1, 0)).long().to(poses.device)
    share = (times.to(poses.device) - start).to(poses.dtype)[:, None]
    before, first, second, after = (poses[(start + offset).clamp(0, last)] for offset in (-1, 0, 1, 2))
    p0, p1, p2, p3 = (pose[:, :3, 3] for pose in (before, first, second, after))
    cubic = p1 + share / 2 * (p2 - p0 + share * (2 * p0 - 5 * p1 + 4 * p2 - p3 + share * (3 * (p1 - p2) + p3 - p0)))
    from_rotation, to_rotation = first[:, :3, :3].double(), second[:, :3, :3].double()
    turn = _rotation_vector(to_rotation @ from_rotation.transpose(-1, -2)) * share.double()
    result = first.clone()
    result[:, :3, :3] = (torch.linalg.matrix_exp(_cross_matrix(turn)) @ from_rotation).to(poses.dtype)
    result[:, :3, 3] = cubic
    return result


def _cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def _rotation_vector(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis times angle of rotation matrices, by way of the best quaternion: exact for tiny and for half turns.

    Bar-Itzhack 2000, "New method for extracting the quaternion from a rotation matrix".
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = (
        (xx - yy - zz, yx + xy, zx + xz, zy - yz),
        (yx + xy, yy - xx - zz, zy + yz, xz - zx),
        (zx + xz, zy + yz, zz - xx - yy, yx - xy),
        (zy - yz, xz - zx, yx - xy, xx + yy + zz),
    )
    quaternion = torch.linalg.eigh(torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2))[1][..., -1]
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)  # the shorter way round
    vector, scalar = quaternion[..., :3], quaternion[..., 3:]
    sine = vector.norm(dim=-1, keepdim=True)
    return vector * (2 * torch.atan2(sine, scalar) / sine.clamp(min=1e-30))
