"""Records local scenes all over a Freedoom map: scattered views and a walk in a box of 32 x 32 x 8 metres each.

What a scene shows depends on the seed, the map and the number of its place alone, whatever was recorded before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.geometry import Box
from nfldm3d.recording.shards import scene_key
from nfldm3d.recording.vizdoom.doom_bev import BEV_CELL, draw_bev
from nfldm3d.recording.vizdoom.doom_grid import CELL, WalkGrid, build_grid
from nfldm3d.recording.vizdoom.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.recording.vizdoom.doom_places import BOX_UNITS, MIN_POINTS, list_places, open_place
from nfldm3d.recording.vizdoom.doom_rooms import EYE_HEIGHT, Room
from nfldm3d.recording.vizdoom.engine_views import View, measure_view, to_camera
from nfldm3d.recording.vizdoom.game import MAP_NAMES, Game, find_wad
from nfldm3d.recording.vizdoom.poses import Pose, scatter_poses, walk_poses
from nfldm3d.recording.vizdoom.recorder import MAX_DISAGREEMENT, choose_exposure, describe_place, expose

ALL_MAPS = tuple(name for names in MAP_NAMES.values() for name in names)
TEST_MAPS = ("E1M5", "E2M5", "E3M5", "E4M5", "MAP05", "MAP10", "MAP15", "MAP20", "MAP25", "MAP30")
"""Never trained on."""
SCATTERED, WALK = "scattered", "walk"
WALK_SHARE = 3
"""One of so many views is taken along the walk."""
TRAJECTORY_POSES = 16
TRAJECTORY_STEP = 24.0
"""Map units: 0.75 m."""
WALKS = 3
"""So many walks are planned before a place without enough good views along one is given up."""
ANGLE_STEP = 360 / 65536
"""Degrees; the engine turns in such steps, and multiples of it are met exactly wherever it looked before."""
EXPOSURE_VIEWS = 24
BRIGHT_QUANTILE = 0.98
"""How many views of a map decide on its exposure, and the share of their pixels that it must not cut off."""
TILE = 64.0
"""Map units. Boxes are centred on multiples: floors repeat on this grid, so all scenes see them in one phase."""
HALF_BOX = (BOX_UNITS[0] / 2, BOX_UNITS[1] / 2, BOX_UNITS[2] / 2)


@dataclass(frozen=True, eq=False)
class World:
    """A map with all places in it that are worth a scene."""

    doom_map: DoomMap
    grid: WalkGrid
    places: Int[np.ndarray, "places 2"]
    """The cell in the middle of each; the number of a place is its row."""
    levels: Int[np.ndarray, " levels"]
    """How many places each level of ``doom_places.SPACINGS`` adds."""
    seed: int

    @classmethod
    def open(cls, name: str, seed: int) -> "World":
        """The map called ``name``, with its places in an order that the seed decides."""
        doom_map = DoomMap.read(find_wad(name), name)
        grid = build_grid(doom_map)
        return cls(doom_map, grid, *list_places(grid, _generator(name, seed)), seed)


def record_scene(
    world: World, game: Game, number: int, *, views: int, size: int, exposure: float
) -> SceneSample | None:
    """The scene at the place ``number``; None if it does not yield enough good views."""
    generator, doom_map = _generator(world.doom_map.name, world.seed, number), world.doom_map
    i, j = world.places[number].tolist()
    room, part = open_place(doom_map, world.grid, (i, j))
    if len(room.points) < MIN_POINTS:
        return None
    world = replace(world, doom_map=doom_map.seen_from(int(world.grid.sector[i, j])))
    walked = views // WALK_SHARE
    scattered = scatter_poses(world.doom_map, room, generator, half_box=HALF_BOX)
    taken = [view for _, view in _take(world, game, islice(scattered, 2 * views), size, views - walked)]
    walk = _record_walk(world, game, part, room, generator, walked, size)
    if len(taken) < views - walked or walk is None:
        return None
    poses, along = walk
    x, y, z = room.center
    room = replace(room, center=(TILE * round(x / TILE), TILE * round(y / TILE), z))
    trajectory = _trace(world.doom_map, room, poses, dict(along))
    return _assemble(replace(world, doom_map=doom_map), room, number, taken, along, trajectory, exposure)


def measure_exposure(world: World, game: Game) -> float:
    """The one factor for all pictures of a map, from views all over it."""
    generator = _generator(world.doom_map.name, 0)
    i, j = world.places[0].tolist()
    room, _ = open_place(world.doom_map, world.grid, (i, j))
    everywhere = replace(room, points=world.grid.centers(world.grid.standable))
    poses = islice(scatter_poses(world.doom_map, everywhere, generator), 2 * EXPOSURE_VIEWS)
    pictures = [view.image for _, view in _take(world, game, poses, 64, EXPOSURE_VIEWS)]
    return choose_exposure(np.stack(pictures), bright_quantile=BRIGHT_QUANTILE) if pictures else 1.0


def split_of(map_name: str) -> str:
    """Whether a map is for training or for tests."""
    return "test" if map_name in TEST_MAPS else "train"


def _generator(map_name: str, *seeds: int) -> np.random.Generator:
    return np.random.default_rng((ALL_MAPS.index(map_name), *seeds))


def _take(world: World, game: Game, poses: Iterator[Pose], size: int, count: int) -> list[tuple[int, View]]:
    """The first ``count`` views that the map's geometry explains, with the numbers of their poses."""
    taken: list[tuple[int, View]] = []
    for number, pose in enumerate(poses):
        if len(taken) == count:
            break
        shot = game.shoot(pose.x, pose.y, _snap(pose.yaw_degrees))
        view = None if shot is None else measure_view(world.doom_map, shot, size)
        if view is not None and view.disagreement <= MAX_DISAGREEMENT:
            taken.append((number, view))
    return taken


