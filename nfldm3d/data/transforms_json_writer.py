"""Writes posed images as a ``transforms.json`` capture that nerfstudio, instant-ngp and this library read."""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.data import bev_map, image_files, point_files
from nfldm3d.data.applied_transform import AppliedTransform
from nfldm3d.data.capture_files import natural_key
from nfldm3d.data.json_record import Record
from nfldm3d.data.transforms_lens import COEFFICIENTS, FISHEYE, KNOWN, RATIONAL
from nfldm3d.file_names import is_reserved
from nfldm3d.files import atomic_write
from nfldm3d.written_files import atomic_folder, require_free

if TYPE_CHECKING:  # it saves itself by this module
    from nfldm3d.data.posed_images import PosedImages

DEPTH_UNIT = 1e-3
"""Millimetres: nerfstudio takes no other."""

IMAGE_FORMATS = ("png", "jpg", "webp")


def write_capture(posed: "PosedImages", folder: PathName, image_format: str, overwrite: bool) -> None:
    """See ``PosedImages.save``."""
    target = Path(folder).resolve()
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"cannot write pictures as {image_format!r}; choose one of {', '.join(IMAGE_FORMATS)}")
    require_free(target, overwrite=overwrite)
    taken = KNOWN & posed.metadata.keys()
    if taken:
        raise ValueError(f"cannot write {target}: metadata has {sorted(taken)}, which mean cameras here; rename them")
    applied = AppliedTransform.of(Record.of(target, posed.metadata))
    views = [posed[number].groups()[0] for number in range(len(posed))]  # each in its own size
    model = _camera_model(posed.camera)
    lenses = [_lens_fields(view.camera, model) for view in views]
    shared = {key: value for key, value in lenses[0].items() if all(lens[key] == value for lens in lenses)}
    own = [{key: value for key, value in lens.items() if key not in shared} for lens in lenses]
    with atomic_folder(target) as root:
        content = {**posed.metadata, **_top_fields(posed, root, applied), **shared}
        frames = _write_frames(posed, views, root, image_format, DEPTH_UNIT * applied.scale)
        content["frames"] = [{**lens, **frame} for lens, frame in zip(own, frames, strict=True)]
        with atomic_write(root / "transforms.json") as path:
            path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _top_fields(posed: "PosedImages", root: Path, applied: AppliedTransform) -> dict[str, object]:
    fields: dict[str, object] = {
        "camera_model": _camera_model(posed.camera),
        "metric": posed.metric,
        "up_axis": "z",
    }
    if posed.background is not None:
        fields["background"] = posed.background
    if posed.frames[0].depth is not None:
        fields["depth_unit_scale_factor"] = DEPTH_UNIT
    if posed.bev is not None:
        fields["bev"] = bev_map.write_bev(posed.bev, root)
    if posed.points is not None:
        fields["ply_file_path"] = "points.ply"
        point_files.write_points(root / "points.ply", applied.undo(posed.points))
    return fields


def _camera_model(camera: Camera) -> str:
    if camera.lens == "fisheye":
        return FISHEYE
    if camera.distortion is None:
        return "PINHOLE"
    return RATIONAL if bool(camera.distortion[:, 5:].any()) else "OPENCV"


def _lens_fields(camera: Camera, model: str) -> dict[str, int | float]:
    """Of the one camera of a view."""
    fields: dict[str, int | float] = {"w": camera.width, "h": camera.height}
    fields["fl_x"], fields["fl_y"] = camera.focal[0].tolist()
    fields["cx"], fields["cy"] = camera.principal[0].tolist()
    if camera.distortion is not None:
        terms = dict(zip(COEFFICIENTS, camera.distortion[0].tolist(), strict=True))
        names = ("k1", "k2", "k3", "k4") if model == FISHEYE else COEFFICIENTS[: 8 if model == RATIONAL else 5]
        fields |= {name: terms[name] for name in names}
    return fields


def _write_frames(
    posed: "PosedImages", views: "Sequence[PosedImages]", root: Path, image_format: str, depth_unit: float
) -> list[dict[str, object]]:
    stems, first = _stems(posed.names), posed.frames[0]
    kinds = {"images": first.image, "depth": first.depth, "masks": first.mask, "labels": first.labels}
    for kind, source in kinds.items():
        if source is not None:
            (root / kind).mkdir()

    def write(number: int) -> dict[str, object]:
        frame: dict[str, object] = {"transform_matrix": posed.camera.world_from_camera[number].tolist()}
        if posed.timestamps is not None:
            frame["timestamp"] = float(posed.timestamps[number])
        return {**_write_pixels(views[number], root, stems[number], image_format, depth_unit), **frame}

    return image_files.map_parallel(write, range(len(posed)))


def _write_pixels(
    view: "PosedImages", root: Path, stem: str, image_format: str, depth_unit: float
) -> dict[str, object]:
    files = {"file_path": root / "images" / f"{stem}.{image_format}"}
    image_files.write_image(files["file_path"], view.load_images()[0])
    depth, masks, labels = view.load_depth(keep_masked=True), view.load_masks(), view.load_labels()
    if depth is not None:
        files["depth_file_path"] = image_files.write_depth(root / "depth" / stem, depth[0], depth_unit)
    if masks is not None:
        files["mask_path"] = root / "masks" / f"{stem}.png"
        image_files.write_labels(files["mask_path"], masks[0].byte() * 255)
    if labels is not None:
        files["label_path"] = root / "labels" / f"{stem}.png"
        image_files.write_labels(files["label_path"], labels[0])
    return {key: path.relative_to(root).as_posix() for key, path in files.items()}


def _stems(names: Sequence[str]) -> list[str]:
    """File names without suffix: the views' own where those keep them apart and in order, else numbers."""
    stems = [PurePosixPath(name.replace("\\", "/")).name for name in names]
    stems = [re.sub(r"\.(png|jpe?g|webp)$", "", stem, flags=re.IGNORECASE) for stem in stems]
    stems = [re.sub(r"[^A-Za-z0-9._-]", "_", stem) for stem in stems]
    distinct = len({stem.lower() for stem in stems}) == len(stems) and all(stems) and not any(map(is_reserved, stems))
    if distinct and stems == sorted(stems, key=lambda stem: natural_key(f"{stem}.png")):
        return stems
    return [f"{number:05d}" for number in range(len(stems))]
