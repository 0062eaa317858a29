"""Turns a picture of the engine into a view: a square image with exact depth and a class for each of its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from nfldm3d.camera import Camera
from nfldm3d.data.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.data.doom_rays import CEILING, FLOOR, SPRITE, WALL, Hits, cast_rays
from nfldm3d.data.vizdoom_game import Shot
from nfldm3d.geometry import pose_from_axes

FOCAL, CENTER_X, CENTER_Y = 0.500875, 0.500875, 0.498958
"""Intrinsics in widths of the square picture, fitted to the edges between walls and floors (0.11 % of pixels off)."""
FLAT_DEPTH, WALL_DEPTH = (14.5, 7.159), (9.0, 4.4667)
"""The engine's depth on floors and ceilings and on walls: map units at level 0, and per level."""
SATURATED = 255
TOLERANCE, RELATIVE_TOLERANCE = 10.0, 0.05
"""Map units, and share of the depth, by which the engine's depth may differ."""
WALL_MARK, FIRST_THING_MARK = 0, 2
"""The engine's labels: walls, floors and ceilings, then one number per thing."""


@dataclass(frozen=True, eq=False)
class View:
    """One picture and what is known about its pixels."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    """Metres along the viewing direction; 0 for sky and void."""
    labels: UInt8[np.ndarray, "height width"]
    """Indices into ``LABEL_NAMES``."""
    free: Bool[np.ndarray, "height width"]
    """False where a pixel shows a piece of a thing: those are cardboards that turn with the camera."""
    eye: tuple[float, float, float]
    """Map units."""
    yaw_degrees: float
    disagreement: float
    """The share of pixels whose exact depth is not the engine's."""


def measure_view(doom_map: DoomMap, shot: Shot, size: int) -> View:
    """The view of ``size`` x ``size`` pixels that a shot shows."""
    right, forward = _axes(shot.yaw_degrees)
    across = (np.arange(size) + 0.5 - CENTER_X * size) / (FOCAL * size)
    down = (np.arange(size) + 0.5 - CENTER_Y * size) / (FOCAL * size)
    hits = cast_rays(doom_map, shot.eye, forward + across[:, None] * right, -down)
    rows, columns = (((np.arange(size) + 0.5) * n / size).astype(int)[:, None] for n in shot.labels.shape)
    level, marks = shot.depth_level[rows, columns.T].astype(np.float64), shot.labels[rows, columns.T]
    depth, labels = hits.depth.copy(), hits.labels.copy()
    screened = _put_screens(hits, level, marks, depth, labels)
    plain = ~screened & (marks < FIRST_THING_MARK) & (level < SATURATED)
    disagreement = _disagreement(depth, labels, level, plain)
    for mark, position in shot.thing_position.items():
        thing = marks == mark
        depth[thing], labels[thing] = (position[:2] - np.array(shot.eye[:2])) @ forward, SPRITE
    return View(
        _shrink(shot.image, size),
        np.where(np.isfinite(depth), depth / UNITS_PER_METRE, 0.0).astype(np.float32),
        labels,
        _shrink((shot.labels >= FIRST_THING_MARK).astype(np.uint8) * 255, size) == 0,
        shot.eye,
        shot.yaw_degrees,
        disagreement,
    )


def to_camera(views: Sequence[View], origin: tuple[float, float, float]) -> Camera:
    """The cameras of views in the world whose origin is at ``origin`` (map units)."""
    size, count = views[0].image.shape[0], len(views)
    axes = [_axes(view.yaw_degrees) for view in views]
    right, forward = (torch.tensor(np.array([(*axis[i], 0.0) for axis in axes])) for i in (0, 1))
    up = torch.tensor((0.0, 0.0, 1.0), dtype=torch.float64).expand(count, 3)
    centers = (torch.tensor([view.eye for view in views]) - torch.tensor(origin)) / UNITS_PER_METRE
    return Camera(
        pose_from_axes(right, up, -forward, centers.double()).float(),
        torch.full((count, 2), FOCAL * size),
        torch.tensor((CENTER_X * size, CENTER_Y * size)).expand(count, 2).clone(),
        size,
        size,
    )


def _axes(yaw_degrees: float) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Right and forward of a camera, seen from above."""
    cosine, sine = np.cos(np.radians(yaw_degrees)), np.sin(np.radians(yaw_degrees))
    return np.array((sine, -cosine)), np.array((cosine, sine))


def _put_screens(
    hits: Hits,
    level: Float[np.ndarray, "height width"],
    marks: UInt8[np.ndarray, "height width"],
    depth: Float[np.ndarray, "height width"],
    labels: UInt8[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Puts gratings into depth and labels where the engine saw something at their depth; returns where."""
    seen, put = WALL_DEPTH[0] + WALL_DEPTH[1] * level, np.zeros(depth.shape, bool)
    for screen in hits.screens[::-1]:  # the nearest last, over those behind it
        fits = np.abs(seen - screen) < np.maximum(TOLERANCE, RELATIVE_TOLERANCE * screen)
        fits &= (marks == WALL_MARK) & (level < SATURATED) & np.isfinite(screen)
        depth[fits], labels[fits] = screen[fits], WALL
        put |= fits
    return put


def _disagreement(
    depth: Float[np.ndarray, "height width"],
    labels: UInt8[np.ndarray, "height width"],
    level: Float[np.ndarray, "height width"],
    plain: Bool[np.ndarray, "height width"],
) -> float:
    flat, wall = (labels == FLOOR) | (labels == CEILING), labels == WALL
    start, slope = np.where(flat, FLAT_DEPTH[0], WALL_DEPTH[0]), np.where(flat, FLAT_DEPTH[1], WALL_DEPTH[1])
    compared = plain & (flat | wall)
    error = np.abs(start + slope * level - depth)[compared]
    return float((error > np.maximum(TOLERANCE, RELATIVE_TOLERANCE * depth[compared])).sum() / max(1, plain.sum()))


def _shrink(pixels: UInt8[np.ndarray, "..."], size: int) -> UInt8[np.ndarray, "..."]:
    """Every pixel of the square picture is the mean of the engine's pixels under it."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
