"""Records a drive with the rig alone, as ``rig.json``: the form that recordings of real vehicles come in."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nfldm3d.data import image_files
from nfldm3d.data.bev_map import BevMap, write_bev
from nfldm3d.recording.driving.places import choose_stops
from nfldm3d.recording.driving.poses import RIG, rig_poses
from nfldm3d.recording.driving.scene_recorder import FARTHEST, is_blocked, note_depth
from nfldm3d.recording.driving.torcs import LICENCE, VERSION
from nfldm3d.recording.driving.weather import develop
from nfldm3d.recording.driving.world import END, World
from nfldm3d.written_files import atomic_folder

DEPTH_UNIT = 0.005
"""Metres: 65535 of them reach beyond the farthest depth."""
METRES_PER_SECOND = 8.0
assert FARTHEST < 65535 * DEPTH_UNIT


@dataclass(frozen=True, eq=False)
class Moment:
    """What the rig records at one stop."""

    world_from_vehicle: Float[np.ndarray, "4 4"]
    """In the track's metres."""
    seconds: float
    images: UInt8[np.ndarray, "cameras height width 3"]
    depth: Float[np.ndarray, "cameras height width"]
    bev: BevMap
    """Around the vehicle."""


def record_drive(world: World, number: int) -> list[Moment] | None:
    """The rig's views and a map at every stop at the place ``number``; None if a camera stands in something.

    Stops are as near as a box around the middle one of each run of moments can hold.
    """
    plan, shape = world.plan(number), world.shape
    if plan is None:
        return None
    place, moments = plan.place, list[Moment]()
    stops = choose_stops(place, shape.stops, reach=0.75 * (shape.box[0] / 2 - END))
    with world.furnished(plan) as stage:
        for stop in stops:
            poses = rig_poses(place.way[stop])
            drawn = [stage.draw(place.track_from_scene @ pose) for pose in poses]
            if any(is_blocked(view) for view in drawn):
                return None
            images = [
                develop(plan.weather, view.image, view.fine_depth, pose, shape.supersampling)
                for view, pose in zip(drawn, poses, strict=True)
            ]
            here = place.moved(stop)
            moments.append(
                Moment(
                    here.track_from_scene,
                    (stop - stops[0]) / METRES_PER_SECOND,
                    np.stack(images),
                    np.stack([note_depth(view.depth) for view in drawn]),
                    world.draw_bev(plan, here),
                )
            )
    return moments


def write_drive(folder: Path, world: World, moments: list[Moment]) -> None:
    """Writes ``rig.json`` and its pictures; the folder appears complete or not at all."""
    size, origin = world.shape.size, np.zeros(4)
    cameras = [
        {"name": name, "w": size, "h": size, "fx": size / 2, "fy": size / 2, "cx": size / 2, "cy": size / 2}
        | {"vehicle_from_camera": pose.tolist()}
        for name, pose in zip(RIG, rig_poses(origin), strict=True)
    ]
    with atomic_folder(folder) as temporary:
        frames = [_write_moment(temporary, number, moment) for number, moment in enumerate(moments)]
        room = world.shape.room
        content = {
            "axes": "opengl",
            "cameras": cameras,
            "frames": frames,
            "depth_unit": DEPTH_UNIT,
            "map": world.track.name,
            "box": {"lower": list(room.lower), "upper": list(room.upper)},
            "source": f"torcs-data {VERSION}",
            "licence": LICENCE,
        }
        (temporary / "rig.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _write_moment(folder: Path, number: int, moment: Moment) -> dict[str, object]:
    images = {name: f"{name}/{number:04d}.png" for name in RIG}
    depth: dict[str, str] = {}
    for camera, name in enumerate(RIG):
        (folder / name).mkdir(exist_ok=True)
        (folder / "depth").mkdir(exist_ok=True)
        pixels = torch.from_numpy(moment.images[camera]).permute(2, 0, 1)
        image_files.write_image(folder / images[name], pixels.float() / 255)
        path = folder / "depth" / f"{name}_{number:04d}"
        written = image_files.write_depth(path, torch.from_numpy(moment.depth[camera]), DEPTH_UNIT)
        depth[name] = written.relative_to(folder).as_posix()
    place = f"bev/{number:04d}"
    (folder / place).mkdir(parents=True)
    bev = write_bev(moment.bev, folder / place)
    paths = {key: f"{place}/{value}" for key, value in bev.items() if key in ("classes_path", "height_path")}
    return {
        "timestamp": moment.seconds,
        "world_from_vehicle": moment.world_from_vehicle.tolist(),
        "images": images,
        "depth": depth,
        "bev": bev | paths,
    }
