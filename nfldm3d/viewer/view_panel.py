"""How scenes are looked at: what is drawn, lens, clipping box, the scene's own cameras and paths."""

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from nfldm3d.camera import Camera
from nfldm3d.rendering.paths import PATHS, make_path
from nfldm3d.scene import Scene
from nfldm3d.viewer.frames import BACKDROPS, KINDS
from nfldm3d.viewer.page_camera import first_camera, place_camera, vertical_fov, viser_pose

if TYPE_CHECKING:
    import viser

    from nfldm3d.viewer.viewer import Viewer

FRUSTA = 48
"""How many of a scene's own cameras are drawn, evenly spread."""
FRUSTUM = 0.008
"""How long they are, as a share of the scene's box."""
PACE, FRAMES = 1 / 12, 72
"""Seconds between the steps of a path that is played, and how many it has."""


class ViewPanel:
    """The tab, and the frusta in the page."""

    def __init__(self, viewer: "Viewer"):
        """Adds its elements to the page, in the container that is open."""
        self.viewer, gui = viewer, viewer.server.gui
        kind = gui.add_dropdown("Show", KINDS)
        kind.on_update(viewer.told(lambda event: viewer.set_look(kind=event.target.value)))
        backdrop = gui.add_dropdown("Background", tuple(BACKDROPS))
        backdrop.on_update(viewer.told(lambda event: viewer.set_look(backdrop=event.target.value)))
        self.fov = gui.add_slider("Field of view", 10, 120, 1, 60, hint="degrees, from top to bottom")
        self.fov.on_update(viewer.told(self._zoom))
        step = gui.add_slider("Step", 0.25, 2.0, 0.25, 0.5, hint="voxels between samples along a ray")
        step.on_update(viewer.told(lambda event: viewer.set_look(step_in_voxels=event.target.value)))
        with gui.add_folder("Clipping box", expand_by_default=False):
            self.clips = [
                gui.add_multi_slider(axis, 0.0, 1.0, 0.01, (0.0, 1.0), hint="share of the scene's box")
                for axis in ("x", "y", "z")
            ]
        for slider in self.clips:
            slider.on_update(viewer.told(lambda _: viewer.set_look(clip=tuple(clip.value for clip in self.clips))))
        with gui.add_folder("Cameras"):
            self.frusta = gui.add_checkbox("Show cameras", False, hint="click one to look through it")
            self.frusta.on_update(viewer.told(lambda _: self._draw_frusta()))
            begin = gui.add_button("Back to the start")
            begin.on_click(viewer.told(self._begin))
            path = gui.add_dropdown("Path", PATHS)
            play = gui.add_button("Play the path")
            play.on_click(viewer.told(lambda event: self._play(event.client, path.value)))
        self._drawn: list[viser.CameraFrustumHandle] = []
        self._playing: dict[int, object] = {}

    def show(self, scene: Scene) -> None:
        """Another scene has been chosen."""
        self.fov.value = round(min(max(math.degrees(vertical_fov(first_camera(scene))), 10), 120))
        self._draw_frusta()

    def _zoom(self, event: Any) -> None:
        if event.client is not None:
            event.client.camera.fov = math.radians(event.target.value)

    def _begin(self, event: Any) -> None:
        place_camera(event.client.camera, first_camera(self.viewer.require_current().scene))

    def _draw_frusta(self) -> None:
        for handle in self._drawn:
            handle.remove()
        self._drawn = []
        shown = self.viewer.current
        if shown is None or shown.scene.cameras is None or not self.frusta.value:
            return
        own = shown.scene.cameras.reshape(-1)
        size = FRUSTUM * max(shown.scene.box.size)
        for number in range(0, len(own), max(1, -(-len(own) // FRUSTA))):
            self._drawn.append(self._draw_frustum(number, own[number], size))

    def _draw_frustum(self, number: int, camera: Camera, size: float) -> "viser.CameraFrustumHandle":
        quaternion, position = viser_pose(camera)
        aspect = camera.width / camera.height
        frustum = self.viewer.server.scene.add_camera_frustum(
            f"/cameras/{number}",
            vertical_fov(camera),
            aspect,
            scale=size,
            thickness=size / 50,
            color=(220, 60, 40),
            wxyz=quaternion,
            position=position,
        )
        frustum.on_click(lambda event: place_camera(event.client.camera, camera))
        return frustum

    def _play(self, client: "viser.ClientHandle", path: str) -> None:
        scene = self.viewer.require_current().scene
        cameras = make_path(scene, path, views=FRAMES, width=320, height=240)
        self.play(client, cameras)

    def play(self, client: "viser.ClientHandle", cameras: Camera) -> None:
        """Flies one page along cameras; a second call takes the place of the first."""
        token = self._playing[client.client_id] = object()

        def fly() -> None:
            for camera in cameras:
                if self._playing.get(client.client_id) is not token or client.client_id not in self.viewer.views:
                    return
                place_camera(client.camera, camera)
                time.sleep(PACE)
            self._playing.pop(client.client_id, None)

        threading.Thread(target=fly, name="path", daemon=True).start()
