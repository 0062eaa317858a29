"""Reads Replica rooms as NICE-SLAM renders them: 2000 pictures along a walk, exact depth, and one camera for all.

    Replica/cam_params.json     {"camera": {"w", "h", "fx", "fy", "cx", "cy", "scale"}}; may also lie in the room
    Replica/office0/traj.txt    a camera-to-world matrix per line: 16 numbers, row by row, OpenCV axes, world z up
    Replica/office0/results/    frame000000.jpg, depth000000.png, ...; depth is 16 bit, metres times ``scale``

What the numbers mean was read from NICE-SLAM's ``src/utils/datasets.py`` and ``src/common.py``: depth is along the
optical axis, and the centre of the first pixel is (0, 0), so the principal point moves by half a pixel to ours.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName, Vector
from nfldm3d.data import capture_files, moved_world
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import Intrinsics, build_camera
from nfldm3d.data.json_record import Record
from nfldm3d.data.number_files import read_rows
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.geometry import flip_opencv
from nfldm3d.placement import Up

EXAMPLE = '{"camera": {"w": 1200, "h": 680, "fx": 600, "fy": 600, "cx": 599.5, "cy": 339.5, "scale": 6553.5}}'


def is_replica(path: Path) -> bool:
    """Whether a folder is laid out as one such room."""
    return (path / "traj.txt").is_file() and (path / "results").is_dir()


def read_replica(path: PathName, *, every: int = 1, background: Vector = WHITE, up: Up = "auto") -> PosedImages:
    """The views of a room in the order of the walk; depth loads when asked for.

    Args:
        path: the folder that holds ``traj.txt`` and ``results``.
        every: take views 0, ``every``, 2 ``every``, ...
        background: the sRGB colour that pictures with transparent pixels are laid over.
        up: the direction of the world that points upwards; ``auto`` is z unless the cameras clearly tell otherwise.

    Raises:
        DataFormatError: a picture or pose is missing or cannot be used.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}; 1 takes all views")
    room = Path(path)
    if not is_replica(room):
        raise DataFormatError(room, "holds no traj.txt beside a folder results; give the folder of one Replica room")
    poses = _read_poses(room / "traj.txt")
    pictures = _list_numbered(room / "results", "frame", len(poses))
    depth = _list_numbered(room / "results", "depth", len(poses), optional=True)
    lens, unit = _read_lens(_find_lens_file(room))
    names = [f"results/{picture.name}" for picture in pictures]
    motion = placement.find_motion(poses, up=up)
    camera = build_camera(room / "traj.txt", names, motion @ poses, [lens] * len(names))
    frames = [
        Frame(name, (lens.width, lens.height), picture, depth[number] if depth else None, depth_unit=unit)
        for number, (name, picture) in enumerate(zip(names, pictures, strict=True))
    ][::every]
    has_alpha = capture_files.check_files(frames)
    return PosedImages(
        camera[::every],
        tuple(frames),
        background=background if has_alpha else None,
        metadata=moved_world.move_metadata({"place": room.resolve().name}, motion, room / "traj.txt"),
        scene_from_file=None if placement.is_identity(motion) else motion,
    )


def _read_poses(path: Path) -> Float[Tensor, "views 4 4"]:
    """Our poses, float64."""
    rows = read_rows(path)
    for number, values in rows:
        if len(values) != 16:
            raise DataFormatError(path, f"line {number} has {len(values)} numbers; write the 16 of a 4x4 matrix")
    if not rows:
        raise DataFormatError(path, "holds no poses; write 16 numbers per line, one line per picture")
    poses = torch.tensor([values for _, values in rows], dtype=torch.float64).unflatten(-1, (4, 4))
    return flip_opencv(poses)


def _list_numbered(folder: Path, kind: str, poses: int, *, optional: bool = False) -> Sequence[Path]:
    """The files ``<kind>000000.*``, one per pose; none at all only if they are optional."""
    found: dict[int, Path] = {}
    for file in sorted(folder.glob(f"{kind}*")):
        match = re.fullmatch(rf"{kind}([0-9]{{1,9}})\.(jpg|jpeg|png|webp)", file.name, re.IGNORECASE)
        if match:
            found.setdefault(int(match[1]), file)
    if optional and not found:
        return []
    missing = next((number for number in range(poses) if number not in found), None)
    if missing is not None:
        raise DataFormatError(
            folder,
            f"{kind}{missing:06d} is missing: {len(found)} {kind} pictures for {poses} poses in traj.txt; "
            "restore the picture, or cut traj.txt and renumber the pictures from 0 without gaps",
        )
    if len(found) > poses:
        raise DataFormatError(
            folder.parent / "traj.txt",
            f"has {poses} poses for {len(found)} {kind} pictures; "
            f"write one line per picture, or remove {kind}{poses:06d} and later ones",
        )
    return [found[number] for number in range(poses)]


def _find_lens_file(room: Path) -> Path:
    candidates = [room / "cam_params.json", room.resolve().parent / "cam_params.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataFormatError(
        candidates[1], f"is missing, and in {room} too; restore it, for NICE-SLAM's pictures: {EXAMPLE}"
    )


def _read_lens(path: Path) -> tuple[Intrinsics, float]:
    """The lens in our pixels, and metres per unit of depth."""
    top = Record.of(path, read_json(path))
    camera = Record.of(path, top.values.get("camera"), "camera")
    scale = camera.number("scale")
    if not scale > 0:
        raise camera.problem("scale", "write how many units of the depth pictures are a metre, e.g. 6553.5")
    lens = Intrinsics(
        camera.integer("w"),
        camera.integer("h"),
        (camera.number("fx"), camera.number("fy")),
        (camera.number("cx") + 0.5, camera.number("cy") + 0.5),
    )
    return lens, 1 / scale
