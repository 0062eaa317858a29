"""Pixels out of files that strangers wrote and into files others read: PNG, JPEG and WebP by Pillow, depth as .npy too.

Only these formats are tried, at most ``MAX_PIXELS`` pixels are decoded, and EXIF orientation is never applied: the
pixels count as they lie in the file, as COLMAP and instant-ngp see them.
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import Vector
from nfldm3d.data.array_files import map_array
from nfldm3d.files import DataFormatError, refuse_special

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64 * 2**20
"""More pixels than any camera in use takes, fewer than a decompression bomb asks for; below Pillow's own ceiling."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Tried in this order for names that have none."""

FORMATS = ("PNG", "JPEG", "WEBP")
DAMAGED = (
    *(OSError, SyntaxError, ValueError, LookupError, AssertionError, EOFError, ArithmeticError),
    *(struct.error, zlib.error),
)
"""What Pillow raises on files that are no images, or no longer."""

_OPENING = threading.Lock()
"""The filters of warnings belong to the whole process; pictures are opened one by one, and decoded side by side."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results in order, computed by threads; Pillow's codecs and torch release the interpreter while they work."""
    with ThreadPoolExecutor(min(8, cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def probe(path: Path) -> tuple[int, int, bool]:
    """Width, height and whether there may be transparency, from the file's header alone; see ``is_transparent``."""
    if path.suffix.lower() == ".npy":
        height, width = open_array(path).shape
        return width, height, False
    with open_picture(path) as image:
        return image.width, image.height, image.has_transparency_data


def is_transparent(path: Path) -> bool:
    """Whether any pixel lets the background through: Blender and Unity write opaque pictures with alpha, too."""
    with open_picture(path) as image:
        if not image.has_transparency_data:
            return False
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return bool(alpha.min() < 255)


def read_image(path: Path, background: Vector) -> Float[Tensor, "3 height width"]:
    """An sRGB picture in [0, 1]; transparency is laid over ``background``, grey and palette pictures are converted.

    Of 16-bit colour the upper 8 bits are read, of 16-bit grey all.
    """
    with open_picture(path) as image:
        if image.mode.startswith("I"):
            grey = _to_tensor(np.asarray(image, dtype=np.float32) / 65535)
            return grey.clamp(0, 1).expand(3, -1, -1).contiguous()
        if image.mode == "CMYK":  # inks, which have no colour without their profile
            raise DataFormatError(path, "has colour mode CMYK; save it as RGB, RGBA or grey")
        if not image.has_transparency_data:
            return _to_channels(np.asarray(image.convert("RGB")))
        pixels = _to_channels(np.asarray(image.convert("RGBA")))
    color, alpha = pixels[:3], pixels[3:]
    return color * alpha + torch.tensor(background)[:, None, None] * (1 - alpha)


def read_alpha(path: Path) -> Float[Tensor, "height width"] | None:
    """How much of each pixel is covered, 0 to 1; None where a picture has no transparency."""
    with open_picture(path) as image:
        if not image.has_transparency_data:
            return None
        return _to_tensor(np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.float32) / 255)


def read_depth(path: Path, unit: float, *, half: bool = False) -> Float[Tensor, "height width"]:
    """Numbers of a 16-bit picture or .npy times ``unit``; NaN, infinite and negative ones become 0, unknown.

    With ``half`` the 16 bits of a picture's numbers are those of float16, as CO3D writes them.
    """
    if path.suffix.lower() == ".npy":
        numbers = np.array(open_array(path), dtype=np.float64)
    else:
        with open_picture(path) as image:
            if not image.mode.startswith("I"):
                raise DataFormatError(path, f"has pixel mode {image.mode}; depth needs a 16-bit grey PNG or .npy")
            numbers = np.asarray(image, dtype=np.float64)
        numbers = numbers.astype(np.uint16).view(np.float16).astype(np.float64) if half else numbers
    with np.errstate(over="ignore", invalid="ignore"):  # what no float32 can hold is unknown
        depth = torch.from_numpy((numbers * unit).astype(np.float32))
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)


def read_mask(path: Path) -> Bool[Tensor, "height width"]:
    """True where the picture is not black."""
    with open_picture(path) as image:
        if image.mode.startswith("I"):
            return _to_tensor(np.asarray(image, dtype=np.int32)) != 0
        return _to_tensor(np.asarray(image.convert("RGB"))).amax(-1) != 0


def read_labels(path: Path) -> UInt8[Tensor, "height width"]:
    """The 8-bit numbers of a grey or palette picture, palette indices as they are."""
    with open_picture(path) as image:
        if image.mode not in ("L", "P"):
            raise DataFormatError(path, f"has pixel mode {image.mode}; labels need an 8-bit grey or palette PNG")
        return _to_tensor(np.asarray(image))


