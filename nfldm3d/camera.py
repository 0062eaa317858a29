"""Batched pinhole cameras: rays out of pixels, pixels out of points, and the usual camera paths.

Pixel (u, v) has its origin in the upper left corner of the picture, u to the right and v down; the centre of the
first pixel is (0.5, 0.5). Camera axes and poses are those of ``geometry``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import camera_paths, geometry, lens as optics
from nfldm3d._types import Vector
from nfldm3d.geometry import Rays


@dataclass(frozen=True, eq=False)
class Camera:
    """Pinhole cameras of one image size, indexed and moved like a tensor: ``camera[3]``, ``camera.to("cuda")``."""

    world_from_camera: Float[Tensor, "*batch 4 4"]
    """Rigid poses: right, up, back axes and centre as columns (see ``geometry``)."""
    focal: Float[Tensor, "*batch 2"]
    """Focal lengths fx, fy in pixels."""
    principal: Float[Tensor, "*batch 2"]
    """Principal points cx, cy in pixels."""
    width: int
    height: int
    distortion: Float[Tensor, "*batch 8"] | None = None
    """OpenCV's k1 k2 p1 p2 k3 k4 k5 k6, or None. With a fisheye lens k1 k2 k3 k4 alone are used."""
    lens: Literal["perspective", "fisheye"] = "perspective"
    """OpenCV's standard (rational) model, or its equidistant fisheye model."""

    def __post_init__(self):
        if self.width < 1 or self.height < 1:
            raise ValueError(f"an image needs at least one pixel, got width={self.width} and height={self.height}")
        if self.lens not in ("perspective", "fisheye"):
            raise ValueError(f"lens must be 'perspective' or 'fisheye', got {self.lens!r}")
        if self.world_from_camera.shape[-2:] != (4, 4):
            raise ValueError(f"world_from_camera must be (..., 4, 4), got {tuple(self.world_from_camera.shape)}")
        for name, size in (("focal", 2), ("principal", 2), ("distortion", 8)):
            value = getattr(self, name)
            if value is not None and value.shape != (*self.shape, size):
                raise ValueError(f"{name} must have shape {(*self.shape, size)}, got {tuple(value.shape)}")

    @classmethod
    def from_fov(
        cls,
        world_from_camera: Float[Tensor, "*batch 4 4"],
        *,
        width: int,
        height: int,
        horizontal_fov_degrees: float = 60.0,
    ) -> "Camera":
        """Cameras with square pixels and a centred principal point."""
        focal = optics.focal_length(width, horizontal_fov_degrees)
        batch = world_from_camera.shape[:-2]
        return cls(
            world_from_camera,
            world_from_camera.new_tensor((focal, focal)).expand(*batch, 2),
            world_from_camera.new_tensor((width / 2, height / 2)).expand(*batch, 2),
            width,
            height,
        )

    @classmethod
    def from_intrinsics(
        cls,
        world_from_camera: Float[Tensor, "*batch 4 4"],
        intrinsics: Float[Tensor, "*lenses 3 3"],
        *,
        width: int,
        height: int,
        distortion: Float[Tensor, "... terms"] | None = None,
        lens: Literal["perspective", "fisheye"] = "perspective",
    ) -> "Camera":
        """Cameras from matrices [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, one for all poses or one for each.

        Args:
            distortion: OpenCV's 4, 5 or 8 coefficients, of a fisheye lens 4.
        """
        batch = world_from_camera.shape[:-2]
        values = list(optics.split_intrinsics(intrinsics))
        if distortion is not None:
            values.append(optics.pack_distortion(distortion, fisheye=lens == "fisheye"))
        focal, principal, *terms = (value.to(world_from_camera).expand(*batch, value.shape[-1]) for value in values)
        return cls(world_from_camera, focal, principal, width, height, terms[0] if terms else None, lens)

    @classmethod
    def from_opencv(
        cls,
        camera_from_world: Float[Tensor, "*batch 4 4"],
        intrinsics: Float[Tensor, "*lenses 3 3"],
        *,
        width: int,
        height: int,
        distortion: Float[Tensor, "... terms"] | None = None,
        lens: Literal["perspective", "fisheye"] = "perspective",
        whole_centers: bool = True,
    ) -> "Camera":
        """Cameras from OpenCV's extrinsics, whose axes are x right, y down, z ahead, and intrinsics.

        Args:
            whole_centers: whether the first pixel's centre is (0, 0), as in OpenCV's own functions; COLMAP and most
                data sets say (0.5, 0.5), as we do.
        """
        pose = geometry.flip_opencv(geometry.invert_pose(camera_from_world))
        size = {"width": width, "height": height}
        camera = cls.from_intrinsics(pose, intrinsics, distortion=distortion, lens=lens, **size)
        return replace(camera, principal=camera.principal + 0.5) if whole_centers else camera

    @classmethod
    def look_at(
        cls,
        eye: Float[Tensor, "*batch 3"] | Vector,
        target: Float[Tensor, "*batch 3"] | Vector,
        *,
        up: Vector = (0.0, 0.0, 1.0),
        width: int = 256,
        height: int = 256,
        horizontal_fov_degrees: float = 60.0,
    ) -> "Camera":
        """Cameras at ``eye`` that look at ``target``."""
        like = next((value for value in (eye, target) if isinstance(value, Tensor)), torch.zeros(()))
        eyes, targets = torch.broadcast_tensors(
            *(torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (eye, target))
        )
        poses = geometry.look_at(eyes, targets, up)
        return cls.from_fov(poses, width=width, height=height, horizontal_fov_degrees=horizontal_fov_degrees)

    @classmethod
    def orbit(
        cls,
        target: Vector,
        radius: float,
        *,
        views: int = 60,
        elevation_degrees: float = 25.0,
        width: int = 256,
        height: int = 256,
        horizontal_fov_degrees: float = 60.0,
    ) -> "Camera":
        """Cameras on a circle around the vertical axis through ``target``, all looking at it; view 0 is at +x."""
        directions = camera_paths.circle(views, elevation_degrees)
        eyes = directions.new_tensor(target) + radius * directions
        return cls.look_at(eyes, target, width=width, height=height, horizontal_fov_degrees=horizontal_fov_degrees)

    @classmethod
    def panorama(
        cls, eye: Vector, *, views: int = 60, width: int = 256, height: int = 256, horizontal_fov_degrees: float = 90.0
    ) -> "Camera":
        """Cameras that turn once, counter-clockwise, about the vertical axis through ``eye``; view 0 looks along +x."""
        ahead = camera_paths.circle(views)
        center = ahead.new_tensor(eye).expand_as(ahead)
        return cls.look_at(
            center, center + ahead, width=width, height=height, horizontal_fov_degrees=horizontal_fov_degrees
        )

    @staticmethod
    def cat(cameras: Sequence["Camera"]) -> "Camera":
        """All views of several cameras of one image size and lens, along the last batch axis."""
        if not cameras:
            raise ValueError("there are no cameras to join; give at least one")
        first = cameras[0]
        kinds = {(camera.width, camera.height, camera.lens) for camera in cameras}
        if len(kinds) > 1:
            raise ValueError(f"cameras to join must share width, height and lens, got {sorted(kinds)}")
        distorted = any(camera.distortion is not None for camera in cameras)
        terms = [c.focal.new_zeros(*c.shape, 8) if c.distortion is None else c.distortion for c in cameras]
        return replace(
            first,
            world_from_camera=torch.cat([camera.world_from_camera for camera in cameras], dim=-3),
            focal=torch.cat([camera.focal for camera in cameras], dim=-2),
            principal=torch.cat([camera.principal for camera in cameras], dim=-2),
            distortion=torch.cat(terms, dim=-2) if distorted else None,
        )

    @property
    def shape(self) -> torch.Size:
        """The batch axes, ``(*scenes, views)``."""
        return self.world_from_camera.shape[:-2]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.world_from_camera.device

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Camera centres in the world."""
        return self.world_from_camera[..., :3, 3]

    @property
    def forward(self) -> Float[Tensor, "*batch 3"]:
        """Unit vectors along the optical axes, in the world."""
        return -self.world_from_camera[..., :3, 2]

    @property
    def intrinsics(self) -> Float[Tensor, "*batch 3 3"]:
        """Matrices [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels."""
        return optics.join_intrinsics(self.focal, self.principal)

    @property
    def view_matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """Camera from world, as OpenGL calls it: the inverse of ``world_from_camera``."""
        return geometry.invert_pose(self.world_from_camera)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("one camera has no length; index a batch, or make one with reshape(1)")
        return self.shape[0]

    def __getitem__(self, index) -> "Camera":
        return self._map(lambda tensor: tensor[index])

    def __str__(self) -> str:
        kind = self.lens if self.distortion is None else f"distorted {self.lens}"
        return f"Camera {tuple(self.shape)}: {kind}, {self.width}x{self.height} pixels, on {self.device}"

    __repr__ = __str__

    def to(self, target: torch.device | torch.dtype | str) -> "Camera":
        """The cameras on another device or in another dtype."""
        return self._map(lambda tensor: tensor.to(target))

    def reshape(self, *shape: int) -> "Camera":
        """The same cameras with other batch axes."""
        batch_axes = len(self.shape)
        return self._map(lambda tensor: tensor.reshape(*shape, *tensor.shape[batch_axes:]))

    def resized(self, width: int, height: int) -> "Camera":
        """The same views at another image size; intrinsics scale with the picture."""
        scale = self.focal.new_tensor((width / self.width, height / self.height))
        return replace(self, focal=self.focal * scale, principal=self.principal * scale, width=width, height=height)

    def cropped(self, left: int, top: int, width: int, height: int) -> "Camera":
        """The views of a window of the picture."""
        corner = self.principal.new_tensor((left, top))
        return replace(self, principal=self.principal - corner, width=width, height=height)

    def transformed(self, transform: Float[Tensor, "4 4"]) -> "Camera":
        """The cameras after a rigid motion of the world."""
        return replace(self, world_from_camera=transform.to(self.world_from_camera) @ self.world_from_camera)

    def pixel_centers(self) -> Float[Tensor, "height width 2"]:
        """The coordinates (u, v) of every pixel's centre."""
        sides = (self.width, self.height)
        u, v = (torch.arange(side, device=self.device, dtype=self.focal.dtype) + 0.5 for side in sides)
        return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)

    def rays(self, pixels: Float[Tensor, "*batch points 2"] | None = None) -> Rays:
        """Rays through pixels of each camera, ``(*batch, points)``; through all pixels, ``(*batch, height, width)``."""
        if pixels is None:
            everywhere = self.pixel_centers().reshape(-1, 2).expand(*self.shape, -1, 2)
            return self.rays(everywhere).reshape(*self.shape, self.height, self.width)
        plane = (pixels - self.principal[..., None, :]) / self.focal[..., None, :]  # x right, y down
        local = optics.unproject(plane, self.distortion, fisheye=self.lens == "fisheye")
        directions = local @ self.world_from_camera[..., :3, :3].transpose(-1, -2)
        return Rays(self.centers[..., None, :].expand_as(directions), directions)

    def project(
        self, points: Float[Tensor, "*batch points 3"]
    ) -> tuple[Float[Tensor, "*batch points 2"], Float[Tensor, "*batch points"]]:
        """Pixel coordinates and depths (metres along the optical axis; negative behind the camera) of world points."""
        local = geometry.transform_points(geometry.invert_pose(self.world_from_camera), points)
        plane = optics.project(local, self.distortion, fisheye=self.lens == "fisheye")
        return plane * self.focal[..., None, :] + self.principal[..., None, :], -local[..., 2]

    def depth_per_distance(self, rays: Rays) -> Float[Tensor, "*points"]:
        """Depth along the optical axis of a unit of distance along each ray, whose shape begins with the batch's."""
        forward = self.forward[(..., *(None,) * (len(rays.shape) - len(self.shape)), slice(None))]
        return (rays.directions * forward).sum(-1)

    def unproject(self, depth: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width 3"]:
        """World points that the pixels see at depths in metres along the optical axis: the inverse of ``project``."""
        rays = self.rays()
        return rays.at(depth / self.depth_per_distance(rays))

    def interpolated(self, frames: int, *, closed: bool = False) -> "Camera":
        """A smooth fly-through of ``frames`` views past all views of a batch ``(views,)``.

        The ends are included; a closed path goes on from the last view to the first and stops one frame before it.
        """
        path = camera_paths.KeyPath.past(len(self), frames, closed=closed)
        keys = self[path.keys]
        return replace(
            keys,
            world_from_camera=geometry.interpolate_poses(keys.world_from_camera, path.times),
            focal=path.mix(keys.focal),
            principal=path.mix(keys.principal),
            distortion=None if keys.distortion is None else path.mix(keys.distortion),
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Camera":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)})
