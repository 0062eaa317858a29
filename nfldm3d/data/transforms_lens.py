"""The lens fields of ``transforms.json``, at top level or in every frame, as ``Intrinsics``."""

import math
from collections.abc import Sequence
from pathlib import Path

from nfldm3d.data import image_files
from nfldm3d.data.intrinsics import Intrinsics
from nfldm3d.data.json_record import Record

COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
"""In the order of ``Camera.distortion``."""
NERFSTUDIO_COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""In the order of ``distortion_params``."""
FIELDS = (
    *("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y"),
    *("camera_model", "is_fisheye", "distortion_params", *COEFFICIENTS),
)
KNOWN = frozenset(
    {
        *FIELDS,
        *("frames", "train_filenames", "val_filenames", "test_filenames", "ply_file_path"),
        *("depth_unit_scale_factor", "integer_depth_scale", "enable_depth_loading"),
        *("metric", "background", "bev", "up_axis"),
    }
)
"""Fields of the whole file that become part of PosedImages; the others are kept in its metadata."""
PINHOLES = ("PERSPECTIVE", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
RATIONAL, FISHEYE = "FULL_OPENCV", "OPENCV_FISHEYE"


def read_intrinsics(top: Record, frames: Sequence[Record], pictures: Sequence[Path]) -> list[Intrinsics]:
    """The lens of each frame; a size that the file does not give is that of the pictures."""
    own = [key for key in FIELDS if key not in top and any(key in frame for frame in frames)]
    for frame in frames:
        for key in own:
            if key not in frame:
                raise frame.problem(key, f"other frames have it; give {key} at top level or in every frame")
        for key in FIELDS:
            if key in top and frame.values.get(key, top.values[key]) != top.values[key]:
                raise frame.problem(key, f"the top level says {top.values[key]!r}; give {key} once")
    sized = all(key in top or key in own for key in ("w", "h"))
    shared = {key: top.values[key] for key in FIELDS if key in top}
    records = [Record(top.source, {**shared, **frame.values}, frame.where) for frame in frames] if own else None
    if sized:
        return [_parse(record, None) for record in records] if records else [_parse(top, None)] * len(frames)
    sizes = [size[:2] for size in image_files.map_parallel(image_files.probe, pictures)]
    return [_parse(record, size) for record, size in zip(records or [top] * len(frames), sizes, strict=True)]


def _parse(record: Record, size: tuple[int, int] | None) -> Intrinsics:
    width, height = size or (record.integer("w"), record.integer("h"))
    across, down = _focal(record, "x", width), _focal(record, "y", height)
    across, down = down if across is None else across, across if down is None else down  # square pixels by default
    if across is None or down is None:
        raise record.problem("fl_x", "give the focal length in pixels, or camera_angle_x in radians")
    center = record.number("cx", width / 2), record.number("cy", height / 2)
    fisheye = _is_fisheye(record)
    lens = "fisheye" if fisheye else "perspective"
    return Intrinsics(width, height, (across, down), center, _distortion(record, fisheye), lens)


def horizontal_focal(record: Record) -> float | None:
    """Focal length as a share of the picture's width, of a file whose pictures nobody opens; None if it tells none."""
    if "fl_x" in record and "w" in record:
        share = record.number("fl_x") / record.integer("w")
        if share <= 0:
            raise record.problem("fl_x", "write a positive number of pixels")
        return share
    return _focal_by_angle(record, "x", 1)


def _focal(record: Record, axis: str, size: int) -> float | None:
    return record.number(f"fl_{axis}") if f"fl_{axis}" in record else _focal_by_angle(record, axis, size)


def _focal_by_angle(record: Record, axis: str, size: int) -> float | None:
    key = f"camera_angle_{axis}"
    if key not in record:
        return None
    angle = record.number(key)
    if not 0 < angle < math.pi:
        raise record.problem(key, "write the field of view in radians, between 0 and 3.14")
    return size / 2 / math.tan(angle / 2)


def _is_fisheye(record: Record) -> bool:
    model = record.text("camera_model") if "camera_model" in record else None
    if model not in (None, FISHEYE, RATIONAL, *PINHOLES):
        raise record.problem(
            "camera_model", f"known are {', '.join((*PINHOLES, RATIONAL, FISHEYE))}; convert the capture"
        )
    return model == FISHEYE or record.truth("is_fisheye", False)


def _distortion(record: Record, fisheye: bool) -> tuple[float, ...]:
    values = {key: record.number(key, 0.0) for key in COEFFICIENTS}
    if "distortion_params" in record and not any(key in record for key in COEFFICIENTS):
        listed = record.numbers("distortion_params")
        if len(listed) > len(NERFSTUDIO_COEFFICIENTS):
            raise record.problem("distortion_params", "write k1, k2, k3, k4, p1, p2")
        values.update(zip(NERFSTUDIO_COEFFICIENTS, listed, strict=False))
    # nerfstudio's k4 is a further polynomial term, OpenCV's stands in the denominator: without a name for it, refuse
    rational = record.values.get("camera_model") == RATIONAL
    unused = ("p1", "p2", "k5", "k6") if fisheye else () if rational else ("k4", "k5", "k6")
    for key in unused:
        if values[key] != 0:
            raise record.problem(
                key, f"a {'fisheye' if fisheye else 'perspective'} lens has no such term here; undistort"
            )
    return tuple(values[key] for key in COEFFICIENTS)
