"""Plans walks over the cells of a Doom map: from goal to goal around the corners, then pulled smooth."""

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.recording.vizdoom.doom_grid import CELL, STEPS, WalkGrid, walk_distance
from nfldm3d.recording.vizdoom.doom_map import UNITS_PER_METRE

GOALS = 12
"""Points of which the one most straight ahead, but not too near, becomes the next goal."""
MIN_LEG = 96.0
"""Map units to the next goal, where the room is large enough."""
SMOOTHING_ROUNDS = 24
"""Each draws a point to the mean of itself and its neighbours: corners are rounded over about four cells."""
MAX_LEGS = 2000


def plan_walk(
    grid: WalkGrid, points: Float[np.ndarray, "points 2"], length: float, generator: np.random.Generator
) -> Float[np.ndarray, "steps 2"]:
    """A smooth path between some of the ``points``, at least ``length`` map units long, on cells for cameras only."""
    steps = camera_steps(grid)
    cells = np.floor((points - np.array(grid.lower)) / CELL).astype(int)
    here, heading = cells[generator.integers(len(cells))], generator.normal(size=2)
    path = [here]
    for legs in range(1, MAX_LEGS):
        goal = _next_goal(cells, here, heading, generator)
        leg = _descend(walk_distance(steps, goal[None]), steps, here, goal)
        path += leg
        if leg:
            heading, here = leg[-1] - path[-min(len(path), 8)], leg[-1]
        if CELL * len(path) > length and legs % 4 == 0:  # smoothing shortens, by how much only it can tell
            smooth = _pull_smooth(grid, (np.array(path) + 0.5) * CELL + np.array(grid.lower))
            if np.linalg.norm(np.diff(smooth, axis=0), axis=1).sum() >= length:
                return smooth
    raise ValueError(
        f"no walk of {length / UNITS_PER_METRE:.1f} m fits the place; record fewer views or choose another centre"
    )


def _next_goal(
    cells: Int[np.ndarray, "points 2"], here: np.ndarray, heading: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    goals = cells[generator.integers(len(cells), size=GOALS)]
    way = (goals - here).astype(float)
    distance = np.linalg.norm(way, axis=1)
    straight = (way @ heading) / np.maximum(distance * np.linalg.norm(heading), 1e-9)
    return goals[int(np.argmax(straight - 2.0 * (distance * CELL < MIN_LEG)))]


def camera_steps(grid: WalkGrid) -> Bool[np.ndarray, "4 x y"]:
    """Steps that can be taken both ways between cells for cameras."""
    steps = grid.open_steps & grid.standable
    for direction, shift in enumerate(STEPS):
        arrives = np.roll(grid.standable & grid.open_steps[direction ^ 1], (-shift[0], -shift[1]), axis=(0, 1))
        steps[direction] &= arrives
    return steps


def _descend(
    distance: Int[np.ndarray, "x y"], steps: Bool[np.ndarray, "4 x y"], start: np.ndarray, goal: np.ndarray
) -> list[np.ndarray]:
    """The cells after ``start`` on a shortest way to ``goal``, as straight as can be; none if there is no way."""
    here, leg = start, []
    line = (goal - start) / max(float(np.linalg.norm(goal - start)), 1e-9)
    while distance[tuple(here)] > 0:
        nearer = [
            here + np.array(shift)
            for direction, shift in enumerate(STEPS)
            if steps[(direction, *here)] and distance[tuple(here + np.array(shift))] == distance[tuple(here)] - 1
        ]
        off = [abs(float((cell - start)[0] * line[1] - (cell - start)[1] * line[0])) for cell in nearer]
        here = nearer[int(np.argmin(off))]
        leg.append(here)
    return leg


def _pull_smooth(grid: WalkGrid, path: Float[np.ndarray, "steps 2"]) -> Float[np.ndarray, "steps 2"]:
    """The path with its inner points drawn between their neighbours, as long as they stay on cells for cameras."""
    path = path.copy()
    for _ in range(SMOOTHING_ROUNDS):
        drawn = (path[:-2] + path[1:-1] + path[2:]) / 3
        cells = np.floor((drawn - np.array(grid.lower)) / CELL).astype(int)
        stays = grid.standable[cells[:, 0], cells[:, 1]]
        path[1:-1][stays] = drawn[stays]
    return path
