"""Draws meshes from many cameras at once, without a screen: colour with opacity, depth, normals and classes.

All pictures of a batch are tiles of one large one, so that setting up and reading back cost once. Each is drawn an odd
number of times finer: colours are averaged, and depth, normals and classes are those at the very middle of every final
pixel. What is half transparent, be it glass or the edge of a leaf, is drawn at as many of a pixel's points as it is
opaque, the middle one at half: no order of drawing is needed, and depth passes through what is more clear than not.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from nfldm3d.recording.engine import aim, make_buffer, open_engine, read_colors, read_depth, to_metres, to_texture
from nfldm3d.recording.meshes import WHITE, Mesh, Patch

LARGEST = 4096
"""Pixels along a side of what is drawn at once."""
VERTEX = """#version 130
uniform mat4 p3d_ModelViewProjectionMatrix; uniform mat4 p3d_ModelViewMatrix;
in vec4 p3d_Vertex; in vec3 p3d_Normal; in vec2 p3d_MultiTexCoord0; in vec4 p3d_Color;
out vec3 place; out vec3 seen_from; out vec3 normal; out vec2 uv; out vec4 color;
flat out mat3 world_from_view;
void main() {
    gl_Position = p3d_ModelViewProjectionMatrix * p3d_Vertex;
    seen_from = (p3d_ModelViewMatrix * p3d_Vertex).xyz;
    world_from_view = transpose(mat3(p3d_ModelViewMatrix));
    place = p3d_Vertex.xyz; normal = p3d_Normal; uv = p3d_MultiTexCoord0; color = p3d_Color;
}
"""
FRAGMENT = """#version 130
uniform sampler2D p3d_Texture0;
uniform vec4 lamp; uniform vec3 bright; uniform vec3 above; uniform vec3 below;
uniform int fine; uniform float label;
in vec3 place; in vec3 seen_from; in vec3 normal; in vec2 uv; in vec4 color;
flat in mat3 world_from_view;
void main() {
    vec4 paint = texture(p3d_Texture0, uv) * color;
    ivec2 point = ivec2(gl_FragCoord.xy) % fine - fine / 2;
    int points = fine * fine, rank = 4 * (point.x + fine * point.y) + points / 2;
    rank = rank - points * int(floor(float(rank) / float(points)));
    if (paint.a * float(points) < float(rank) + 0.5) discard;
    vec3 face = cross(dFdx(seen_from), dFdy(seen_from));
    face = world_from_view * (dot(face, seen_from) > 0.0 ? -face : face);
    vec3 side = dot(normal, face) < 0.0 ? -normal : normal;
    side = normalize(dot(side, side) > 0.25 ? side : face);
    vec3 towards = normalize(lamp.xyz - place * lamp.w);
    vec3 light = mix(below, above, 0.5 + 0.5 * side.z) + bright * max(dot(side, towards), 0.0);
    gl_FragData[0] = vec4(min(paint.rgb * light, vec3(1.0)), 1.0);
    gl_FragData[1] = vec4(side * 0.5 + 0.5, label / 255.0);
}
"""


@dataclass(frozen=True)
class Light:
    """A lamp, and what comes from all around; colours from 0 to 1."""

    lamp: tuple[float, float, float, float]
    """Where it is, with 1 as the last number; or with 0 the direction to one that is far away."""
    bright: tuple[float, float, float]
    above: tuple[float, float, float]
    below: tuple[float, float, float]


@dataclass(frozen=True)
class Lens:
    """What all cameras of a batch see: a square cone, or a square box where ``width`` is given."""

    degrees: float
    near: float
    far: float
    width: float | None = None
    """Metres that an orthographic camera sees across; ``degrees`` is not used then."""

    def panda(self) -> Any:
        """As panda3d has it."""
        from panda3d.core import OrthographicLens, PerspectiveLens

        lens = PerspectiveLens() if self.width is None else OrthographicLens()
        if self.width is None:
            lens.set_fov(self.degrees)
        else:
            lens.set_film_size(self.width, self.width)
        lens.set_aspect_ratio(1)
        lens.set_near_far(self.near, self.far)
        return lens

    def metres(self, level: Float[np.ndarray, "*pixels"]) -> Float[np.ndarray, "*pixels"]:
        """Distance along the optical axis of what a depth buffer holds; 0 where nothing is drawn."""
        if self.width is None:
            return to_metres(level, self.near, self.far)
        return np.where(level < 1.0, self.near + level * (self.far - self.near), 0.0)


@dataclass(frozen=True, eq=False)
class Pictures:
    """What cameras see, row 0 on top."""

    colors: UInt8[np.ndarray, "views height width 4"]
    """Red, green, blue and opacity; colours are those of the surfaces alone, not mixed with any background."""
    depth: Float[np.ndarray, "views height width"]
    """Metres along the optical axis at the middles of pixels; 0 where nothing is drawn."""
    normals: UInt8[np.ndarray, "views height width 3"]
    """World axes, -1 to 1 as 0 to 255, towards the camera's side of the surface; 0, 0, 0 where nothing is drawn."""
    labels: UInt8[np.ndarray, "views height width"]
    """Classes; 0 where nothing is drawn."""

    @property
    def mask(self) -> Bool[np.ndarray, "views height width"]:
        """Where something is drawn."""
        return self.depth > 0


