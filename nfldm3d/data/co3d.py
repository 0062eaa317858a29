"""Reads CO3Dv2 (Reizenstein et al. 2021): objects filmed by walking around them.

    <category>/frame_annotations.jgz, sequence_annotations.jgz     gzipped JSON lists
    <category>/set_lists/set_lists_<subset>.json                   {"train": [[sequence, frame number, path], ...], ...}
    <category>/<sequence>/images, masks, depths, depth_masks, pointcloud.ply

Poses are PyTorch3D's: row vectors, X_camera = X_world R + T, x left and y up. Depth is a PNG whose 16-bit numbers are
the bits of float16, times ``scale_adjustment``. What the fields mean was read from co3d's ``data_types.py`` and
PyTorch3D's ``camera_conversions.py``.
"""

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName
from nfldm3d.data import capture_files, moved_world, point_files
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import Intrinsics, build_camera, find_sizes
from nfldm3d.data.json_record import Record
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.files import DataFormatError, parse_json, read_json, refuse_special, resolve_inside
from nfldm3d.geometry import flip_opencv, invert_pose
from nfldm3d.placement import Up

FRAMES, POINTS = "frame_annotations.jgz", "pointcloud.ply"
MAX_UNPACKED = 2 * 2**30
"""Bytes of annotations: those of the largest categories are some hundred MB, and 200 MB of zeros pack into 200 kB."""
MOST_PACKED = 100
"""So many times its own size a file may unpack to, or to ``BLOCK`` bytes; ten times is usual."""
BLOCK = 2**20
FORMATS = ("ndc_norm_image_bounds", "ndc_isotropic")
"""Units of focal lengths and principal points; the first where a file does not say."""


def is_co3d(path: Path) -> bool:
    """Whether a folder is one category."""
    return (path / FRAMES).is_file()


class Co3dCategory:
    """The sequences of one category, by name; annotations are read once."""

    def __init__(self, folder: PathName):
        """Reads the annotations of all frames.

        Args:
            folder: of the category, such as ``co3d/teddybear``.

        Raises:
            DataFormatError: they are missing or damaged.
        """
        self.folder = Path(folder)
        path = self.folder / FRAMES
        rows = read_jgz(path)
        if not isinstance(rows, list) or not rows:
            raise DataFormatError(path, "holds no frames; download the category again")
        self._frames: dict[str, list[Record]] = {}
        for number, row in enumerate(rows):
            record = Record.of(path, row, f"[{number}]")
            self._frames.setdefault(record.text("sequence_name"), []).append(record)

    @property
    def sequences(self) -> tuple[str, ...]:
        """Their names in order."""
        return tuple(sorted(self._frames, key=capture_files.natural_key))

    def side(self, subset: str, side: Literal["train", "val", "test"]) -> tuple[str, ...]:
        """The sequences that have frames on one side of a set list, such as that of ``fewview_dev``."""
        path = self.folder / "set_lists" / f"set_lists_{subset}.json"
        entries = Record.of(path, read_json(path)).items(side)
        if not all(isinstance(entry, list) and entry and isinstance(entry[0], str) for entry in entries):
            raise DataFormatError(path, f"{side} must list [sequence, frame number, path]; download the category again")
        named = {entry[0] for entry in entries}
        return tuple(name for name in self.sequences if name in named)

    def read(self, sequence: str, *, up: Up = "auto") -> PosedImages:
        """The views of a sequence in the order of its frames; pictures, masks and depth load when asked for.

        Views have the sizes of their pictures (``PosedImages.sizes``), lengths are of unknown scale. ``frame_number``
        need not be the number in a file's name.

        Args:
            up: the direction of the sequence's world that points upwards; ``auto`` asks the cameras.

        Raises:
            DataFormatError: there is no such sequence, or a picture or camera is missing or cannot be used.
        """
        if sequence not in self._frames:
            raise DataFormatError(self.folder, f"has no sequence {sequence!r}, but {', '.join(self.sequences[:5])} ...")
        records = sorted(self._frames[sequence], key=lambda record: record.number("frame_number"))
        source = self.folder / FRAMES
        found = capture_files.find_present(source, [self._picture(record) for record in records])
        records = [records[number] for number in found]
        pictures = [Record.of(source, record.values.get("image"), f"{record.where}.image") for record in records]
        lenses = [_read_lens(record, picture) for record, picture in zip(records, pictures, strict=True)]
        poses = _read_poses(records)
        motion = placement.find_motion(poses, up=up, free=True)
        names = [picture.text("path") for picture in pictures]
        camera = build_camera(source, names, motion @ poses, lenses)
        frames = self._frames_of(records, names, lenses)
        capture_files.check_files(frames)
        return PosedImages(
            camera,
            frames,
            metric=False,
            points=moved_world.move_points(self._points(sequence), motion),
            sizes=find_sizes(lenses),
            metadata=moved_world.move_metadata({"place": sequence, "category": self.folder.name}, motion, source),
            scene_from_file=None if placement.is_identity(motion) else motion,
        )

    def _points(self, sequence: str) -> Float[Tensor, "points 3"] | None:
        """Those of the object, which not all sequences have."""
        path = resolve_inside(self.folder, f"{sequence}/{POINTS}", source=self.folder / FRAMES)
        return point_files.read_points(path) if path.is_file() else None

    def _picture(self, record: Record) -> Path:
        image = Record.of(record.source, record.values.get("image"), f"{record.where}.image")
        return self._path(image.text("path"), record)

    def _path(self, name: str, record: Record) -> Path:
        """The file of a path, which begins with the category's name; the folder may have got another one."""
        category, _, inner = name.partition("/")
        if not category or not inner:
            raise DataFormatError(record.source, f"{record.where}: path {name!r} does not begin with a category's name")
        return resolve_inside(self.folder, inner, source=record.source)

    def _frames_of(
        self, records: Sequence[Record], names: Sequence[str], lenses: Sequence[Intrinsics]
    ) -> tuple[Frame, ...]:
        """Depth and masks count only where all views have them."""
        masks, depths = ([self._beside(record, kind) for record in records] for kind in ("mask", "depth"))
        units = [
            _part(record, "depth").number("scale_adjustment") if depths[number] else 1.0
            for number, record in enumerate(records)
        ]
        has_masks, has_depth = all(masks), all(depths)
        return tuple(
            Frame(
                name,
                (lens.width, lens.height),
                self._picture(record),
                depths[number] if has_depth else None,
                masks[number] if has_masks else None,
                depth_unit=units[number] if has_depth else 1.0,
                half_depth=True,
            )
            for number, (record, name, lens) in enumerate(zip(records, names, lenses, strict=True))
        )

    def _beside(self, record: Record, kind: str) -> Path | None:
        if kind not in record:
            return None
        path = self._path(_part(record, kind).text("path"), record)
        return path if path.is_file() else None


