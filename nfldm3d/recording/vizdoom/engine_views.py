"""Turns a picture of the engine into a view: a square image with exact depth and a class for each of its pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from nfldm3d.camera import Camera
from nfldm3d.geometry import pose_from_axes
from nfldm3d.recording.vizdoom.doom_map import UNITS_PER_METRE, DoomMap
from nfldm3d.recording.vizdoom.doom_rays import CEILING, FLOOR, SPRITE, WALL, Hits, cast_rays
from nfldm3d.recording.vizdoom.game import Screen, Shot

FLAT_DEPTH, FLAT_SLOPE, WALL_SLOPE = 14.5, 7.159, 4.4667
"""The engine's depth on floors and ceilings: map units at level 0, and per level; and the latter on walls."""
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
    screen: Screen
    disagreement: float
    """The share of pixels whose exact depth is not the engine's."""


def measure_view(doom_map: DoomMap, shot: Shot, size: int) -> View:
    """The view of ``size`` x ``size`` pixels that a shot shows."""
    right, forward = _axes(shot.yaw_degrees)
    screen, middles = shot.screen, (np.arange(size) + 0.5) / size
    across, down = (middles - screen.center_x) / screen.focal, (middles - screen.center_y) / screen.focal
    hits = cast_rays(doom_map, shot.eye, forward + across[:, None] * right, -down)
    rows, columns = ((middles * count).astype(int)[:, None] for count in shot.labels.shape)
    level, marks = shot.depth_level[rows, columns.T].astype(np.float64), shot.labels[rows, columns.T]
    depth, labels = hits.depth.copy(), hits.labels.copy()
    as_wall = screen.wall_depth + WALL_SLOPE * level
    known = level < screen.saturated
    screened = _put_screens(hits, np.where((marks == WALL_MARK) & known, as_wall, np.inf), depth, labels)
    plain = ~screened & (marks < FIRST_THING_MARK) & known
    flat = (labels == FLOOR) | (labels == CEILING)
    compared = plain & (flat | (labels == WALL))
    error = np.abs(np.where(flat, FLAT_DEPTH + FLAT_SLOPE * level, as_wall) - depth)[compared]
    wrong = error > np.maximum(TOLERANCE, RELATIVE_TOLERANCE * depth[compared])
    for mark, position in shot.thing_position.items():
        thing = marks == mark
        depth[thing], labels[thing] = (position[:2] - np.array(shot.eye[:2])) @ forward, SPRITE
    return View(
        _shrink(shot.image, size),
        np.where(np.isfinite(depth), depth / UNITS_PER_METRE, 0.0).astype(np.float32),
        labels,
        _find_free(shot, size),
        shot.eye,
        shot.yaw_degrees,
        screen,
        float(wrong.sum() / max(1, plain.sum())),
    )


def to_camera(views: Sequence[View], origin: tuple[float, float, float]) -> Camera:
    """The cameras of views in the world whose origin is at ``origin`` (map units)."""
    size, screen, count = views[0].image.shape[0], views[0].screen, len(views)
    axes = [_axes(view.yaw_degrees) for view in views]
    right, forward = (torch.tensor(np.array([(*axis[i], 0.0) for axis in axes])) for i in (0, 1))
    up = torch.tensor((0.0, 0.0, 1.0), dtype=torch.float64).expand(count, 3)
    centers = (torch.tensor([view.eye for view in views]) - torch.tensor(origin)) / UNITS_PER_METRE
    return Camera(
        pose_from_axes(right, up, -forward, centers.double()).float(),
        torch.full((count, 2), screen.focal * size),
        torch.tensor((screen.center_x * size, screen.center_y * size)).expand(count, 2).clone(),
        size,
        size,
    )


def _axes(yaw_degrees: float) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Right and forward of a camera, seen from above."""
    cosine, sine = np.cos(np.radians(yaw_degrees)), np.sin(np.radians(yaw_degrees))
    return np.array((sine, -cosine)), np.array((cosine, sine))


def _put_screens(
    hits: Hits,
    wall_depth: Float[np.ndarray, "height width"],
    depth: Float[np.ndarray, "height width"],
    labels: UInt8[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Puts gratings into depth and labels where the engine saw a wall at their depth; returns where."""
    put = np.zeros(depth.shape, bool)
    for grating in hits.screens[::-1]:  # the nearest last, over those behind it
        off = np.abs(wall_depth - np.where(np.isfinite(grating), grating, -1e9))
        fits = off < np.maximum(TOLERANCE, RELATIVE_TOLERANCE * wall_depth)
        depth[fits], labels[fits] = grating[fits], WALL
        put |= fits
    return put


def _find_free(shot: Shot, size: int) -> Bool[np.ndarray, "height width"]:
    if not shot.thing_position:
        return np.ones((size, size), bool)
    return _shrink((shot.labels >= FIRST_THING_MARK).astype(np.uint8) * 255, size) == 0


def _shrink(pixels: UInt8[np.ndarray, "..."], size: int) -> UInt8[np.ndarray, "..."]:
    """Every pixel of the square picture is the mean of the engine's pixels under it."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
