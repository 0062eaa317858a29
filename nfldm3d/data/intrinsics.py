"""What readers share: the intrinsics of one view as files give them, and the Camera they add up to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import find_pose_problem

WIDEST, NARROWEST = 1e-2, 1e4
"""Focal length over image size of the widest (178 degrees) and narrowest (20 arc seconds) lens that is believed."""


@dataclass(frozen=True)
class Intrinsics:
    """One view's lens, in pixels; the fields are those of ``Camera``."""

    width: int
    height: int
    focal: tuple[float, float]
    principal: tuple[float, float]
    distortion: tuple[float, ...] = (0.0,) * 8
    lens: Literal["perspective", "fisheye"] = "perspective"

    def scaled(self, width: int, height: int) -> "Intrinsics":
        """The lens of the same picture at another size."""
        across, down = width / self.width, height / self.height
        focal, principal = ((across * values[0], down * values[1]) for values in (self.focal, self.principal))
        return replace(self, width=width, height=height, focal=focal, principal=principal)

    def find_problem(self) -> str | None:
        """What cannot be true of a camera, in words, or None."""
        if not (0 < self.width < 2**20 and 0 < self.height < 2**20):
            return f"has {self.width}x{self.height} pixels; give the size of the picture"
        for axis, focal, size in (("x", self.focal[0], self.width), ("y", self.focal[1], self.height)):
            if not WIDEST < focal / size < NARROWEST:
                return (
                    f"has focal length {focal:g} along {axis} for {size} pixels; "
                    f"give it in pixels, between {WIDEST * size:g} and {NARROWEST * size:g}"
                )
        if not all(
            abs(center) < 100 * size for center, size in zip(self.principal, (self.width, self.height), strict=True)
        ):
            return (
                f"has its principal point at {self.principal} in {self.width}x{self.height} pixels; give it in pixels"
            )
        if not all(math.isfinite(value) and abs(value) < 1e6 for value in self.distortion):
            return f"has distortion {self.distortion}; give OpenCV's coefficients"
        return None


def build_camera(
    source: Path, names: Sequence[str], poses: Float[Tensor, "views 4 4"], intrinsics: Sequence[Intrinsics]
) -> Camera:
    """The cameras of views called ``names`` in the file ``source``; refuses false poses, lenses and mixed lenses.

    Cameras of several sizes are scaled to the smallest width and the smallest height, each axis for itself.
    """
    first = intrinsics[0]
    for name, pose, lens in zip(names, poses, intrinsics, strict=True):
        problem = find_pose_problem(pose)
        if problem:
            raise DataFormatError(source, f"the pose of {name} {problem}; write a rotation and a position")
        problem = lens.find_problem()
        if problem:
            raise DataFormatError(source, f"the camera of {name} {problem}")
        if lens.lens != first.lens:
            raise DataFormatError(
                source,
                f"{name} has a {lens.lens} lens, but {names[0]} a {first.lens} lens; undistort the pictures, or read "
                "each lens as a capture of its own",
            )
    width, height = min(lens.width for lens in intrinsics), min(lens.height for lens in intrinsics)
    lenses = [lens.scaled(width, height) for lens in intrinsics]
    distorted = any(any(lens.distortion) for lens in lenses)
    return Camera(
        poses.float(),
        torch.tensor([lens.focal for lens in lenses]),
        torch.tensor([lens.principal for lens in lenses]),
        width,
        height,
        torch.tensor([lens.distortion for lens in lenses]) if distorted else None,
        first.lens,
    )


def find_sizes(intrinsics: Sequence[Intrinsics]) -> tuple[tuple[int, int], ...] | None:
    """Width and height of each view if they differ, as ``PosedImages.sizes`` has them; None if they are all one."""
    sizes = tuple((lens.width, lens.height) for lens in intrinsics)
    return sizes if len(set(sizes)) > 1 else None
