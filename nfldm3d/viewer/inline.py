"""Scenes in notebooks: the viewer in a frame below the cell, and a small picture."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from nfldm3d.rendering import prepare
from nfldm3d.scene import Scene
from nfldm3d.viewer.frames import Look
from nfldm3d.viewer.keeping import screenshot
from nfldm3d.viewer.page_camera import first_camera

if TYPE_CHECKING:
    from nfldm3d.viewer.viewer import Viewer

SIZE = (320, 240)


@dataclass(frozen=True, eq=False)
class InlineViewer:
    """What a notebook shows as the viewer; the browser must run on the machine that computes."""

    viewer: "Viewer"
    height: int

    @property
    def url(self) -> str:
        """Where the page is."""
        return self.viewer.url

    def close(self) -> None:
        """Ends the viewer."""
        self.viewer.close()

    def _repr_html_(self) -> str:
        url = escape(self.url)
        style = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe src="{url}" style="{style}"></iframe><div><a href="{url}" target="_blank">{url}</a></div>'


def show(scene: Scene, *, height: int = 560) -> InlineViewer:
    """See ``Scene.show``."""
    from nfldm3d.viewer.viewer import Viewer

    return InlineViewer(Viewer([("scene", scene)]), height)


def picture(scene: Scene) -> bytes:
    """A PNG of the scene from where the viewer begins."""
    return screenshot(prepare(scene), first_camera(scene, *SIZE), Look())