def _record_walk(
    world: World, game: Game, part: WalkGrid, room: Room, generator: np.random.Generator, count: int, size: int
) -> tuple[list[Pose], list[tuple[int, View]]] | None:
    """The poses of a walk, and ``count`` views from some of them in their order; None if there is no good walk."""
    for _ in range(WALKS):
        try:
            poses = list(islice(walk_poses(part, room, TRAJECTORY_POSES, generator, step=TRAJECTORY_STEP), 16))
        except ValueError:  # too narrow for a walk
            return None
        first = np.unique(np.round(np.linspace(0, TRAJECTORY_POSES - 1, count)).astype(int)).tolist()
        order = first + [number for number in range(TRAJECTORY_POSES) if number not in first]
        taken = _take(world, game, (poses[number] for number in order), size, count)
        if len(taken) == count:
            return poses, sorted(((order[n], view) for n, view in taken), key=lambda entry: entry[0])
    return None


def _assemble(
    world: World,
    room: Room,
    number: int,
    taken: list[View],
    along: list[tuple[int, View]],
    trajectory: Float[Tensor, "poses 5"],
    exposure: float,
) -> SceneSample:
    views = taken + [view for _, view in along]
    doom_map, lower = world.doom_map, (-HALF_BOX[0] / UNITS_PER_METRE, -HALF_BOX[1] / UNITS_PER_METRE)
    cells = (round(BOX_UNITS[0] / CELL), round(BOX_UNITS[1] / CELL))
    size = (BOX_UNITS[0] / UNITS_PER_METRE, BOX_UNITS[1] / UNITS_PER_METRE, BOX_UNITS[2] / UNITS_PER_METRE)
    assert cells[0] * BEV_CELL == size[0]
    return SceneSample(
        key=scene_key(doom_map.name, number),
        images=expose(np.stack([view.image for view in views]), exposure),
        depth=torch.from_numpy(np.stack([view.depth for view in views])),
        camera=to_camera(views, room.center),
        box=Box.from_center((0.0, 0.0, 0.0), size),
        labels=torch.from_numpy(np.stack([view.labels for view in views])),
        bev=draw_bev(doom_map, room.center, lower, cells, with_things=False, ground=room.floor),
        map=doom_map.name,
        split=split_of(doom_map.name),
        kinds=(SCATTERED,) * len(taken) + (WALK,) * len(along),
        trajectory=trajectory,
        metadata=describe_place(doom_map, room, exposure)
        | {
            "seed": world.seed,
            "place": number,
            "trajectory_index": [None] * len(taken) + [index for index, _ in along],
        },
    )


def _trace(doom_map: DoomMap, room: Room, poses: list[Pose], seen: dict[int, View]) -> Float[Tensor, "poses 5"]:
    """The poses in metres; eyes that no view was taken from stand on the highest floor under the player's feet."""
    corners = np.array([(x, y) for x in (-15.9, 0.0, 15.9) for y in (-15.9, 0.0, 15.9)])
    places = np.array([(pose.x, pose.y) for pose in poses], dtype=float)
    sector = doom_map.sector_at((places[:, None] + corners).reshape(-1, 2)).reshape(len(poses), -1)
    eyes = np.where(sector < 0, -np.inf, doom_map.floor[sector]).max(1) + EYE_HEIGHT
    for index, view in seen.items():
        eyes[index] = view.eye[2]
    heading = np.radians([_snap(pose.yaw_degrees) for pose in poses])
    metres = (np.concatenate((places, eyes[:, None]), axis=1) - np.array(room.center)) / UNITS_PER_METRE
    return torch.from_numpy(np.column_stack((metres, np.cos(heading), np.sin(heading)))).float()


def _snap(degrees: float) -> float:
    return round(degrees / ANGLE_STEP) * ANGLE_STEP
