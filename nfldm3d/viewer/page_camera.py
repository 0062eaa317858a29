"""Between viser's cameras and ours: viser looks along +z with y down, as OpenCV does."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from nfldm3d.camera import Camera
from nfldm3d.geometry import Box, flip_opencv
from nfldm3d.rendering.paths import look_inwards, make_path
from nfldm3d.scene import Scene

if TYPE_CHECKING:
    import viser

AHEAD = 3.0
"""Metres in front of a camera around which the page turns."""
FROM_ABOVE = math.radians(50)
"""Field of view, from top to bottom, of cameras that look at a whole map."""


def read_camera(page: "viser.CameraHandle", width: int, height: int) -> Camera:
    """The camera of a page at an image size."""
    from viser.transforms import SO3

    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.from_numpy(SO3(np.asarray(page.wxyz)).as_matrix())
    pose[:3, 3] = torch.from_numpy(np.asarray(page.position, dtype=np.float64))
    focal = height / 2 / math.tan(min(max(page.fov, 0.02), 3.0) / 2)
    middle = torch.tensor((width / 2, height / 2))
    return Camera(flip_opencv(pose).float(), torch.tensor((focal, focal)), middle, width, height)


def place_camera(page: "viser.CameraHandle", camera: Camera, *, zoom: bool = True) -> None:
    """Puts a page where a single camera stands; ``zoom`` takes its field of view, too."""
    center = camera.centers.double().cpu().numpy()
    with page.client.atomic():
        page.up_direction = (0.0, 0.0, 1.0)
        page.position = center
        page.look_at = center + AHEAD * camera.forward.double().cpu().numpy()
        if zoom:
            page.fov = vertical_fov(camera)


def vertical_fov(camera: Camera) -> float:
    """Radians from the upper to the lower edge of a single camera's picture."""
    return 2 * math.atan(camera.height / 2 / float(camera.focal[1]))


def viser_pose(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Quaternion w x y z and position of a single camera in viser's axes."""
    from viser.transforms import SO3

    pose = flip_opencv(camera.world_from_camera.double().cpu())
    return SO3.from_matrix(pose[:3, :3].numpy()).wxyz, pose[:3, 3].numpy()


def first_camera(scene: Scene, width: int = 320, height: int = 240) -> Camera:
    """Where to begin: at the first own camera of a scene that is seen from within, else outside."""
    if scene.cameras is not None and len(scene.cameras.reshape(-1)) and not look_inwards(scene.cameras, scene.box):
        own = scene.cameras.reshape(-1)[0]
        focal = own.focal * (height / own.height)
        return Camera(own.world_from_camera, focal, own.principal.new_tensor((width / 2, height / 2)), width, height)
    return make_path(scene, "orbit", views=8, width=width, height=height)[1]


def camera_above(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Position and point looked at of a camera of ``FROM_ABOVE`` that sees a whole box, north up."""
    x, y, _ = box.center
    top, side = box.upper[2], max(box.size[:2])
    height = 0.55 * side / math.tan(FROM_ABOVE / 2)  # some more than half of the side lies on either hand
    return np.array((x, y - 1e-3 * side, top + height)), np.array((x, y, top))
