"""Cars to stand on a track: TORCS's bodies on wheels of our own, in any colour."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from nfldm3d.data.number_files import parse_length
from nfldm3d.data.xml_files import read_xml
from nfldm3d.files import DataFormatError
from nfldm3d.recording.ac3d import Part, read_ac3d
from nfldm3d.recording.driving.models import Model, Textures
from nfldm3d.recording.driving.surfaces import CAR
from nfldm3d.recording.driving.textures import find_texture, read_texture
from nfldm3d.recording.driving.track import Surface, join_parts

INCH, MILLIMETRE = 0.0254, 0.001
AFTER_TRACKS = 1000
"""Cars are drawn after all surfaces of a track."""
SKIN_SIZE = 256
"""Pixels along a side of the texture of a body."""
WHEEL_SIDES = 14
TYRE, RIM = (0.05, 0.05, 0.055), (0.45, 0.45, 0.47)
RIM_SHARE = 0.62
"""Of a wheel's radius."""
MAX_BYTES = 2**24
"""Of a description."""
BODY_COLOR = 0.45
"""A texel this bright, of 1, that has a colour or is nearly white is paint: all else is glass, rubber and chrome."""
WHITE = 0.8
COLOURED = 0.25
PAINTED = 0.85
"""How much of a new paint replaces the old; the rest keeps letters and stripes visible."""


@dataclass(frozen=True)
class Wheels:
    """Where a car's wheels are."""

    front: float
    """Metres from the car's origin along x."""
    rear: float
    half_track: float
    """Metres from the middle to the outer face of a wheel's tyre."""
    radius: float
    width: float
    clearance: float
    """Metres between the road and the body."""


@dataclass(frozen=True, eq=False)
class Car:
    """A kind of car; x lies ahead, z is up, and the origin is on the road below it."""

    body: str
    surfaces: tuple[Surface, ...]
    skin: UInt8[np.ndarray, "height width 4"]
    """The texture of the body, as it was drawn."""
    size: tuple[float, float, float]
    """Length, width and height in metres."""

    def model(self, textures: Textures) -> Model:
        """The car as it was drawn; the nodes of its body are called skin."""
        model = Model(self.body, first=AFTER_TRACKS)
        for surface in self.surfaces:
            is_body = surface.texture is not None and surface.texture.stem == self.body
            model.add(surface, textures, name="skin" if is_body else "triangles")
        return model


def read_car(body: str, model: Path, description: Path, folders: Sequence[Path]) -> Car:
    """The car of an AC3D model, with wheels where TORCS's description puts them.

    Raises:
        DataFormatError: a file cannot be read, or lacks what is needed.
    """
    wheels, parts = read_wheels(description), read_ac3d(model)
    if not parts:
        raise DataFormatError(model, "has no surfaces; unpack the data again")
    lift = wheels.clearance - min(float(part.positions[:, 2].min()) for part in parts)
    surfaces = [_lift(surface, lift) for surface in _merge(parts, model, folders)]
    skin = next((s.texture for s in surfaces if s.texture is not None and s.texture.stem == body), None)
    if skin is None:
        raise DataFormatError(model, f"has no texture called {body}; unpack the data again")
    points = np.concatenate([surface.positions for surface in surfaces])
    x, y, _ = np.ptp(points, axis=0).tolist()
    middle = (points.min(0) + points.max(0)) / 2 * (1.0, 1.0, 0.0)
    for axle in (wheels.front, wheels.rear):
        for side in (-1.0, 1.0):
            center = np.array((axle, side * (wheels.half_track - wheels.width / 2), wheels.radius))
            surfaces += _build_wheel(center, side, wheels)
    moved = tuple(replace(surface, positions=surface.positions - middle) for surface in surfaces)
    return Car(body, moved, read_texture(skin, SKIN_SIZE), (x, y, float(points[:, 2].max())))


def read_wheels(description: Path) -> Wheels:
    """The wheels that TORCS's XML description of a car gives it."""
    root = read_xml(description, MAX_BYTES, "unpack the data again")

    def number(section: str, name: str) -> float:
        entry = root.find(f"section[@name='{section}']/attnum[@name='{name}']")
        value = None if entry is None else entry.get("val")
        if value is None:
            raise DataFormatError(description, f"has no {name!r} in section {section!r}; unpack the data again")
        return parse_length(value, description, f"{name!r} in section {section!r}")

    wheel = "Front Right Wheel"
    width = number(wheel, "tire width") * MILLIMETRE
    radius = number(wheel, "rim diameter") * INCH / 2 + width * number(wheel, "tire height-width ratio")
    return Wheels(
        number("Front Axle", "xpos"),
        number("Rear Axle", "xpos"),
        abs(number(wheel, "ypos")) + width / 2,
        radius,
        width,
        number(wheel, "ride height") * MILLIMETRE,
    )


