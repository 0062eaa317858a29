"""A picture of an object, cut out and set before white as the pictures that networks of views learn from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data.image_files import read_alpha, read_image, read_mask, resize_image
from nfldm3d.data.intrinsics import build_camera
from nfldm3d.data.json_record import Record
from nfldm3d.data.srn import CARS_RADIUS, SRN_FOCAL
from nfldm3d.data.transforms_lens import read_intrinsics
from nfldm3d.data.view_sets import GIVEN_DEGREES, make_square
from nfldm3d.files import DataFormatError, read_json

FILLED = 0.7
"""Share of a picture's side that an object is cut out to fill, as objects at that distance do on average."""
SOLID = 0.5
"""Opacity from which on a pixel belongs to the object."""


@dataclass(frozen=True)
class ObjectPicture:
    """An object before white, and the camera that sees it."""

    image: Float[Tensor, "3 size size"]
    """sRGB in [0, 1]."""
    camera: Camera
    """(1)."""


def read_object(
    path: PathName,
    size: int,
    *,
    mask: PathName | None = None,
    camera: Camera | None = None,
    surroundings: bool = False,
) -> ObjectPicture:
    """Reads a picture with transparency, or one with a mask beside it.

    Without a camera the object is cut out, scaled to fill ``FILLED`` of the picture and set in its middle; the camera
    is then ``assume_camera``'s. With one, the middle square of the picture is taken.

    Args:
        size: pixels along each side of the result.
        mask: a picture that is black where the object is not.
        camera: (1) the one that took the whole picture, at any size, if it is known; see ``read_object_camera``.
        surroundings: takes the middle of pictures that nothing tells the object in, with what is around it.

    Raises:
        DataFormatError: a file is no picture, or nothing tells the object from what is behind it.
    """
    path = Path(path)
    image = read_image(path, (1.0, 1.0, 1.0))
    if surroundings and mask is None and not _tells_object(read_alpha(path)):
        return _take_middle(image, size, camera)
    opacity = _read_opacity(path, mask)
    if opacity.shape != image.shape[-2:]:
        shown = f"{opacity.shape[-1]}x{opacity.shape[-2]}"
        raise DataFormatError(mask or path, f"is {shown} pixels, not those of {path}; give a mask of that size")
    if not bool((opacity > SOLID).any()):
        raise DataFormatError(mask or path, "shows no object: all of it is left out; give another mask or picture")
    if mask is not None:
        image = image * opacity + 1 - opacity
    if camera is None:
        return ObjectPicture(_scaled(_cut_out(image, opacity), size), assume_camera(size))
    camera = camera.resized(image.shape[-1], image.shape[-2])
    kept, _ = make_square(opacity[None, None], camera, None)
    if int((kept > SOLID).sum()) < int((opacity > SOLID).sum()):
        raise DataFormatError(
            path, "shows the object beyond its middle square, which its camera is for; crop it, with its camera"
        )
    return _take_middle(image, size, camera)


def read_object_camera(path: PathName, picture: PathName) -> Camera:
    """The camera (1) that has taken a picture: that of the frame of a transforms.json which names it, or of the first.

    Raises:
        DataFormatError: there is none, or its lens has distortion.
    """
    path, picture = Path(path), Path(picture)
    top = Record.of(path, read_json(path))
    frames = [Record.of(path, values, f"frames[{number}]") for number, values in enumerate(top.items("frames"))]
    if not frames:
        raise top.problem("frames", "give the camera of the picture")
    named = [frame for frame in frames if Path(str(frame.values.get("file_path", ""))).name == picture.name]
    frame = (named or frames)[0]
    lens = read_intrinsics(top, [frame], [picture])
    camera = build_camera(path, [frame.where], frame.matrix("transform_matrix")[None], lens)
    if camera.distortion is not None or camera.lens != "perspective":
        raise frame.problem("camera_model", "this lens is bent; undistort the picture, with its camera")
    return camera


def assume_camera(size: int, *, azimuth_degrees: float = 0.0, elevation_degrees: float = GIVEN_DEGREES) -> Camera:
    """The camera (1) that is assumed to have taken a picture: SRN's lens, at SRN's distance, aimed at the middle."""
    if not -90 <= elevation_degrees <= 90 or not abs(azimuth_degrees) <= 360:
        raise ValueError(
            "an elevation lies between -90 and 90 degrees and an azimuth between -360 and 360, got "
            f"{elevation_degrees} and {azimuth_degrees}"
        )
    azimuth, elevation = torch.deg2rad(torch.tensor((float(azimuth_degrees), float(elevation_degrees)))).unbind()
    flat = elevation.cos()
    eye = CARS_RADIUS * torch.stack((flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()))
    found = Camera.look_at(eye[None], (0.0, 0.0, 0.0), width=size, height=size)
    return Camera(found.world_from_camera, torch.full((1, 2), SRN_FOCAL * size), found.principal, size, size)


def _take_middle(image: Float[Tensor, "3 height width"], size: int, camera: Camera | None) -> ObjectPicture:
    """The middle square of a picture, and the part of its camera that sees it, or an assumed one."""
    height, width = image.shape[1:]
    found = (assume_camera(size) if camera is None else camera).resized(width, height)
    square, found = make_square(image[None], found, size)
    return ObjectPicture(square[0].clamp(0, 1), assume_camera(size) if camera is None else found)


def _tells_object(alpha: Float[Tensor, "height width"] | None) -> bool:
    return alpha is not None and float(alpha.min()) <= SOLID


def _read_opacity(path: Path, mask: PathName | None) -> Float[Tensor, "height width"]:
    if mask is not None:
        return read_mask(Path(mask)).float()
    alpha = read_alpha(path)
    if alpha is None or not _tells_object(alpha):
        raise DataFormatError(
            path,
            "has no transparency that tells the object from what is behind it; cut the object out (PNG or WebP with an "
            "alpha channel), or give a mask",
        )
    return alpha


def _cut_out(
    image: Float[Tensor, "3 height width"], opacity: Float[Tensor, "height width"]
) -> Float[Tensor, "3 side side"]:
    """The object in the middle of a square that it fills to ``FILLED``."""
    rows, columns = ((opacity > SOLID).any(axis).nonzero().flatten() for axis in (1, 0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    side = max(1, round(max(bottom - top, right - left) / FILLED))
    above, before = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    cut = image[:, top:bottom, left:right]
    return functional.pad(cut, (before, side - before - cut.shape[-1], above, side - above - cut.shape[-2]), value=1.0)


def _scaled(image: Float[Tensor, "3 side side"], size: int) -> Float[Tensor, "3 size size"]:
    return resize_image(image, size, size).clamp(0, 1)
