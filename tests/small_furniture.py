"""A furniture library like Sweet Home 3D's, of boxes in one colour each or with a texture."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

Piece = tuple[str, str, tuple[float, float, float], tuple[float, float, float]]
"""Name, category, width, depth and height in centimetres, colour."""
CHAIR: Piece = ("Plain chair", "Living room", (40.0, 60.0, 90.0), (0.8, 0.1, 0.1))


def box_obj(material: str = "paint") -> str:
    """A box that is wider than deep, y up: its front at +z is of the material called front."""
    corners = [(x, y, z) for y in (0, 2) for z in (-1, 1) for x in (-3, 3)]
    lines = ["mtllib box.mtl", *(f"v {x} {y} {z}" for x, y, z in corners), "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    sides = ((1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (1, 3, 7, 5), (2, 6, 8, 4))
    lines.append(f"usemtl {material}")
    lines += [f"f {' '.join(f'{corner}/{k + 1}' for k, corner in enumerate(side))}" for side in sides]
    return "\n".join([*lines, "usemtl front", "f 3/1 4/2 8/3 7/4", ""])


def box_mtl(color: Sequence[float], texture: str | None = None, opacity: float = 1.0) -> str:
    red, green, blue = color
    picture = f"map_Kd {texture}\n" if texture else ""
    return f"newmtl paint\nKd {red} {green} {blue}\nd {opacity}\n{picture}newmtl front\nKd 0.1 0.1 0.9\n"


def picture_bytes(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "png")
    return buffer.getvalue()


def write_library(path: Path, pieces: Sequence[Piece], *, texture: str | None = None, missing: bool = False) -> Path:
    """The zip; with ``texture`` all are painted by a green picture of that name, which may be missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# a catalogue", "name=Small", "license=CC0 for tests"]
    with zipfile.ZipFile(path, "w") as library:
        for number, (name, category, size, color) in enumerate(pieces, 1):
            folder = f"small/p{number}"
            entry = {"name": name, "category": category, "model": f"/{folder}/box.obj", "creator": "nobody"}
            entry |= dict(zip(("width", "depth", "height"), map(str, size), strict=True))
            lines += [f"{key}#{number}={value}" for key, value in entry.items()]
            library.writestr(f"{folder}/box.obj", box_obj())
            library.writestr(f"{folder}/box.mtl", box_mtl(color, texture))
            if texture and not missing:
                library.writestr(f"{folder}/{texture}", picture_bytes((20, 200, 40)))
        library.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
    return path
