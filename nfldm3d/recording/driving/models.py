"""Textured triangles as panda3d draws them: with their textures, and painted in the numbers of their classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from nfldm3d.recording.driving.surfaces import BUILDING, MARKING, TREE, find_markings
from nfldm3d.recording.driving.textures import SOLID, has_holes, read_texture
from nfldm3d.recording.driving.track import Surface
from nfldm3d.recording.engine import to_texture

if TYPE_CHECKING:
    from panda3d.core import NodePath

TILE = 150.0
"""Metres: triangles are drawn in groups that are left out together when none of them is in view."""
CLASS_STEP = 16
"""Levels of red between one class and the next."""


class Model:
    """Triangles that can be put into a stage, in both graphs."""

    def __init__(self, name: str, *, first: int = 0):
        """``first`` is the place of its first surface in the order in which all are drawn: of those that lie in one
        plane the first is seen, and panda3d's own order differs from run to run."""
        from panda3d.core import NodePath

        self.seen, self.classes, self._order = NodePath(name), NodePath(name), first
        self._tiles: dict[tuple[int, int], tuple[NodePath, NodePath]] = {}

    def add(self, surface: Surface, textures: "Textures", *, name: str = "triangles") -> None:
        """Adds a surface, in nodes of a given name."""
        corners = surface.corners()
        tiles = np.floor(corners.mean(1)[:, :2] / TILE).astype(int)
        places, group = np.unique(tiles, axis=0, return_inverse=True)
        for number, (x, y) in enumerate(places.tolist()):
            triangles = _to_geometry(surface, surface.triangles[group.reshape(-1) == number])
            seen, classes = (_attach(root, triangles, name) for root in self._tile(x, y))
            _show_texture(seen, surface, textures.picture(surface))
            _show_class(classes, surface.kind, textures.class_picture(surface))
            for node in (seen, classes):
                node.set_bin("fixed", self._order)
        self._order += 1

    def join(self) -> None:
        """Joins what can be drawn at once, which loses the names."""
        for tile in self._tiles.values():
            for root in tile:
                root.flatten_strong()

    def _tile(self, x: int, y: int) -> tuple["NodePath", "NodePath"]:
        if (x, y) not in self._tiles:
            self._tiles[x, y] = (self.seen.attach_new_node("tile"), self.classes.attach_new_node("tile"))
        return self._tiles[x, y]


class Textures:
    """Textures of surfaces, read once."""

    def __init__(self) -> None:
        self._pictures: dict[Path, Any] = {}
        self._classes: dict[tuple[Path, int], Any] = {}

    def picture(self, surface: Surface) -> Any:
        """The texture of a surface; None if it has none."""
        path = surface.texture
        if path is None:
            return None
        if path not in self._pictures:
            self._pictures[path] = to_texture(read_texture(path))
        return self._pictures[path]

    def class_picture(self, surface: Surface) -> Any:
        """The class of each pixel of a surface's texture; None if all are of the surface's own."""
        path = surface.texture
        if path is None:
            return None
        if (path, surface.kind) not in self._classes:
            self._classes[path, surface.kind] = self._paint_classes(path, surface.kind)
        return self._classes[path, surface.kind]

    def _paint_classes(self, path: Path, kind: int) -> Any:
        pixels = read_texture(path)
        lines = np.zeros(pixels.shape[:2], bool) if kind in (BUILDING, TREE) else find_markings(path.name, pixels)
        if not has_holes(pixels) and not lines.any():
            return None
        classes = np.where(lines, MARKING, kind).astype(np.uint8)
        levels = np.repeat(classes[..., None] * np.uint8(CLASS_STEP), 4, axis=2)
        levels[..., 3] = np.where(pixels[..., 3] < SOLID, 0, 255)
        return to_texture(levels, smooth=False)


def _to_geometry(surface: Surface, triangles: Int[np.ndarray, "triangles 3"]) -> Any:
    from panda3d.core import Geom, GeomTriangles, GeomVertexData, GeomVertexFormat

    used, index = np.unique(triangles, return_inverse=True)
    columns = (surface.positions[used], surface.normals[used], surface.uv[used])
    vertices = GeomVertexData("vertices", GeomVertexFormat.get_v3n3t2(), Geom.UH_static)
    vertices.set_num_rows(len(used))
    vertices.modify_array_handle(0).copy_data_from(np.concatenate(columns, axis=1).astype(np.float32).tobytes())
    primitive = GeomTriangles(Geom.UH_static)
    primitive.set_index_type(Geom.NT_uint32)
    handle = primitive.modify_vertices()
    handle.set_num_rows(index.size)
    handle.modify_handle().copy_data_from(index.astype(np.uint32).tobytes())
    geom = Geom(vertices)
    geom.add_primitive(primitive)
    return geom


def _attach(root: "NodePath", triangles: Any, name: str) -> "NodePath":
    """A node of its own, since how it is shown belongs to the node; the triangles are shared."""
    from panda3d.core import GeomNode

    node = GeomNode(name)
    node.add_geom(triangles)
    return root.attach_new_node(node)


def _show_texture(node: "NodePath", surface: Surface, texture: Any) -> None:
    from panda3d.core import TransparencyAttrib

    if texture is None:
        node.set_color((*surface.color, 1.0))
    else:
        node.set_color((1.0, 1.0, 1.0, 1.0))
        node.set_texture(texture)
    node.set_two_sided(True)
    node.set_transparency(TransparencyAttrib.M_binary)


def _show_class(node: "NodePath", kind: int, texture: Any) -> None:
    from panda3d.core import TransparencyAttrib

    level = kind * CLASS_STEP / 255
    if texture is None:
        node.set_color((level, level, level, 1.0))
    else:
        node.set_color((1.0, 1.0, 1.0, 1.0))
        node.set_texture(texture)
    node.set_two_sided(True)
    node.set_transparency(TransparencyAttrib.M_binary)