def draw_paint(generator: np.random.Generator) -> tuple[float, float, float]:
    """A colour that cars have: a third is white, grey or black."""
    if generator.random() < 1 / 3:
        level = float(generator.choice((0.95, 0.7, 0.45, 0.16)))
        return (level, level, level)
    red, green, blue = colorsys.hsv_to_rgb(generator.random(), generator.uniform(0.55, 0.95), generator.uniform(0.5, 1))
    return (red, green, blue)


def paint_over(
    pixels: UInt8[np.ndarray, "height width 4"], paint: tuple[float, float, float]
) -> UInt8[np.ndarray, "height width 4"]:
    """The texture of a car in another colour; glass, lamps and letters stay."""
    colors = pixels[..., :3].astype(np.float32) / 255
    bright, dark = colors.max(-1), colors.min(-1)
    coloured = (bright - dark) > COLOURED * bright
    body = (bright > BODY_COLOR) & (coloured | (dark > WHITE))
    middle = float(np.median(bright[body])) if body.any() else 1.0
    fresh = np.array(paint, np.float32) * np.clip(bright / middle, 0.0, 1.3)[..., None]
    mixed = np.where(body[..., None], (1 - PAINTED) * colors + PAINTED * fresh, colors)
    return np.concatenate(((np.clip(mixed, 0, 1) * 255).astype(np.uint8), pixels[..., 3:]), axis=-1)


def _merge(parts: Sequence[Part], model: Path, folders: Sequence[Path]) -> list[Surface]:
    """One surface for each texture."""
    groups: dict[Path | None, list[tuple[Part, np.ndarray]]] = {}
    for part in parts:
        texture = None if part.texture is None else find_texture(part.texture, folders)
        if part.texture is not None and texture is None:
            raise DataFormatError(model, f"names the texture {part.texture}, which is missing; unpack the data again")
        groups.setdefault(texture, []).append((part, part.triangles))
    return [join_parts(texture, CAR, group) for texture, group in groups.items()]


def _lift(surface: Surface, height: float) -> Surface:
    return replace(surface, positions=surface.positions + np.array((0.0, 0.0, height)))


def _build_wheel(center: Float[np.ndarray, " 3"], side: float, wheels: Wheels) -> list[Surface]:
    """A tyre, and a brighter rim on its outer face."""
    angle = np.linspace(0, 2 * np.pi, WHEEL_SIDES, endpoint=False)
    circle = np.stack((np.cos(angle), np.zeros(WHEEL_SIDES), np.sin(angle)), axis=1)
    across = np.array((0.0, wheels.width / 2, 0.0))
    rings = np.concatenate((wheels.radius * circle - across, wheels.radius * circle + across))
    ring, after = np.arange(WHEEL_SIDES), (np.arange(WHEEL_SIDES) + 1) % WHEEL_SIDES
    tread = [(ring, after, ring + WHEEL_SIDES), (after, after + WHEEL_SIDES, ring + WHEEL_SIDES)]
    triangles = np.concatenate([np.stack(corners, axis=1) for corners in tread])
    normals = np.concatenate((circle, circle))
    tyre = _plain(rings + center, normals, np.concatenate((triangles, _fan(0), _fan(WHEEL_SIDES))), TYRE)
    outward = np.array((0.0, side, 0.0))
    disc = RIM_SHARE * wheels.radius * circle + (wheels.width / 2 + 0.01) * outward
    return [tyre, _plain(disc + center, np.tile(outward, (WHEEL_SIDES, 1)), _fan(0), RIM)]


def _fan(start: int) -> Int[np.ndarray, "triangles 3"]:
    step = np.arange(1, WHEEL_SIDES - 1)
    return np.stack((np.zeros_like(step), step, step + 1), axis=1) + start


def _plain(
    positions: Float[np.ndarray, "corners 3"],
    normals: Float[np.ndarray, "corners 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    color: tuple[float, float, float],
) -> Surface:
    return Surface(None, CAR, positions, normals, np.zeros((len(positions), 2)), triangles, color)
