"""The bird's-eye map of a scene: what lies on the ground seen from above, and what stands on it as its footprint.

Roads, kerbs, lines and terrain are drawn from above. Walls, houses and trees are upright and have no area from there:
points all over them are marked instead. Cars are marked by their known boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from nfldm3d.data.bev_map import BevMap
from nfldm3d.geometry import Box
from nfldm3d.recording.driving.places import Place
from nfldm3d.recording.driving.surfaces import BUILDING, CAR, CLASS_NAMES, MARKING, PALETTE, ROAD, TREE, VOID
from nfldm3d.recording.driving.textures import SOLID, read_texture
from nfldm3d.recording.driving.track import Surface, Track

CELL = 0.5
"""Metres."""
FINE = 8
"""Along each side of a cell so many points are drawn."""
MARKING_SHARE, CAR_SHARE = 0.25, 0.4
"""A cell is one of marking, or of car, if this share of its points is."""
POINTS_PER_METRE, MOST_POINTS = 5, 400
"""Of upright surfaces, along both sides of a triangle."""
FOOT = 0.3
"""Metres above the ground: what does not rise so high leaves no footprint."""


@dataclass(frozen=True)
class Footprint:
    """The ground that a car covers."""

    x: float
    y: float
    heading: float
    length: float
    width: float

    @classmethod
    def of(cls, pose: Float[np.ndarray, "4 4"], size: tuple[float, float, float]) -> "Footprint":
        """That of a car in a pose."""
        return cls(float(pose[0, 3]), float(pose[1, 3]), float(np.arctan2(pose[1, 0], pose[0, 0])), *size[:2])


@dataclass(frozen=True, eq=False)
class Upright:
    """Triangles of trees, walls and houses."""

    triangles: Float[np.ndarray, "triangles 3 3"]
    uv: Float[np.ndarray, "triangles 3 2"]
    kind: UInt8[np.ndarray, " triangles"]
    mask: Int[np.ndarray, " triangles"]
    """Which of ``masks`` tells where a triangle is drawn; -1: everywhere."""
    masks: tuple[Bool[np.ndarray, "_ _"], ...]

    @classmethod
    def of(cls, track: Track) -> "Upright":
        """Those of a track."""
        chosen = [surface for surface in track.surfaces if surface.kind in (TREE, BUILDING)]
        masks, mask = [], []
        for surface in chosen:
            solid = _solid(surface)
            mask.append(np.full(len(surface.triangles), -1 if solid is None else len(masks)))
            masks += [] if solid is None else [solid]
        return cls(
            np.concatenate([np.zeros((0, 3, 3))] + [s.corners() for s in chosen]),
            np.concatenate([np.zeros((0, 3, 2))] + [s.uv[s.triangles] for s in chosen]),
            np.concatenate([np.zeros(0, np.uint8)] + [np.full(len(s.triangles), s.kind, np.uint8) for s in chosen]),
            np.concatenate([np.zeros(0, np.int64), *mask]),
            tuple(masks),
        )

    def points(self, place: Place, box: Box) -> tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, " points"]]:
        """Points on those in a box, in the scene's frame, with their classes."""
        local = place.to_scene(self.triangles)
        low, high = local.min(1), local.max(1)
        near = np.nonzero(((low <= box.upper) & (high >= box.lower)).all(1))[0]
        found, kinds = [np.zeros((0, 3))], [np.zeros(0, np.uint8)]
        for number in near:
            shares = _spread(local[number])
            uv = shares @ self.uv[number]
            points = shares @ local[number]
            kept = ((points >= box.lower) & (points <= box.upper)).all(1)
            if self.mask[number] >= 0:
                kept &= _look_up(self.masks[self.mask[number]], uv)
            found.append(points[kept])
            kinds.append(np.full(int(kept.sum()), self.kind[number]))
        return np.concatenate(found), np.concatenate(kinds)


