"""COLMAP's sparse model as plain numbers, out of its text or binary files.

The layout is that of https://colmap.github.io/format.html and of ``src/colmap/scene/reconstruction_io_*.cc``.
Counts in the files are never trusted: a file that ends early is refused, whatever it promises.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.files import DataFormatError, read_content, refuse_special

MAX_BYTES = 4 * 2**30
MAX_NAME_BYTES = 4096
PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
}
"""How many numbers a camera of each model has; COLMAP's model ids 0 to 6 in this order."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class ColmapCamera:
    """A camera: its model's name, image size in pixels, and the model's parameters in COLMAP's order."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """A registered picture."""

    name: str
    camera: int
    """Id of its camera."""
    quaternion: tuple[float, float, float, float]
    """``camera_from_world``, w first."""
    translation: tuple[float, float, float]
    """``camera_from_world``."""


def read_cameras(folder: Path) -> dict[int, ColmapCamera]:
    """The cameras of a model folder by their ids."""
    return _read(folder, "cameras", _binary_cameras, _text_cameras)


def count_images(folder: Path) -> int:
    """How many pictures a model has registered; 0 if that cannot be read."""
    try:
        refuse_special(folder / "images.bin")
        with open(folder / "images.bin", "rb") as file:
            return int.from_bytes(file.read(8), "little")
    except (OSError, DataFormatError):
        pass
    try:
        return len(read_images(folder))
    except DataFormatError:
        return 0


def read_images(folder: Path) -> list[ColmapImage]:
    """The registered pictures of a model folder, without their keypoints."""
    return _read(folder, "images", _binary_images, _text_images)


def read_points(folder: Path) -> Float[Tensor, "points 3"] | None:
    """Positions of the triangulated points, float64; None if the model has no such file."""
    if not any((folder / f"points3D{suffix}").is_file() for suffix in (".bin", ".txt")):
        return None
    return torch.from_numpy(_read(folder, "points3D", _binary_points, _text_points))


class _Cursor:
    """A position in the bytes of a file that refuses to run past their end."""

    def __init__(self, path: Path, content: bytes):
        self.path, self.content, self.position = path, content, 0

    def take(self, layout: str) -> tuple:
        """The next numbers, little-endian, in the notation of ``struct``."""
        start = self.skip(struct.calcsize(f"<{layout}"))
        return struct.unpack_from(f"<{layout}", self.content, start)

    def skip(self, count: int) -> int:
        """Moves on by ``count`` bytes and returns the position before."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.content):
            raise DataFormatError(self.path, f"is truncated at byte {len(self.content)}; export the model again")
        return start

    def text(self) -> str:
        """The next zero-terminated name."""
        end = self.content.find(b"\0", self.position, self.position + MAX_NAME_BYTES)
        if end < 0:
            raise DataFormatError(self.path, f"has no name at byte {self.position}; export the model again")
        start = self.skip(end - self.position + 1)
        return self.content[start:end].decode("utf-8")


def _read(
    folder: Path, name: str, binary: Callable[[_Cursor], Result], text: Callable[[Iterator[str]], Result]
) -> Result:
    path = folder / f"{name}.bin"
    is_binary = path.is_file()
    path = path if is_binary else folder / f"{name}.txt"
    try:
        content = read_content(path, MAX_BYTES, "a model needs cameras and images; export it again")
        if is_binary:
            return binary(_Cursor(path, content))
        return text(line for line in content.decode("utf-8").splitlines() if not line.startswith("#"))
    except DataFormatError:
        raise
    except ValueError as error:
        raise DataFormatError(
            path, f"is damaged, or no model that is read here: {error}; export the model again"
        ) from error


def _binary_cameras(cursor: _Cursor) -> dict[int, ColmapCamera]:
    cameras = {}
    for _ in range(cursor.take("Q")[0]):
        number, model, width, height = cursor.take("IiQQ")
        if not 0 <= model < len(PARAMETERS):
            raise ValueError(_unknown_model(f"number {model}"))
        name = list(PARAMETERS)[model]
        cameras[number] = ColmapCamera(name, width, height, cursor.take(f"{PARAMETERS[name]}d"))
    return cameras


def _binary_images(cursor: _Cursor) -> list[ColmapImage]:
    images = []
    for _ in range(cursor.take("Q")[0]):
        _, w, x, y, z, *translation, camera = cursor.take("I7dI")
        images.append(ColmapImage(cursor.text(), camera, (w, x, y, z), tuple(translation)))
        cursor.skip(24 * cursor.take("Q")[0])  # keypoints: x, y, point id
    return images


def _binary_points(cursor: _Cursor) -> np.ndarray:
    points = []
    for _ in range(cursor.take("Q")[0]):
        _, x, y, z, _, _, _, _, track = cursor.take("Q3d3BdQ")
        points.append((x, y, z))
        cursor.skip(8 * track)  # image id, keypoint index
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def _text_cameras(lines: Iterator[str]) -> dict[int, ColmapCamera]:
    cameras = {}
    for line in lines:
        if line.strip():
            number, name, width, height, *parameters = line.split()
            if name not in PARAMETERS:
                raise ValueError(_unknown_model(name))
            if len(parameters) != PARAMETERS[name]:
                raise ValueError(f"camera {number} has {len(parameters)} parameters, {name} has {PARAMETERS[name]}")
            cameras[int(number)] = ColmapCamera(name, int(width), int(height), tuple(map(float, parameters)))
    return cameras


def _text_images(lines: Iterator[str]) -> list[ColmapImage]:
    """Poses, each followed by a line of keypoints, which people who write by hand leave out."""
    images, may_be_keypoints = [], False
    for line in lines:
        if not line.strip() or (may_be_keypoints and _lists_keypoints(line)):
            may_be_keypoints = False
            continue
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise ValueError(
                f"{line[:60]!r} is neither a pose (IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME) nor a list of "
                "keypoints (X Y POINT3D_ID each)"
            )
        w, x, y, z, tx, ty, tz = map(float, words[1:8])
        images.append(ColmapImage(words[9].strip(), int(words[8]), (w, x, y, z), (tx, ty, tz)))
        may_be_keypoints = True
    return images


def _lists_keypoints(line: str) -> bool:
    """Whether a line goes x, y, whole number, again and again; the names that end poses are no numbers."""
    words = line.split(maxsplit=12)
    if len(words) <= 12 and len(words) % 3:
        return False
    try:
        _ = [int(word) if place % 3 == 2 else float(word) for place, word in enumerate(words[:12])]
    except ValueError:
        return False
    return True


def _text_points(lines: Iterator[str]) -> np.ndarray:
    rows = [line.split(maxsplit=4)[1:4] for line in lines if line.strip()]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _unknown_model(name: str) -> str:
    return f"camera model {name} is not among {', '.join(PARAMETERS)}; undistort with 'colmap image_undistorter'"
