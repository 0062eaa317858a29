"""Reads AC3D models (``.ac``, and TORCS's ``.acc`` with normals and several layers of textures).

A file is a tree of objects. Each has vertices, surfaces that refer to them with texture coordinates, and a place
relative to the object above. Files have y up; here z is up, as everywhere: (x, y, z) becomes (x, -z, y).
"""

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from nfldm3d.files import DataFormatError, read_content

LARGEST = 1e9
"""Of all numbers: coordinates in metres, numbers of vertices, textures that repeat."""
LINES = (1, 2)
"""Kinds of surfaces that are closed or open lines; they are left out."""
STRIP = 4
"""Kind of a surface that is a strip of triangles, as TORCS's optimiser writes; all others are polygons."""
FLAT_PARTS = 50_000_000
"""Bytes: larger files are none that a person modelled."""


@dataclass(frozen=True, eq=False)
class Part:
    """One object of a model, as triangles."""

    name: str
    textures: tuple[str, ...]
    """Names of picture files; the first is the surface's own, the others lie over it (shadows, lines)."""
    positions: Float[np.ndarray, "corners 3"]
    """Metres, z up; a corner of a triangle for each, shared within a surface."""
    normals: Float[np.ndarray, "corners 3"]
    uv: Float[np.ndarray, "corners 2"]
    triangles: Int[np.ndarray, "triangles 3"]
    color: tuple[float, float, float]
    """Of the material, 0 to 1."""
    opacity: float = 1.0
    """Of the material."""
    has_normals: bool = True
    """Whether the normals are those of the file, else those of flat surfaces."""

    @property
    def texture(self) -> str | None:
        """The surface's own picture."""
        return self.textures[0] if self.textures else None

    def corners(self) -> Float[np.ndarray, "triangles 3 3"]:
        """The triangles' corners."""
        return self.positions[self.triangles]


def read_ac3d(path: Path) -> list[Part]:
    """The objects of a model that have surfaces.

    Raises:
        DataFormatError: the file cannot be read, or is no AC3D model.
    """
    lines = read_content(path, FLAT_PARTS, "check the path").decode("latin-1").splitlines()
    if not lines or not lines[0].startswith("AC3D"):
        raise DataFormatError(path, "does not begin with AC3D; give an .ac or .acc model")
    cursor = _Cursor(path, lines)
    try:
        return _read_model(cursor)
    except (ValueError, IndexError, RecursionError) as error:
        if isinstance(error, DataFormatError):
            raise
        raise DataFormatError(path, f"line {cursor.number}: {error}; export the model again") from error


@dataclass
class _Cursor:
    path: Path
    lines: list[str]
    number: int = 1
    """Lines that were taken."""

    def more(self) -> bool:
        return self.number < len(self.lines)

    def take(self) -> str:
        self.number += 1
        return self.lines[self.number - 1]

    def take_numbers(self, count: int) -> Float[np.ndarray, "rows columns"]:
        """``count`` lines of equally many numbers."""
        if count < 0:
            raise ValueError(f"{count} lines were announced")
        rows = [line.split() for line in self.lines[self.number : self.number + count]]
        self.number += count
        if len(rows) < count or len({len(row) for row in rows}) > 1:
            raise ValueError(f"{count} lines of equally many numbers were announced")
        if not rows:
            return np.zeros((0, 3))
        return _to_numbers([word for row in rows for word in row]).reshape(count, -1)


def _to_numbers(words: list[str]) -> Float[np.ndarray, " numbers"]:
    """Of sizes that things have: later sums and products stay finite."""
    return _bounded(np.array(words, dtype=np.float64))


def _bounded(numbers: np.ndarray) -> np.ndarray:
    if not (np.abs(numbers) <= LARGEST).all():
        raise ValueError(f"a number is infinite, none, or beyond {LARGEST:g}")
    return numbers


@dataclass
class _Object:
    name: str = ""
    textures: list[str] = field(default_factory=list)
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))
    vertices: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    surfaces: list[tuple[int, int, np.ndarray]] = field(default_factory=list)


_Material = tuple[tuple[float, float, float], float]
"""Colour and opacity."""


def _read_model(cursor: _Cursor) -> list[Part]:
    materials: list[_Material] = []
    parts: list[Part] = []
    while cursor.more():
        line = cursor.take()
        if line.startswith("MATERIAL"):
            materials.append(_read_material(line))
        elif line.startswith("OBJECT"):
            _read_object(cursor, np.zeros(3), np.eye(3), materials, parts)
    return parts


def _read_material(line: str) -> _Material:
    words = shlex.split(line)
    start = words.index("rgb") + 1
    red, green, blue = _to_numbers(words[start : start + 3]).clip(0.0, 1.0).tolist()
    clear = _to_numbers([words[words.index("trans") + 1]]).item() if "trans" in words else 0.0
    return (red, green, blue), 1.0 - min(max(clear, 0.0), 1.0)


