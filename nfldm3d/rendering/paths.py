"""Camera paths through a scene: around it, from its middle, past its own views, or from a file."""

import itertools
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data.json_record import Record
from nfldm3d.data.transforms_lens import horizontal_focal
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.geometry import Box, find_pose_problem
from nfldm3d.pictures import require_picture_size
from nfldm3d.scene import Scene

LENS = ("camera_angle_x", "fl_x", "w")
"""What a transforms.json tells at top level or in every frame."""
USUAL_ANGLE = 60.0
"""Horizontal degrees where a file tells nothing."""
PATHS = ("orbit", "panorama", "fly")
OUTER_ELEVATION = 40.0
"""Degrees above the horizon of cameras that look at a scene from outside."""
MARGIN = 1.05
"""How much further away these stand than they must to see the whole box."""


def make_path(scene: Scene, path: str, *, views: int = 90, width: int = 512, height: int = 384) -> Camera:
    """Cameras along a named path, or those of a ``.json`` file, at the given image size, on the scene's device.

    ``orbit`` circles the box in focus at the distance and height of the scene's own cameras if these look inwards,
    else far enough outside to see the whole box. ``panorama`` turns once at the scene's most central own camera.
    ``fly`` passes the scene's own cameras. Those of a file are in the world of the scene's capture.
    """
    return _cameras_along(scene, path, views, width, height).to(scene.device)


def _cameras_along(scene: Scene, path: str, views: int, width: int, height: int) -> Camera:
    if views < 1:
        raise ValueError(f"a path needs at least one view, got {views}")
    require_picture_size(width, height, views)
    match path:
        case "orbit":
            return _orbit(scene, views, width, height)
        case "panorama":
            return Camera.panorama(_middle(scene), views=views, width=width, height=height)
        case "fly":
            if scene.cameras is None or len(scene.cameras) < 2:
                raise ValueError("the scene knows no cameras to fly past; choose orbit or panorama")
            return scene.cameras.resized(width, height).interpolated(views)
    if Path(path).suffix != ".json":
        raise ValueError(f"unknown path {path!r}; choose {', '.join(PATHS)} or a .json file")
    return read_camera_path(
        path, width=width, height=height, scene_from_world=placement.scene_from_world(scene.metadata)
    )


def read_camera_path(
    path: PathName, *, width: int, height: int, scene_from_world: Float[Tensor, "4 4"] | None = None
) -> Camera:
    """Cameras of a transforms.json (images are not needed) or of nerfstudio's camera_path.json, at an image size.

    Args:
        scene_from_world: moves them from their capture's world to that of the scene (see ``placement``). A file that
            tells how its own world was moved is taken back first.
    """
    content = read_json(path)
    frames = content.get("camera_path", content.get("frames")) if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DataFormatError(path, "holds neither 'frames' nor a 'camera_path'; give a list of cameras")
    moved = torch.stack([_read_pose(path, number, frame) for number, frame in enumerate(frames)])
    lens = {key: content[key] for key in LENS if key in content}
    records = [Record(Path(path), {**lens, **frame}, f"frame {number}") for number, frame in enumerate(frames)]
    if scene_from_world is not None:
        moved = scene_from_world @ placement.world_from_scene(content) @ moved
    camera = Camera.from_fov(moved.float(), width=width, height=height)
    focal = torch.tensor([_read_focal(record, width, height) for record in records])[:, None].expand(-1, 2)
    return Camera(camera.world_from_camera, focal, camera.principal, width, height)


def look_inwards(cameras: Camera, box: Box) -> bool:
    """Whether nearly all cameras look at the middle of a box, as around an object, not about themselves in a room."""
    offset = cameras.centers - cameras.centers.new_tensor(box.center)
    inwards = -(offset * cameras.forward).sum(-1) / offset.norm(dim=-1).clamp(min=1e-9)
    return bool((inwards > 0.5).float().mean() > 0.9)


def _read_pose(path: PathName, number: int, frame: object) -> torch.Tensor:
    values = frame.get("camera_to_world", frame.get("transform_matrix")) if isinstance(frame, dict) else None
    try:
        pose = torch.tensor(values, dtype=torch.float64).reshape(4, 4)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataFormatError(path, f"frame {number} has no 4x4 transform_matrix or camera_to_world") from error
    problem = find_pose_problem(pose)
    if problem is not None:
        raise DataFormatError(path, f"the pose of frame {number} {problem}; write a rigid camera-to-world matrix")
    return pose


def _read_focal(record: Record, width: int, height: int) -> float:
    """Focal length in pixels of pictures of that size."""
    if "fov" in record:  # nerfstudio: vertical, in degrees
        angle = record.number("fov")
        if not 0 < angle < 180:
            raise record.problem("fov", "write the vertical field of view in degrees, between 0 and 180")
        return height / 2 / math.tan(math.radians(angle) / 2)
    share = horizontal_focal(record)
    return width * (0.5 / math.tan(math.radians(USUAL_ANGLE) / 2) if share is None else share)


def _orbit(scene: Scene, views: int, width: int, height: int) -> Camera:
    box = scene.box
    look = {"views": views, "width": width, "height": height, "horizontal_fov_degrees": 60.0}
    if scene.cameras is not None:
        offset = scene.cameras.centers.cpu() - torch.tensor(box.center)
        if look_inwards(scene.cameras, box):
            rise = torch.asin((offset[:, 2] / offset.norm(dim=-1)).median().clamp(-1, 1))
            distance = float(offset.norm(dim=-1).median())
            return Camera.orbit(box.center, distance, elevation_degrees=math.degrees(float(rise)), **look)
    near = Camera.orbit((0.0, 0.0, 0.0), 1.0, elevation_degrees=OUTER_ELEVATION, **look)
    return Camera.orbit(box.center, _distance_to_see(box, near), elevation_degrees=OUTER_ELEVATION, **look)


def _distance_to_see(box: Box, cameras: Camera) -> float:
    """How far cameras that look at the middle of a box must stand for all its corners to be in every picture."""
    corners = torch.tensor(list(itertools.product(*((-size / 2, size / 2) for size in box.size))))
    right, up, back = (corners @ cameras.world_from_camera[:, :3, :3]).unbind(-1)  # views corners
    across, upwards = (2 * cameras.focal / cameras.focal.new_tensor((cameras.width, cameras.height))).unbind(-1)
    needed = torch.maximum(right.abs() * across[:, None], up.abs() * upwards[:, None]) + back
    return MARGIN * float(needed.max())


def _middle(scene: Scene) -> tuple[float, float, float]:
    """The own camera nearest to the middle of all, or the middle of the box."""
    if scene.cameras is None:
        return scene.box.center
    centers = scene.cameras.centers.cpu()
    nearest = int((centers - centers.median(dim=0).values).norm(dim=-1).argmin())
    x, y, z = centers[nearest].tolist()
    return (x, y, z)
