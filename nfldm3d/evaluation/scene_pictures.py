"""Pictures and clips of recorded and of generated scenes, taken by cameras of the same kinds on both sides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, spread, spread_views
from nfldm3d.models.nfldm.trajectories import path_cameras
from nfldm3d.rendering import render
from nfldm3d.scene import Scene

SIZE = 64
"""Pixels along each side."""
CLIP_FRAMES = 4
"""Of a clip: as many as a scene of the driving world has along its road."""
FINE = 4
"""Places on a path between two of its poses, the latter included."""
Clip: TypeAlias = Float[Tensor, "_ 3 height width"]
"""Frames in the order of time."""
Draw: TypeAlias = Callable[[Scene, Camera], Tensor]
"""Makes pictures (views 3 height width) of a scene, where plain rendering should not."""


@dataclass(frozen=True)
class NumberedPictures:
    """Pictures of several scenes."""

    images: Float[Tensor, "views 3 height width"]
    scenes: Int64[Tensor, " views"]
    """The number of the scene that each shows."""


def views_along(sample: SceneSample, kinds: Sequence[str] = ("walk", "rig")) -> list[int]:
    """The views that were taken along the scene's trajectory, by any camera, in the order of its poses."""
    views = [view for view, kind in enumerate(sample.kinds) if kind in kinds]
    if sample.trajectory is None or not views:
        return views
    nearest = _nearest_poses(sample.camera[views], sample.trajectory)
    return [views[place] for place in nearest.argsort(stable=True).tolist()]


@dataclass(frozen=True)
class Mounts:
    """Cameras that went along a path: where on it each was, and how it was mounted there."""

    shares: Float[Tensor, " views"]
    """0 at the beginning of the path, 1 at its end."""
    path_from_camera: Float[Tensor, "views 4 4"]
    """Pose against a level camera that looks along the path."""
    camera: Camera
    """As it was recorded."""
    key: str
    """Of the scene; seeds which are taken."""

    @classmethod
    def of(cls, sample: SceneSample, kinds: Sequence[str] = ("walk", "rig")) -> "Mounts | None":
        """Those of a recorded scene; None if no view was taken along its trajectory."""
        views = views_along(sample, kinds)
        if sample.trajectory is None or not views:
            return None
        camera, path = sample.camera[views], sample.trajectory
        nearest = _nearest_poses(camera, path)
        ahead = path_cameras(path, 1, 1).world_from_camera[nearest]
        shares = nearest / max(1, len(path) - 1)
        return cls(shares, torch.linalg.inv(ahead) @ camera.world_from_camera, camera, sample.key)

    def along(self, path: Camera, count: int) -> Camera:
        """``count`` cameras on another path: some of these at their places, or each at several if more are asked for.

        ``path`` are level cameras that look along it.
        """
        number = len(self.shares)
        if count <= number:
            chosen = torch.tensor(spread_views(number, count, self.key))
            shares = self.shares[chosen]
        else:
            chosen = torch.arange(count) * number // count
            shares = torch.arange(count) / (count - 1)
        last = FINE * (len(path) - 1)
        places = path.interpolated(last + 1)[(shares * last).round().long().tolist()]
        poses = places.world_from_camera @ self.path_from_camera[chosen].to(places.world_from_camera)
        return replace(self.camera[chosen.tolist()].to(path.device), world_from_camera=poses).resized(SIZE, SIZE)


def _nearest_poses(camera: Camera, path: Float[Tensor, "poses 5"]) -> Int64[Tensor, " views"]:
    return torch.cdist(camera.centers, path[:, :3]).argmin(1)


def recorded_pictures(scenes: Scenes, count: int) -> NumberedPictures:
    """Pictures of a data set, about as many of each scene: those along its trajectory, or any without such."""
    each = math.ceil(count / len(scenes))
    parts = [_sized(sample.images[_some_views(sample, each)]) for sample in spread(scenes, count)]
    return _join(parts, count)


def made_pictures(
    scenes: Sequence[Scene], like: Scenes, count: int, *, progress: bool = True, draw: Draw | None = None
) -> NumberedPictures:
    """Pictures along each scene's own path, by cameras mounted as those of recorded scenes were."""
    each, parts = math.ceil(count / len(scenes)), []
    mounts = [Mounts.of(sample) for sample in spread(like, len(scenes))]
    for number, scene in enumerate(tqdm(scenes, desc="render", leave=False, disable=not progress)):
        assert scene.cameras is not None
        mounted = mounts[number % len(mounts)]
        if mounted is None:
            level = scene.cameras.resized(SIZE, SIZE)
            cameras = level.interpolated(each) if each != len(level) else level
        else:
            cameras = mounted.along(scene.cameras, each)
        parts.append((draw or _render)(scene, cameras).cpu())
    return _join(parts, count)


def rebuilt_pictures(
    rebuilt: Sequence[Scene], samples: Sequence[SceneSample], count: int, *, draw: Draw | None = None
) -> NumberedPictures:
    """What cameras of recorded scenes see of the same scenes as a generator's latents hold them."""
    each, parts = math.ceil(count / len(samples)), []
    for scene, sample in zip(rebuilt, samples, strict=True):
        cameras = sample.camera[_some_views(sample, each)].resized(SIZE, SIZE)
        parts.append((draw or _render)(scene, cameras.to(scene.field.device)).cpu())
    return _join(parts, count)


def _render(scene: Scene, camera: Camera) -> Float[Tensor, "views 3 height width"]:
    return render(scene, camera).image


def recorded_clips(scenes: Scenes, count: int) -> list[Clip]:
    """What the camera that looks ahead recorded along each trajectory, in the order of time."""
    clips = []
    for sample in spread(scenes, count):
        if walked := views_along(sample, ("walk",)):
            clips.append(_sized(sample.images[walked]))
    return clips


def made_clips(scenes: Sequence[Scene], like: Scenes) -> list[Clip]:
    """The same of generated scenes, from as many places on the path as recorded scenes have."""
    mounts = [found for sample in spread(like, len(scenes)) if (found := Mounts.of(sample, ("walk",))) is not None]
    clips = []
    for number, scene in enumerate(scenes if mounts else ()):
        assert scene.cameras is not None
        mounted = mounts[number % len(mounts)]
        clips.append(render(scene, mounted.along(scene.cameras, len(mounted.shares))).image.cpu())
    return clips


def stack_clips(clips: Sequence[Clip]) -> Float[Tensor, "clips frames 3 height width"]:
    """``CLIP_FRAMES`` of each clip, evenly chosen, the first and the last among them."""
    chosen = [torch.linspace(0, len(clip) - 1, CLIP_FRAMES).round().long() for clip in clips]
    return torch.stack([clip[frames] for clip, frames in zip(clips, chosen, strict=True)])


def _some_views(sample: SceneSample, count: int) -> list[int]:
    views = views_along(sample) or list(range(len(sample.images)))
    return views if count >= len(views) else [views[n] for n in spread_views(len(views), count, sample.key)]


def _sized(images: Tensor) -> Float[Tensor, "views 3 height width"]:
    """Recorded pictures in [0, 1], as large as those that are made."""
    pictures = images.float() / 255
    if pictures.shape[-2:] == (SIZE, SIZE):
        return pictures
    return functional.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)


def _join(parts: Sequence[Float[Tensor, "_ 3 height width"]], count: int) -> NumberedPictures:
    """The pictures of several scenes, at most ``count``."""
    lengths = torch.tensor([len(part) for part in parts])
    scenes = torch.arange(len(parts)).repeat_interleave(lengths)
    return NumberedPictures(torch.cat(list(parts))[:count], scenes[:count])
