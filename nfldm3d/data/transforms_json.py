"""Reads ``transforms.json`` captures as instant-ngp, nerfstudio and NeRF-synthetic write them, and our own.

What the dialects say was read from instant-ngp's ``nerf_loader.cu`` and nerfstudio's ``nerfstudio_dataparser.py``:
poses are OpenGL's, thus ours; depth of both is along the optical axis. The world stays as the file has it unless the
cameras tell that z is not up, or it is far from its origin (see ``placement``). Beyond the dialects this library writes
``metric``, ``background``, ``bev``, ``up_axis``, and per frame ``label_path`` and ``timestamp``.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d._types import PathName, Vector
from nfldm3d.data import applied_transform, capture_files, image_files, moved_world, point_files, transforms_lens
from nfldm3d.data.applied_transform import AppliedTransform
from nfldm3d.data.bev_map import BevMap, read_bev
from nfldm3d.data.frame import Frame
from nfldm3d.data.intrinsics import Intrinsics, build_camera, find_sizes
from nfldm3d.data.json_record import Record
from nfldm3d.data.posed_images import WHITE, PosedImages
from nfldm3d.file_names import compose
from nfldm3d.files import DataFormatError, read_json, resolve_inside
from nfldm3d.placement import Up

Split = Literal["train", "val", "test"]

FOREIGN = ("ftheta_p0", "latlong", "lightdir", "from_na", "from_mitsuba")
"""instant-ngp's other lenses and axes."""


def read_transforms_json(
    path: PathName,
    *,
    split: Split | None = None,
    background: Vector = WHITE,
    undo_applied_transform: bool = False,
    up: Up = "auto",
) -> PosedImages:
    """The views of a capture, sorted by file name; a frame whose picture is missing is left out with one warning.

    Args:
        path: the JSON file or its folder.
        split: from ``transforms_<split>.json`` or the file's ``<split>_filenames``. None takes all of
            ``transforms.json``, or where there is none ``transforms_train.json``.
        background: the sRGB colour that pictures with transparent pixels are laid over.
        undo_applied_transform: give back the world before nerfstudio's ``applied_transform`` and ``applied_scale``.
        up: the direction of the file's world that points upwards; ``auto`` is the file's ``up_axis``, or else z unless
            the cameras clearly tell otherwise.

    Raises:
        DataFormatError: what cannot be used, or more than half of the pictures are missing.
    """
    source = _find_file(Path(path), split)
    top = Record.of(source, read_json(source))
    applied = AppliedTransform.of(top)
    every = _list_frames(top)
    motion = _find_motion(top, every, applied if undo_applied_transform else None, up)
    frames, pictures = _choose_frames(top, every, split)
    poses = torch.stack([frame.matrix("transform_matrix") for frame in frames])
    poses = motion @ (applied.undo_poses(poses) if undo_applied_transform else poses)
    lenses = transforms_lens.read_intrinsics(top, frames, pictures)
    camera = build_camera(source, [frame.text("file_path") for frame in frames], poses, lenses)
    views = _views(top, frames, pictures, lenses, 1.0 if undo_applied_transform else applied.scale)
    has_alpha = capture_files.check_files(views)
    left_out = transforms_lens.KNOWN | applied_transform.FIELDS if undo_applied_transform else transforms_lens.KNOWN
    metadata = {key: value for key, value in top.values.items() if key not in left_out}
    return PosedImages(
        camera,
        tuple(views),
        timestamps=_timestamps(frames),
        bev=moved_world.move_bev(_bev(top, undo_applied_transform), motion, source),
        points=moved_world.move_points(_points(top, None if undo_applied_transform else applied), motion),
        metric=top.truth("metric", False),
        background=background if has_alpha else _color(top, "background"),
        metadata=moved_world.move_metadata(metadata, motion, source),
        sizes=find_sizes(lenses),
        scene_from_file=None if placement.is_identity(motion) else motion,
    )


def _find_file(path: Path, split: Split | None) -> Path:
    if not path.is_dir():
        return path
    candidates = [path / f"transforms_{split or 'train'}.json", path / "transforms.json"]
    for candidate in candidates if split else reversed(candidates):
        if candidate.is_file():
            return candidate
    looked_for = " or ".join(candidate.name for candidate in candidates)
    raise DataFormatError(path, f"holds no {looked_for}; give the folder of a capture or its JSON file")


def _list_frames(top: Record) -> list[Record]:
    for key in FOREIGN:
        if top.values.get(key):
            raise top.problem(key, "these cameras are not pinholes in OpenGL axes; convert the capture")
    frames = [Record.of(top.source, values, f"frames[{n}]") for n, values in enumerate(top.items("frames"))]
    if not frames:
        raise top.problem("frames", "a capture needs at least one frame with file_path and transform_matrix")
    return frames


