"""What objects a folder or a package holds: any meshes, the furniture of Sweet Home 3D, FlightGear's aircraft, TORCS's
cars.

A package is the folder that a Debian package fills, installed or unpacked anywhere. Objects of one shape in several
colours are objects of one group; see ``split_objects``.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nfldm3d.recording import furniture
from nfldm3d.recording.driving.cars import Car, read_car
from nfldm3d.recording.driving.textures import read_texture
from nfldm3d.recording.driving.torcs import LICENCE as TORCS_LICENCE, PACKAGE_FOLDER as TORCS_FOLDER, TorcsData
from nfldm3d.recording.furniture import AHEAD_FROM_FILE, Furniture, list_furniture, read_furniture, to_pose
from nfldm3d.recording.mesh_files import SUFFIXES, check_mesh, find_missing, read_mesh
from nfldm3d.recording.meshes import Mesh, Patch, join_meshes
from nfldm3d.recording.objects.aircraft import (
    AIRCRAFT_FOLDER,
    LICENCE as AIRCRAFT_LICENCE,
    PACKAGE as AIRCRAFT_PACKAGE,
    Plane,
    list_aircraft,
)

PACKAGES = (furniture.PACKAGE, AIRCRAFT_PACKAGE, "torcs-data")
FRONT_LEFT = np.array(((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
"""Blender's objects, z up, look along -y; here x lies ahead."""
BACKWARDS = np.diag((-1.0, -1.0, 1.0))
"""FlightGear's aircraft fly along -x."""
TEST_SHARE = 10
_GENERAL_STEMS = {"model", "mesh", "scene", "object", "untitled", "texturedmesh"}

Up = Literal["y", "z"]


@dataclass(frozen=True)
class ObjectFile:
    """One object of a folder, in one of its liveries; not read yet."""

    source: str
    """Names the folder or package: furniture, aircraft, cars, or the folder's own name."""
    name: str
    """What its folder or catalogue calls it."""
    caption: str
    group: str
    """Objects that share it are of one shape, as far as names tell."""
    kind: Literal["mesh", "furniture", "aircraft", "car"]
    path: Path
    textures: tuple[Path, ...] = ()
    """Folders in which textures are looked for first."""
    up: Up = "y"
    """Of a mesh."""
    piece: Furniture | None = None
    details: dict[str, object] = field(default_factory=dict)
    """Licence, creator and whatever else is known, as plain JSON values."""

    @property
    def mesh_key(self) -> str:
        """Equal where the mesh is the same file."""
        return f"{self.path}:{self.piece.model}" if self.piece else str(self.path)

    def find_problem(self) -> str | None:
        """What this livery of a mesh that can be read lacks."""
        missing = find_missing(self.path, self.textures) if self.kind == "aircraft" else []
        livery = self.details.get("livery")
        return f"{self.path}: names files that are missing in {livery}: {', '.join(missing)}" if missing else None

    def read(self) -> Mesh:
        """The mesh: x lies ahead, z is up; in metres where the source knows them.

        Raises:
            DataFormatError: it cannot be read or drawn, or lacks textures.
        """
        if self.piece is not None:
            return read_furniture(self.piece)
        if self.kind == "car":
            return _from_car(read_car(self.name, self.path, self.path.with_suffix(".xml"), self.textures), self.path)
        mesh = read_mesh(self.path, self.textures)
        if self.kind == "aircraft":
            return join_meshes([mesh.moved(to_pose(BACKWARDS))])
        turn = AHEAD_FROM_FILE if self.up == "y" else FRONT_LEFT
        is_upright = self.path.suffix.lower() in (".ac", ".acc")
        return join_meshes([mesh if is_upright else mesh.moved(to_pose(turn))])


def find_objects(where: str, up: Up = "y") -> list[ObjectFile]:
    """The objects of a folder, or of an installed package by its name.

    Raises:
        ValueError: there is nothing of that name, or no object in it; the message says what to give.
    """
    folder = Path(where)
    if where in PACKAGES and not folder.is_dir():
        folder = Path("/")
    elif not folder.is_dir():
        raise ValueError(f"{where} is no folder; give a folder of meshes, or a package: {', '.join(PACKAGES)}")
    is_root = folder == Path("/")
    if where == furniture.PACKAGE or (not is_root and furniture.find_archives(folder)):
        return [_furniture(piece) for piece in list_furniture(None if is_root else folder)]
    if where == AIRCRAFT_PACKAGE or (not is_root and _holds(folder, AIRCRAFT_FOLDER)):
        return [_aircraft(plane) for plane in list_aircraft(folder)]
    if where == "torcs-data" or (not is_root and _holds(folder, TORCS_FOLDER.relative_to("/") / "cars")):
        return _list_cars(folder)
    return _list_meshes(folder, up)


