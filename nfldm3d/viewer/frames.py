"""What the page shows of a scene from one camera: the picture, depth, normals or opacity, as 8-bit pixels."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.editing import crop
from nfldm3d.geometry import Box
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.pictures import color_depth, to_bytes
from nfldm3d.rendering import Renderer, prepare
from nfldm3d.scene import Scene

KINDS = ("picture", "depth", "normals", "opacity")
WHOLE = (0.0, 1.0)
BACKDROPS = {"the scene's": None, "black": 0.0, "grey": 0.5, "white": 1.0}
"""What is seen behind a scene: its own background, or a grey value."""


@dataclass(frozen=True)
class Look:
    """How a scene is looked at."""

    kind: str = KINDS[0]
    step_in_voxels: float = 0.5
    backdrop: str = "the scene's"
    clip: tuple[tuple[float, float], ...] = (WHOLE, WHOLE, WHOLE)
    """Which part of the box along x, y and z is shown, from 0 to 1; all of it comes with its surroundings."""

    def __post_init__(self):
        if self.kind not in KINDS or self.backdrop not in BACKDROPS or len(self.clip) != 3:
            raise ValueError(
                f"one can look for {', '.join(KINDS)}, over {', '.join(BACKDROPS)}, in a box of three axes"
            )
        if not 0.1 <= self.step_in_voxels <= 4:
            raise ValueError(f"step_in_voxels must lie between 0.1 and 4, got {self.step_in_voxels}; 0.5 is usual")


@dataclass(frozen=True, eq=False)
class ShownScene:
    """A scene and what is known of it before any camera is."""

    name: str
    scene: Scene

    @cached_property
    def renderer(self) -> Renderer:
        """Of the whole scene."""
        return prepare(self.scene)

    def seen(self, look: Look) -> Renderer:
        """Of the part that a look shows, before its backdrop."""
        scene, grey = self.scene, BACKDROPS[look.backdrop]
        if all(part == WHOLE for part in look.clip) and grey is None:
            return self.renderer
        if grey is not None:
            scene = replace(scene, background=torch.full((3,), grey, device=scene.device))
        if all(part == WHOLE for part in look.clip):
            return replace(self.renderer, scene=scene)
        return prepare(crop(scene, clip_box(scene.box, look.clip)))


def clip_box(box: Box, clip: tuple[tuple[float, float], ...]) -> Box:
    """The part of a box between shares of its extents, at least a hundredth of each."""
    lower, upper = [], []
    for low, size, (start, end) in zip(box.lower, box.size, clip, strict=True):
        start = min(max(start, 0.0), 0.99)
        lower.append(low + start * size)
        upper.append(low + min(max(end, start + 0.01), 1.0) * size)
    return Box((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


@torch.no_grad()
def draw(renderer: Renderer, camera: Camera, look: Look, *, draft: bool = False) -> UInt8[Tensor, "height width 3"]:
    """One frame; a draft is drawn in steps twice as long, and faster where the scene's appearance can."""
    appearance, step = renderer.scene.appearance, look.step_in_voxels * (2 if draft else 1)
    if draft and isinstance(appearance, ImageDecoder):
        renderer = replace(renderer, scene=replace(renderer.scene, appearance=appearance.quick()))
    normals = look.kind == "normals"
    seen = renderer.render(camera.to(renderer.scene.device), step_in_voxels=step, with_normals=normals)
    image: Float[Tensor, "3 height width"] = seen.image
    if look.kind == "depth":
        image = color_depth(seen.depth)
    elif look.kind == "opacity":
        image = seen.opacity.expand(3, -1, -1)
    elif seen.normals is not None:
        image = (0.5 + 0.5 * seen.normals) * (seen.normals.norm(dim=0) > 0)
    return to_bytes(image)


def fit_size(aspect: float, pixels: int) -> tuple[int, int]:
    """Width and height of about so many pixels in all."""
    aspect = min(max(aspect, 0.1), 10.0)
    height = max(2, round((pixels / aspect) ** 0.5))
    return max(2, round(height * aspect)), height
