"""Reads recordings of a vehicle with calibrated cameras all round, such as CARLA's and nuScenes'; see ``rig_file``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName, Vector
from nfldm3d.data import capture_files, image_files
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import build_camera, find_sizes
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.data.rig_file import RigCamera, RigFile, RigImage, read_carla_depth
from nfldm3d.data.vehicle_poses import level, trace
from nfldm3d.files import DataFormatError
from nfldm3d.memory import free_memory


def read_driving_rig(
    path: PathName,
    *,
    frames: slice | Sequence[int] | None = None,
    cameras: Sequence[str] | None = None,
    background: Vector = WHITE,
) -> PosedImages:
    """Every chosen camera at every chosen moment, moment by moment, in the world of the recording, turned right-handed.

    A world far from its origin is moved near it (see ``placement``). CARLA's depth is decoded at once, all else when
    asked for.

    Args:
        path: the folder of ``rig.json``, or that file.
        frames: moments, as a slice or numbers; all by default.
        cameras: names, in the order wanted; all by default.
        background: the sRGB colour that pictures with transparent pixels are laid over.

    Raises:
        DataFormatError: what cannot be used.
    """
    return DrivingRig(RigFile.read(path)).views(frames, cameras, background)


def rig_scenes(
    path: PathName,
    *,
    window: int = 4,
    stride: int = 4,
    cameras: Sequence[str] | None = None,
    background: Vector = WHITE,
) -> Iterator[PosedImages]:
    """One local scene per ``window`` successive moments; see ``DrivingRig.local_scene``.

    Args:
        path: the folder of ``rig.json``, or that file.
        window: moments per scene.
        stride: moments from the start of one scene to that of the next.
        cameras: names, in the order wanted; all by default.
        background: the sRGB colour that pictures with transparent pixels are laid over.

    Raises:
        DataFormatError: what cannot be used.
    """
    rig = DrivingRig(RigFile.read(path))
    return (rig.local_scene(frames, cameras, background) for frames in rig.windows(window, stride))


@dataclass(frozen=True)
class DrivingRig:
    """A recording whose JSON has been read and whose pictures have not been opened."""

    file: RigFile

    def __len__(self) -> int:
        return len(self.file.frames)

    def views(
        self,
        frames: slice | Sequence[int] | None = None,
        cameras: Sequence[str] | None = None,
        background: Vector = WHITE,
    ) -> PosedImages:
        """Every chosen camera at every chosen moment; see ``read_driving_rig``."""
        everywhere = torch.stack([self.file.vehicle_pose(number) for number in range(len(self))])
        motion = placement.find_motion(everywhere, settled=True)
        return self._views(self._choose_frames(frames), cameras, motion, background)

    def windows(self, window: int, stride: int) -> list[range]:
        """Runs of ``window`` successive moments, one every ``stride``; moments at the end may be left over."""
        if window < 1 or stride < 1:
            raise ValueError(f"window and stride must be at least 1, got {window} and {stride}")
        if window > len(self):
            raise DataFormatError(
                self.file.top.source, f"has {len(self)} frames, too few for a window of {window}; take a smaller window"
            )
        return [range(start, start + window) for start in range(0, len(self) - window + 1, stride)]

    def local_scene(
        self, frames: Sequence[int], cameras: Sequence[str] | None = None, background: Vector = WHITE
    ) -> PosedImages:
        """The views in a world of their own: the vehicle at the middle moment is its origin, x lies ahead, z is up.

        The world is turned about z alone, so that slopes stay slopes. The metadata's ``scene_from_world`` leads there
        from the recording's world; ``box`` is the file's.
        """
        numbers = self._choose_frames(frames)
        middle = numbers[len(numbers) // 2]
        scene_from_world = level(self.file.vehicle_pose(middle))
        views = self._views(numbers, cameras, scene_from_world, background)
        box = self.file.box()
        extra: dict[str, object] = {placement.KEY: scene_from_world.tolist()}
        if box is not None:
            extra["box"] = {"lower": list(box.lower), "upper": list(box.upper)}
        return replace(views, bev=self.file.bev(middle), metadata=views.metadata | extra)

    def _choose_frames(self, frames: slice | Sequence[int] | None) -> list[int]:
        numbers = range(len(self))
        try:
            if frames is None or isinstance(frames, slice):
                chosen = list(numbers[slice(None) if frames is None else frames])
            else:
                chosen = [numbers[number] for number in frames]
        except IndexError as error:
            raise ValueError(f"{self.file.top.source} has frames 0 to {len(self) - 1}, asked for {frames}") from error
        if not chosen:
            raise ValueError(f"frames={frames} chooses none of {len(self)} frames; choose at least one")
        return chosen

    def _choose_cameras(self, names: Sequence[str] | None) -> list[RigCamera]:
        known = {camera.name: camera for camera in self.file.cameras}
        unknown = [name for name in names or () if name not in known]
        if unknown or (names is not None and not names):
            raise ValueError(f"{self.file.top.source} has cameras {', '.join(known)}, asked for {names}")
        return list(known.values()) if names is None else [known[name] for name in names]

    def _views(
        self,
        numbers: list[int],
        names: Sequence[str] | None,
        scene_from_world: Float[Tensor, "4 4"],
        background: Vector,
    ) -> PosedImages:
        chosen, file = self._choose_cameras(names), self.file
        images = [file.image(number, camera.name) for number in numbers for camera in chosen]
        cameras = chosen * len(numbers)
        files = [image.path.relative_to(file.root).as_posix() for image in images]
        poses = [
            scene_from_world @ image.world_from_vehicle @ camera.vehicle_from_camera
            for image, camera in zip(images, cameras, strict=True)
        ]
        lenses = [camera.lens for camera in cameras]
        unit = file.depth_unit()
        frames = [
            Frame(name, (camera.lens.width, camera.lens.height), image.path, image.depth, depth_unit=unit)
            for name, camera, image in zip(files, cameras, images, strict=True)
        ]
        has_alpha = capture_files.check_files(frames)
        path = [trace(scene_from_world @ file.vehicle_pose(number)) for number in numbers]
        moved = not placement.is_identity(scene_from_world)
        return PosedImages(
            build_camera(file.top.source, files, torch.stack(poses), lenses),
            tuple(_decode_carla(frames) if file.is_carla_depth else frames),
            timestamps=_timestamps(file.top.source, images),
            background=background if has_alpha else None,
            metadata={
                "map": str(file.top.values.get("map", file.root.resolve().name)),
                "cameras": [camera.name for camera in cameras],
                "trajectory": path,
                **({placement.KEY: scene_from_world.tolist()} if moved else {}),
            },
            sizes=find_sizes(lenses),
            scene_from_file=scene_from_world if moved else None,
        )


def _decode_carla(frames: Sequence[Frame]) -> list[Frame]:
    """The frames with their depth in memory."""
    needed, free = 4 * sum(frame.size[0] * frame.size[1] for frame in frames), free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"depth of {len(frames)} views needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "choose fewer frames or cameras, or read local scenes with rig_scenes"
        )

    def decode(frame: Frame) -> Frame:
        return replace(frame, depth=read_carla_depth(frame.depth)) if isinstance(frame.depth, Path) else frame

    return image_files.map_parallel(decode, frames)


def _timestamps(source: Path, images: Sequence[RigImage]) -> Float[Tensor, " views"] | None:
    times = [image.timestamp for image in images if image.timestamp is not None]
    if len(times) not in (0, len(images)):
        raise DataFormatError(source, f"{len(times)} of {len(images)} images have a timestamp; give it for all or none")
    return torch.tensor(times, dtype=torch.float64) if times else None
