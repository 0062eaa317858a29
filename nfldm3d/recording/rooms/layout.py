"""Furnishes a room by chance: sizes, what stands where, what covers floor and walls, and the light."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from nfldm3d.geometry import Box
from nfldm3d.recording.furniture import Furniture
from nfldm3d.recording.gallery import Light
from nfldm3d.recording.meshes import Mesh, Patch
from nfldm3d.recording.rooms.finishes import Finish, paint
from nfldm3d.recording.rooms.pieces import CEILING, FIXTURE, FLOOR, OPENING, ROLES, ROOMS, TABLE, WALL, Role, read_piece

BELOW = 0.2
"""Metres of a scene's box that lie below the floor."""
HEIGHTS = (2.4, 2.75)
SMALLEST = 1.5
"""Metres from the middle of a room to a wall, at least."""
GAP = 0.04
"""Metres between pieces, and to walls."""
DOOR_ROOM = 0.7
"""Metres before a door that stay free."""
CANDIDATES, TRIES = 3, 10
"""So many pieces are tried for a place, each at so many spots."""
PLAIN_SHARE = 0.45
"""Of walls that are painted rather than papered."""
CELL = 0.1
"""Metres between points of the floor that are free or not."""
WALKING = 0.25
"""Metres that a camera keeps from furniture."""
LOW = 0.35
"""Metres: what is lower does not stand in the way of cameras above it."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A piece in a room."""

    piece: Furniture
    kind: int
    x: float
    y: float
    z: float
    heading: float
    """Of its front, counter-clockwise from +x."""

    @property
    def pose(self) -> Float[np.ndarray, "4 4"]:
        """The room's frame from the piece's."""
        pose, cosine, sine = np.eye(4), math.cos(self.heading), math.sin(self.heading)
        pose[:2, :2] = ((cosine, -sine), (sine, cosine))
        pose[:3, 3] = (self.x, self.y, self.z)
        return pose

    @property
    def is_door(self) -> bool:
        """Whether one walks through it."""
        return self.kind == OPENING and self.piece.elevation < 0.3

    def blocked(self) -> tuple[float, float, float, float]:
        """Where nothing else is to stand."""
        return self.covers(GAP, DOOR_ROOM if self.is_door else 0.0)

    def covers(self, margin: float = 0.0, ahead: float = 0.0) -> tuple[float, float, float, float]:
        """The least x and y and the largest that it stands on; ``ahead`` adds metres before its front."""
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        corners = [
            (self.x + u * cosine - v * sine, self.y + u * sine + v * cosine)
            for u in (-self.piece.depth / 2, self.piece.depth / 2 + ahead)
            for v in (-self.piece.width / 2, self.piece.width / 2)
        ]
        x, y = zip(*corners, strict=True)
        return min(x) - margin, min(y) - margin, max(x) + margin, max(y) + margin


@dataclass(eq=False)
class Room:
    """A furnished room around the origin, on the floor z = 0."""

    kind: str
    half: tuple[float, float]
    """Metres from the middle to the walls."""
    height: float
    floor: Finish
    walls: Finish
    light: Light
    placed: list[Placed] = field(default_factory=list)

    def things(self) -> list[tuple[Mesh, int]]:
        """All that is drawn, with its class; the ceiling is the last."""
        found = [(mesh.moved(item.pose), item.kind) for item in self.placed if (mesh := read_piece(item.piece))]
        return [*found, (self._floor(), FLOOR), (self._walls(), WALL), (self._ceiling(), CEILING)]

    def free_floor(self) -> tuple[Bool[np.ndarray, "x y"], Float[np.ndarray, " 2"]]:
        """Points of the floor where a camera can be, ``CELL`` apart, and the first of them."""
        corner = -np.array(self.half) + 0.3
        counts = np.maximum(((2 * np.array(self.half) - 0.6) / CELL).astype(int) + 1, 1)
        x, y = (corner[axis] + CELL * np.arange(counts[axis]) for axis in (0, 1))
        free = np.ones(tuple(counts), bool)
        for item in self.placed:
            if item.kind != OPENING and item.piece.height > LOW:
                a, b, c, d = item.covers(WALKING)
                free[np.ix_((x > a) & (x < c), (y > b) & (y < d))] = False
        return free, corner

    def _floor(self) -> Mesh:
        return Mesh((self._level(0.0, self.floor),))

    def _ceiling(self) -> Mesh:
        return Mesh((self._level(self.height, paint((0.93, 0.93, 0.92), "Wall")),))

    def _level(self, height: float, finish: Finish) -> Patch:
        x, y = self.half
        return _sheet((-x, -y, height), (2 * x, 0.0, 0.0), (0.0, 2 * y, 0.0), finish)

    def _walls(self) -> Mesh:
        (x, y), up = self.half, (0.0, 0.0, self.height)
        corners = ((-x, -y, 0.0), (x, -y, 0.0), (x, y, 0.0), (-x, y, 0.0))
        along = ((2 * x, 0.0, 0.0), (0.0, 2 * y, 0.0), (-2 * x, 0.0, 0.0), (0.0, -2 * y, 0.0))
        return Mesh(tuple(_sheet(corner, side, up, self.walls) for corner, side in zip(corners, along, strict=True)))


