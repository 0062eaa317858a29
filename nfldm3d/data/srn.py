"""Reads objects as Scene Representation Networks' data sets of ShapeNet cars and chairs lie on disk.

    cars_train/<object>/rgb/000000.png       128x128, before white or with transparency
    cars_train/<object>/pose/000000.txt      16 numbers, row by row: world from camera, x right, y down, z ahead
    cars_train/<object>/intrinsics.txt       "f cx cy 0.", "0. 0. 0.", "1.", "height width" (a fifth line may follow)
    cars_train/<object>/intrinsics/000000.txt    in some of the archives: 9 numbers, row by row

Objects stand in the middle with z up, in a box whose diagonal is 1. ``chairs_train`` holds a folder
``chairs_2.0_train`` that holds the objects. What the numbers mean was read from SRN's own readers and pixelNeRF's.
Where ``nfldm3d capture objects`` has written the folder, there is depth, too.
"""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName, Vector
from nfldm3d.data import capture_files, image_files
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import Intrinsics, build_camera
from nfldm3d.data.json_record import Record
from nfldm3d.data.number_files import read_rows
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.geometry import flip_opencv

Side = Literal["train", "val", "test"]
SRN_FOCAL = 131.25 / 128
"""Focal length of these renderings (Sitzmann et al. 2019) in widths of a picture."""
CARS_RADIUS, CHAIRS_RADIUS = 1.3, 2.0
"""Distances of their cameras from the middle, in diagonals of the object's box."""
OBJECT_FILE = "object.json"
"""What ``nfldm3d capture objects`` adds."""


def is_srn(path: Path) -> bool:
    """Whether a folder is laid out as one such object."""
    return (path / "rgb").is_dir() and (path / "pose").is_dir()


def list_srn(root: PathName, side: Side) -> list[Path]:
    """The objects of one side of a data set.

    Args:
        root: the folder of ``cars_train``, ``cars_test`` and the like, or one of these.

    Raises:
        DataFormatError: there are none.
    """
    root = Path(root)
    classes = [root] if root.name.endswith(f"_{side}") else sorted(root.glob(f"*_{side}"))
    found = [path for folder in classes for path in _list_objects(folder)]
    if not found:
        raise DataFormatError(
            root, f"holds no objects in a folder such as cars_{side}; unpack SRN's archives side by side into it"
        )
    return found


def _list_objects(folder: Path) -> list[Path]:
    inner = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    nested = [path for path in inner if path.name.endswith(folder.name.rsplit("_", 1)[-1]) and not is_srn(path)]
    return [path for path in inner if is_srn(path)] + [path for each in nested for path in _list_objects(each)]


def read_srn(path: PathName, *, background: Vector = WHITE) -> PosedImages:
    """All views of an object; pictures load when asked for.

    Args:
        background: the sRGB colour that pictures with transparent pixels are laid over.

    Raises:
        DataFormatError: a picture, pose or lens is missing or cannot be used.
    """
    folder = Path(path)
    if not is_srn(folder):
        raise DataFormatError(folder, "holds no folders rgb and pose; give the folder of one object of SRN's data")
    poses = {file.stem: file for file in (folder / "pose").glob("*.txt")}
    pictures = {file.stem: file for file in (folder / "rgb").iterdir() if file.suffix.lower() in image_files.SUFFIXES}
    names = sorted(pictures, key=capture_files.natural_key)
    if lonely := sorted(poses.keys() ^ pictures.keys()):
        what = "no pose" if lonely[0] in pictures else "no picture in rgb"
        raise DataFormatError(folder, f"view {lonely[0]} has {what}; restore it, or remove what is left of the view")
    if not names:
        raise DataFormatError(folder / "rgb", "holds no pictures; restore them")
    size = image_files.probe(pictures[names[0]])[:2]
    lens = _read_lens(folder, names[0]).scaled(*size)
    matrices = flip_opencv(torch.stack([_read_pose(poses[name]) for name in names]))
    camera = build_camera(folder, [f"view {name}" for name in names], matrices, [lens] * len(names))
    record = _read_record(folder)
    unit = None if "depth_unit" not in record else record.number("depth_unit")
    frames = [
        Frame(
            f"rgb/{pictures[name].name}", size, pictures[name], _find_depth(folder, name, unit), depth_unit=unit or 1.0
        )
        for name in names
    ]
    bare = [frame.name for frame in frames if frame.depth is None]
    if bare and len(bare) < len(frames):
        raise DataFormatError(folder / "depth", f"lacks the depth of {bare[0]}; restore it, or remove the folder")
    has_alpha = capture_files.check_files(frames)
    metadata: dict[str, object] = {"place": folder.resolve().name}
    return PosedImages(
        camera,
        tuple(frames),
        metric=False,
        background=background if has_alpha else WHITE,  # behind opaque ones, white was drawn
        metadata=metadata | record.values,
    )


def _read_pose(path: Path) -> Float[Tensor, "4 4"]:
    numbers = [value for _, row in read_rows(path) for value in row]
    if len(numbers) != 16:
        raise DataFormatError(path, f"has {len(numbers)} numbers; write the 16 of a 4x4 matrix, row by row")
    return torch.tensor(numbers, dtype=torch.float64).unflatten(-1, (4, 4))


def _read_lens(folder: Path, first: str) -> Intrinsics:
    """In pixels of the size that the file names, which need not be that of the pictures."""
    path = folder / "intrinsics.txt"
    if not path.is_file():
        return _read_matrix(folder, first)
    rows = [values for _, values in read_rows(path)]
    if len(rows) < 4 or len(rows[0]) not in (3, 4) or len(rows[3]) != 2:
        raise DataFormatError(path, "is no lens; write 'focal cx cy 0', '0 0 0', '1' and 'height width', a line each")
    (focal, cx, cy), (height, width) = rows[0][:3], rows[3]
    if not (1 <= height < 2**20 and 1 <= width < 2**20):
        raise DataFormatError(path, f"is for {width:g}x{height:g} pixels; write height and width in the fourth line")
    return Intrinsics(int(width), int(height), (focal, focal), (cx, cy))


def _read_matrix(folder: Path, first: str) -> Intrinsics:
    path = folder / "intrinsics" / f"{first}.txt"
    numbers = [value for _, row in read_rows(path) for value in row]
    if len(numbers) != 9:
        raise DataFormatError(path, f"has {len(numbers)} numbers; write the 9 of a 3x3 matrix, row by row")
    width, height, _ = image_files.probe(next((folder / "rgb").glob(f"{first}.*")))
    return Intrinsics(width, height, (numbers[0], numbers[4]), (numbers[2], numbers[5]))


def _read_record(folder: Path) -> Record:
    path = folder / OBJECT_FILE
    return Record.of(path, read_json(path) if path.is_file() else {})


def _find_depth(folder: Path, name: str, unit: float | None) -> Path | None:
    path = folder / "depth" / f"{name}.png"
    return path if unit is not None and path.is_file() else None
