"""Draws textured triangles without a screen, through panda3d and EGL: pictures, depth, and the class of each pixel.

Every triangle hangs in two graphs: one with its texture, in the light of the sun and the sky, and one painted in the
number of its class. A picture is drawn several times finer and averaged later; depth and class are drawn once more at
the middle of every final pixel, so that they belong together and are exact.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from nfldm3d.recording.driving.surfaces import BUILDING, MARKING, TREE, find_markings
from nfldm3d.recording.driving.textures import SOLID, has_holes, read_texture
from nfldm3d.recording.driving.track import Surface

if TYPE_CHECKING:
    from panda3d.core import NodePath

NEAR, FAR = 0.25, 1500.0
"""Metres: nothing is drawn beyond."""
TILE = 150.0
"""Metres: triangles are drawn in groups that are left out together when none of them is in view."""
CLASS_STEP = 16
"""Levels of red between one class and the next."""
SETTINGS = (
    "load-display p3headlessgl",
    "window-type offscreen",
    "audio-library-name null",
    "notify-level error",
    "notify-level-egldisplay fatal",  # it complains when a process ends
    "textures-power-2 none",
    "model-cache-dir",
)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What one camera sees, row 0 on top."""

    image: UInt8[np.ndarray, "fine_height fine_width 3"]
    """Without sky and haze."""
    fine_depth: Float[np.ndarray, "fine_height fine_width"]
    """Metres along the optical axis; 0 where nothing is drawn."""
    depth: Float[np.ndarray, "height width"]
    """The same at the middles of the final pixels."""
    classes: UInt8[np.ndarray, "height width"]
    """Indices into ``surfaces.CLASS_NAMES``; 0 where nothing is drawn."""


class Model:
    """Triangles that can be put into a stage, in both graphs."""

    def __init__(self, name: str):
        from panda3d.core import NodePath

        self.seen, self.classes = NodePath(name), NodePath(name)
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
            self._pictures[path] = self.to_texture(read_texture(path))
        return self._pictures[path]

    def class_picture(self, surface: Surface) -> Any:
        """The class of each pixel of a surface's texture; None if all are of the surface's own."""
        path = surface.texture
        if path is None:
            return None
        if (path, surface.kind) not in self._classes:
            self._classes[path, surface.kind] = self._paint_classes(path, surface.kind)
        return self._classes[path, surface.kind]

    def to_texture(self, pixels: UInt8[np.ndarray, "height width 4"], *, smooth: bool = True) -> Any:
        """Pixels as panda3d holds them."""
        from panda3d.core import SamplerState, Texture

        texture = Texture()
        texture.setup_2d_texture(pixels.shape[1], pixels.shape[0], Texture.T_unsigned_byte, Texture.F_rgba)
        texture.set_ram_image(np.ascontiguousarray(pixels[::-1, :, (2, 1, 0, 3)]).tobytes())
        texture.set_wrap_u(SamplerState.WM_repeat)
        texture.set_wrap_v(SamplerState.WM_repeat)
        texture.set_minfilter(SamplerState.FT_linear_mipmap_linear if smooth else SamplerState.FT_nearest)
        texture.set_magfilter(SamplerState.FT_linear if smooth else SamplerState.FT_nearest)
        return texture

    def _paint_classes(self, path: Path, kind: int) -> Any:
        pixels = read_texture(path)
        lines = np.zeros(pixels.shape[:2], bool) if kind in (BUILDING, TREE) else find_markings(path.name, pixels)
        if not has_holes(pixels) and not lines.any():
            return None
        classes = np.where(lines, MARKING, kind).astype(np.uint8)
        levels = np.repeat(classes[..., None] * np.uint8(CLASS_STEP), 4, axis=2)
        levels[..., 3] = np.where(pixels[..., 3] < SOLID, 0, 255)
        return self.to_texture(levels, smooth=False)