def _read_object(
    cursor: _Cursor, origin: np.ndarray, turn: np.ndarray, materials: list[_Material], into: list[Part]
) -> None:
    thing = _Object(origin=origin, turn=turn)
    while cursor.more():
        line = cursor.take()
        word, _, rest = line.partition(" ")
        if word == "kids":
            if thing.surfaces:
                for group in _split_materials(thing):
                    into += _to_parts(group, materials)
            for _ in range(int(rest)):
                if not cursor.more():  # TORCS's own tracks announce more objects than they hold
                    return
                if not cursor.take().startswith("OBJECT"):
                    raise ValueError(f"{rest} objects were announced within {thing.name!r}")
                _read_object(cursor, thing.origin, thing.turn, materials, into)
            return
        _read_property(cursor, thing, word, rest)
    raise ValueError(f"the object {thing.name!r} has no end")


def _read_property(cursor: _Cursor, thing: _Object, word: str, rest: str) -> None:
    if word == "name":
        thing.name = rest.strip().strip('"')
    elif word == "texture":
        name = shlex.split(rest)[0]
        if not name.startswith("empty_texture"):
            thing.textures.append(name)
    elif word == "loc":
        thing.origin = _bounded(thing.origin + thing.turn @ _to_numbers(rest.split()))
    elif word == "rot":
        thing.turn = _bounded(thing.turn @ _to_numbers(rest.split()).reshape(3, 3).T)
    elif word == "data":
        cursor.take()
    elif word == "numvert":
        thing.vertices = cursor.take_numbers(int(rest))
    elif word == "numsurf":
        thing.surfaces = [_read_surface(cursor) for _ in range(int(rest))]


def _read_surface(cursor: _Cursor) -> tuple[int, int, np.ndarray]:
    kind, material = int(cursor.take().split()[1], 16) & 0xF, 0
    while True:
        word, _, rest = cursor.take().partition(" ")
        if word == "mat":
            material = int(rest)
        elif word == "refs":
            return kind, material, cursor.take_numbers(int(rest))


def _split_materials(thing: _Object) -> list[_Object]:
    """An object for each material, where it is the material that colours it."""
    numbers = dict.fromkeys(material for _, material, _ in thing.surfaces)
    if thing.textures or len(numbers) < 2:
        return [thing]
    return [replace(thing, surfaces=[s for s in thing.surfaces if s[1] == number]) for number in numbers]


def _to_parts(thing: _Object, materials: list[_Material]) -> list[Part]:
    corners, triangles, normals, start = [], [], [], 0
    points = _bounded(thing.vertices[:, :3] @ thing.turn.T + thing.origin)
    for kind, _, refs in thing.surfaces:
        if kind in LINES or len(refs) < 3:
            continue
        index = refs[:, 0].astype(int)
        if index.min() < 0 or index.max() >= len(points):
            raise ValueError(f"a surface of {thing.name!r} refers to a vertex beyond {len(points)}")
        fan = _split(kind, len(refs))
        corners.append(refs)
        triangles.append(fan + start)
        normals.append(_normals(thing, points[index], index))
        start += len(refs)
    if not corners:
        return []
    refs, flat = np.concatenate(corners), np.concatenate(triangles)
    positions = _stand_up(points[refs[:, 0].astype(int)])
    first, second, third = positions[flat].transpose(1, 0, 2)
    whole = np.linalg.norm(np.cross(second - first, third - first), axis=1) > 1e-8  # strips turn on empty ones
    number, own = thing.surfaces[0][1], thing.vertices.shape[1] >= 6
    color, opacity = materials[number] if number < len(materials) else ((1.0, 1.0, 1.0), 1.0)
    normal = _stand_up(np.concatenate(normals))
    flat, uv, textures = flat[whole], refs[:, 1:3].copy(), tuple(thing.textures)
    return [Part(thing.name, textures, positions, normal, uv, flat, color, opacity, own)]


def _split(kind: int, corners: int) -> Int[np.ndarray, "triangles 3"]:
    """Triangles of a strip or of a convex polygon."""
    step = np.arange(corners - 2)
    if kind == STRIP:
        odd = step % 2
        return np.stack((step + odd, step + 1 - odd, step + 2), axis=1)
    return np.stack((np.zeros_like(step), step + 1, step + 2), axis=1)


def _normals(thing: _Object, corners: np.ndarray, index: np.ndarray) -> Float[np.ndarray, "corners 3"]:
    """Those of the file, else that of the surface."""
    if thing.vertices.shape[1] >= 6:
        return thing.vertices[index, 3:6] @ thing.turn.T
    around = np.cross(corners[1:-1] - corners[0], corners[2:] - corners[0]).sum(0)
    return np.repeat((around / max(float(np.linalg.norm(around)), 1e-12))[None], len(index), axis=0)


def _stand_up(vectors: Float[np.ndarray, "rows 3"]) -> Float[np.ndarray, "rows 3"]:
    return vectors[:, (0, 2, 1)] * (1.0, -1.0, 1.0)