def read_jgz(path: Path, limit: int = MAX_UNPACKED) -> Any:
    """The content of a gzipped JSON file, of at most ``limit`` bytes and ``MOST_PACKED`` times its size unpacked."""
    refuse_special(path)
    content = bytearray()
    try:
        limit = min(limit, max(BLOCK, MOST_PACKED * os.stat(path).st_size))
        with gzip.open(path, "rb") as file:
            while len(content) <= limit and (block := file.read(BLOCK)):  # at once, it takes memory up to the limit
                content += block
    except (OSError, EOFError, zlib.error) as error:
        raise DataFormatError(path, f"cannot be unpacked ({error}); download it again") from error
    if len(content) > limit:
        raise DataFormatError(path, f"unpacks to more than {limit >> 20} MiB, which is refused; download it again")
    try:
        return parse_json(content.decode("utf-8"), path)
    except UnicodeDecodeError as error:
        raise DataFormatError(path, f"is not UTF-8 text ({error.reason}); download it again") from error


def _part(record: Record, key: str) -> Record:
    return Record.of(record.source, record.values.get(key), f"{record.where}.{key}")


def _read_poses(records: Sequence[Record]) -> Float[Tensor, "views 4 4"]:
    """Our poses in double precision."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(records), 1, 1)
    for pose, record in zip(poses, records, strict=True):
        view = _part(record, "viewpoint")
        rows = view.items("R")
        if len(rows) != 3 or not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise view.problem("R", "write three rows of three numbers")
        numbers = Record.of(view.source, {f"R[{number}]": row for number, row in enumerate(rows)}, view.where)
        rotation = torch.tensor([numbers.numbers(key) for key in numbers.values], dtype=torch.float64)
        shift = torch.tensor(view.numbers("T"), dtype=torch.float64)
        if shift.shape != (3,):
            raise view.problem("T", "write three numbers")
        signs = rotation.new_tensor((-1, -1, 1))  # x left, y up -> x right, y down
        pose[:3, :3], pose[:3, 3] = (rotation * signs).T, shift * signs
    return flip_opencv(invert_pose(poses))


def _read_lens(record: Record, picture: Record) -> Intrinsics:
    """In our pixels, from normalised device coordinates."""
    view, size = _part(record, "viewpoint"), picture.numbers("size")
    kind = view.values.get("intrinsics_format") or FORMATS[0]
    if kind not in FORMATS:
        raise view.problem("intrinsics_format", f"only {' and '.join(FORMATS)} are known")
    if len(size) != 2 or not all(1 <= side < 2**20 for side in size):
        raise picture.problem("size", "write [height, width] in pixels")
    height, width = size
    focal, principal = view.numbers("focal_length"), view.numbers("principal_point")
    if len(focal) != 2 or len(principal) != 2:
        raise view.problem("focal_length", "write two numbers, and for principal_point, too")
    half = min(width, height) / 2
    units = (half, half) if kind == "ndc_isotropic" else (width / 2, height / 2)
    return Intrinsics(
        int(width),
        int(height),
        (focal[0] * units[0], focal[1] * units[1]),
        (width / 2 - principal[0] * units[0], height / 2 - principal[1] * units[1]),
    )
