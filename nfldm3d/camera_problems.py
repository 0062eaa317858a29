"""What makes cameras useless, in words: files may hold any numbers."""

import torch

from nfldm3d.camera import Camera
from nfldm3d.geometry import find_pose_problem


def find_camera_problem(camera: Camera) -> str | None:
    """What keeps cameras from casting rays, numbers that are not finite or focal lengths of none; or None."""
    for name in ("world_from_camera", "focal", "principal", "distortion"):
        value = getattr(camera, name)
        if value is not None and not bool(torch.isfinite(value).all()):
            return f"{name} holds NaN or infinity"
    if camera.focal.numel() and not bool((camera.focal > 0).all()):
        return f"focal holds {float(camera.focal.min()):.3g}, but focal lengths are above 0"
    return None


def find_pose_problems(camera: Camera) -> str | None:
    """What keeps poses from being rigid, with the number of the first such view; or None."""
    found = (find_pose_problem(pose) for pose in camera.world_from_camera.reshape(-1, 4, 4))
    return next((f"the pose of view {number} {problem}" for number, problem in enumerate(found) if problem), None)