class Stage:
    """A place to put models into and to draw them from anywhere; one process may have several."""

    def __init__(self, size: int, *, supersampling: int = 3, map_size: int = 512):
        """Opens the renderer.

        Args:
            size: width and height in pixels of final pictures.
            supersampling: how many times finer pictures are drawn along each side.
            map_size: width and height in pixels of what is drawn from above.

        Raises:
            ImportError: panda3d is missing.
            OSError: the machine has no EGL.
        """
        self._pipe, self._engine = _open_pipe()
        from panda3d.core import AmbientLight, DirectionalLight, NodePath

        self.seen, self.classes = NodePath("seen"), NodePath("classes")
        self._things = [root.attach_new_node("things") for root in (self.seen, self.classes)]
        self._fine = _Target(self._engine, self._pipe, size * supersampling, self.seen, None)
        self._coarse = _Target(self._engine, self._pipe, size, self.classes, self._fine)
        self._above = _Target(self._engine, self._pipe, map_size, self.classes, self._fine)
        self._sun = self.seen.attach_new_node(DirectionalLight("sun"))
        self._ambient = self.seen.attach_new_node(AmbientLight("sky"))
        self.seen.set_light(self._sun)
        self.seen.set_light(self._ambient)

    def build(self, model: Model) -> None:
        """Puts in what stays."""
        model.join()
        model.seen.copy_to(self.seen)
        model.classes.copy_to(self.classes)

    def put(self, model: Model, world_from_model: Float[np.ndarray, "4 4"], *, skin: Any = None) -> None:
        """Stands a thing somewhere, which is not drawn from above; ``skin`` is a texture for its nodes called skin."""
        from panda3d.core import Mat4

        for root, node in zip(self._things, (model.seen, model.classes), strict=True):
            thing = node.copy_to(root)
            thing.set_mat(Mat4(*world_from_model.T.ravel().tolist()))
            if skin is not None and root is self._things[0]:
                for part in thing.find_all_matches("**/skin"):
                    part.set_texture(skin, 1)

    def clear(self) -> None:
        """Takes all things out."""
        for root in self._things:
            root.get_children().detach()

    def light(
        self,
        towards_sun: Float[np.ndarray, " 3"],
        sun: Float[np.ndarray, " 3"],
        ambient: Float[np.ndarray, " 3"],
    ) -> None:
        """Sets the light; colours from 0 to 1."""
        from panda3d.core import Point3

        self._sun.node().set_color((*sun.tolist(), 1.0))
        self._ambient.node().set_color((*ambient.tolist(), 1.0))
        self._sun.look_at(Point3(*(-towards_sun).tolist()))

    def draw(self, world_from_camera: Float[np.ndarray, "4 4"]) -> Drawn:
        """What a camera 90 degrees wide sees that looks along -z, y up, x right."""
        from panda3d.core import PerspectiveLens

        lens = PerspectiveLens()
        lens.set_fov(90)
        lens.set_aspect_ratio(1)
        lens.set_near_far(NEAR, FAR)
        self._render({self._fine, self._coarse}, lens, world_from_camera)
        classes = self._coarse.colors()[..., 0]
        return Drawn(
            self._fine.colors(),
            _to_metres(self._fine.depth()),
            _to_metres(self._coarse.depth()),
            ((classes.astype(np.uint16) + CLASS_STEP // 2) // CLASS_STEP).astype(np.uint8),
        )

    def draw_above(
        self, world_from_scene: Float[np.ndarray, "4 4"], half_width: tuple[float, float], low: float, high: float
    ) -> tuple[UInt8[np.ndarray, "height width"], Float[np.ndarray, "height width"]]:
        """Classes and heights in the frame of a scene, seen straight down from ``high``; row 0 is the largest y.

        Heights are metres along the scene's z, and NaN where there is nothing down to ``low``.
        """
        from panda3d.core import OrthographicLens

        lens = OrthographicLens()
        lens.set_film_size(2 * half_width[0], 2 * half_width[1])
        lens.set_near_far(0.0, high - low)
        above = np.eye(4)
        above[2, 3] = high
        self._things[1].hide()
        self._render({self._above}, lens, world_from_scene @ above)
        self._things[1].show()
        depth = self._above.depth()
        classes = (self._above.colors()[..., 0].astype(np.uint16) + CLASS_STEP // 2) // CLASS_STEP
        return classes.astype(np.uint8), np.where(depth < 1.0, high - depth * (high - low), np.nan)

    def _render(self, targets: set["_Target"], lens: Any, world_from_camera: Float[np.ndarray, "4 4"]) -> None:
        for target in (self._fine, self._coarse, self._above):
            target.buffer.set_active(target in targets)
            if target in targets:
                target.aim(lens, world_from_camera)
        self._engine.render_frame()


class _Target:
    """A picture that a graph is drawn into, with its depth."""

    def __init__(self, engine: Any, pipe: Any, size: int, graph: "NodePath", sharing: "_Target | None"):
        from panda3d.core import (
            Camera,
            FrameBufferProperties,
            GraphicsOutput,
            GraphicsPipe,
            Texture,
            WindowProperties,
        )

        properties = FrameBufferProperties()
        properties.set_rgba_bits(8, 8, 8, 8)
        properties.set_depth_bits(24)
        shape, how = WindowProperties.size(size, size), GraphicsPipe.BF_refuse_window
        args = ("target", 0, properties, shape, how)
        host = () if sharing is None else (sharing.buffer.get_gsg(), sharing.buffer)
        self.size = size
        self.buffer: Any = engine.make_output(pipe, *args, *host)
        if self.buffer is None:
            raise OSError(NO_EGL)
        self._color, self._depth = Texture(), Texture()
        self.buffer.add_render_texture(self._color, GraphicsOutput.RTM_copy_ram, GraphicsOutput.RTP_color)
        self.buffer.add_render_texture(self._depth, GraphicsOutput.RTM_copy_ram, GraphicsOutput.RTP_depth)
        self.buffer.set_clear_color((0, 0, 0, 0))
        self._camera = graph.attach_new_node(Camera("camera"))
        self.buffer.make_display_region().set_camera(self._camera)

    def aim(self, lens: Any, world_from_camera: Float[np.ndarray, "4 4"]) -> None:
        """Turns the camera; panda3d's own looks along +y, z up."""
        from panda3d.core import Mat4

        right, up, back, eye = world_from_camera.T
        rows = np.stack((right, -back, up, eye))  # panda3d multiplies rows with matrices
        self._camera.node().set_lens(lens)
        self._camera.set_mat(Mat4(*rows.ravel().tolist()))

    def colors(self) -> UInt8[np.ndarray, "height width 3"]:
        """Red, green, blue."""
        data = np.frombuffer(self._color.get_ram_image(), np.uint8).reshape(self.size, self.size, -1)
        return np.ascontiguousarray(data[::-1, :, 2::-1])  # the next picture takes the place of this one

    def depth(self) -> Float[np.ndarray, "height width"]:
        """From 0 to 1."""
        data, wide = self._depth.get_ram_image(), self._depth.get_component_width()
        from panda3d.core import Texture

        if self._depth.get_component_type() == Texture.T_float:
            return np.frombuffer(data, np.float32).reshape(self.size, self.size)[::-1].copy()
        levels = np.frombuffer(data, {2: np.uint16, 4: np.uint32}[wide]).reshape(self.size, self.size)[::-1]
        return levels / (2.0 ** (8 * wide) - 1)


NO_EGL = (
    "panda3d finds no EGL to draw without a screen: install Mesa's (sudo apt install libegl1 libgl1-mesa-dri), or the "
    "driver of your graphics card with EGL"
)


def _open_pipe() -> tuple[Any, Any]:
    try:
        from panda3d.core import GraphicsEngine, GraphicsPipeSelection, load_prc_file_data
    except ImportError as error:
        raise ImportError("recording the driving world needs panda3d: pip install nfldm3d[driving]") from error
    load_prc_file_data("nfldm3d", "\n".join(SETTINGS))
    pipe = GraphicsPipeSelection.get_global_ptr().make_module_pipe("p3headlessgl")
    if pipe is None or not pipe.is_valid():
        raise OSError(NO_EGL)
    return pipe, GraphicsEngine(pipe)


def _to_metres(level: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    depth = (NEAR * FAR) / (FAR - level * (FAR - NEAR))
    return np.where(level < 1.0, depth, 0.0)


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
