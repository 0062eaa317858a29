"""The furniture catalogue of Sweet Home 3D: meshes in zips, with names, categories, sizes, licences and authors."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from nfldm3d.data.number_files import parse_length
from nfldm3d.files import DataFormatError
from nfldm3d.recording.archives import Read, open_archive, read_properties
from nfldm3d.recording.mesh_files import parse_mesh
from nfldm3d.recording.meshes import Mesh, join_meshes

PACKAGE = "sweethome3d-furniture"
FOLDER = Path("usr/share/sweethome3d/furniture")
"""Where Debian's and Ubuntu's package puts the zips, below the root."""
CATALOGUE = "PluginFurnitureCatalog.properties"
CENTIMETRE = 0.01
AHEAD_FROM_FILE = np.array(((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
"""Files have y up and their fronts at +z, as glTF's; here x lies ahead and z is up."""


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
    text = _open_now(archive)(CATALOGUE)
    if text is None:
        raise DataFormatError(archive, f"holds no {CATALOGUE}; give a furniture library of Sweet Home 3D")
    shared, entries = read_properties(text)
    return [_read_piece(archive, number, entry, shared) for number, entry in sorted(entries.items())]


def read_furniture(piece: Furniture) -> Mesh:
    """The mesh in metres and in its catalogue's size: x lies ahead, y to the left, z up, its middle on the floor.

    Raises:
        DataFormatError: it cannot be read, has no faces, or lacks textures.
    """
    read, folder = _open_now(piece.archive), PurePosixPath(piece.model).parent
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
        if default is not None and key not in entry:
            return default
        value = parse_length(entry.get(key, "missing"), archive, f"{key} of entry {number}") * CENTIMETRE
        if default is None and not value > 0:
            raise DataFormatError(archive, f"{key} of entry {number} is {value}; it must be above 0")
        return value

    if not {"model", "name", "category"} <= entry.keys():
        raise DataFormatError(archive, f"entry {number} has no model, name or category; get the zip again")
    words = entry.get("modelRotation", "").split()
    rotation = tuple(parse_length(word, archive, f"modelRotation of entry {number}") for word in words)
    if len(rotation) == 9 and not 0.1 < abs(np.linalg.det(np.reshape(rotation, (3, 3)))) < 10:
        raise DataFormatError(archive, f"modelRotation of entry {number} is no rotation; get the zip again")
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


@lru_cache(maxsize=16)
def _open(archive: Path, size: int, changed_ns: int) -> Read:
    """Kept open, as long as the file is the same."""
    return open_archive(archive)


def _open_now(archive: Path) -> Read:
    try:
        status = os.stat(archive)
    except (OSError, ValueError) as error:
        raise DataFormatError(archive, f"cannot be read ({error}); get it again") from error
    return _open(archive, status.st_size, status.st_mtime_ns)
