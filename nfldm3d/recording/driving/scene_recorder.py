"""Records one scene of the driving world: a road in a box, seen by a rig of six cameras at several stops and by others.

What a scene shows depends on the seed, the track and the number of its place alone, whatever was recorded before it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.recording.driving.drawing import Drawn, Stage
from nfldm3d.recording.driving.places import EYE_HEIGHT, Place, choose_stops
from nfldm3d.recording.driving.poses import RIG, free_poses, rig_poses
from nfldm3d.recording.driving.surfaces import LABEL_NAMES, LABEL_PALETTE
from nfldm3d.recording.driving.torcs import LICENCE, VERSION, split_of
from nfldm3d.recording.driving.weather import develop
from nfldm3d.recording.driving.world import TRAJECTORY_POSES, Plan, World
from nfldm3d.recording.shards import scene_key

FARTHEST = 300.0
"""Metres: the depth of what is farther away is not noted, so that near depths are kept to 5 mm."""
NEAREST_MEDIAN, NEAREST = 2.5, 0.45
"""Metres: free views of which half is nearer, or any pixel is nearer, show a wall or are in one."""
RIG_NEAREST_MEDIAN = 1.0
TRIES = 4
"""So many free poses are tried for each free view."""
WALK, RIG_VIEW, SCATTERED = "walk", "rig", "scattered"
"""Kinds of views: by the rig's front camera, by its others, by free ones."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One accepted view."""

    pose: Float[np.ndarray, "4 4"]
    """In the scene's frame."""
    drawn: Drawn
    kind: str
    camera: str
    stop: int | None
    """Number of the pose of the trajectory nearest to it; None for free views."""


def record_scene(world: World, number: int) -> SceneSample | None:
    """The scene at the place ``number``; None if it does not yield enough good views."""
    plan = world.plan(number)
    if plan is None:
        return None
    with world.furnished(plan) as stage:
        bev, shots = world.draw_bev(plan), _shoot(world, stage, plan)
    return None if shots is None else _assemble(world, number, plan, shots, bev)


def note_depth(depth: Float[np.ndarray, "*pixels"]) -> Float[np.ndarray, "*pixels"]:
    """Depth as it is kept: 0 where there is none, or it is too far away."""
    return np.where(depth > FARTHEST, 0.0, depth).astype(np.float32)


def is_blocked(drawn: Drawn) -> bool:
    """Whether a camera of the rig stands in something, or right before it."""
    return float(np.median(np.where(drawn.depth == 0, FARTHEST, drawn.depth))) < RIG_NEAREST_MEDIAN


def _shoot(world: World, stage: Stage, plan: Plan) -> list[Shot] | None:
    """All views in an order by chance, the walk's among themselves in theirs; None if one cannot be had."""
    shape, place, shots = world.shape, plan.place, list[Shot]()
    trajectory = choose_stops(place, TRAJECTORY_POSES)
    for stop in choose_stops(place, shape.stops):
        index = int(np.abs(np.array(trajectory) - stop).argmin())
        for name, pose in zip(RIG, rig_poses(place.way[stop]), strict=True):
            drawn = stage.draw(place.track_from_scene @ pose)
            if is_blocked(drawn):
                return None
            shots.append(Shot(pose, drawn, WALK if name == RIG[0] else RIG_VIEW, name, index))
    ground = world.track.ground.near(place.origin, max(shape.box))
    poses, free = free_poses(place, ground, shape.room, plan.generator), 0
    for _ in range(TRIES * shape.free):
        if free == shape.free:
            break
        pose = next(poses)
        drawn = stage.draw(place.track_from_scene @ pose)
        depth = np.where(drawn.depth == 0, FARTHEST, drawn.depth)
        if np.median(depth) >= NEAREST_MEDIAN and depth.min() >= NEAREST:
            shots.append(Shot(pose, drawn, SCATTERED, "free", None))
            free += 1
    if free < shape.free:
        return None
    order = plan.generator.permutation(len(shots)).tolist()
    walk = iter(sorted(number for number in order if shots[number].kind == WALK))
    return [shots[next(walk)] if shots[number].kind == WALK else shots[number] for number in order]


def _assemble(world: World, number: int, plan: Plan, shots: list[Shot], bev: BevMap) -> SceneSample:
    shape, name, size = world.shape, world.track.name, float(world.shape.size)
    images = [
        develop(plan.weather, shot.drawn.image, shot.drawn.fine_depth, shot.pose, shape.supersampling) for shot in shots
    ]
    depth = np.stack([shot.drawn.depth for shot in shots])
    poses, count = torch.from_numpy(np.stack([shot.pose for shot in shots])).float(), len(shots)
    camera = Camera(poses, torch.full((count, 2), size / 2), torch.full((count, 2), size / 2), shape.size, shape.size)
    return SceneSample(
        key=scene_key(name, number),
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        depth=torch.from_numpy(note_depth(depth)),
        camera=camera,
        box=shape.room,
        labels=torch.from_numpy(np.stack([shot.drawn.classes for shot in shots])),
        bev=bev,
        map=name,
        split=split_of(name),
        kinds=tuple(shot.kind for shot in shots),
        trajectory=_trace(plan.place),
        metadata=_describe(world, number, plan, shots),
    )


def _trace(place: Place) -> Float[Tensor, "poses 5"]:
    """The way of the front camera."""
    x, y, z, heading = place.way[choose_stops(place, TRAJECTORY_POSES)].T
    return torch.from_numpy(np.column_stack((x, y, z + EYE_HEIGHT, np.cos(heading), np.sin(heading)))).float()


def _describe(world: World, number: int, plan: Plan, shots: list[Shot]) -> dict[str, object]:
    cars = [
        {
            "body": body,
            "paint": [round(value, 3) for value in paint],
            "position": [round(float(value), 3) for value in car.position],
            "heading": round(float(car.heading), 4),
            "size": [round(value, 3) for value in world.cars[body].size],
        }
        for car, (body, paint) in zip(plan.cars, plan.kinds, strict=True)
    ]
    return {
        "source": f"torcs-data {VERSION}",
        "licence": LICENCE,
        "label_names": list(LABEL_NAMES),
        "label_palette": [list(color) for color in LABEL_PALETTE],
        "track": world.track.name,
        "seed": world.seed,
        "place": number,
        "origin": [round(float(value), 3) for value in plan.place.origin],
        "heading": round(plan.place.heading, 5),
        "weather": plan.weather.describe(),
        "cars": cars,
        "cameras": [shot.camera for shot in shots],
        "trajectory_index": [shot.stop for shot in shots],
        "view_dependent": False,
    }
