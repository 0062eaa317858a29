"""Draws textured triangles without a screen, through panda3d and EGL: pictures, depth, and the class of each pixel.

Every triangle hangs in two graphs: one with its texture, in the light of the sun and the sky, and one painted in the
number of its class. A picture is drawn several times finer and averaged later; depth and class are drawn once more at
the middle of every final pixel, so that they belong together and are exact.
"""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from nfldm3d.recording.driving.models import CLASS_STEP, Model
from nfldm3d.recording.engine import aim, make_buffer, open_engine, read_colors, read_depth, to_metres

if TYPE_CHECKING:
    from panda3d.core import NodePath

NEAR, FAR = 0.25, 1500.0
"""Metres: nothing is drawn beyond."""


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
        self._engine, _ = open_engine()
        from panda3d.core import AmbientLight, DirectionalLight, NodePath

        self.seen, self.classes = NodePath("seen"), NodePath("classes")
        self._things = [root.attach_new_node("things") for root in (self.seen, self.classes)]
        self._fine = _Target(size * supersampling, self.seen)
        self._coarse = _Target(size, self.classes)
        self._above = _Target(map_size, self.classes)
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
            to_metres(self._fine.depth(), NEAR, FAR),
            to_metres(self._coarse.depth(), NEAR, FAR),
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
        for target in targets:
            target.buffer.set_active(True)
            target.aim(lens, world_from_camera)
        self._engine.render_frame()
        for target in targets:  # the engine draws all that are active, those of other stages too
            target.buffer.set_active(False)


class _Target:
    """A picture that a graph is drawn into, with its depth."""

    def __init__(self, size: int, graph: "NodePath"):
        from panda3d.core import Camera, GraphicsOutput, Texture

        self.buffer: Any = make_buffer(size, size)
        weakref.finalize(self, open_engine()[0].remove_window, self.buffer)
        self._color, self._depth = Texture(), Texture()
        self.buffer.add_render_texture(self._color, GraphicsOutput.RTM_copy_ram, GraphicsOutput.RTP_color)
        self.buffer.add_render_texture(self._depth, GraphicsOutput.RTM_copy_ram, GraphicsOutput.RTP_depth)
        self.buffer.set_clear_color((0, 0, 0, 0))
        self._camera = graph.attach_new_node(Camera("camera"))
        self.buffer.make_display_region().set_camera(self._camera)

    def aim(self, lens: Any, world_from_camera: Float[np.ndarray, "4 4"]) -> None:
        """Turns the camera."""
        aim(self._camera, lens, world_from_camera)

    def colors(self) -> UInt8[np.ndarray, "height width 3"]:
        """Red, green, blue."""
        return np.ascontiguousarray(read_colors(self._color)[..., :3])  # the next picture takes the place of this one

    def depth(self) -> Float[np.ndarray, "height width"]:
        """From 0 to 1."""
        return read_depth(self._depth)
