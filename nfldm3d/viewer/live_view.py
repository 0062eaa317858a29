"""Frames for one page: coarse ones while its camera moves, a full one when it rests; only the newest wish counts."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nfldm3d.viewer.frames import Look, draw, fit_size
from nfldm3d.viewer.page_camera import read_camera
from nfldm3d.viewer.tasks import FAILURES

if TYPE_CHECKING:
    import viser

    from nfldm3d.rendering import Renderer

PREVIEW, FULL = 320 * 240, 960 * 720
"""Pixels of a frame while the camera moves and when it rests, at most."""
LEAST = PREVIEW // 6
"""Pixels of a frame while the camera moves, at least."""
SWIFT = 0.08
"""Seconds that a frame may take while the camera moves; slower machines show smaller ones."""
REST = 0.12
"""Seconds without a move after which the camera rests."""
QUALITY, FULL_QUALITY = 75, 92
"""Of the JPEGs that are sent."""


class LiveView:
    """Draws for one page in a thread of its own until it is closed."""

    def __init__(
        self, client: "viser.ClientHandle", current: Callable[[], "tuple[Renderer, Look] | None"], turn: threading.Lock
    ):
        """Begins to draw.

        Args:
            current: what to draw at the moment; None for nothing.
            turn: pages draw one after the other.
        """
        self.client, self._current, self._turn = client, current, turn
        self._wish, self._closed = threading.Event(), False
        self.frames = 0
        """How many have been sent."""
        self._preview = PREVIEW
        self._thread = threading.Thread(target=self._run, name=f"page {client.client_id}", daemon=True)
        client.camera.on_update(lambda _: self.wish())
        self._wish.set()
        self._thread.start()

    def wish(self) -> None:
        """Something has changed: draw anew."""
        self._wish.set()

    def close(self) -> None:
        """Ends after the frame that is being drawn."""
        self._closed = True
        self._wish.set()

    def wait(self, seconds: float) -> None:
        """Until it has ended, but no longer than so."""
        self._thread.join(seconds)

    @property
    def drawing(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wish.wait()
            if self._closed:
                return
            self._wish.clear()
            self._send(full=False)
            if not self._wish.wait(REST) and not self._closed:
                self._send(full=True)

    def _send(self, *, full: bool) -> None:
        page = self.client.camera
        with self._turn:
            if full and self._wish.is_set():  # it moved while others had their turn
                return
            try:
                current = self._current()
                if current is None:
                    self.client.scene.set_background_image(None)
                    return
                renderer, look = current
                width, height = max(1, page.image_width), max(1, page.image_height)  # a folded window has none
                size = fit_size(width / height, min(FULL if full else self._preview, width * height))
                start = time.monotonic()
                image = draw(renderer, read_camera(page, *size), look, draft=not full).numpy()
            except FAILURES as error:
                text = " ".join(str(error).split())
                self.client.add_notification("Cannot show this", text, color="red", auto_close_seconds=8)
                return
            if not full:
                self._preview = pace(self._preview, time.monotonic() - start)
        if self._closed or (full and self._wish.is_set()):
            return  # stale
        quality = FULL_QUALITY if full else QUALITY
        self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=quality)
        self.client.flush()
        self.frames += 1


def pace(pixels: int, seconds: float) -> int:
    """How many pixels the next frame of a moving camera has, after one of ``pixels`` took so long.

    Sizes change by a half at most, so that one slow frame does not coarsen the view, and by no less than a fifth.
    """
    wanted = pixels * min(max(SWIFT / max(seconds, 1e-6), 0.5), 2.0)
    wanted = round(min(max(wanted, LEAST), PREVIEW))
    return pixels if 0.8 < wanted / pixels < 1.25 and wanted < PREVIEW else wanted
