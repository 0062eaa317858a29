"""The furniture catalogue of Sweet Home 3D: meshes in zips, with names, categories, sizes, licences and authors."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from nfldm3d.data.image_files import DAMAGED
from nfldm3d.files import DataFormatError
from nfldm3d.recording.mesh_files import LARGEST_FILE, parse_mesh
from nfldm3d.recording.meshes import Mesh, join_meshes

PACKAGE = "sweethome3d-furniture"
FOLDER = Path("usr/share/sweethome3d/furniture")
"""Where Debian's and Ubuntu's package puts the zips, below the root."""
CATALOGUE = "PluginFurnitureCatalog.properties"
CENTIMETRE = 0.01
AHEAD_FROM_FILE = np.array(((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
"""Files have y up and their fronts at +z, as glTF's; here x lies ahead and z is up."""
_ENTRY = re.compile(r"\s*(\w+)#(\d+)\s*=\s*(.*)")


@dataclass(frozen=True)
class Furniture:
    """One piece of a catalogue."""

    archive: Path
    model: str
    """Name of the mesh in the zip."""
    name: str
    category: str
    width: float
    """Metres, from side to side."""
    depth: float
    """Metres, from front to back."""
    height: float
    elevation: float
    """Metres above the floor at which it hangs or stands."""
    licence: str
    creator: str
    rotation: tuple[float, ...] = ()
    """Nine numbers, row by row, that turn the file's axes first."""


def find_archives(folder: Path | None) -> list[Path]:
    """The zips in a folder, or in an unpacked package there; by default those of the installed package."""
    start = Path("/") if folder is None else folder
    return next((found for place in (start, start / FOLDER) if (found := sorted(place.glob("*.sh3f")))), [])


def list_furniture(folder: Path | None = None) -> list[Furniture]:
    """All pieces of the catalogues in a folder, or of the installed package.

    Raises:
        ValueError: there is none; the message says how to get it.
        DataFormatError: a zip is damaged, or has no catalogue.
    """
    archives = find_archives(folder)
    if not archives:
        raise ValueError(
            f"{'/' / FOLDER if folder is None else folder} does not hold furniture (*.sh3f): install the package (sudo "
            f"apt install {PACKAGE}), or unpack it (apt download {PACKAGE}; dpkg-deb -x {PACKAGE}_*.deb FOLDER) and "
            "give FOLDER"
        )
    return [piece for archive in archives for piece in read_catalogue(archive)]


def read_catalogue(archive: Path) -> list[Furniture]:
    """The pieces that a zip holds."""
    text = _open(archive)(CATALOGUE)
    if text is None:
        raise DataFormatError(archive, f"holds no {CATALOGUE}; give a furniture library of Sweet Home 3D")
    shared: dict[str, str] = {}
    entries: dict[int, dict[str, str]] = {}
    for line in text.decode("latin-1").splitlines():
        found = _ENTRY.fullmatch(line)
        if found:
            entries.setdefault(int(found[2]), {})[found[1]] = _unescape(found[3].strip())
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            shared[key.strip()] = _unescape(value.strip())
    return [_read_piece(archive, number, entry, shared) for number, entry in sorted(entries.items())]


def read_furniture(piece: Furniture) -> Mesh:
    """The mesh in metres and in its catalogue's size: x lies ahead, y to the left, z up, its middle on the floor.

    Raises:
        DataFormatError: it cannot be read, has no faces, or lacks textures.
    """
    read, folder = _open(piece.archive), PurePosixPath(piece.model).parent
    source, data = piece.archive / piece.model, read(piece.model)
    if data is None:
        raise DataFormatError(source, "is missing in the zip; get it again")
    kind = PurePosixPath(piece.model).suffix.lower()[1:]
    mesh = parse_mesh(data, kind, lambda name: read(str(folder / name.replace("\\", "/"))), source)
    turn = np.array(piece.rotation).reshape(3, 3) if piece.rotation else np.eye(3)
    mesh = mesh.moved(to_pose(AHEAD_FROM_FILE @ turn))
    low, high = mesh.bounds()
    scale = np.array((piece.depth, piece.width, piece.height)) / np.maximum(high - low, 1e-9)
    scale = np.where(high - low > 1e-6 * (high - low).max(), scale, scale.max())
    pose = to_pose(np.diag(scale))
    pose[:3, 3] = -scale * ((low + high) / 2 * (1, 1, 0) + low * (0, 0, 1))
    return join_meshes([mesh.moved(pose)])


def to_pose(linear: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 4"]:
    """A linear map as an affine one."""
    pose = np.eye(4)
    pose[:3, :3] = linear
    return pose


def _read_piece(archive: Path, number: int, entry: Mapping[str, str], shared: Mapping[str, str]) -> Furniture:
    def size(key: str, default: float | None = None) -> float:
        try:
            return float(entry[key]) * CENTIMETRE
        except (KeyError, ValueError) as error:
            if default is not None and key not in entry:
                return default
            raise DataFormatError(archive, f"entry {number} has no number {key!r}; get the zip again") from error

    if not {"model", "name", "category"} <= entry.keys():
        raise DataFormatError(archive, f"entry {number} has no model, name or category; get the zip again")
    rotation = tuple(float(word) for word in entry.get("modelRotation", "").split())
    return Furniture(
        archive,
        entry["model"].lstrip("/"),
        entry["name"],
        entry["category"],
        size("width"),
        size("depth"),
        size("height"),
        size("elevation", 0.0),
        shared.get("license", "unknown"),
        entry.get("creator", "unknown"),
        rotation if len(rotation) == 9 else (),
    )


def _unescape(text: str) -> str:
    """Java's escapes in property files: backslashed letters and \\uXXXX."""
    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], text)


@lru_cache(maxsize=16)
def _open(archive: Path):
    """Reads files of a zip by their names, whatever their case; None for those that it lacks."""
    try:
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataFormatError(archive, f"is no zip file ({error}); get it again") from error
    names = {name.lower(): name for name in opened.namelist()}

    def read(name: str) -> bytes | None:
        found = names.get(name.lower())
        if found is None:
            return None
        if opened.getinfo(found).file_size > LARGEST_FILE:
            raise DataFormatError(archive / found, f"has more than {LARGEST_FILE} bytes; leave it out")
        try:
            return opened.read(found)
        except (*DAMAGED, zipfile.BadZipFile, RuntimeError) as error:
            raise DataFormatError(archive / found, f"is damaged ({error}); get the zip again") from error

    return read