def _find_motion(top: Record, frames: Sequence[Record], undone: AppliedTransform | None, up: Up) -> Tensor:
    """The same for every split of a file."""
    poses = torch.stack([frame.matrix("transform_matrix") for frame in frames])
    if up == "auto" and "up_axis" in top:
        names: list[Up] = list(placement.AXES)
        if top.values["up_axis"] not in names:
            raise top.problem("up_axis", f"write one of {', '.join(names)}")
        up = names[names.index(top.values["up_axis"])]
    settled = any(key in top for key in moved_world.LEVEL)
    return placement.find_motion(undone.undo_poses(poses) if undone else poses, up=up, settled=settled)


def _choose_frames(top: Record, frames: list[Record], split: Split | None) -> tuple[list[Record], list[Path]]:
    """The frames of a split whose pictures exist, sorted, and the pictures."""
    if split is not None and top.source.name != f"transforms_{split}.json":
        frames = _select(top, frames, f"{split}_filenames")
    frames = sorted(frames, key=lambda frame: capture_files.natural_key(frame.text("file_path")))
    pictures = [_find_picture(frame) for frame in frames]
    present = capture_files.find_present(top.source, pictures)
    return [frames[number] for number in present], [pictures[number] for number in present]


def _select(top: Record, frames: list[Record], key: str) -> list[Record]:
    if key not in top:
        raise top.problem(key, "list the files of this split there, or read all views and use split(holdout_every=8)")
    listed = [_normal(name) for name in top.items(key) if isinstance(name, str)]
    distinct = set(listed)
    chosen = [frame for frame in frames if _normal(frame.text("file_path")) in distinct]
    if not chosen or len(distinct) != len(top.items(key)) or len(chosen) < len(listed):
        raise top.problem(key, f"name frames by their file_path, each once; {len(chosen)} match")
    return chosen


def _normal(name: str) -> str:
    """A file name however it was written: ``./images\\a.png`` and ``images/a.png`` are one."""
    return PurePosixPath(compose(name).replace("\\", "/")).as_posix()


def _resolve(record: Record, key: str) -> Path:
    return resolve_inside(record.source.parent, record.text(key), source=record.source)


def _find_picture(frame: Record) -> Path:
    """The picture's path; names without suffix get the first that exists."""
    path = _resolve(frame, "file_path")
    if path.suffix.lower() in image_files.SUFFIXES or capture_files.is_file(path):
        return path
    tried = [path.with_name(path.name + suffix) for suffix in image_files.SUFFIXES]
    return next((candidate for candidate in tried if capture_files.is_file(candidate)), tried[0])


def _views(
    top: Record,
    frames: Sequence[Record],
    pictures: Sequence[Path],
    lenses: Sequence[Intrinsics],
    pose_scale: float,
) -> list[Frame]:
    """The files of each frame; ``pose_scale`` is the part of ``applied_scale`` that is still in the poses."""
    unit, depth = 1.0, _file_column(frames, "depth_file_path")
    if depth[0] is not None:
        unit = top.number("depth_unit_scale_factor", 1e-3) * pose_scale
    elif top.truth("enable_depth_loading", True):
        depth = _file_column(frames, "depth_path")
        if depth[0] is not None:  # instant-ngp's depth is in the units of the written poses
            unit = top.number("integer_depth_scale") * pose_scale / AppliedTransform.of(top).scale
    if not unit > 0:
        raise DataFormatError(top.source, f"depth files are in units of {unit:g}; write a positive depth scale")
    masks, labels = _file_column(frames, "mask_path"), _file_column(frames, "label_path")
    return [
        Frame(frame.text("file_path"), (lens.width, lens.height), picture, *files, depth_unit=unit)
        for frame, lens, picture, *files in zip(frames, lenses, pictures, depth, masks, labels, strict=True)
    ]


def _file_column(frames: Sequence[Record], key: str) -> list[Path | None]:
    """A file per frame, or None for all."""
    present = [key in frame for frame in frames]
    if any(present) and not all(present):
        raise frames[present.index(False)].problem(key, f"other frames have one; give {key} for all frames or for none")
    return [_resolve(frame, key) if any(present) else None for frame in frames]


def _bev(top: Record, world_moved: bool) -> BevMap | None:
    if "bev" not in top:
        return None
    if world_moved and applied_transform.FIELDS & top.values.keys():
        raise top.problem("bev", "the map does not follow undo_applied_transform; read the capture without it")
    return read_bev(Record.of(top.source, top.values["bev"], "bev"), top.source.parent)


def _points(top: Record, applied: AppliedTransform | None) -> Float[Tensor, "points 3"] | None:
    if "ply_file_path" not in top:
        return None
    points = point_files.read_points(_resolve(top, "ply_file_path"))
    return points if applied is None else applied.apply(points)


def _timestamps(frames: Sequence[Record]) -> Float[Tensor, " views"] | None:
    timed = ["timestamp" in frame for frame in frames]
    if not any(timed):
        return None
    return torch.tensor([frame.number("timestamp") for frame in frames], dtype=torch.float64)


def _color(top: Record, key: str) -> Vector | None:
    if key not in top:
        return None
    values = top.numbers(key)
    if len(values) != 3 or not all(0 <= value <= 1 for value in values):
        raise top.problem(key, "write three numbers between 0 and 1")
    return values[0], values[1], values[2]
