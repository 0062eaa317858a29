"""Reads one scene of a drive: pictures, sparse depth, masks of what moves, and the ground, around the vehicle."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d.camera import Camera
from nfldm3d.data import capture_files, image_files
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import build_camera
from nfldm3d.data.logs.cutting import LogCut, Place
from nfldm3d.data.logs.drive import Drive, LogObject, LogView
from nfldm3d.data.logs.ground_map import describe_object, draw_ground
from nfldm3d.data.logs.sweeps import splat_depth
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.vehicle_poses import level, trace
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box, invert_pose, transform_points

TRAJECTORY_POSES = 16
"""At most."""
NOTED = ("object", "vehicle", "person")
"""Classes of what metadata list: what could be elsewhere another day."""
GROWN = 1.1
"""Boxes of what moves are so much larger than annotated, for the time between camera and lidar."""


def read_place(drive: Drive, place: Place, cut: LogCut) -> PosedImages:
    """The views in a world of their own: the vehicle at the middle moment is its origin, x lies ahead, z is up.

    The world is turned about z alone. Metadata hold the box, the way, what is around (``objects``; things that move
    are told from others) and the way back to the log's world.

    Raises:
        DataFormatError: a file is missing or cannot be used.
    """
    way = drive.vehicle_poses()
    scene_from_world = level(way[place.middle])
    chosen = [(moment, view) for moment in place.stops for view in drive.views(moment)]
    poses = [scene_from_world @ view.world_from_camera for _, view in chosen]
    held = [number for number, pose in enumerate(poses) if bool(cut.room.contains(pose[:3, 3]))]
    if not held:
        raise DataFormatError(drive.source, f"drive {drive.name}: no camera is within a box of {cut.box} m; enlarge it")
    chosen, poses = [chosen[number] for number in held], torch.stack([poses[number] for number in held])
    views = [view for _, view in chosen]
    names = [_name(drive, view) for view in views]
    full = build_camera(drive.source, names, poses, [view.lens for view in views])
    camera = full.resized(*cut.size(full.width, full.height))
    frames = _open_pictures(names, views, camera)
    moments = [moment for moment, _ in chosen]
    frames = _add_depth(drive, moments, frames, camera, scene_from_world)
    objects = {moment: drive.objects(moment) for moment in dict.fromkeys((*moments, place.middle))}
    moving = [[item for item in objects[moment] if item.moving and cut.hide_moving] for moment in moments]
    frames = _hide(frames, moving, camera, scene_from_world)
    times = [view.seconds for view in views if view.seconds is not None]
    return PosedImages(
        camera,
        tuple(frames),
        timestamps=torch.tensor(times, dtype=torch.float64) if len(times) == len(views) else None,
        bev=draw_ground(drive, objects[place.middle], scene_from_world, cut.room),
        metadata=_describe(drive, place, cut, scene_from_world, objects[place.middle])
        | {"cameras": [view.camera for view in views]},
        scene_from_file=scene_from_world,
    )


def _name(drive: Drive, view: LogView) -> str:
    base = drive.source if drive.source.is_dir() else drive.source.parent
    name = view.path.relative_to(base).as_posix() if view.path.is_relative_to(base) else view.path.name
    return name if view.wide is None else f"{name}#{view.camera}"


def _open_pictures(names: Sequence[str], views: Sequence[LogView], camera: Camera) -> list[Frame]:
    """Frames whose pictures load when asked for, but for those that are cut out of others."""
    plain = [
        Frame(name, (view.lens.width, view.lens.height), view.path) for name, view in zip(names, views, strict=True)
    ]
    capture_files.check_files([frame for frame, view in zip(plain, views, strict=True) if view.wide is None])

    def cut_out(item: tuple[Frame, LogView]) -> Frame:
        frame, view = item
        if view.wide is None:
            return frame
        lens = view.wide.lens
        whole = replace(frame, size=(lens.width, lens.height)).load_image((1.0, 1.0, 1.0))
        picture, seen = view.wide.cut(whole, view.lens)
        size = camera.width, camera.height
        small = (image_files.resize_image(picture, *size) * 255).round().to(torch.uint8)
        return replace(frame, size=size, image=small, mask=image_files.resize_nearest(seen, *size))

    return image_files.map_parallel(cut_out, zip(plain, views, strict=True))


def _add_depth(
    drive: Drive, moments: Sequence[int], frames: Sequence[Frame], camera: Camera, scene_from_world: Tensor
) -> list[Frame]:
    """The frames with what the lidar saw at their moment."""
    sweeps = {moment: drive.sweep(moment) for moment in dict.fromkeys(moments)}
    if any(points is None for points in sweeps.values()):
        return list(frames)
    local = {
        m: transform_points(scene_from_world, points).float() for m, points in sweeps.items() if points is not None
    }
    depth = [splat_depth(camera[number], local[moment]) for number, moment in enumerate(moments)]
    return [replace(frame, depth=values) for frame, values in zip(frames, depth, strict=True)]


def _hide(
    frames: Sequence[Frame], moving: Sequence[Sequence[LogObject]], camera: Camera, scene_from_world: Tensor
) -> list[Frame]:
    """The frames with masks that leave out what moves; without any if nothing is to be left out."""
    if not any(moving) and all(frame.mask is None for frame in frames):
        return list(frames)
    result = []
    for number, (frame, items) in enumerate(zip(frames, moving, strict=True)):
        kept = ~_shows(camera[number], [_moved(item, scene_from_world) for item in items])
        result.append(replace(frame, mask=kept & frame.mask if isinstance(frame.mask, Tensor) else kept))
    return result


def _moved(item: LogObject, motion: Float[Tensor, "4 4"]) -> LogObject:
    return replace(item, world_from_object=motion @ item.world_from_object)


def _shows(camera: Camera, items: Sequence[LogObject]) -> Bool[Tensor, "height width"]:
    """Which pixels look at one of some boxes, whatever stands before it."""
    shown = torch.zeros(camera.height, camera.width, dtype=torch.bool)
    for item in items:
        local = camera.transformed(invert_pose(item.world_from_object).float())
        near, far = Box.from_center((0.0, 0.0, 0.0), item.size).scaled(GROWN).clip(local.rays())
        shown |= near < far
    return shown


def _describe(
    drive: Drive, place: Place, cut: LogCut, scene_from_world: Tensor, objects: Sequence[LogObject]
) -> dict[str, object]:
    way, step = drive.vehicle_poses(), -(-len(place.way) // TRAJECTORY_POSES)
    reach = sum(value**2 for value in cut.box) ** 0.5 / 2
    around = [describe_object(item, scene_from_world) for item in objects if item.map_class in NOTED]
    return {
        "map": drive.route,
        "drive": drive.name,
        "moments": list(place.stops),
        "box": {"lower": list(cut.room.lower), "upper": list(cut.room.upper)},
        "trajectory": [trace(scene_from_world @ way[moment]) for moment in place.way[::step]],
        "objects": [item for item in around if _distance(item["position"]) <= reach],
        placement.KEY: scene_from_world.tolist(),
    }


def _distance(position: object) -> float:
    assert isinstance(position, list)
    return sum(value**2 for value in position) ** 0.5
