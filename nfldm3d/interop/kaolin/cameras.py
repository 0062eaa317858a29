"""Cameras to and from ``kaolin.render.camera.Camera``."""

import math
from typing import Any

import torch

from nfldm3d import geometry
from nfldm3d.camera import Camera
from nfldm3d.interop.kaolin.optional import import_kaolin


def to_kaolin_camera(camera: Camera, *, near: float = 0.01, far: float = 100.0) -> Any:
    """A ``kaolin.render.camera.Camera`` with the same rays; ``near`` and ``far`` are its clipping planes in metres."""
    if camera.lens != "perspective" or (camera.distortion is not None and bool(camera.distortion.any())):
        raise ValueError(f"Kaolin has pinholes without distortion only, got {camera}; undistort the pictures first")
    if not 0 < near < far < math.inf:
        raise ValueError(f"clipping planes need 0 < near < far, got near={near} and far={far}")
    if 0 in camera.shape:
        raise ValueError(f"Kaolin needs at least one camera, got a batch of shape {tuple(camera.shape)}")
    kaolin = import_kaolin("kaolin.render.camera")
    camera = camera.reshape(math.prod(camera.shape))
    view_matrix = geometry.invert_pose(camera.world_from_camera)
    half = camera.principal.new_tensor((camera.width / 2, camera.height / 2))
    # Kaolin counts the principal point from the middle of the picture, to the right and up
    offset = (camera.principal - half) * half.new_tensor((1, -1))
    parameters = torch.cat((offset, camera.focal), dim=-1).to(view_matrix)
    return kaolin.Camera(
        kaolin.CameraExtrinsics.from_view_matrix(view_matrix, dtype=view_matrix.dtype, device=view_matrix.device),
        kaolin.PinholeIntrinsics(camera.width, camera.height, parameters, near, far),
    )


def from_kaolin_camera(kaolin_camera: Any) -> Camera:
    """Our cameras ``(views,)`` with the rays of a ``kaolin.render.camera.Camera``.

    Clipping planes are left behind: a camera of ours has none.
    """
    intrinsics, poses = kaolin_camera.intrinsics, kaolin_camera.extrinsics.inv_view_matrix()
    if intrinsics.lens_type != "pinhole":
        raise ValueError(f"only Kaolin's pinhole cameras can be used, got lens_type={intrinsics.lens_type!r}")
    for number, pose in enumerate(poses.detach()):
        problem = geometry.find_pose_problem(pose)
        if problem:
            raise ValueError(f"Kaolin's camera {number} {problem}; undo it with reset_coordinate_system or set it anew")
    width, height = int(intrinsics.width), int(intrinsics.height)
    principal = torch.stack((width / 2 + intrinsics.x0, height / 2 - intrinsics.y0), dim=-1)
    focal = torch.stack((intrinsics.focal_x, intrinsics.focal_y), dim=-1)
    return Camera(poses, focal, principal, width, height)
