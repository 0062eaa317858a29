"""KITTI-360's calibration: text files of named numbers, and OpenCV's YAML for the fisheye cameras.

    calibration/perspective.txt         P_rect_00: 3x4, R_rect_00: 3x3, S_rect_00: width height; also for 01
    calibration/calib_cam_to_pose.txt   image_00: 3x4 to image_03: 3x4, from each camera to the vehicle
    calibration/calib_cam_to_velo.txt   3x4, from camera 00, as mounted, to the lidar
    calibration/image_02.yaml           unified model of a fisheye lens (model_type: MEI); also image_03.yaml

Matrices are row by row; axes and pixels are OpenCV's. The vehicle's axes are x ahead, y right, z down.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.intrinsics import Intrinsics
from nfldm3d.data.logs.wide_lens import WideLens, WideView
from nfldm3d.files import DataFormatError, read_lines
from nfldm3d.geometry import find_pose_problem, invert_pose

FRONT, SIDES = ("image_00", "image_01"), ("image_02", "image_03")
MAX_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class KittiCamera:
    """A view of a camera: all of it, or what is cut out of a fisheye picture."""

    name: str
    folder: str
    """Of the pictures, below that of the drive."""
    lens: Intrinsics
    vehicle_from_camera: Float[Tensor, "4 4"]
    """Float64, OpenCV's axes on both sides of a turn: the vehicle's are KITTI-360's own."""
    wide: WideView | None = None


@dataclass(frozen=True, eq=False)
class KittiCalibration:
    """Where sensors sit on the vehicle."""

    cameras: tuple[KittiCamera, ...]
    vehicle_from_lidar: Float[Tensor, "4 4"] | None

    @classmethod
    def read(cls, folder: Path) -> "KittiCalibration":
        """All cameras that are calibrated, two of them at least looking ahead; the lidar if it is.

        Raises:
            DataFormatError: a file is missing or cannot be used.
        """
        needed = [folder / "perspective.txt", folder / "calib_cam_to_pose.txt"]
        missing = [path.name for path in needed if not path.is_file()]
        if missing:
            raise DataFormatError(folder, f"lacks {' and '.join(missing)}; unpack KITTI-360's calibration there")
        lenses, mounts = (_read_numbers(path) for path in needed)
        places = {name: _pose(needed[1], name, mounts.get(name)) for name in (*FRONT, *SIDES) if name in mounts}
        fronts = [_read_front(needed[0], name, lenses, places) for name in FRONT]
        cameras = list(fronts)
        for name in SIDES:
            file = folder / f"{name}.yaml"
            if file.is_file():
                if name not in places:
                    raise DataFormatError(needed[1], f"lacks {name}, which {file.name} calibrates; unpack it again")
                cameras += _split_side(name, read_wide_lens(file), places[name], fronts[0].lens)
        lidar = folder / "calib_cam_to_velo.txt"
        return cls(tuple(cameras), _read_lidar(lidar, places["image_00"]) if lidar.is_file() else None)


def read_wide_lens(path: Path) -> WideLens:
    """The lens of an OpenCV YAML file in the unified model; its few numbers are at most two levels deep."""
    text = _read_text(path)
    kind = re.search(r"^[ \t]*model_type:[ \t]*(\S+)", text, re.MULTILINE)
    if kind is None or kind[1] != "MEI":
        raise DataFormatError(path, f"model_type is {kind[1] if kind else 'missing'}; only MEI can be read")

    def number(key: str) -> float:
        found = re.search(rf"^[ \t]*{key}:[ \t]*(\S+)[ \t\r]*$", text, re.MULTILINE)
        try:
            value = float(found[1]) if found else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataFormatError(path, f"{key} is {found[1] if found else 'missing'}; write a number")
        return value

    width, height = int(number("image_width")), int(number("image_height"))
    if min(width, height) < 1 or min(number("gamma1"), number("gamma2")) <= 0 or number("xi") < 0:
        raise DataFormatError(path, "needs sizes of pictures, gamma1 and gamma2 above 0, and xi of at least 0")
    return WideLens(
        width,
        height,
        number("xi"),
        (number("k1"), number("k2"), number("p1"), number("p2")),
        (number("gamma1"), number("gamma2")),
        (number("u0"), number("v0")),
    )


