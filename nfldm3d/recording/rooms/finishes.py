"""What floors and walls are covered with: the textures of Sweet Home 3D where they are installed, and plain paint."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nfldm3d.data.number_files import parse_length
from nfldm3d.files import DataFormatError
from nfldm3d.recording.archives import Read, open_archive, read_properties
from nfldm3d.recording.furniture import CENTIMETRE
from nfldm3d.recording.mesh_files import open_texture

JAR = Path("usr/share/sweethome3d/sweethome3d.jar")
"""Where Debian's and Ubuntu's package sweethome3d puts it, below the root."""
INSIDE = "com/eteks/sweethome3d/io/"
CATALOGUE = f"{INSIDE}DefaultTexturesCatalog.properties"

AGAIN = "get the package sweethome3d again"
OUTSIDE = r"grass|pebble|paving|box ?tree|sky|cloud"
"""Names of what no room has."""


@dataclass(frozen=True, eq=False)
class Finish:
    """A texture, and how large one repetition of it is."""

    name: str
    category: str
    """``Floor`` or ``Wall``."""
    size: tuple[float, float]
    """Metres."""
    pixels: UInt8[np.ndarray, "height width 4"]


def read_finishes(folder: Path | None) -> list[Finish]:
    """The textures of the package in a folder, by default of the installed one; none if it is not there.

    Raises:
        DataFormatError: a folder was given that does not hold them.
    """
    start = Path("/") if folder is None else folder
    jar = next((path for path in (start / JAR, start / JAR.name) if path.is_file()), None)
    if jar is None:
        if folder is None:
            return []
        raise DataFormatError(
            folder, f"holds no {JAR.name}: unpack the package sweethome3d (apt download sweethome3d; dpkg-deb -x)"
        )
    read = open_archive(jar)
    catalogue = read(CATALOGUE)
    if catalogue is None:
        raise DataFormatError(jar, f"holds no {CATALOGUE}; {AGAIN}")
    _, entries = read_properties(catalogue)
    return [
        _read_finish(jar, read, number, entry)
        for number, entry in entries.items()
        if entry.get("category") in ("Floor", "Wall") and not re.search(OUTSIDE, entry.get("name", "").lower())
    ]


def _read_finish(jar: Path, read: Read, number: int, entry: dict[str, str]) -> Finish:
    if not {"name", "image"} <= entry.keys():
        raise DataFormatError(jar, f"texture {number} has no name or image; {AGAIN}")
    width, height = (
        parse_length(entry.get(key, "missing"), jar, f"{key} of texture {number}") * CENTIMETRE
        for key in ("width", "height")
    )
    if not min(width, height) > 0:
        raise DataFormatError(jar, f"texture {number} is {width:g} x {height:g} m; it must be above 0")
    image = read(entry["image"].lstrip("/"))
    if image is None:
        raise DataFormatError(jar, f"holds no {entry['image']}, which its catalogue names; {AGAIN}")
    return Finish(entry["name"], entry["category"], (width, height), open_texture(image, f"{jar}{entry['image']}"))


def paint(color: tuple[float, float, float], category: str) -> Finish:
    """Plain paint; colours from 0 to 1."""
    pixels = np.full((1, 1, 4), (*(round(255 * value) for value in color), 255), np.uint8)
    return Finish("paint", category, (1.0, 1.0), pixels)
