"""Painting bird's-eye maps in the page, over the scene, seen from above."""

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from nfldm3d.pipelines import SceneGenerator
from nfldm3d.viewer.page_camera import FROM_ABOVE, camera_above, first_camera, place_camera
from nfldm3d.viewer.painted_map import TOOLS, Cell, PaintedMap

if TYPE_CHECKING:
    import viser

    from nfldm3d.viewer.viewer import Viewer

SCALE = 8
"""Pixels of a cell on the canvas."""
BOARD = (50, 80)
"""Grey values of the board that shows where anything may be."""
NORTH_UP = (0.0, 1.0, 0.0, 0.0)
"""Turns viser's pictures, whose rows run along y, about x: row 0 is north, facing up."""
HELP = (
    "Tick **Paint** and drag over the map with the left button; the right one moves the view, the wheel zooms. "
    "Cells of *anything* are left to the generator."
)


class PaintPanel:
    """The tab, and the canvas in the page."""

    def __init__(self, viewer: "Viewer", pipeline: SceneGenerator):
        """Adds its elements to the page, in the container that is open."""
        self.viewer, self.box, gui = viewer, pipeline.box, viewer.server.gui
        self.map = PaintedMap.blank(pipeline.map_size, pipeline.config["map_classes"], pipeline.config["map_palette"])
        gui.add_markdown(HELP)
        self.painting = gui.add_checkbox("Paint", False)
        self.painting.on_update(viewer.told(self._toggle))
        self.tool = gui.add_dropdown("Tool", TOOLS)
        first = "wall" if "wall" in self.map.names else self.map.names[-1]
        self.kind = gui.add_dropdown("Class", self.map.choices, initial_value=first)
        gui.add_html(_legend(self.map))
        self.width = gui.add_slider("Brush", 1, 15, 1, 3, hint="cells")
        undo = gui.add_button("Undo")
        undo.on_click(viewer.told(lambda _: self._set(self.map.undo())))
        empty = gui.add_button("Clear")
        empty.on_click(viewer.told(lambda _: self._set(self.map.clear())))
        save = gui.add_button("Save as PNG")
        save.on_click(viewer.told(self._save))
        load = gui.add_upload_button("Load a PNG", mime_type="image/png")
        load.on_upload(viewer.told(lambda event: self._set(self.map.decode(event.target.value.content))))
        width, height, _ = self.box.size
        x, y, _ = self.box.center
        self.canvas = viewer.server.scene.add_image(
            "/map", self._pixels(), width, height, wxyz=NORTH_UP, position=(x, y, self.box.upper[2]), visible=False
        )
        self.canvas.on_drag("left")(viewer.told_in_order(self._drag))
        self.canvas.on_click(viewer.told_in_order(self._click))
        self._strokes: dict[int, tuple[PaintedMap, Cell]] = {}

    def _toggle(self, event: Any) -> None:
        self.canvas.visible = self.painting.value
        for client in self.viewer.server.get_clients().values():
            if self.painting.value:
                self._look_down(client)
            elif self.viewer.current is not None:
                place_camera(client.camera, first_camera(self.viewer.current.scene))

    def _look_down(self, client: "viser.ClientHandle") -> None:
        position, ahead = camera_above(self.box)
        with client.atomic():
            client.camera.up_direction = (0.0, 0.0, 1.0)
            client.camera.position = position
            client.camera.look_at = ahead
            client.camera.fov = FROM_ABOVE

    def _click(self, event: Any) -> None:
        cell = self._find_cell(np.asarray(event.ray_origin), np.asarray(event.ray_direction))
        if cell is not None:
            self._set(self._apply(self.map.begin(), cell, cell))

    def _drag(self, event: Any) -> None:
        """A stroke is applied to the map before it (rectangles), or to what it has painted so far (the brush)."""
        eye = np.asarray(event.client.camera.position)
        cell = self._find_cell(eye, np.asarray(event.end_position) - eye)
        if cell is None:
            return
        if event.phase == "start":
            start = self._find_cell(eye, np.asarray(event.start_position) - eye) or cell
            self._strokes[event.client_id] = (self.map.begin(), start)
        stroke = self._strokes.get(event.client_id)
        if stroke is None:
            return
        before, start = stroke
        painted = self._apply(before, start, cell)
        if self.tool.value == "brush":
            self._strokes[event.client_id] = (painted, cell)
        if event.phase == "end":
            self._strokes.pop(event.client_id, None)
        self._set(painted)

    def _apply(self, painted: PaintedMap, start: Cell, end: Cell) -> PaintedMap:
        number = self.map.choices.index(self.kind.value)
        if self.tool.value == "rectangle":
            return painted.rectangle(start, end, number)
        if self.tool.value == "fill":
            return painted.fill(start, number)
        return painted.brush(start, end, int(self.width.value), number)

    def _find_cell(self, eye: np.ndarray, direction: np.ndarray) -> Cell | None:
        """The cell, perhaps beyond the map, where a ray meets its plane."""
        if abs(direction[2]) < 1e-9:
            return None
        place = eye + direction * (self.box.upper[2] - eye[2]) / direction[2]
        size = np.array(self.box.size[:2]) / np.array(self.map.cells.shape)
        x, y = np.floor((place[:2] - np.array(self.box.lower[:2])) / size).clip(-1e4, 1e4).astype(int).tolist()
        return x, y

    def _set(self, painted: PaintedMap) -> None:
        self.map = painted
        self.canvas.image = self._pixels()

    def _pixels(self) -> np.ndarray:
        pixels = self.map.picture(SCALE).numpy()
        row, column = np.indices(pixels.shape[:2])
        board = np.where((row // (SCALE // 2) + column // (SCALE // 2)) % 2 == 0, *BOARD)[..., None]
        colors = np.where(pixels[..., 3:] > 0, pixels[..., :3], board)
        lines = (row % SCALE == 0) | (column % SCALE == 0)
        return np.where(lines[..., None], 0.82 * colors, colors).astype(np.uint8)

    def _save(self, event: Any) -> None:
        event.client.send_file_download("map.png", self.map.encode(), save_immediately=True)


def _legend(painted: PaintedMap) -> str:
    """The classes with their colours."""
    square = '<b style="color:{};text-shadow:0 0 2px #000">&#9632;</b> {}'
    item = f'<span style="white-space:nowrap;margin-right:8px">{square}</span>'
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in (*painted.palette, (BOARD[0],) * 3)]
    parts = [item.format(color, escape(name)) for color, name in zip(colors, painted.choices, strict=True)]
    return f'<div style="font-size:0.8em;padding:4px 12px">{" ".join(parts)}</div>'