def _read_front(
    source: Path, name: str, lenses: dict[str, list[float]], places: dict[str, Float[Tensor, "4 4"]]
) -> KittiCamera:
    number = name[-2:]
    sizes = {f"P_rect_{number}": 12, f"R_rect_{number}": 9, f"S_rect_{number}": 2}
    for key, count in sizes.items():
        if len(lenses.get(key, ())) != count:
            raise DataFormatError(
                source, f"{key} needs {count} numbers, got {len(lenses.get(key, ()))}; unpack it again"
            )
    if name not in places:
        raise DataFormatError(source.with_name("calib_cam_to_pose.txt"), f"lacks {name}; unpack it again")
    matrix, turn, (width, height) = (lenses[key] for key in sizes)
    rectify = torch.eye(4, dtype=torch.float64)
    rectify[:3, :3] = torch.tensor(turn, dtype=torch.float64).view(3, 3)
    problem = find_pose_problem(rectify)
    if problem:
        raise DataFormatError(source, f"R_rect_{number} {problem}; unpack it again")
    lens = Intrinsics(int(width), int(height), (matrix[0], matrix[5]), (matrix[2] + 0.5, matrix[6] + 0.5))
    return KittiCamera(name, f"{name}/data_rect", lens, places[name] @ invert_pose(rectify))


def _split_side(
    name: str, wide: WideLens, vehicle_from_camera: Float[Tensor, "4 4"], lens: Intrinsics
) -> list[KittiCamera]:
    """Two views with the lens of the front cameras, side by side, whose outer edges are at right angles to the axis."""
    edge = math.atan2(max(lens.principal[0], lens.width - lens.principal[0]), lens.focal[0])
    angle, views = max(math.pi / 2 - edge, 0.0), []
    for suffix, sign in (("left", -1), ("right", 1)):
        turn = torch.eye(4, dtype=torch.float64)
        cosine, sine = math.cos(angle), sign * math.sin(angle)
        turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = cosine, sine, -sine, cosine
        view = WideView(wide, turn[:3, :3])
        views.append(KittiCamera(f"{name}_{suffix}", f"{name}/data_rgb", lens, vehicle_from_camera @ turn, view))
    return views


def _read_lidar(path: Path, vehicle_from_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    words = _read_text(path).split()
    return vehicle_from_camera @ invert_pose(_pose(path, "the matrix", _to_numbers(path, words)))


def _pose(source: Path, name: str, values: list[float] | None) -> Float[Tensor, "4 4"]:
    if values is None or len(values) != 12:
        raise DataFormatError(source, f"{name} needs 12 numbers, got {len(values or ())}; unpack it again")
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = torch.tensor(values, dtype=torch.float64).view(3, 4)
    problem = find_pose_problem(pose)
    if problem:
        raise DataFormatError(source, f"{name} {problem}; unpack it again")
    return pose


def _read_numbers(path: Path) -> dict[str, list[float]]:
    """Lines ``name: numbers``; lines of other words, such as a date, are left out."""
    found: dict[str, list[float]] = {}
    for line in _read_text(path).splitlines():
        name, _, rest = line.partition(":")
        if re.fullmatch(r"([PRS]_rect_\d\d|image_\d\d)", name.strip()):
            found[name.strip()] = _to_numbers(path, rest.split())
    return found


def _to_numbers(path: Path, words: list[str]) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DataFormatError(path, f"{error}; write numbers") from error
    if not all(math.isfinite(value) for value in values):
        raise DataFormatError(path, "holds NaN or infinity; unpack it again")
    return values


def _read_text(path: Path) -> str:
    return "\n".join(read_lines(path, MAX_BYTES, "restore the file"))
