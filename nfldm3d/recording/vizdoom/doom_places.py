"""Chooses places all over a Doom map that are worth a scene each: boxes around points that can be walked to.

Places of one list are ordered so that its beginning, however long, is spread over the map: first one per square of
512 map units in random order, then those that squares of 256 add, then those of 128.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.recording.vizdoom.doom_grid import CELL, WalkGrid, walk_distance
from nfldm3d.recording.vizdoom.doom_map import STEP_UP, DoomMap
from nfldm3d.recording.vizdoom.doom_path import camera_steps
from nfldm3d.recording.vizdoom.doom_rooms import CENTER_HEIGHT, EYE_HEIGHT, Room

SPACINGS = (512, 256, 128)
"""Map units; the squares of each hold at most one centre."""
BOX_UNITS = (1024.0, 1024.0, 256.0)
"""The box of a place in map units: 32 x 32 x 8 metres."""
REACH = 384
"""Map units from the centre to cameras, along x and y."""
MIN_WALKABLE = 0.12
"""The share of the box's ground that a camera can stand on."""
MIN_POINTS = 128
"""Cells within reach, 32 square metres: smaller rooms are closets that show one wall."""
MIN_GAP = 0.5
"""Centres of a finer level keep this share of its spacing from those of coarser ones."""


def list_places(
    grid: WalkGrid, generator: np.random.Generator
) -> tuple[Int[np.ndarray, "places 2"], Int[np.ndarray, " levels"]]:
    """The cells at the centres of all places, and how many of them each level of SPACINGS adds."""
    cells = np.argwhere(grid.standable)
    cells = cells[_walkable_share(grid.standable, cells) >= MIN_WALKABLE]
    chosen, counts = np.zeros((0, 2), np.int64), []
    for spacing in SPACINGS:
        new = generator.permutation(_one_per_square(grid, cells, spacing))
        if len(chosen) and len(new):
            apart = np.linalg.norm((new[:, None] - chosen) * float(CELL), axis=-1).min(1)
            new = new[apart >= MIN_GAP * spacing]
        chosen = np.concatenate((chosen, new))
        counts.append(len(new))
    return chosen, np.array(counts)


def open_place(doom_map: DoomMap, grid: WalkGrid, cell: tuple[int, int]) -> tuple[Room, WalkGrid]:
    """The place around a cell, with all points that can be reached within its box, and its part of the grid."""
    part = _crop(grid, cell, REACH // CELL)
    middle, floor = grid.center(cell), float(doom_map.floor[grid.sector[cell]])
    eyes = doom_map.floor[part.sector] + EYE_HEIGHT - (floor + CENTER_HEIGHT)
    part = replace(part, standable=part.standable & (np.abs(eyes) <= BOX_UNITS[2] / 2 - STEP_UP))
    reached = walk_distance(camera_steps(part), np.array([part.cell_at(middle)])) >= 0
    points = part.centers(reached)
    order = np.argsort(np.linalg.norm(points - middle, axis=1), kind="stable")
    room = Room((float(middle[0]), float(middle[1]), floor + CENTER_HEIGHT), floor, points[order])
    return room, replace(part, standable=reached)


def _one_per_square(grid: WalkGrid, cells: Int[np.ndarray, "cells 2"], spacing: int) -> Int[np.ndarray, "squares 2"]:
    """Of the cells in each square of the map, the one nearest its middle; the first of equals."""
    points = (cells + 0.5) * CELL + np.array(grid.lower)
    squares = np.floor(points / spacing)
    off = np.linalg.norm(points - (squares + 0.5) * spacing, axis=1)
    order = np.lexsort((off, squares[:, 1], squares[:, 0]))
    _, first = np.unique(squares[order], axis=0, return_index=True)
    return cells[order[first]]


def _walkable_share(
    standable: Bool[np.ndarray, "x y"], cells: Int[np.ndarray, "cells 2"]
) -> Float[np.ndarray, " cells"]:
    """The share of standable cells in the box around each cell."""
    half = int(BOX_UNITS[0] / CELL) // 2
    sums = np.pad(standable.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    (i0, j0), (i1, j1) = np.maximum(cells - half, 0).T, np.minimum(cells + half, standable.shape).T
    return (sums[i1, j1] - sums[i0, j1] - sums[i1, j0] + sums[i0, j0]) / (2 * half) ** 2


def _crop(grid: WalkGrid, cell: tuple[int, int], reach: int) -> WalkGrid:
    """The cells within ``reach`` of one, with no step leading out."""
    first = np.maximum(np.array(cell) - reach, 0)
    last = np.minimum(np.array(cell) + reach + 1, grid.sector.shape)
    window = (slice(first[0], last[0]), slice(first[1], last[1]))
    steps = grid.open_steps[(slice(None), *window)].copy()
    steps[0, -1], steps[1, 0], steps[2, :, -1], steps[3, :, 0] = False, False, False, False
    lower = (grid.lower[0] + float(first[0]) * CELL, grid.lower[1] + float(first[1]) * CELL)
    return WalkGrid(lower, grid.sector[window], steps, grid.standable[window])
