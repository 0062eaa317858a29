"""A box in the page that is dragged by two of its corners."""

from typing import TYPE_CHECKING

import numpy as np

from nfldm3d.geometry import Box

if TYPE_CHECKING:
    from nfldm3d.viewer.viewer import Viewer

COLOR = (250, 160, 30)


class Region:
    """The box, its two handles, and a switch that shows them."""

    def __init__(self, viewer: "Viewer"):
        """Adds the switch to the page, in the container that is open; the box is hidden."""
        self.viewer, scene = viewer, viewer.server.scene
        self.shown = viewer.server.gui.add_checkbox("Show the box", False, hint="drag its corners by their arrows")
        self.shown.on_update(viewer.told(lambda _: self._toggle()))
        self.corners = [
            scene.add_transform_controls(f"/region/{name}", 1.0, disable_rotations=True, visible=False)
            for name in ("lower", "upper")
        ]
        for corner in self.corners:
            corner.on_update(lambda _: self._draw())
        self.lines = scene.add_box("/region/box", COLOR, wireframe=True, visible=False)

    @property
    def box(self) -> Box:
        """What lies between the corners.

        Raises:
            ValueError: the box is not shown, so nobody has chosen it, or it is flat.
        """
        if not self.shown.value:
            raise ValueError("choose a part first: tick 'Show the box' and drag its corners")
        ends = np.stack([np.asarray(corner.position, dtype=np.float64) for corner in self.corners])
        (x0, y0, z0), (x1, y1, z1) = ends.min(0).tolist(), ends.max(0).tolist()
        if min(x1 - x0, y1 - y0, z1 - z0) <= 0:
            raise ValueError("the box is flat: drag its corners apart")
        return Box((x0, y0, z0), (x1, y1, z1))

    def place(self, box: Box) -> None:
        """Puts the corners somewhere."""
        for corner, place in zip(self.corners, (box.lower, box.upper), strict=True):
            corner.position = place
        self._draw()

    def _toggle(self) -> None:
        shown = self.shown.value
        if shown:
            whole = self.viewer.require_current().scene.box
            size = whole.size
            self.place(Box.from_center(whole.center, (size[0] / 3, size[1] / 3, 0.8 * size[2])))
            for corner in self.corners:
                corner.scale = 0.12 * max(size)
        for handle in (*self.corners, self.lines):
            handle.visible = shown

    def _draw(self) -> None:
        ends = np.stack([np.asarray(corner.position, dtype=np.float64) for corner in self.corners])
        self.lines.dimensions = tuple(np.maximum(np.abs(ends[1] - ends[0]), 1e-3).tolist())
        self.lines.position = tuple(ends.mean(0).tolist())
