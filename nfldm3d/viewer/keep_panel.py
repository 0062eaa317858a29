"""Keeping what the page shows: files of scenes, screenshots, key frames and films."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nfldm3d.viewer.keeping import FORMATS, Film, encode_scene, require_size, screenshot
from nfldm3d.viewer.page_camera import read_camera, vertical_fov, viser_pose
from nfldm3d.viewer.tasks import Progress
from nfldm3d.viewer.view_panel import FRUSTUM

if TYPE_CHECKING:
    import viser

    from nfldm3d.viewer.viewer import Viewer

KEY_COLOR = (40, 110, 220)


class KeepPanel:
    """The tab, and the key frames in the page."""

    def __init__(self, viewer: "Viewer"):
        """Adds its elements to the page, in the container that is open."""
        self.viewer, gui = viewer, viewer.server.gui
        self.format = gui.add_dropdown("File", FORMATS)
        download = gui.add_button("Download")
        download.on_click(viewer.told(self._download))
        forget = gui.add_button("Forget this scene")
        forget.on_click(viewer.told(lambda _: viewer.remove(viewer.require_current().name)))
        self.size = gui.add_vector2("Pixels", (1280.0, 720.0), min=(16.0, 16.0), max=(4096.0, 4096.0), step=1.0)
        shot = gui.add_button("Screenshot")
        shot.on_click(viewer.told(self._shoot))
        with gui.add_folder("Film"):
            self._build_film()
        self.film = Film()
        self._drawn: list[viser.CameraFrustumHandle] = []

    def _build_film(self) -> None:
        viewer, gui = self.viewer, self.viewer.server.gui
        self.seconds = gui.add_number("Seconds", 6.0, min=0.5, max=120.0, step=0.5)
        self.fps = gui.add_number("Frames a second", 24, min=1, max=60, step=1)
        buttons = {
            "Add key frame": self._add_key,
            "Remove the last": lambda _: self._set_keys(self.film.keys[:-1]),
            "Preview": self._preview,
            "Save camera_path.json": self._save_path,
            "Make the video": self._record,
        }
        for label, action in buttons.items():
            gui.add_button(label).on_click(viewer.told(action))

    @property
    def pixels(self) -> tuple[int, int]:
        """Size of pictures and films."""
        width, height = (int(side) for side in self.size.value)
        require_size(width, height)
        return width, height

    def _download(self, event: Any) -> None:
        shown, name, client = self.viewer.require_current(), self.format.value, event.client

        def work(progress: Progress) -> str:
            data = encode_scene(shown.scene, name)
            progress(1.0)
            client.send_file_download(name, data, save_immediately=True)
            return f"sent: {name}, {len(data) / 2**20:.1f} MiB"

        self.viewer.tasks.start(f"writing {name}", work)

    def _shoot(self, event: Any) -> None:
        client, camera = event.client, read_camera(event.client.camera, *self.pixels)
        self.viewer.require_current()

        def work(progress: Progress) -> str:
            seen = self.viewer.seen()
            if seen is None:
                raise ValueError("there is no scene any more")
            client.send_file_download("screenshot.png", screenshot(seen[0], camera, seen[1]), save_immediately=True)
            return f"sent: screenshot.png, {camera.width} x {camera.height} pixels"

        self.viewer.tasks.start("taking a screenshot", work)

    def _add_key(self, event: Any) -> None:
        self.viewer.require_current()
        self._set_keys((*self.film.keys, read_camera(event.client.camera, 320, 240)))

    def _set_keys(self, keys: tuple[Any, ...]) -> None:
        self.film = replace(self.film, keys=keys)
        for handle in self._drawn:
            handle.remove()
        self._drawn = []
        size = FRUSTUM * max(self.viewer.require_current().scene.box.size)
        for number, key in enumerate(keys):
            quaternion, position = viser_pose(key)
            fov, aspect = vertical_fov(key), key.width / key.height
            frustum = self.viewer.server.scene.add_camera_frustum(
                f"/key_frames/{number}",
                fov,
                aspect,
                scale=size,
                thickness=size / 50,
                color=KEY_COLOR,
                wxyz=quaternion,
                position=position,
            )
            self._drawn.append(frustum)
        self.viewer.say(f"{len(keys)} key frames")

    def _timed(self) -> Film:
        return replace(self.film, seconds=float(self.seconds.value), fps=int(self.fps.value))

    def _preview(self, event: Any) -> None:
        cameras = replace(self.film, seconds=4.0, fps=12).cameras(320, 240)
        self.viewer.view_panel.play(event.client, cameras)

    def _save_path(self, event: Any) -> None:
        text = self._timed().describe(self.viewer.require_current().scene, *self.pixels)
        event.client.send_file_download("camera_path.json", text.encode(), save_immediately=True)

    def _record(self, event: Any) -> None:
        shown, client, film, size = self.viewer.require_current(), event.client, self._timed(), self.pixels
        film.cameras(*size)  # says what is missing

        def work(progress: Progress) -> str:
            data = film.encode(shown.scene, *size, progress)
            client.send_file_download("film.mp4", data, save_immediately=True)
            return f"sent: film.mp4, {film.frames} frames"

        self.viewer.tasks.start("making the video", work)
