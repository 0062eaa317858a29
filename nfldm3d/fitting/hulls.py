"""The visual hull of captures of an object, transparent or on a plain background: where it can be, by silhouettes."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.scene_box import guess_surfaces
from nfldm3d.fitting.backdrops import Backdrop, find_backdrop, find_outside
from nfldm3d.geometry import Box

CELLS = 48
"""Cells along each edge of the box that is carved."""
VIEWS = 64
"""At most so many views carve, evenly spread over the capture."""
LONGEST = 1024
"""Pixels along the longer side of the pictures that carve: photographs of many megapixels would fill the memory."""
PROBES = 8
"""Views that are asked first whether there is a plain background at all."""
WITNESSES = 2
"""So many views must picture a cell: what fewer see is not known."""
FAINT = 0.02
"""Pixels of less opacity show nothing."""
GROWTH, TRIES = 1.5, 3
"""By which the box grows, and how often, while the hull reaches its walls."""


class Hull(NamedTuple):
    """Where an object can be."""

    box: Box
    cells: Bool[Tensor, "x y z"]
    """Over the box, which holds them with one to spare."""
    backdrop: Backdrop | None = None
    """The plain background of opaque pictures; None for transparent ones."""


@torch.no_grad()
def find_hull(images: PosedImages, *, plain: bool = True) -> Hull | None:
    """The visual hull; None for pictures that show no whole object, transparent or on a plain background.

    Pixels that masks leave out carve nothing. Opaque pictures with masks, depth or a known background are left alone.

    Args:
        plain: whether plain backgrounds of opaque pictures are looked for.

    Raises:
        ValueError: all pixels that masks leave are transparent.
    """
    some = images[torch.linspace(0, len(images) - 1, min(VIEWS, len(images))).round().long().unique()]
    some = some.downscaled(max(1.0, max(some.camera.width, some.camera.height) / LONGEST))
    shown, backdrop = _find_silhouettes(some, plain)
    if shown is None or not bool(shown.any()) or bool(shown.all()):
        return None
    box = Box.around(guess_surfaces(some.camera))
    for _ in range(TRIES):
        kept = carve(some.camera, shown, box)
        if not bool(kept.any()):
            return None
        sides = [kept.narrow(axis, side, 1) for axis in range(3) for side in (0, CELLS - 1)]
        if not any(bool(side.any()) for side in sides):
            for _ in range(2):  # once more in finer cells, and then over just the box
                box = _hold(kept, box)
                kept = carve(some.camera, shown, box)
            return Hull(box, kept, backdrop)
        box = box.scaled(GROWTH)
    return None


def _find_silhouettes(
    images: PosedImages, plain: bool
) -> tuple[Bool[Tensor, "views height width"] | None, Backdrop | None]:
    """The pixels that may show the object, None for pictures that show no single one, and the plain background."""
    alpha, masks = images.load_alpha(), images.load_masks()
    if alpha is not None:
        shown = alpha > FAINT
        if masks is None:
            return shown, None
        if not bool((shown & masks).any()):
            raise ValueError(
                "all pixels that the masks leave are transparent, and the object lies in those that they take out: "
                "masks are white (True) where a pixel is used; invert them, or remove them"
            )
        return shown | ~masks, None
    if not plain or images.background is not None or masks is not None or images.frames[0].depth is not None:
        return None, None
    if find_backdrop(images[:: -(-len(images) // PROBES)].load_images()) is None:
        return None, None
    pictures = images.load_images()
    backdrop = find_backdrop(pictures)
    if backdrop is None:
        return None, None
    return torch.stack([~find_outside(backdrop.holds(picture)) for picture in pictures]), backdrop


def carve(camera: Camera, shown: Bool[Tensor, "views height width"], box: Box) -> Bool[Tensor, "x y z"]:
    """The cells of a box that no view sees as empty (Laurentini 1994) and enough views picture."""
    points = box.voxel_centers((CELLS, CELLS, CELLS), torch.zeros(1)).reshape(-1, 3)
    kept, witnesses = torch.ones(len(points), dtype=torch.bool), torch.zeros(len(points), dtype=torch.long)
    reach = 0.5 * math.dist(box.lower, box.upper) / CELLS  # from the centre of a cell to its corners
    size = points.new_tensor((camera.width, camera.height))
    for number in range(len(camera)):
        view = camera[number]
        pixels, depth = view.project(points)
        pictured = (depth > reach) & ((pixels >= 0) & (pixels < size)).all(-1)
        if not _reaches_border(shown[number]):  # all of the object is in the picture
            kept &= pictured
        if not bool(pictured.any()):
            continue
        radius = min(math.ceil(reach * float(view.focal.max() / depth[pictured].median())), max(shown.shape[1:]) // 2)
        grown = _grow(shown[number], radius)
        columns, rows = pixels[pictured].long().unbind(-1)
        kept[pictured] &= grown[rows, columns]
        witnesses += pictured
    return (kept & (witnesses >= min(WITNESSES, len(camera)))).view(CELLS, CELLS, CELLS)


def _reaches_border(mask: Bool[Tensor, "height width"]) -> bool:
    return bool(mask[[0, -1]].any() | mask[:, [0, -1]].any())


def _grow(mask: Bool[Tensor, "height width"], radius: int) -> Bool[Tensor, "height width"]:
    """The pixels within a square of a radius around those of a mask."""
    grown = mask.float()[None, None]
    for size in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        grown = torch.nn.functional.max_pool2d(grown, size, stride=1, padding=(size[0] // 2, size[1] // 2))
    return grown[0, 0] > 0


def _hold(kept: Bool[Tensor, "x y z"], box: Box) -> Box:
    cells = kept.nonzero()
    size = torch.tensor(box.voxel_size((CELLS, CELLS, CELLS)))
    corners = torch.stack((cells.amin(0) - 1, cells.amax(0) + 2)) * size + torch.tensor(box.lower)
    return Box.around(corners)
