"""Frame: where the pixels of one view come from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nfldm3d._types import Vector
from nfldm3d.data import image_files
from nfldm3d.files import DataFormatError


@dataclass(frozen=True)
class Frame:
    """Where the pixels of one view come from: files, which are read when asked for, or tensors."""

    name: str
    """The file name as the capture writes it; names the view in messages and saved files."""
    size: tuple[int, int]
    """Width and height of every picture of this view, before any scaling."""
    image: Path | Float[Tensor, "3 height width"] | UInt8[Tensor, "3 height width"]
    """sRGB in [0, 1], or 0-255 in a uint8 tensor."""
    depth: Path | Float[Tensor, "height width"] | None = None
    """Along the optical axis; metres in a tensor, multiples of ``depth_unit`` in a file; 0 is unknown."""
    mask: Path | Bool[Tensor, "height width"] | None = None
    """True (in a file: not black) where the pixel is to be used."""
    labels: Path | UInt8[Tensor, "height width"] | None = None
    """A class per pixel."""
    depth_unit: float = 1.0
    """Metres per unit of a depth file."""
    half_depth: bool = False
    """Whether the numbers of a depth picture are the bits of float16."""

    def load_image(self, background: Vector) -> Float[Tensor, "3 height width"]:
        """The picture in full size, laid over ``background`` where it is transparent."""
        if isinstance(self.image, Path):
            return self._checked(image_files.read_image(self.image, background), self.image)
        return self.image.float() / 255 if self.image.dtype == torch.uint8 else self.image.float()

    def load_depth(self) -> Float[Tensor, "height width"]:
        """The depth in the size of its file, in metres."""
        assert self.depth is not None
        if isinstance(self.depth, Path):
            return self._checked(image_files.read_depth(self.depth, self.depth_unit, half=self.half_depth), self.depth)
        return self.depth.float()

    def load_mask(self) -> Bool[Tensor, "height width"]:
        """The mask in the size of its file."""
        assert self.mask is not None
        return self._checked(image_files.read_mask(self.mask), self.mask) if isinstance(self.mask, Path) else self.mask

    def load_labels(self) -> UInt8[Tensor, "height width"]:
        """The labels in the size of their file."""
        assert self.labels is not None
        if isinstance(self.labels, Path):
            return self._checked(image_files.read_labels(self.labels), self.labels)
        return self.labels

    def check_size(self, path: Path, width: int, height: int) -> None:
        """Raises a DataFormatError if a file of this view is not of the size that the intrinsics belong to.

        Depth, masks and labels may be that picture in another size, as phones record them.
        """
        if (width, height) == self.size or (path is not self.image and is_scaled((width, height), self.size)):
            return
        wanted = f"{self.size[0]}x{self.size[1]}"
        if (height, width) == self.size:
            remedy = "it lies on its side: rotate its pixels (EXIF orientation is not applied) or change the intrinsics"
        elif path is not self.image:
            remedy = f"it does not show the whole picture: scale it to {wanted}, or to another size of that shape"
        else:
            remedy = f"scale the file to {wanted}, or scale w, h, focal length and principal point to the file"
        raise DataFormatError(path, f"is {width}x{height} pixels but the intrinsics are for {wanted}; {remedy}")

    def _checked(self, pixels: Tensor, path: Path) -> Tensor:
        self.check_size(path, pixels.shape[-1], pixels.shape[-2])
        return pixels


def is_scaled(size: tuple[int, int], original: tuple[int, int]) -> bool:
    """Whether a width and height are another one scaled, to half a pixel or a hundredth."""
    height = size[0] * original[1] / original[0]
    return abs(height - size[1]) <= max(0.5, 0.01 * height)