def resize_image(image: Float[Tensor, "channels _ _"], width: int, height: int) -> Float[Tensor, "channels _ _"]:
    """The mean of the pixels that a new one covers where sizes divide, else torch's antialiased triangle filter."""
    if image.shape[-2:] == (height, width):
        return image
    down, across = image.shape[-2] // height, image.shape[-1] // width
    if (down * height, across * width) == image.shape[-2:]:
        rows = image.unflatten(-2, (height, down)).mean(-2)  # channels height old_width: twice as fast as avg_pool2d
        return rows.unflatten(-1, (width, across)).mean(-1)
    return functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def resize_nearest(image: Tensor, width: int, height: int) -> Tensor:
    """A picture ``(height, width)`` of numbers that must not mix: each new pixel takes the old one at its centre."""
    if image.shape == (height, width):
        return image
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip((height, width), image.shape, strict=True)
    )
    return image[rows[:, None], columns]


def write_image(path: Path, image: Float[Tensor, "3 height width"]) -> None:
    """An 8-bit picture in the format that the suffix names; lossy ones at quality 95."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(path, quality=95)


def write_depth(path: Path, depth: Float[Tensor, "height width"], unit: float) -> Path:
    """Multiples of ``unit`` as 16-bit PNG, or where those do not reach as float32 .npy; returns the name used."""
    from PIL import Image

    numbers = depth.double() / unit
    if float(numbers.max()) < 65535.5:
        path = path.with_name(f"{path.name}.png")
        Image.fromarray(numbers.round().numpy().astype(np.uint16)).save(path)
    else:
        path = path.with_name(f"{path.name}.npy")
        np.save(path, numbers.float().numpy())
    return path


def write_labels(
    path: Path, labels: UInt8[Tensor, "height width"], palette: tuple[tuple[int, int, int], ...] = ()
) -> None:
    """8-bit numbers as PNG, grey, or in the colours of a palette."""
    from PIL import Image

    image = Image.fromarray(labels.contiguous().numpy())
    if palette:
        image.putpalette([value for color in palette for value in color])
    image.save(path)


def open_quietly(source: Path | io.BytesIO, formats: tuple[str, ...], said: list[str]) -> Any:
    """Pillow's picture, of one of these formats; what Pillow warns of is added to ``said`` for a message."""
    from PIL import Image

    with _OPENING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return Image.open(source, formats=formats)
        finally:
            said += [str(warning.message) for warning in caught]


@contextmanager
def open_picture(path: Path, formats: tuple[str, ...] = FORMATS, content: bytes | None = None) -> "Iterator[Image]":
    """A picture that is closed after the block; whatever is wrong with it becomes a DataFormatError.

    Args:
        content: of the file, where it has been read already; ``path`` then only names it.
    """
    from PIL import Image

    said: list[str] = []
    if content is None:
        refuse_special(path)
    try:
        with open_quietly(path if content is None else io.BytesIO(content), formats, said) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _bomb(path, f"{image.width}x{image.height} pixels")
            yield image
    except DataFormatError:
        raise
    except FileNotFoundError as error:
        raise DataFormatError(path, "is missing; restore the file or remove its frame") from error
    except Image.DecompressionBombError as error:
        raise _bomb(path, "too many pixels") from error
    except Image.UnidentifiedImageError as error:
        known = ", ".join(formats[:-1]) + (" or " if formats[1:] else "") + formats[-1]
        raise DataFormatError(path, f"is not a {known.replace('WEBP', 'WebP')} picture; convert it") from error
    except MemoryError as error:  # a chunk of a few bytes may say that it is gigabytes long
        problem = "asks for more memory than there is; write the picture again, or scale it down"
        raise DataFormatError(path, problem) from error
    except DAMAGED as error:
        problem = "; ".join((str(error), *said))
        raise DataFormatError(path, f"cannot be decoded ({problem}); write the picture again") from error


def _bomb(path: Path, found: str) -> DataFormatError:
    return DataFormatError(path, f"holds {found}, at most {MAX_PIXELS >> 20} Mi are decoded; scale the picture down")


def open_array(path: Path) -> np.ndarray:
    """A 2-D array of numbers, mapped; see ``array_files``."""
    array = map_array(path)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or not 0 < array.size <= MAX_PIXELS:
        raise DataFormatError(
            path, f"holds {array.dtype} of shape {array.shape}, not numbers (height, width); reshape it"
        )
    return array


def _to_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))  # a copy: Pillow's buffer is read-only


def _to_channels(pixels: UInt8[np.ndarray, "height width channels"]) -> Float[Tensor, "channels height width"]:
    """Values in [0, 1]; the axes move while a value is still one byte."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div_(255)
