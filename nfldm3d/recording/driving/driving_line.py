"""The line down the middle of a track, from the triangles of its main surface.

TORCS's track generator joins the main surface of a track out of parts; the edges that belong to one triangle only are
its two sides. From each point of a side a straight look across meets the other: the middle lies halfway, and the side
tells the direction. This needs no description of the track, and works at junctions and on bridges.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

WELD = 0.02
"""Metres within which corners of triangles are the same."""
SPACING = 2.0
"""Metres between points along a side."""
MOST_SAMPLES = 60_000
"""Of such points: 120 km of sides; TORCS's longest track has 44."""
NARROWEST, WIDEST = 4.0, 40.0
"""Metres from one side to the other."""
ASIDE = 1.5
"""Metres by which the other side may lie off the straight look across."""
HEIGHT = 2.5
"""Metres between the heights of the two sides at most, and of a place and the line below it."""
AGAINST = 0.7
"""How much the sides must face each other: minus the cosine between their inward normals."""
FARTHEST = 8.0
"""Metres from a place to the nearest point of its line."""
CHUNK = 256


@dataclass(frozen=True, eq=False)
class DrivingLine:
    """Points along the middle of a track, in no order."""

    points: Float[np.ndarray, "points 3"]
    """Metres."""
    directions: Float[np.ndarray, "points 2"]
    """Unit vectors along the track, one way or the other."""
    half_widths: Float[np.ndarray, " points"]
    """Metres from the middle to a side."""

    def __len__(self) -> int:
        return len(self.points)

    def find_nearest(self, place: Float[np.ndarray, " 3"]) -> int | None:
        """The point of the line nearest to a place; None if it is too far away."""
        offset = self.points - place
        apart = np.hypot(offset[:, 0], offset[:, 1]) + np.where(np.abs(offset[:, 2]) < HEIGHT, 0.0, np.inf)
        nearest = int(apart.argmin())
        return nearest if apart[nearest] < FARTHEST else None


def find_line(triangles: Float[np.ndarray, "triangles 3 3"]) -> DrivingLine:
    """The middle of the surface that the triangles make up; a ValueError if it has no two sides."""
    places, normals = _sample_sides(triangles)
    order = np.argsort(places[:, 0], kind="stable")
    places, normals = places[order], normals[order]
    middles, directions, half_widths = [np.zeros((0, 3))], [np.zeros((0, 2))], [np.zeros(0)]
    for start in range(0, len(places), CHUNK):
        here, inward = places[start : start + CHUNK], normals[start : start + CHUNK]
        reach = slice(*np.searchsorted(places[:, 0], (here[0, 0] - WIDEST, here[-1, 0] + WIDEST)))
        forward, met = _look_across(here, inward, places[reach], normals[reach])
        far = forward[met]
        middles.append(here[met] + 0.5 * np.column_stack((far[:, None] * inward[met], np.zeros(len(far)))))
        directions.append(np.stack((inward[met, 1], -inward[met, 0]), axis=1))
        half_widths.append(0.5 * far)
    line = DrivingLine(np.concatenate(middles), np.concatenate(directions), np.concatenate(half_widths))
    if not len(line):
        raise ValueError("the main surface has no two sides that face each other; check its triangles")
    return line


def _sample_sides(
    triangles: Float[np.ndarray, "triangles 3 3"],
) -> tuple[Float[np.ndarray, "samples 3"], Float[np.ndarray, "samples 2"]]:
    """Points along the edges that only one triangle has, and unit vectors from there into the surface."""
    _, corner = np.unique(np.round(triangles.reshape(-1, 3) / WELD).astype(np.int64), axis=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    edges = np.sort(np.concatenate((corner[:, (0, 1)], corner[:, (1, 2)], corner[:, (2, 0)])), axis=1)
    _, which, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    single = counts[which.reshape(-1)] == 1
    begin = np.concatenate((triangles[:, 0], triangles[:, 1], triangles[:, 2]))[single]
    end = np.concatenate((triangles[:, 1], triangles[:, 2], triangles[:, 0]))[single]
    third = np.concatenate((triangles[:, 2], triangles[:, 0], triangles[:, 1]))[single]
    along = (end - begin)[:, :2]
    length = np.linalg.norm(along, axis=1)
    long_enough = length > WELD
    begin, end, third, along, length = (v[long_enough] for v in (begin, end, third, along, length))
    inward = np.stack((-along[:, 1], along[:, 0]), axis=1) / length[:, None]
    inward *= np.sign(((third - begin)[:, :2] * inward).sum(1))[:, None]
    counts = np.ceil(length / SPACING).astype(int)
    if counts.sum() > MOST_SAMPLES:
        raise ValueError(f"its sides are {length.sum() / 1000:.0f} km long; check the corners of its triangles")
    edge = np.repeat(np.arange(len(counts)), counts)
    share = (np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts) + 0.5) / counts[edge]
    return begin[edge] + share[:, None] * (end - begin)[edge], inward[edge]


def _look_across(
    here: Float[np.ndarray, "looking 3"],
    inward: Float[np.ndarray, "looking 2"],
    places: Float[np.ndarray, "samples 3"],
    normals: Float[np.ndarray, "samples 2"],
) -> tuple[Float[np.ndarray, " looking"], Bool[np.ndarray, " looking"]]:
    """How far the other side is, and where there is one."""
    offset = places[None] - here[:, None]
    forward = offset[..., 0] * inward[:, :1] + offset[..., 1] * inward[:, 1:]
    aside = np.abs(offset[..., 0] * inward[:, 1:] - offset[..., 1] * inward[:, :1])
    facing = inward @ normals.T < -AGAINST
    fits = facing & (aside < ASIDE) & (forward > NARROWEST) & (forward < WIDEST) & (np.abs(offset[..., 2]) < HEIGHT)
    nearest = np.where(fits, forward, np.inf).min(1, initial=np.inf)
    return nearest, np.isfinite(nearest)
