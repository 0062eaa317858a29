"""Reads meshes with their textures: GLB, OBJ, PLY and others through trimesh, AC3D by our own reader.

What a mesh lacks is said rather than made up: missing textures, no faces, numbers that are none, sizes that no recorder
can draw. Meshes keep the axes of their files but for AC3D's, which are y up there and z up here.
"""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from nfldm3d.data.image_files import DAMAGED, MAX_PIXELS, open_picture
from nfldm3d.files import DataFormatError, read_content
from nfldm3d.recording.ac3d import Part, read_ac3d
from nfldm3d.recording.gltf_pictures import list_pictures
from nfldm3d.recording.meshes import Mesh, Patch

AC3D_SUFFIXES = (".ac", ".acc")
SUFFIXES = (*AC3D_SUFFIXES, ".glb", ".gltf", ".obj", ".off", ".ply", ".stl")
LARGEST_FILE = 256 * 2**20
"""Bytes."""
MOST_TRIANGLES = 4_000_000
LARGEST_TEXTURE = 512
"""Pixels along a side: more is not seen in small pictures."""
FARTHEST = 1e9
"""Of all coordinates: later sums and products stay finite."""
FORMATS = ("PNG", "JPEG", "WEBP", "SGI", "BMP", "GIF", "TGA", "TIFF")

_STAND_IN = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\nIDATx"
    b"\x9cc\xf8\x0f\x00\x01\x01\x01\x00\xb18\xf6\x14\x00\x00\x00\x00IEND\xaeB`\x82"
)
"""A white PNG of one pixel in the place of a missing one, so that trimesh keeps its name."""

Fetch = Callable[[str], bytes | None]
"""Reads a file beside a mesh by the name that the mesh gives it; None if there is none."""


def read_mesh(path: Path, folders: Sequence[Path] = ()) -> Mesh:
    """A mesh from a file; textures are looked for beside it, and first in ``folders``.

    Raises:
        DataFormatError: it cannot be read, has no faces, or lacks textures.
        ImportError: trimesh is missing.
    """
    if path.suffix.lower() in AC3D_SUFFIXES:
        return check_mesh(_from_parts(path, read_ac3d(path), (*folders, path.parent)), path)
    data = read_content(path, LARGEST_FILE, "check the path, or simplify the mesh")
    return parse_mesh(data, path.suffix.lower()[1:], lambda name: _fetch(name, (*folders, path.parent)), path)