class Gallery:
    """Draws batches of pictures; one process may have several."""

    def __init__(self, size: int, views: int, *, supersampling: int = 3):
        """Opens the renderer.

        Args:
            size: width and height in pixels of final pictures.
            views: about so many are asked for at a time.
            supersampling: how many times finer pictures are drawn along each side; an odd number, so that a point lies
                in the middle of every pixel.

        Raises:
            ImportError: panda3d is missing.
            OSError: the machine has no EGL.
        """
        if size < 1 or supersampling % 2 != 1 or size * supersampling > LARGEST:
            raise ValueError(
                f"supersampling must be odd and size times it at most {LARGEST}, got {supersampling} and size {size}"
            )
        self._size, self._fine = size, supersampling
        tile = size * supersampling
        self._columns = min(math.ceil(math.sqrt(views)), LARGEST // tile)
        self._rows = min(math.ceil(views / self._columns), LARGEST // tile)
        self._open()

    def _open(self) -> None:
        from panda3d.core import Camera, GraphicsOutput, NodePath, Shader, Texture

        self._engine, _ = open_engine()
        tile = self._size * self._fine
        self._buffer: Any = make_buffer(self._columns * tile, self._rows * tile, extra=1)
        weakref.finalize(self, self._engine.remove_window, self._buffer)
        places = (GraphicsOutput.RTP_color, GraphicsOutput.RTP_aux_rgba_0, GraphicsOutput.RTP_depth)
        self._colors, self._sides, self._depth = Texture(), Texture(), Texture()
        for texture, where in zip((self._colors, self._sides, self._depth), places, strict=True):
            self._buffer.add_render_texture(texture, GraphicsOutput.RTM_copy_ram, where)
            self._buffer.set_clear_active(where, True)
            self._buffer.set_clear_value(where, (1, 1, 1, 1) if where == GraphicsOutput.RTP_depth else (0, 0, 0, 0))
        self._root, self._cameras, self._regions = NodePath("gallery"), [], []
        self._root.set_shader(Shader.make(Shader.SL_GLSL, VERTEX, FRAGMENT))
        self._root.set_shader_input("fine", self._fine)
        self._root.set_two_sided(True)
        for row, column in np.ndindex(self._rows, self._columns):
            left, top = column / self._columns, 1 - row / self._rows
            region = self._buffer.make_display_region(left, left + 1 / self._columns, top - 1 / self._rows, top)
            camera = self._root.attach_new_node(Camera("camera"))
            region.set_camera(camera)
            self._cameras.append(camera)
            self._regions.append(region)
        self._shown: list[Any] = []

    def show(self, things: Sequence[tuple[Mesh, int]], light: Light) -> None:
        """Takes out what there was and puts in meshes, which lie in world coordinates, with their classes."""
        for node in self._shown:
            node.remove_node()
        textures: dict[int, Any] = {}
        self._shown = []
        for mesh, label in things:
            for patch in mesh.patches:
                node = _to_node(patch, textures)
                node.set_shader_input("label", float(label))
                node.set_bin("fixed", len(self._shown))  # else the order, which decides within a plane, is by chance
                node.reparent_to(self._root)
                self._shown.append(node)
        for name in ("lamp", "bright", "above", "below"):
            self._root.set_shader_input(name, getattr(light, name))

    def draw(self, world_from_camera: Float[np.ndarray, "views 4 4"], lens: Lens) -> Pictures:
        """What cameras see that look along -z, y up, x right."""
        batch = len(self._regions)
        parts = [self._draw(world_from_camera[k : k + batch], lens) for k in range(0, len(world_from_camera), batch)]
        return Pictures(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def _draw(self, poses: Float[np.ndarray, "views 4 4"], lens: Lens) -> Pictures:
        panda_lens = lens.panda()
        for number, (camera, region) in enumerate(zip(self._cameras, self._regions, strict=True)):
            region.set_active(number < len(poses))
            if number < len(poses):
                aim(camera, panda_lens, poses[number])
        self._buffer.set_active(True)
        self._engine.render_frame()
        self._buffer.set_active(False)  # the engine draws all that are active, those of other galleries too
        middle = slice(self._fine // 2, None, self._fine)
        depth = lens.metres(read_depth(self._depth, middle))
        sides = read_colors(self._sides)[middle, middle]
        parts = self._average(read_colors(self._colors)), depth.astype(np.float32), sides[..., :3], sides[..., 3]
        return Pictures(*(self._cut(part)[: len(poses)] for part in parts))

    def _average(self, fine: UInt8[np.ndarray, "fine_height fine_width 4"]) -> UInt8[np.ndarray, "height width 4"]:
        step, total = self._fine, np.zeros((1,), np.uint16)
        for row, column in np.ndindex(step, step):
            total = total + fine[row::step, column::step].astype(np.uint16)
        drawn = np.maximum(total[..., 3:] // 255, 1)  # each point is opaque or not drawn
        colors = (2 * total[..., :3] + drawn) // (2 * drawn)
        return np.concatenate((colors, (total[..., 3:] + step**2 // 2) // step**2), axis=-1).astype(np.uint8)

    def _cut(self, sheet: np.ndarray) -> np.ndarray:
        """The tiles of a sheet, row by row."""
        size, shape = self._size, sheet.shape[2:]
        tiles = sheet.reshape(self._rows, size, self._columns, size, *shape).swapaxes(1, 2)
        return tiles.reshape(-1, size, size, *shape)


def _to_node(patch: Patch, textures: dict[int, Any]) -> Any:
    from panda3d.core import Geom, GeomNode, GeomTriangles, GeomVertexData, GeomVertexFormat, NodePath

    layout = np.dtype([("v", np.float32, 3), ("n", np.float32, 3), ("c", np.uint8, 4), ("t", np.float32, 2)])
    columns = np.zeros(len(patch.positions), layout)
    values = (patch.positions, patch.normals, patch.colors, patch.uv)
    for name, value in zip(layout.names or (), values, strict=True):
        columns[name] = value
    vertices = GeomVertexData("vertices", GeomVertexFormat.get_v3n3c4t2(), Geom.UH_static)
    vertices.set_num_rows(len(columns))
    vertices.modify_array_handle(0).copy_data_from(columns.tobytes())
    primitive = GeomTriangles(Geom.UH_static)
    primitive.set_index_type(Geom.NT_uint32)
    handle = primitive.modify_vertices()
    handle.set_num_rows(patch.triangles.size)
    handle.modify_handle().copy_data_from(patch.triangles.astype(np.uint32).tobytes())
    geom, node = Geom(vertices), GeomNode("patch")
    geom.add_primitive(primitive)
    node.add_geom(geom)
    pixels = np.full((1, 1, 4), WHITE, np.uint8) if patch.texture is None else patch.texture
    key = 0 if patch.texture is None else id(patch.texture)
    if key not in textures:
        textures[key] = to_texture(pixels)
    path = NodePath(node)
    path.set_texture(textures[key])
    return path
