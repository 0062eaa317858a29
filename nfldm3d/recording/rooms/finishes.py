"""What floors and walls are covered with: the textures of Sweet Home 3D where they are installed, and plain paint."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nfldm3d.files import DataFormatError
from nfldm3d.recording.furniture import CENTIMETRE
from nfldm3d.recording.mesh_files import open_texture

JAR = Path("usr/share/sweethome3d/sweethome3d.jar")
"""Where Debian's and Ubuntu's package sweethome3d puts it, below the root."""
INSIDE = "com/eteks/sweethome3d/io/"
CATALOGUE = f"{INSIDE}DefaultTexturesCatalog.properties"

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
    try:
        with zipfile.ZipFile(jar) as opened:
            return _read(opened, jar)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataFormatError(jar, f"holds no textures of Sweet Home 3D ({error}); get the package again") from error


def _read(opened: zipfile.ZipFile, jar: Path) -> list[Finish]:
    entries: dict[str, dict[str, str]] = {}
    for line in opened.read(CATALOGUE).decode("latin-1").splitlines():
        key, is_entry, value = line.partition("=")
        name, numbered, number = key.partition("#")
        if is_entry and numbered and number.isdigit():
            entries.setdefault(number, {})[name] = value.strip()
    return [
        Finish(
            entry["name"],
            entry["category"],
            (float(entry["width"]) * CENTIMETRE, float(entry["height"]) * CENTIMETRE),
            open_texture(opened.read(entry["image"].lstrip("/")), f"{jar}{entry['image']}"),
        )
        for entry in entries.values()
        if entry.get("category") in ("Floor", "Wall") and not re.search(OUTSIDE, entry["name"].lower())
    ]


def paint(color: tuple[float, float, float], category: str) -> Finish:
    """Plain paint; colours from 0 to 1."""
    pixels = np.full((1, 1, 4), (*(round(255 * value) for value in color), 255), np.uint8)
    return Finish("paint", category, (1.0, 1.0), pixels)