def parse_mesh(data: bytes, kind: str, fetch: Fetch, source: Path) -> Mesh:
    """A mesh from the bytes of a file of a ``kind`` such as obj; ``source`` names it in messages."""
    try:
        import trimesh
    except ImportError as error:
        raise ImportError("reading meshes needs trimesh: pip install nfldm3d[objects]") from error
    if len(data) > LARGEST_FILE:
        raise DataFormatError(source, f"has {len(data)} bytes, more than {LARGEST_FILE}; simplify the mesh")
    for picture in list_pictures(data, fetch, source) if kind in ("glb", "gltf") else ():
        with open_picture(source, FORMATS, picture):
            pass
    beside = _make_resolver(fetch, kind)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # what comes of odd numbers is checked below
            scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=beside)
            patches = [patch for name in scene.graph.nodes_geometry for patch in _from_node(scene, name, beside)]
    except DataFormatError:
        raise
    except (*DAMAGED, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise DataFormatError(source, f"is no mesh that trimesh reads ({error}); export it again") from error
    used = beside.used if kind == "obj" else beside.missing
    missing = sorted(name for name in used if not (beside.libraries and name.lower().endswith(".mtl")))
    if missing:
        raise DataFormatError(
            source, f"names files that are missing: {', '.join(missing)}; put them beside it, pictures as PNG or JPEG"
        )
    return check_mesh(Mesh(tuple(patches)), source)


def check_mesh(mesh: Mesh, source: Path) -> Mesh:
    """The mesh, if it can be drawn."""
    count = mesh.count_triangles()
    if not count:
        raise DataFormatError(source, "has no faces; export it with faces, not as points or lines")
    if count > MOST_TRIANGLES:
        raise DataFormatError(source, f"has {count} triangles, more than {MOST_TRIANGLES}; simplify the mesh")
    points = mesh.points()
    if not (np.abs(points) <= FARTHEST).all():
        raise DataFormatError(source, f"has corners at NaN, infinity or beyond {FARTHEST:g}; repair the mesh")
    if not np.ptp(points, axis=0).max() > 0:
        raise DataFormatError(source, "is a single point; scale the mesh")
    return Mesh(tuple(patch for patch in mesh.patches if len(patch.triangles)))


def open_texture(data: bytes, source: object) -> UInt8[np.ndarray, "height width 4"]:
    """The pixels of a picture, row 0 on top, at most ``LARGEST_TEXTURE`` high and wide."""
    with open_picture(Path(str(source)), FORMATS, data) as image:
        return shrink_picture(image)


def shrink_picture(image: Any) -> UInt8[np.ndarray, "height width 4"]:
    """A Pillow picture as a texture."""
    from PIL import Image

    if image.format is not None and image.format not in FORMATS:
        raise ValueError(f"{image.format} is no format of textures")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are too many")
    picture = image.convert("RGBA")
    if max(picture.size) > LARGEST_TEXTURE:
        size = (min(LARGEST_TEXTURE, picture.width), min(LARGEST_TEXTURE, picture.height))
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.array(picture)


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    """The file called so in the first folder that has it; of names that lead elsewhere the last part counts."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in (".", "/")]
    if not parts:
        return None
    inside = ".." not in parts and ":" not in parts[0]
    ways = (*((Path(*parts),) if inside else ()), Path(parts[-1]))
    return next((folder / way for folder in folders for way in ways if os.path.isfile(folder / way)), None)


def _fetch(name: str, folders: Sequence[Path]) -> bytes | None:
    path = _find(name, folders)
    return None if path is None else read_content(path, LARGEST_FILE, "restore the file")


def _make_resolver(fetch: Fetch, kind: str) -> Any:
    """What trimesh asks for files beside a mesh; it remembers what was missing, which trimesh does not tell."""
    from trimesh.resolvers import Resolver

    class Beside(Resolver):
        def __init__(self) -> None:
            self.missing: set[str] = set()
            self.used: set[str] = set()
            """Those of them that some face needs: libraries of materials hold more than their mesh."""
            self.libraries = 0

        def get(self, key: str) -> bytes:
            key = key.strip()
            data = fetch(key)
            is_library = key.lower().endswith(".mtl")
            self.libraries += is_library and data is not None
            if data is not None and (is_library or kind == "gltf" or _is_picture(data, key)):
                return data
            self.missing.add(key)
            if is_library:
                self.used.add(key)
                raise FileNotFoundError(key)
            return _STAND_IN

        def write(self, name: str, data: object) -> None:
            raise NotImplementedError

        def namespaced(self, namespace: str) -> "Beside":
            return self

        def keys(self) -> list[str]:
            return []

    return Beside()


def _is_picture(data: bytes, name: str) -> bool:
    """Whether a file is of a format that no other program is started for."""
    try:
        with open_picture(Path(name), FORMATS, data):
            return True
    except DataFormatError:
        return False


def _from_node(scene: Any, name: str, beside: Any) -> list[Patch]:
    transform, geometry_name = scene.graph[name]
    geometry = scene.geometry[geometry_name]
    if not len(getattr(geometry, "faces", ())):
        return []
    image = getattr(getattr(geometry.visual, "material", None), "image", None)
    named = None if image is None else image.info.get("file_path")
    if named in beside.missing:
        beside.used.add(named)
    patch = _from_trimesh(geometry)
    return [patch if np.array_equal(transform, np.eye(4)) else patch.moved(np.asarray(transform, np.float64))]


def _from_trimesh(geometry: Any) -> Patch:
    visual, uv, texture, color = geometry.visual, None, None, (200, 200, 200, 255)
    if visual.kind == "face":
        geometry = geometry.copy()
        geometry.unmerge_vertices()
        visual = geometry.visual
    positions, triangles = np.asarray(geometry.vertices, np.float64), np.asarray(geometry.faces)
    known = "vertex_normals" in geometry._cache.cache
    normals = np.array(geometry.vertex_normals, np.float64) if known else None
    if visual.kind == "texture":
        color, texture = _read_material(visual.material)
        uv = None if visual.uv is None else np.asarray(visual.uv, np.float64)[:, :2]
        texture = None if uv is None else texture
    patch = Patch.of(positions, triangles, normals=normals, uv=uv, color=color, texture=texture)
    if visual.kind in ("vertex", "face"):
        colors = np.asarray(visual.vertex_colors, np.uint8)
        patch.colors[:] = colors if known else colors[triangles.ravel()]
    return patch


def _read_material(material: Any) -> tuple[tuple[int, int, int, int], UInt8[np.ndarray, "height width 4"] | None]:
    """Colour and texture of trimesh's materials; of OBJ's, a texture replaces the colour, as its programs do."""
    if hasattr(material, "baseColorTexture"):
        factor = material.baseColorFactor
        color = [255, 255, 255, 255] if factor is None else np.asarray(factor).tolist()
        image = material.baseColorTexture
        if material.alphaMode not in ("BLEND", "MASK"):
            color[3] = 255
            image = None if image is None else image.convert("RGB")
    else:
        image, kwargs = material.image, material.kwargs
        opacity = float(kwargs["d"][-1]) if kwargs.get("d") else 1.0
        color = [255, 255, 255] if image is not None else np.asarray(material.diffuse)[:3].tolist()
        color = [*color, round(255 * min(max(opacity, 0.0), 1.0))]
    red, green, blue, alpha = (int(value) for value in color)
    return (red, green, blue, alpha), None if image is None else shrink_picture(image)


def find_missing(path: Path, folders: Sequence[Path]) -> list[str]:
    """Textures that an AC3D model names and none of the folders has, nor its own: in one livery it may lack some."""
    return [name for name in _list_textures(path) if _find(name, (*folders, path.parent)) is None]


@lru_cache(maxsize=64)
def _list_textures(path: Path) -> tuple[str, ...]:
    return tuple(sorted({part.texture for part in read_ac3d(path) if part.texture not in (None, "(null)")}))


def _from_parts(path: Path, parts: Sequence[Part], folders: Sequence[Path]) -> Mesh:
    textures = {name: _read_texture(str(name), tuple(folders)) for name in {part.texture for part in parts}}
    named = {part.texture for part in parts if part.texture not in (None, "(null)")}
    missing = sorted(str(name) for name in named if textures[name] is None)
    if missing:
        raise DataFormatError(path, f"names files that are missing: {', '.join(missing)}; put them beside it")
    return Mesh(tuple(_from_part(part, textures[part.texture]) for part in parts))


def _from_part(part: Part, texture: UInt8[np.ndarray, "height width 4"] | None) -> Patch:
    red, green, blue = (255, 255, 255) if texture is not None else (round(255 * min(c, 1.0)) for c in part.color)
    return Patch.of(
        part.positions,
        part.triangles,
        normals=part.normals if part.has_normals else None,
        uv=part.uv,
        color=(red, green, blue, round(255 * part.opacity)),
        texture=texture,
    )


@lru_cache(maxsize=64)
def _read_texture(name: str, folders: tuple[Path, ...]) -> UInt8[np.ndarray, "height width 4"] | None:
    data = _fetch(name, folders)
    return None if data is None else open_texture(data, name)
