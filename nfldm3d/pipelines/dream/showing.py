"""A dream for people to look at: preview sheets while it goes on, a turntable when it is done."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.fields import Field
from nfldm3d.fitting import Step
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.pipelines.dream.canvas import field_of
from nfldm3d.pipelines.dream.dreaming import RADIUS, Dream
from nfldm3d.pipelines.dream.views import circle_views
from nfldm3d.rendering.shading import render_with_shape
from nfldm3d.rendering.video import write_video
from nfldm3d.scene import Scene
from nfldm3d.written_files import note_written

SIDES = 4
GREY = (0.5, 0.5, 0.5)


def preview(path: PathName, every: int, size: int = 128) -> Callable[[Dream, Step], None]:
    """A callback of ``dream`` that writes a sheet of four sides every few steps, in place of the one before."""
    if every < 1:
        raise ValueError(f"a preview is written every 1 step or more, got {every}")

    def tell(run: Dream, step: Step) -> None:
        if step.number % every == 0:
            rows = show_sides(field_of(run.canvas), circle_views(SIDES, size, radius=RADIUS).to(run.device))
            _save(f"step {step.number}: {run.prompt}", rows, path)
            note_written(path)

    return tell


def show_sides(field: Field, cameras: Camera) -> list[Float[Tensor, "views 3 height width"]]:
    """Colours in light, the shape without them, and normals as colours, on grey."""
    background = torch.tensor(GREY, device=field.device)
    lit, bare = render_with_shape(field, cameras, background=background)
    assert lit.normals is not None
    normals = lit.opacity[..., None, :, :] * (0.5 + 0.5 * lit.normals) + (1 - lit.opacity[..., None, :, :]) * 0.5
    return [lit.image, bare, normals.clamp(0, 1)]


def save_sides(scene: Scene, path: PathName, size: int = 128) -> None:
    """Writes the sheet of a finished scene."""
    rows = show_sides(scene.field, circle_views(SIDES, size, radius=RADIUS).to(scene.device))
    _save(str(scene.metadata.get("prompt", "colours")), rows, path)


def save_turntable(scene: Scene, path: PathName, *, frames: int = 60, size: int = 192) -> None:
    """Writes a video of one turn: colours, shape and normals side by side."""
    cameras = circle_views(frames, size, radius=RADIUS).to(scene.device)

    def pictures() -> Iterator[Float[Tensor, "3 height width"]]:
        for number in range(frames):
            yield torch.cat([row[0] for row in show_sides(scene.field, cameras[number : number + 1])], dim=-1)

    write_video(pictures(), Path(path), size=(3 * size, size), count=frames, fps=20)


def _save(label: str, rows: list[Float[Tensor, "views 3 height width"]], path: PathName) -> None:
    save_contact_sheet({label: rows[0], "shape": rows[1], "normals": rows[2]}, path)
