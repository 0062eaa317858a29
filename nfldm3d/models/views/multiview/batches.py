"""The views that a U-Net draws together, and what its layers are told of them.

A view is told by ten numbers (ViewDiff, section 3.1): of its pose the polar angle theta from +z, the sine and cosine of
its azimuth and its distance; of its lens fx / W, fy / H, cx / W, cy / H; of its picture the mean and the variance.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera

NUMBERS = 10
"""Of a view."""
HALF_CUBE = 0.55
"""Length that becomes 1: objects whose box has a diagonal of 1 lie well within the cube."""
STILL = (0.0, 0.0)
"""Mean and variance that are told where no picture is known; of pictures from -1 to 1."""


@dataclass(frozen=True)
class ViewBatch:
    """Views (objects views) that one pass of a U-Net draws; objects and views lie one after the other in its batch."""

    camera: Camera
    """(objects views), at any size; objects stand in the cube [-1, 1]^3."""
    vectors: Float[Tensor, "objects views 10"]
    """See ``describe_views``."""
    times: Float[Tensor, "objects views memory"] | None = None
    """The U-Net's embedding of each view's time step."""
    left_out: int = 0
    """So many of the last views are rendered, but not looked at, so that grids must hold for views that are new."""

    @classmethod
    def of(cls, camera: Camera, statistics: Float[Tensor, "objects views 2"] | None = None) -> "ViewBatch":
        """Of cameras (objects views); ``statistics`` are means and variances of their pictures."""
        return cls(camera, describe_views(camera, statistics))

    @property
    def views(self) -> int:
        """Of each object."""
        return self.camera.shape[1]

    def twice(self) -> "ViewBatch":
        """The same objects once more behind them, for guidance without a classifier."""
        objects = self.camera.shape[0]
        again = self.camera[list(range(objects)) * 2]
        times = None if self.times is None else self.times.repeat(2, 1, 1)
        return replace(self, camera=again, vectors=self.vectors.repeat(2, 1, 1), times=times)

    def to(self, device: torch.device | str) -> "ViewBatch":
        """The same on another device."""
        times = None if self.times is None else self.times.to(device)
        return replace(self, camera=self.camera.to(device), vectors=self.vectors.to(device), times=times)


def to_cube(camera: Camera, *, invert: bool = False) -> Camera:
    """Cameras around an object whose box has a diagonal of 1, in a world where the cube [-1, 1]^3 holds it; or back."""
    scale = HALF_CUBE if invert else 1 / HALF_CUBE
    poses = camera.world_from_camera.clone()
    poses[..., :3, 3] *= scale
    return replace(camera, world_from_camera=poses)


def describe_views(camera: Camera, statistics: Float[Tensor, "*batch 2"] | None = None) -> Float[Tensor, "*batch 10"]:
    """The ten numbers of each view."""
    x, y, z = camera.centers.unbind(-1)
    flat = torch.hypot(x, y)
    azimuth = torch.atan2(y, x)
    pose = torch.stack((torch.atan2(flat, z), azimuth.sin(), azimuth.cos(), camera.centers.norm(dim=-1)), dim=-1)
    size = camera.focal.new_tensor((camera.width, camera.height))
    if statistics is None:
        statistics = camera.focal.new_tensor(STILL).expand(*camera.shape, 2)
    return torch.cat((pose, camera.focal / size, camera.principal / size, statistics.to(pose)), dim=-1)


def picture_statistics(images: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 2"]:
    """Mean and variance of pictures from -1 to 1, over all pixels and channels."""
    flat = images.flatten(-3)
    return torch.stack((flat.mean(-1), flat.var(-1, unbiased=False)), dim=-1)
