"""The geometry of a Doom map as arrays: a complete description of its world, apart from the pixels of its textures.

Lengths are map units, 32 to the metre; x is east, y north, z up, as in our world. A map is a plan: *lines* between
*vertices* part the plane into *sectors*, each with one floor and one ceiling height. Seen along a line from its
first vertex to its second, *side* 0 is on the right and side 1, if there is one, on the left; a side belongs to a
sector. *Things* are what stands around. Where there is no sector (-1) is void.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from nfldm3d.files import DataFormatError
from nfldm3d.recording.vizdoom.doom_wad import read_map_lumps

UNITS_PER_METRE = 32.0
SKY_FLAT = "F_SKY1"
"""The name of the floor or ceiling picture that means: here is sky."""
STEP_UP = 24
"""The highest step that a player can climb."""
PLAYER_HEIGHT = 56
"""The lowest gap that a player fits through."""
BLOCKING = 1
"""The line flag that stops players."""
DOOR_SPECIALS = (1, 26, 27, 28, 31, 32, 33, 34, 117, 118)
"""Line specials that open the sector behind the line."""
TAGGED_DOOR_SPECIALS = (
    *(2, 3, 4, 16, 29, 42, 46, 50, 61, 63, 75, 76, 86, 90, 99, 103),
    *range(105, 117),
    *range(133, 138),
)
"""Line specials that open or close the sectors of the line's tag."""

PLAYER_THINGS = (1, 2, 3, 4, 11, 14)
"""Things that are not to be seen: where players start and where teleports end."""

THING = np.dtype([("x", "<i2"), ("y", "<i2"), ("angle", "<i2"), ("type", "<i2"), ("flags", "<i2")])
LINE = np.dtype([("vertices", "<u2", 2), ("flags", "<u2"), ("special", "<u2"), ("tag", "<i2"), ("sides", "<u2", 2)])
SIDE = np.dtype([("offset", "<i2", 2), ("upper", "S8"), ("lower", "S8"), ("middle", "S8"), ("sector", "<u2")])
VERTEX = np.dtype([("x", "<i2"), ("y", "<i2")])
SECTOR = np.dtype(
    [
        *(("floor", "<i2"), ("ceiling", "<i2"), ("floor_flat", "S8"), ("ceiling_flat", "S8")),
        *(("light", "<i2"), ("special", "<i2"), ("tag", "<i2")),
    ]
)
RECORDS = {"THINGS": THING, "LINEDEFS": LINE, "SIDEDEFS": SIDE, "VERTEXES": VERTEX, "SECTORS": SECTOR}
NOTHING = 0xFFFF
LIQUID = re.compile(r"NUKAGE|FWATER|SWATER|LAVA|BLOOD|SLIME0[1-8]")


