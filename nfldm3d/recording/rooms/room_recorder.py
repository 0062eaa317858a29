"""Records one furnished room: a walk through it and views from all over it, with its map and a caption."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from nfldm3d.camera import Camera
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.geometry import Box
from nfldm3d.recording.furniture import PACKAGE, Furniture
from nfldm3d.recording.gallery import Gallery, Lens, Pictures
from nfldm3d.recording.rooms.finishes import Finish
from nfldm3d.recording.rooms.layout import BELOW, Room, furnish
from nfldm3d.recording.rooms.pieces import CLASS_NAMES, OPENING, PALETTE, WALL
from nfldm3d.recording.rooms.walk import find_walk, free_pose, walk_pose

CELL = 0.1
"""Metres along a side of a cell of the map."""
FINE = 4
"""Along each side of a cell so many points are drawn."""
THICK = 0.1
"""Metres that walls have on the map."""
TRAJECTORY_POSES = 16
LENS = Lens(90.0, 0.05, 20.0)
NEAREST_MEDIAN, NEAREST = 0.8, 0.15
"""Metres: views of which half is nearer, or any pixel is nearer, show one thing only or are in it."""
TRIES = 1.5
"""So many free poses are drawn for each free view."""
FEWEST = 2
"""Pieces besides doors and windows that make a room furnished."""


@dataclass(frozen=True)
class RoomShape:
    """What a scene consists of."""

    size: int = 64
    """Width and height of the pictures in pixels, of views 90 degrees wide."""
    box: tuple[float, float, float] = (6.4, 6.4, 3.2)
    """Extents in metres; a room lies within."""
    walk: int = 8
    """Views along the walk."""
    free: int = 24
    """Views from anywhere in the room."""
    supersampling: int = 3

    def __post_init__(self):
        if not 8 <= self.size <= 1024:
            raise ValueError(f"size must lie between 8 and 1024 pixels, got {self.size}")
        whole = all(abs(value / CELL - round(value / CELL)) < 1e-6 for value in self.box)
        if not whole or self.box[0] != self.box[1] or not 3.6 <= self.box[0] <= 12.8 or not 2.8 <= self.box[2] <= 6.4:
            raise ValueError(
                f"box must be as long as wide, from 3.6 x 3.6 x 2.8 to 12.8 x 12.8 x 6.4 metres, in steps of {CELL}; "
                f"got {self.box}"
            )
        if not 1 <= self.walk <= TRAJECTORY_POSES or self.free < 1:
            raise ValueError(
                f"walk must lie between 1 and {TRAJECTORY_POSES}, free be 1 or more, got {self.walk}, {self.free}"
            )

    @property
    def tries(self) -> int:
        """Free views that are drawn."""
        return math.ceil(TRIES * self.free)

    @property
    def room(self) -> Box:
        """Around the middle of the floor, which is the origin."""
        x, y, z = self.box
        return Box((-x / 2, -y / 2, -BELOW), (x / 2, y / 2, z - BELOW))


def record_room(
    key: str,
    split: str,
    shape: RoomShape,
    pieces: Sequence[Sequence[Furniture]],
    finishes: Sequence[Finish],
    generator: np.random.Generator,
) -> SceneSample | None:
    """A room by chance; None if it holds too little, or has no room for a walk or for cameras."""
    room = furnish(shape.room, pieces, finishes, generator)
    trajectory = find_walk(room, TRAJECTORY_POSES, generator)
    if trajectory is None or sum(item.kind != OPENING for item in room.placed) < FEWEST:
        return None
    stops = np.round(np.linspace(0, TRAJECTORY_POSES - 1, shape.walk)).astype(int)
    poses = [walk_pose(trajectory[stop]) for stop in stops]
    poses += [free_pose(room, generator) for _ in range(shape.tries)]
    gallery = _gallery(shape.size, shape.walk + shape.tries, shape.supersampling)
    gallery.show(room.things(), room.light)
    drawn = gallery.draw(np.stack(poses), LENS)
    clear = (drawn.depth > 0).all((1, 2)) & (drawn.depth.min((1, 2)) >= NEAREST)
    good = np.nonzero(clear & (np.median(drawn.depth, axis=(1, 2)) >= NEAREST_MEDIAN))[0]
    scattered = good[good >= shape.walk][: shape.free].tolist()
    if len(scattered) < shape.free:
        return None
    order = generator.permutation(shape.walk + shape.free)
    walk = iter(range(shape.walk))
    chosen = [next(walk) if place < shape.walk else scattered[place - shape.walk] for place in order.tolist()]
    bev = draw_map(room, shape.room)
    return _assemble(key, split, shape, room, _choose(drawn, chosen), np.stack(poses)[chosen], trajectory, bev)


def draw_map(room: Room, box: Box) -> BevMap:
    """What lies under the ceiling seen from above: the commonest class in each cell, and the mean height."""
    cells = round(box.size[0] / CELL)
    gallery = _gallery(cells * FINE, 1, 1)
    gallery.show(room.things()[:-1], room.light)
    above = np.eye(4)
    above[2, 3] = room.height - 0.01
    drawn = gallery.draw(above[None], Lens(0.0, 0.0, room.height + 1, width=box.size[0]))
    fine = [
        values.reshape(cells, FINE, cells, FINE).swapaxes(1, 2).reshape(cells, cells, -1)
        for values in (drawn.labels[0], above[2, 3] - drawn.depth[0], drawn.mask[0])
    ]
    counts = np.stack([(fine[0] == kind).sum(-1) for kind in range(len(CLASS_NAMES))], axis=-1)
    known = fine[2].sum(-1)
    height = np.where(known > 0, (fine[1] * fine[2]).sum(-1) / np.maximum(known, 1), 0.0)
    classes, height = counts.argmax(-1).astype(np.uint8)[::-1].T.copy(), height[::-1].T.copy()  # row column -> x y
    middle = [np.abs(box.lower[axis] + CELL * (np.arange(cells) + 0.5)) - room.half[axis] for axis in (0, 1)]
    outside = np.maximum(middle[0][:, None], middle[1][None, :])
    is_wall = (outside > 0) & (outside < THICK) & (classes != OPENING)
    classes[is_wall], height[is_wall] = WALL, room.height
    return BevMap(
        torch.from_numpy(classes),
        torch.from_numpy(height.astype(np.float32)),
        (box.lower[0], box.lower[1]),
        CELL,
        CLASS_NAMES,
        PALETTE,
    )


def caption_of(room: Room) -> str:
    """What is in a room, in words: "a kitchen with two chairs, a table and an oven"."""
    names = Counter(item.piece.name.lower() for item in room.placed if item.kind != OPENING)
    items = [_count(name, count) for name, count in names.items()]
    listed = items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
    return f"{_article(room.kind)} {room.kind} with {listed}"


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def _count(name: str, count: int) -> str:
    words = ("two", "three", "four", "five", "six", "seven", "eight")
    if count == 1:
        return name if re.search(r"[^s]s$", name) else f"{_article(name)} {name}"
    plural = name if name.endswith("s") else f"{name[:-1]}ves" if name.endswith("lf") else f"{name}s"
    return f"{words[min(count, 8) - 2]} {plural}"


def _choose(drawn: Pictures, chosen: list[int]) -> Pictures:
    return Pictures(*(values[chosen] for values in vars(drawn).values()))


def _assemble(
    key: str,
    split: str,
    shape: RoomShape,
    room: Room,
    drawn: Pictures,
    poses: Float[np.ndarray, "views 4 4"],
    trajectory: Float[np.ndarray, "poses 4"],
    bev: BevMap,
) -> SceneSample:
    x, y, z, heading = trajectory.T
    count, size = len(poses), float(shape.size)
    path = [np.round(walk_pose(pose), 6) for pose in trajectory]
    stops = [next((n for n, known in enumerate(path) if np.allclose(known, pose, atol=1e-5)), None) for pose in poses]
    return SceneSample(
        key=key,
        images=torch.from_numpy(np.ascontiguousarray(drawn.colors[..., :3])).permute(0, 3, 1, 2).contiguous(),
        depth=torch.from_numpy(drawn.depth),
        camera=Camera(
            torch.from_numpy(poses).float(),
            torch.full((count, 2), size / 2),
            torch.full((count, 2), size / 2),
            shape.size,
            shape.size,
        ),
        box=shape.room,
        labels=torch.from_numpy(drawn.labels.copy()),
        bev=bev,
        map="rooms",
        split=split,
        kinds=tuple("scattered" if stop is None else "walk" for stop in stops),
        trajectory=torch.from_numpy(np.stack((x, y, z, np.cos(heading), np.sin(heading)), axis=1)).float(),
        metadata=_describe(room, stops),
        normals=torch.from_numpy(drawn.normals.copy()),
    )


def _describe(room: Room, stops: list[int | None]) -> dict[str, object]:
    return {
        "caption": caption_of(room),
        "room": room.kind,
        "source": PACKAGE,
        "size": [round(2 * room.half[0], 3), round(2 * room.half[1], 3), round(room.height, 3)],
        "floor": room.floor.name,
        "walls": room.walls.name,
        "things": [
            {
                "name": item.piece.name,
                "class": CLASS_NAMES[item.kind],
                "position": [round(item.x, 3), round(item.y, 3), round(item.z, 3)],
                "heading": round(item.heading, 4),
                "size": [round(value, 3) for value in (item.piece.depth, item.piece.width, item.piece.height)],
                "licence": item.piece.licence,
                "creator": item.piece.creator,
            }
            for item in room.placed
        ],
        "label_names": list(CLASS_NAMES),
        "label_palette": [list(color) for color in PALETTE],
        "trajectory_index": list(stops),
        "view_dependent": False,
    }


@cache
def _gallery(size: int, views: int, supersampling: int) -> Gallery:
    return Gallery(size, views, supersampling=supersampling)
