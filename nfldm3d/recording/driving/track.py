"""A track of TORCS: its surfaces with their classes, where the ground is, and the line that cars drive along."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from nfldm3d.files import DataFormatError
from nfldm3d.recording.ac3d import Part, read_ac3d
from nfldm3d.recording.driving.driving_line import DrivingLine, find_line
from nfldm3d.recording.driving.surfaces import (
    KERB,
    LEVEL,
    MARKING,
    ROAD,
    TERRAIN,
    classify,
    classify_steep,
    is_main_track,
)
from nfldm3d.recording.driving.textures import find_texture


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of one texture and one class."""

    texture: Path | None
    kind: int
    """Index into ``surfaces.CLASS_NAMES``."""
    positions: Float[np.ndarray, "corners 3"]
    normals: Float[np.ndarray, "corners 3"]
    uv: Float[np.ndarray, "corners 2"]
    triangles: Int[np.ndarray, "triangles 3"]
    color: tuple[float, float, float]
    """Where there is no texture."""

    def corners(self) -> Float[np.ndarray, "triangles 3 3"]:
        """The triangles' corners."""
        return self.positions[self.triangles]


@dataclass(frozen=True, eq=False)
class Ground:
    """Triangles that one can stand on."""

    triangles: Float[np.ndarray, "triangles 3 3"]
    is_road: Bool[np.ndarray, " triangles"]
    """Road and kerb rather than terrain."""

    def near(self, place: Float[np.ndarray, " 3"], radius: float) -> "Ground":
        """The part within so many metres along x and y: asking it is faster."""
        low, high = self.triangles[..., :2].min(1), self.triangles[..., :2].max(1)
        close = ((low <= place[:2] + radius) & (high >= place[:2] - radius)).all(1)
        return Ground(self.triangles[close], self.is_road[close])

    def find_height(self, place: Float[np.ndarray, " 3"], below: float = np.inf) -> tuple[float, bool] | None:
        """The height of the highest ground below ``below`` at x and y, and whether it is road; None if none is."""
        first, second, third = (self.triangles[:, corner] for corner in range(3))
        u, v, w = (second - first)[:, :2], (third - first)[:, :2], place[:2] - first[:, :2]
        area = u[:, 0] * v[:, 1] - v[:, 0] * u[:, 1]
        safe = np.where(np.abs(area) < 1e-9, np.inf, area)
        p, q = (w[:, 0] * v[:, 1] - v[:, 0] * w[:, 1]) / safe, (u[:, 0] * w[:, 1] - w[:, 0] * u[:, 1]) / safe
        height = first[:, 2] + p * (second - first)[:, 2] + q * (third - first)[:, 2]
        held = (p >= -1e-4) & (q >= -1e-4) & (p + q <= 1 + 1e-4) & (height < below) & np.isfinite(safe)
        if not held.any():
            return None
        best = int(np.where(held, height, -np.inf).argmax())
        return float(height[best]), bool(self.is_road[best])


@dataclass(frozen=True, eq=False)
class Track:
    """A track, read."""

    name: str
    surfaces: tuple[Surface, ...]
    ground: Ground
    line: DrivingLine

    @classmethod
    def read(cls, name: str, model: Path, folders: Sequence[Path]) -> "Track":
        """The track of an AC3D model.

        Args:
            folders: where its textures are.

        Raises:
            DataFormatError: it cannot be read, has textures that are missing or unknown, or no main track.
        """
        parts = read_ac3d(model)
        _check_textures(model, parts, folders)
        surfaces = _merge(parts, folders)
        level = [surface for surface in surfaces if surface.kind in (ROAD, MARKING, KERB, TERRAIN)]
        ground = np.concatenate([s.corners() for s in level]) if level else np.zeros((0, 3, 3))
        is_road = np.concatenate([np.full(len(s.triangles), s.kind != TERRAIN) for s in level] or [np.zeros(0, bool)])
        standing = _steepness(ground) > LEVEL
        main = [part.corners() for part in parts if is_main_track(part.name)]
        main = np.concatenate(main) if main else np.zeros((0, 3, 3))
        try:
            line = find_line(main[_steepness(main) > LEVEL])
        except ValueError as error:
            raise DataFormatError(model, f"parts named TKMN (the main track): {error}") from error
        return cls(name, tuple(surfaces), Ground(ground[standing], is_road[standing]), line)


def _check_textures(model: Path, parts: Sequence[Part], folders: Sequence[Path]) -> None:
    unknown = sorted({str(part.texture) for part in parts if classify(part.name, part.texture) is None})
    if unknown:
        raise DataFormatError(
            model,
            f"has textures of which it is not known what they show: {', '.join(unknown)}; add them to "
            "recording/driving/surfaces.py, or record another track",
        )
    named = {part.texture for part in parts if part.texture is not None and part.texture != "(null)"}
    missing = sorted(name for name in named if find_texture(name, folders) is None)
    if missing:
        raise DataFormatError(model, f"names textures that are missing: {', '.join(missing)}; unpack the data again")


def _steepness(triangles: Float[np.ndarray, "triangles 3 3"]) -> Float[np.ndarray, " triangles"]:
    """Cosine of the slope: 1 where level, 0 where upright."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)


def _merge(parts: Sequence[Part], folders: Sequence[Path]) -> list[Surface]:
    """One surface for each texture and class."""
    pieces: dict[tuple[Path | None, int], list[tuple[Part, np.ndarray]]] = defaultdict(list)
    for part in parts:
        level_class = classify(part.name, part.texture)
        assert level_class is not None
        texture = None if part.texture is None else find_texture(part.texture, folders)
        level = _steepness(part.corners()) > LEVEL
        for chosen, kind in ((level, level_class), (~level, classify_steep(level_class))):
            if chosen.any():
                pieces[texture, kind].append((part, part.triangles[chosen]))
    return [join_parts(texture, kind, group) for (texture, kind), group in pieces.items()]


def join_parts(texture: Path | None, kind: int, group: Sequence[tuple[Part, np.ndarray]]) -> Surface:
    """One surface of chosen triangles of several parts."""
    starts = np.cumsum([0] + [len(part.positions) for part, _ in group[:-1]])
    return Surface(
        texture,
        kind,
        np.concatenate([part.positions for part, _ in group]),
        np.concatenate([part.normals for part, _ in group]),
        np.concatenate([part.uv for part, _ in group]),
        np.concatenate([triangles + start for (_, triangles), start in zip(group, starts, strict=True)]),
        group[0][0].color,
    )