@dataclass(frozen=True, eq=False)
class DoomMap:
    """A map at the moment it starts: doors closed, lifts where they were built."""

    name: str
    vertices: Float[np.ndarray, "vertices 2"]
    line_vertices: Int[np.ndarray, "lines 2"]
    line_flags: Int[np.ndarray, " lines"]
    line_special: Int[np.ndarray, " lines"]
    line_tag: Int[np.ndarray, " lines"]
    line_sides: Int[np.ndarray, "lines 2"]
    """Right and left side, -1 where there is none."""
    side_sector: Int[np.ndarray, " sides"]
    side_middle: Shaped[np.ndarray, " sides"]
    """Name of the texture between floor and ceiling; "-" is none."""
    floor: Float[np.ndarray, " sectors"]
    ceiling: Float[np.ndarray, " sectors"]
    floor_flat: Shaped[np.ndarray, " sectors"]
    ceiling_flat: Shaped[np.ndarray, " sectors"]
    """Names of the pictures on floor and ceiling."""
    sector_tag: Int[np.ndarray, " sectors"]
    thing_position: Float[np.ndarray, "things 2"]
    thing_type: Int[np.ndarray, " things"]
    """Doom's editor numbers."""

    @classmethod
    def read(cls, wad: Path, name: str) -> "DoomMap":
        """The map ``name`` of a WAD file, in Doom's binary format."""
        lumps, tables = read_map_lumps(wad, name), {}
        for lump, record in RECORDS.items():
            if len(lumps[lump]) % record.itemsize:
                raise DataFormatError(wad, f"{name}/{lump} is not a whole number of {record.itemsize}-byte records")
            tables[lump] = np.frombuffer(lumps[lump], record)
        doom_map = cls._from_tables(name, tables)
        problem = doom_map._find_problem()
        if problem:
            raise DataFormatError(wad, f"map {name} {problem}")
        return doom_map

    @classmethod
    def _from_tables(cls, name: str, tables: dict[str, np.ndarray]) -> "DoomMap":
        things, lines, sides = tables["THINGS"], tables["LINEDEFS"], tables["SIDEDEFS"]
        vertices, sectors = tables["VERTEXES"], tables["SECTORS"]
        line_sides = lines["sides"].astype(np.int64)
        return cls(
            name,
            vertices=np.stack((vertices["x"], vertices["y"]), -1).astype(np.float64),
            line_vertices=lines["vertices"].astype(np.int64),
            line_flags=lines["flags"].astype(np.int64),
            line_special=lines["special"].astype(np.int64),
            line_tag=lines["tag"].astype(np.int64),
            line_sides=np.where(line_sides == NOTHING, -1, line_sides),
            side_sector=sides["sector"].astype(np.int64),
            side_middle=_names(sides["middle"]),
            floor=sectors["floor"].astype(np.float64),
            ceiling=sectors["ceiling"].astype(np.float64),
            floor_flat=_names(sectors["floor_flat"]),
            ceiling_flat=_names(sectors["ceiling_flat"]),
            sector_tag=sectors["tag"].astype(np.int64),
            thing_position=np.stack((things["x"], things["y"]), -1).astype(np.float64),
            thing_type=things["type"].astype(np.int64),
        )

    def _find_problem(self) -> str | None:
        if not (len(self.vertices) and len(self.line_vertices) and len(self.floor)):
            return "is empty; check the file"
        for what, index, count in (
            ("vertex", self.line_vertices, len(self.vertices)),
            ("side", self.line_sides, len(self.side_sector)),
            ("sector", self.side_sector, len(self.floor)),
        ):
            if index.max(initial=-1) >= count:
                return f"refers to {what} {index.max()} of {count}; the file is damaged"
        return None

    @cached_property
    def line_sectors(self) -> Int[np.ndarray, "lines 2"]:
        """The sectors to the right and left of each line, -1 for void."""
        return np.where(self.line_sides < 0, -1, self.side_sector[self.line_sides])

    @cached_property
    def has_sky(self) -> Bool[np.ndarray, " sectors"]:
        """Which sectors are open above."""
        return self.ceiling_flat == SKY_FLAT

    @cached_property
    def is_door(self) -> Bool[np.ndarray, " sectors"]:
        """Which sectors are doors: behind a door's line or named by its tag, or closed from the start."""
        behind = self.line_sectors[np.isin(self.line_special, DOOR_SPECIALS), 1]
        tags = self.line_tag[np.isin(self.line_special, TAGGED_DOOR_SPECIALS)]
        doors = np.isin(self.sector_tag, tags[tags != 0]) | (self.ceiling <= self.floor)
        doors[behind[behind >= 0]] = True
        return doors

    @cached_property
    def is_movable(self) -> Bool[np.ndarray, " sectors"]:
        """Which sectors a switch or a footstep can move: doors, lifts, rising stairs."""
        tags = self.line_tag[self.line_special > 0]
        return self.is_door | np.isin(self.sector_tag, tags[tags != 0])

    @cached_property
    def is_liquid(self) -> Bool[np.ndarray, " sectors"]:
        """Which sectors are pools, by the name of their floor's picture: Freedoom keeps Doom's names."""
        return np.array([LIQUID.match(name) is not None for name in self.floor_flat.tolist()], dtype=bool)

    @cached_property
    def zone(self) -> Int[np.ndarray, " sectors"]:
        """A number per sector; between sectors of different numbers all lines are shut, so that nothing is seen."""
        right, left = self.line_sectors.T
        gap = np.minimum(self.ceiling[right], self.ceiling[left]) - np.maximum(self.floor[right], self.floor[left])
        open_lines = (right >= 0) & (left >= 0) & ((gap > 0) | (self.has_sky[right] & self.has_sky[left]))
        right, left = right[open_lines], left[open_lines]
        zone = np.arange(len(self.floor))
        while True:
            smaller, new = np.minimum(zone[right], zone[left]), zone.copy()
            np.minimum.at(new, right, smaller)
            np.minimum.at(new, left, smaller)
            if (new == zone).all():
                return zone
            zone = new[new]

    def seen_from(self, sector: int) -> "DoomMap":
        """The map with those lines alone that rays can meet which start in a sector, or in another of its zone.

        Rays find the same and are faster by half; doors and lifts, which lines elsewhere may work, are unknown.
        """
        within = (self.line_sectors >= 0) & (self.zone[self.line_sectors] == self.zone[sector])
        lines = within.any(1)
        return replace(
            self,
            line_vertices=self.line_vertices[lines],
            line_flags=self.line_flags[lines],
            line_special=self.line_special[lines],
            line_tag=self.line_tag[lines],
            line_sides=self.line_sides[lines],
        )

    def passable(self, *, opened: bool) -> Bool[np.ndarray, "lines 2"]:
        """Whether a player gets across each line, from its right to its left and back.

        Args:
            opened: doors, lifts and rising stairs do not hinder.
        """
        right, left = self.line_sectors.T
        gap = np.minimum(self.ceiling[right], self.ceiling[left]) - np.maximum(self.floor[right], self.floor[left])
        rise = self.floor[left] - self.floor[right]
        fits, climbs = gap >= PLAYER_HEIGHT, np.stack((rise, -rise), -1) <= STEP_UP
        if opened:
            movable = self.is_movable[right] | self.is_movable[left]
            fits, climbs = fits | movable, climbs | movable[:, None]
        two_sided = (left >= 0) & (right >= 0) & (self.line_flags & BLOCKING == 0)
        return climbs & (two_sided & fits)[:, None]

    def sector_at(self, points: Float[np.ndarray, "points 2"]) -> Int[np.ndarray, " points"]:
        """The sector at each point, -1 for void; on a line, that to its west."""
        x, y = points[:, :1], points[:, 1:]
        start, end = self.vertices[self.line_vertices[:, 0]], self.vertices[self.line_vertices[:, 1]]
        upward = end[:, 1] > start[:, 1]
        crosses = (start[:, 1] > y) != (end[:, 1] > y)
        slope = (end[:, 0] - start[:, 0]) / np.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
        east = start[:, 0] + (y - start[:, 1]) * slope - x
        distance = np.where(crosses & (east >= 0), east, np.inf)
        nearest = distance.argmin(1)
        west = np.where(upward[nearest], self.line_sectors[nearest, 1], self.line_sectors[nearest, 0])
        return np.where(np.isfinite(distance[np.arange(len(points)), nearest]), west, -1)


def _names(column: np.ndarray) -> Shaped[np.ndarray, " names"]:
    """Texture names as upper-case text."""
    return np.array([name.split(b"\0")[0].decode("latin-1").upper() for name in column.tolist()], dtype="U8")
