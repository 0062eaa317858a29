"""Where a scene lies in the world of its capture.

Readers move captures whose world is turned, or so far away that single precision loses it, so that z is up and the
cameras are near the origin. What they did is kept in the metadata of capture and scene as ``scene_from_world``: a rigid
4x4 matrix in double precision that takes a point of the capture's world to its place in the scene. Its inverse takes
results back; ``world_from_scene`` gives it.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.geometry import Box, find_pose_problem, invert_pose, transform_points

Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]
"""The direction of a capture's world that points upwards; ``auto`` guesses it from the cameras."""

KEY = "scene_from_world"
AXES: dict[Up, tuple[float, float, float]] = {
    "x": (1.0, 0.0, 0.0),
    "-x": (-1.0, 0.0, 0.0),
    "y": (0.0, 1.0, 0.0),
    "-y": (0.0, -1.0, 0.0),
    "z": (0.0, 0.0, 1.0),
    "-z": (0.0, 0.0, -1.0),
}
FAR, COARSE = 1000.0, 1e-5
"""A world is far away if coordinates are at least so large, and single precision is coarser than this share of the
cameras' span."""
TRUSTED, NEAR = math.cos(math.radians(60)), math.cos(math.radians(5))
"""Cosines: how far off z a world may seem that is z up by its format, and how near an axis is taken for it."""
DOWNWARDS, UNDECIDED = 0.8, 0.3
"""Cameras that look down so steeply do not tell what is up, nor do those whose mean up axis is so short."""


def find_motion(
    poses: Float[Tensor, "views 4 4"], *, up: Up = "auto", free: bool = False, settled: bool = False
) -> Float[Tensor, "4 4"]:
    """What takes the world of some cameras to one near the origin with z up; the identity where all is well.

    Args:
        poses: ``world_from_camera`` in double precision.
        up: the world's upward direction.
        free: the world may be turned any way, as COLMAP's; others are z up unless cameras clearly tell otherwise, and
            then along one of their axes.
        settled: ``auto`` means z, without a look at the cameras.
    """
    poses = poses.double()
    if not bool(torch.isfinite(poses).all()):
        return torch.eye(4, dtype=torch.float64)  # whoever builds cameras of them says what is wrong
    if up == "auto" and not settled:
        upward = find_up(poses, free=free)
    else:
        upward = torch.tensor(AXES["z" if up == "auto" else up], dtype=torch.float64)
    turn, shift = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = _turn_to_z(upward)
    shift[:3, 3] = -_find_origin(poses[:, :3, 3])
    return turn @ shift


def find_up(poses: Float[Tensor, "views 4 4"], *, free: bool) -> Float[Tensor, " 3"]:
    """The direction that cameras take for up: at right angles to the right axes of cameras held level.

    Where these say little, as all look one way, it is near the mean of the cameras' own up axes.
    """
    right, upward, back = poses[:, :3, :3].double().unbind(-1)
    mean, z = upward.mean(0), torch.tensor(AXES["z"], dtype=torch.float64)
    if float(back.mean(0)[2]) > DOWNWARDS or float(mean.norm()) < UNDECIDED:
        return z
    spread = right.T @ right / len(right) - 0.01 * mean[:, None] * mean
    found = torch.linalg.eigh(spread)[1][:, 0]
    found = found * torch.sign(found @ mean)
    if float(found @ mean) < 0.5 * float(mean.norm()):  # pictures on their side
        found = mean / mean.norm()
    if not free and float(found[2]) > TRUSTED:
        return z
    axes = torch.tensor(list(AXES.values()), dtype=torch.float64)
    nearest = axes[int((axes @ found).argmax())]
    return nearest if not free or float(nearest @ found) > NEAR else found


def is_identity(motion: Float[Tensor, "4 4"]) -> bool:
    """Whether a motion leaves everything where it is."""
    return torch.equal(motion, torch.eye(4).to(motion))


def is_shift(motion: Float[Tensor, "4 4"]) -> bool:
    """Whether a motion turns nothing."""
    return torch.equal(motion[:3, :3], torch.eye(3).to(motion))


def scene_from_world(metadata: Mapping[str, object]) -> Float[Tensor, "4 4"]:
    """The motion that metadata keep, in double precision; the identity if there is none.

    Raises:
        ValueError: the entry is no rigid matrix.
    """
    if KEY not in metadata:
        return torch.eye(4, dtype=torch.float64)
    try:
        motion = torch.tensor(metadata[KEY], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{KEY} in the metadata is no matrix ({error}); write four rows of four numbers") from error
    problem = find_pose_problem(motion) if motion.shape == (4, 4) else "is not 4x4"
    if problem:
        raise ValueError(f"{KEY} in the metadata {problem}; write a rotation and a shift")
    return motion


def keep_motion(metadata: Mapping[str, object]) -> dict[str, object]:
    """What metadata say of where a scene lies, for what is made of it."""
    return {KEY: metadata[KEY]} if KEY in metadata else {}


def world_from_scene(metadata: Mapping[str, object]) -> Float[Tensor, "4 4"]:
    """What takes points of a scene to the world of its capture, in double precision."""
    return invert_pose(scene_from_world(metadata))


def describe(metadata: Mapping[str, object]) -> str | None:
    """Where the scene's origin lies in the world of its capture, and what is up there; None if nothing was moved."""
    motion = world_from_scene(metadata)
    if is_identity(motion):
        return None
    place, upward = (", ".join(f"{value:.10g}" for value in (motion[:3, axis] + 0.0).tolist()) for axis in (3, 2))
    return f"origin at ({place}), z along ({upward}) of the capture's world"


def move_box(box: Box, motion: Float[Tensor, "4 4"]) -> Box:
    """The box around a box that was moved."""
    corners = torch.tensor(list(itertools.product(*zip(box.lower, box.upper, strict=True))), dtype=torch.float64)
    return Box.around(transform_points(motion, corners))


def _turn_to_z(upward: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The smallest turn that takes a unit vector to z."""
    x, y, z = upward.tolist()
    if z < -1 + 1e-12:
        return torch.diag(torch.tensor((1.0, -1.0, -1.0), dtype=torch.float64))
    cross = torch.tensor(((0.0, 0.0, -x), (0.0, 0.0, -y), (x, y, 0.0)), dtype=torch.float64)  # of upward x z
    return torch.eye(3, dtype=torch.float64) + cross + cross @ cross / (1 + z)


def _find_origin(centers: Float[Tensor, "views 3"]) -> Float[Tensor, " 3"]:
    """A round place among cameras that are far away, else the origin.

    It is round, so that the parts of one capture, read one by one, mostly agree on it.
    """
    farthest, span = float(centers.abs().max()), float((centers.amax(0) - centers.amin(0)).norm())
    if not farthest >= FAR or farthest * torch.finfo(torch.float32).eps <= COARSE * span:
        return torch.zeros(3, dtype=torch.float64)
    step = 10.0 ** math.floor(math.log10(max(30 * span, 1.0)))
    return (centers.median(0).values / step).round() * step + 0.0