def furnish(
    box: Box, pieces: Sequence[Sequence[Furniture]], finishes: Sequence[Finish], generator: np.random.Generator
) -> Room:
    """A room by chance in a box whose floor lies ``BELOW`` above its own."""
    kind = ROOMS[int(generator.integers(len(ROOMS)))]
    most = min(box.size[0], box.size[1]) / 2 - 0.1
    scale = 0.75 if kind == "bathroom" else 1.0
    half = tuple(float(generator.uniform(SMALLEST, max(SMALLEST, scale * most))) for _ in range(2))
    height = float(generator.uniform(HEIGHTS[0], min(HEIGHTS[1], box.upper[2] - 0.05)))
    floor, walls = (_cover(name, finishes, generator) for name in ("Floor", "Wall"))
    room = Room(kind, (half[0], half[1]), height, floor, walls, _light(height, generator))
    for role, among in zip(ROLES, pieces, strict=True):
        count = int(generator.integers(role.count[0], role.count[1] + 1))
        if kind in role.rooms and among:
            for _ in range(count):
                _place(room, role, among, generator)
    return room


def _place(room: Room, role: Role, among: Sequence[Furniture], generator: np.random.Generator) -> None:
    """Puts a piece where there is room for it, if there is."""
    for _ in range(CANDIDATES):
        piece = among[int(generator.integers(len(among)))]
        is_second = role.kind == FIXTURE and any(item.piece.name == piece.name for item in room.placed)
        if is_second or read_piece(piece) is None:
            continue
        for _ in range(TRIES):
            spot = _spot(room, role, piece, generator)
            if spot is not None and _is_free(room, role, spot):
                room.placed.append(spot)
                return


def _is_free(room: Room, role: Role, spot: Placed) -> bool:
    """Whether a thing is within the walls, if it does not hang in one, and apart from all others."""
    inner, (x, y) = spot.covers(-GAP), room.half
    if role.place != "hung" and (max(map(abs, inner[0::2])) > x or max(map(abs, inner[1::2])) > y):
        return False
    others = [item for item in room.placed if role.place == "hung" or item.kind != OPENING or item.is_door]
    return not any(_overlap(spot.blocked(), item.blocked()) for item in others)


def _spot(room: Room, role: Role, piece: Furniture, generator: np.random.Generator) -> Placed | None:
    x, y = room.half
    if role.place == "around":
        return _beside_table(room, role, piece, int(generator.integers(4)))
    if role.place == "free":
        heading = math.pi / 2 * int(generator.integers(4)) + float(generator.normal(0, 0.05))
        u, v = generator.uniform(-0.6, 0.6, 2)
        return Placed(piece, role.kind, float(u * x), float(v * y), 0.0, heading)
    side = int(generator.integers(4))
    heading = math.pi / 2 * side  # the front looks inwards
    inward, along = np.array((math.cos(heading), math.sin(heading))), np.array((-math.sin(heading), math.cos(heading)))
    across, length = (x, y) if side % 2 == 0 else (y, x)
    room_along = length - piece.width / 2 - 2 * GAP
    if room_along <= 0:
        return None
    back = 0.0 if role.place == "hung" else piece.depth / 2 + GAP
    spot = inward * (back - across) + along * float(generator.uniform(-room_along, room_along))
    return Placed(piece, role.kind, float(spot[0]), float(spot[1]), piece.elevation, heading)


def _beside_table(room: Room, role: Role, piece: Furniture, side: int) -> Placed | None:
    """A chair at one of four sides of the last table that was put in, if there is one."""
    tables = [item for item in room.placed if item.kind == TABLE and 0.6 < item.piece.height < 1.1]
    if not tables:
        return None
    table = tables[-1]
    heading = table.heading + math.pi / 2 * side
    reach = ((table.piece.depth, table.piece.width)[side % 2] + piece.depth) / 2 + 0.05
    x, y = table.x + reach * math.cos(heading), table.y + reach * math.sin(heading)
    return Placed(piece, role.kind, x, y, 0.0, heading + math.pi)


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _cover(category: str, finishes: Sequence[Finish], generator: np.random.Generator) -> Finish:
    among = [finish for finish in finishes if finish.category == category]
    bright = float(generator.uniform(0.55, 0.95)) if category == "Wall" else float(generator.uniform(0.3, 0.7))
    tint = generator.normal(1.0, 0.09, 3)
    red, green, blue = np.clip(bright * tint, 0, 1).tolist()
    if not among or (category == "Wall" and generator.random() < PLAIN_SHARE):
        return paint((red, green, blue), category)
    return among[int(generator.integers(len(among)))]


def _light(height: float, generator: np.random.Generator) -> Light:
    """A lamp at the ceiling, from dim and warm to bright and cool."""
    level, warm = float(generator.uniform(0.75, 1.15)), float(generator.uniform(-0.06, 0.08))
    tint = np.array((1 + warm, 1.0, 1 - warm))
    x, y = generator.uniform(-0.5, 0.5, 2).tolist()
    bright, above, below = (tuple((level * part * tint).tolist()) for part in (0.42, 0.52, 0.42))
    return Light((x, y, height - 0.35, 1.0), bright, above, below)


def _sheet(corner: tuple[float, ...], right: tuple[float, ...], up: tuple[float, ...], finish: Finish) -> Patch:
    """A rectangle covered by a texture in its own size."""
    a, u, v = np.array(corner, float), np.array(right, float), np.array(up, float)
    positions = np.stack((a, a + u, a + u + v, a + v))
    uv = np.array(((0, 0), (1, 0), (1, 1), (0, 1))) * (
        np.linalg.norm(u) / finish.size[0],
        np.linalg.norm(v) / finish.size[1],
    )
    normal = np.cross(u, v)
    normals = np.tile(normal / np.linalg.norm(normal), (4, 1))
    return Patch.of(positions, np.array(((0, 1, 2), (0, 2, 3))), normals=normals, uv=uv, texture=finish.pixels)