def _holds(folder: Path, below: Path) -> bool:
    return (folder / below).is_dir()


def describe(name: str) -> str:
    """A caption of a thing's name: an article, and no number."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.]+", " ", name)
    words = re.sub(r"\s+\d+$|(?<=[a-z]{3})\d+$", "", words.strip().lower()).strip() or name.strip().lower()
    return f"{'an' if words.startswith(tuple('aeiou')) else 'a'} {words or 'thing'}"


def _furniture(piece: Furniture) -> ObjectFile:
    return ObjectFile(
        "furniture",
        piece.name,
        describe(piece.name),
        f"{piece.archive.stem}/{piece.model}",
        "furniture",
        piece.archive,
        piece=piece,
        details={
            "category": piece.category,
            "size": [round(value, 4) for value in (piece.depth, piece.width, piece.height)],
            "licence": piece.licence,
            "creator": piece.creator,
            "package": furniture.PACKAGE,
        },
    )


def _aircraft(plane: Plane) -> ObjectFile:
    frame, livery, noun, path, textures, author = plane
    details: dict[str, object] = {
        "livery": livery,
        "licence": AIRCRAFT_LICENCE,
        "creator": author,
        "package": AIRCRAFT_PACKAGE,
    }
    return ObjectFile(
        "aircraft", frame, describe(noun), f"aircraft/{frame}", "aircraft", path, textures, details=details
    )


def _list_cars(folder: Path) -> list[ObjectFile]:
    data = TorcsData.find(None if folder == Path("/") else folder)
    details: dict[str, object] = {"licence": TORCS_LICENCE, "package": "torcs-data"}
    models = sorted(path for path in (data.root / "cars").glob("*/*.acc") if path.stem == path.parent.name)
    return [
        ObjectFile(
            "cars",
            path.stem,
            "a racing car",
            f"cars/{path.stem}",
            "car",
            path,
            data.texture_folders(path),
            details=details,
        )
        for path in models
        if path.with_suffix(".xml").is_file()
    ]


def _list_meshes(folder: Path, up: Up) -> list[ObjectFile]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no meshes ({', '.join(SUFFIXES)}), nor the data of {', '.join(PACKAGES)}")
    source = re.sub(r"[^A-Za-z0-9]+", "_", folder.resolve().name).strip("_").lower() or "objects"
    return [
        ObjectFile(
            source,
            _name(path, folder),
            describe(_name(path, folder)),
            str(path.relative_to(folder)),
            "mesh",
            path,
            up=up,
        )
        for path in paths
    ]


def _name(path: Path, folder: Path) -> str:
    """The file's stem, or the name of its folder where all files are called alike."""
    inner = path.stem.lower() in _GENERAL_STEMS and path.parent != folder
    return path.parent.name if inner else path.stem


def _from_car(car: Car, source: Path) -> Mesh:
    patches = []
    for surface in car.surfaces:
        texture = None if surface.texture is None else read_texture(surface.texture)
        red, green, blue = (255, 255, 255) if texture is not None else (round(255 * min(c, 1)) for c in surface.color)
        patches.append(
            Patch.of(
                surface.positions,
                surface.triangles,
                normals=surface.normals,
                uv=surface.uv,
                color=(red, green, blue, 255),
                texture=texture,
            )
        )
    return join_meshes([check_mesh(Mesh(tuple(patches)), source)])


def split_objects(
    objects: Sequence[ObjectFile], signatures: Mapping[int, str], share: int = TEST_SHARE
) -> dict[int, str]:
    """``train`` or ``test`` for each object by its number: one in ``share`` shapes is for tests.

    Objects whose groups or whose meshes' signatures are equal stay together, and so do those that others tie together:
    a livery never tells a test from training.

    Args:
        signatures: of the objects that can be drawn; others are left out.
    """
    parents: dict[str, str] = {}

    def find(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    for number, signature in signatures.items():
        first, second = sorted((find(f"group {objects[number].group}"), find(f"shape {signature}")))
        parents[second] = first
    return {number: _side(find(f"shape {signature}"), share) for number, signature in sorted(signatures.items())}


def _side(name: str, share: int) -> str:
    return "test" if int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % share == 0 else "train"