def draw_map(
    ground_classes: UInt8[np.ndarray, "height width"],
    ground_height: Float[np.ndarray, "height width"],
    upright: tuple[Float[np.ndarray, "points 3"], UInt8[np.ndarray, " points"]],
    cars: Sequence[Footprint],
    box: Box,
) -> BevMap:
    """The map of a box.

    Args:
        ground_classes: what is drawn from above, ``FINE`` points a cell along each side; row 0 is the largest y.
        ground_height: its height in metres, NaN where there is nothing.
        upright: points on what stands, and their classes.
    """
    rows, columns = (count // FINE for count in ground_classes.shape)
    cells = ground_classes.reshape(rows, FINE, columns, FINE).transpose(0, 2, 1, 3).reshape(rows, columns, FINE * FINE)
    counts = np.stack([(cells == kind).sum(-1) for kind in range(len(CLASS_NAMES))], axis=-1)
    classes = counts.argmax(-1).astype(np.uint8)
    on_road = (classes == ROAD) | (classes == VOID)
    classes[(counts[..., MARKING] >= MARKING_SHARE * FINE**2) & on_road] = MARKING
    filled = np.where(np.isfinite(ground_height), ground_height, np.nan)
    fine = filled.reshape(rows, FINE, columns, FINE).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    known = np.isfinite(fine)
    height = np.where(known, fine, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
    classes, height = classes[::-1].T.copy(), height[::-1].T.copy()  # row column -> x y
    points, kinds = upright
    x, y = (np.floor((points[:, axis] - box.lower[axis]) / CELL).astype(int) for axis in (0, 1))
    held = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
    x, y, points, kinds = x[held], y[held], points[held], kinds[held]
    standing = points[:, 2] > height[x, y] + FOOT
    for kind in (TREE, BUILDING):
        chosen = standing & (kinds == kind)
        classes[x[chosen], y[chosen]] = kind
    for car in cars:
        classes[_covered(car, box, classes.shape)] = CAR
    return BevMap(
        torch.from_numpy(classes),
        torch.from_numpy(height.astype(np.float32)),
        (box.lower[0], box.lower[1]),
        CELL,
        CLASS_NAMES,
        PALETTE,
    )


def _covered(car: Footprint, box: Box, shape: tuple[int, ...]) -> Bool[np.ndarray, "x y"]:
    """Cells of which a car covers enough."""
    step = CELL / FINE
    x = box.lower[0] + (np.arange(shape[0] * FINE) + 0.5) * step - car.x
    y = box.lower[1] + (np.arange(shape[1] * FINE) + 0.5) * step - car.y
    cosine, sine = np.cos(car.heading), np.sin(car.heading)
    ahead, left = x[:, None] * cosine + y * sine, y * cosine - x[:, None] * sine
    inside = (np.abs(ahead) < car.length / 2) & (np.abs(left) < car.width / 2)
    return inside.reshape(shape[0], FINE, shape[1], FINE).mean((1, 3)) >= CAR_SHARE


def _solid(surface: Surface) -> Bool[np.ndarray, "height width"] | None:
    """Where a texture is drawn; None if everywhere."""
    if surface.texture is None:
        return None
    solid = read_texture(surface.texture)[..., 3] >= SOLID
    return None if solid.all() else solid


def _spread(corners: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "points 3"]:
    """Barycentric coordinates of points all over a triangle."""
    longest = max(float(np.linalg.norm(corners[i] - corners[j])) for i, j in ((0, 1), (1, 2), (2, 0)))
    count = int(np.clip(np.ceil(longest * POINTS_PER_METRE), 2, MOST_POINTS))
    u, v = np.meshgrid((np.arange(count) + 0.5) / count, (np.arange(count) + 0.5) / count, indexing="ij")
    inside = u + v <= 1
    return np.stack((1 - u - v, u, v), axis=-1)[inside]


def _look_up(solid: Bool[np.ndarray, "height width"], uv: Float[np.ndarray, "points 2"]) -> Bool[np.ndarray, " points"]:
    """Whether a texture, which repeats, is drawn at coordinates whose v points up."""
    column, row = uv[:, 0] % 1 * solid.shape[1], (1 - uv[:, 1]) % 1 * solid.shape[0]
    rows, columns = (np.minimum(v.astype(int), n - 1) for v, n in zip((row, column), solid.shape, strict=True))
    return solid[rows, columns]
