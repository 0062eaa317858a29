"""Pictures for people: tensors into image files, depth into colours, renders beside photographs on one sheet."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.files import atomic_write

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CELL_WIDTH = 480
"""Wider pictures are scaled down on a sheet, in pixels."""
MARGIN, LABEL_HEIGHT = 4, 22

# Google's Turbo (Mikhailov 2019), as its author's polynomials of degree 5 for red, green and blue, constant first.
TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)


LARGEST_SIDE = 2**14
"""Pixels of a picture that is rendered; no video holds wider ones."""
LONGEST_PATH = 100_000
"""Pictures of a video."""


def require_picture_size(width: int, height: int, count: int = 1) -> None:
    """Raises a ValueError for pictures that cannot be made, or so many that they cannot be wanted."""
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise ValueError(f"pictures have 1 to {LARGEST_SIDE} pixels along each side, got {width} x {height}")
    if count > LONGEST_PATH:
        raise ValueError(f"{count} pictures are too many; ask for {LONGEST_PATH} at most")


def to_bytes(image: Float[Tensor, "*views 3 height width"]) -> UInt8[Tensor, "*views height width 3"]:
    """The 8-bit pixels of pictures in [0, 1], on the CPU, as image and video writers take them."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.movedim(-3, -1).contiguous().cpu()


def save_image(image: Float[Tensor, "3 height width"], path: PathName) -> None:
    """Writes a picture whole or not at all, as .png, .jpg or .webp (lossy ones at quality 95).

    Raises:
        ValueError: if the suffix is unknown or the path cannot be written.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot write {path}: unknown suffix {path.suffix!r}; choose {', '.join(SUFFIXES)}")
    with atomic_write(path) as temporary:
        Image.fromarray(to_bytes(image).numpy()).save(temporary, quality=95)


def color_depth(
    depth: Float[Tensor, "*views height width"], *, near: float | None = None, far: float | None = None
) -> Float[Tensor, "*views 3 height width"]:
    """Depth in metres from near (blue) to far (red); black where it is 0, unknown.

    Args:
        near: depth of the first colour; the least known depth if not given.
        far: depth of the last colour; the greatest known depth if not given.
    """
    known = depth > 0
    values = depth[known] if bool(known.any()) else depth.new_ones(1)
    near, far = float(values.min()) if near is None else near, float(values.max()) if far is None else far
    share = ((depth - near) / max(far - near, 1e-9)).clamp(0, 1)
    powers = torch.stack([share**power for power in range(6)], dim=-1)
    color = (powers @ depth.new_tensor(TURBO).T).clamp(0, 1)  # *views height width 3
    return torch.where(known[..., None], color, 0.0).movedim(-1, -3)


def contact_sheet(rows: Mapping[str, Float[Tensor, "_ 3 _ _"]]) -> Float[Tensor, "3 height width"]:
    """One picture of several rows, each a batch of pictures side by side below its label; rows may differ in size."""
    from PIL import Image, ImageDraw, ImageFont

    if not rows or not all(len(images) for images in rows.values()):
        sizes = {label: len(images) for label, images in rows.items()}
        raise ValueError(f"a contact sheet needs pictures in every row, got {sizes}")
    strips = [_join(images) for images in rows.values()]
    width = max(strip.shape[-1] for strip in strips)
    page = [functional.pad(strip, (0, width - strip.shape[-1], LABEL_HEIGHT, 0), value=1.0) for strip in strips]
    canvas = Image.fromarray(to_bytes(torch.cat(page, dim=-2)).numpy())
    draw, top = ImageDraw.Draw(canvas), 0
    for label, strip in zip(rows, page, strict=True):
        draw.text((MARGIN, top + MARGIN), label, fill=(0, 0, 0), font=ImageFont.load_default(LABEL_HEIGHT - 2 * MARGIN))
        top += strip.shape[-2]
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255


def save_contact_sheet(rows: Mapping[str, Float[Tensor, "_ 3 _ _"]], path: PathName) -> None:
    """Writes ``contact_sheet(rows)`` as ``save_image`` does."""
    save_image(contact_sheet(rows), path)


def _join(images: Float[Tensor, "views 3 height width"]) -> Float[Tensor, "3 _ _"]:
    """The pictures of a row side by side on white, wide ones scaled down."""
    images = images.detach().float().cpu().clamp(0, 1)
    if images.shape[-1] > CELL_WIDTH:
        height = max(1, round(images.shape[-2] * CELL_WIDTH / images.shape[-1]))
        images = functional.interpolate(images, (height, CELL_WIDTH), mode="bilinear", antialias=True)
    cells = functional.pad(images, (0, MARGIN, 0, MARGIN), value=1.0)
    return torch.cat(list(cells), dim=-1)
