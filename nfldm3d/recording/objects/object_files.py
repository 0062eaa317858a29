"""Writes objects as Scene Representation Networks' data sets lie on disk, or as captures with transparent pictures.

SRN's layout: ``<class>_<split>/<object>/`` with ``rgb/000000.png`` (RGBA), ``pose/000000.txt`` (16 numbers, row by row:
world from camera, x right, y down, z ahead) and ``intrinsics.txt``. Ours adds ``depth``, ``normals``, ``mask`` and
``object.json``, which readers of the layout pass over.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from nfldm3d import geometry
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.temporary_files import telling_of_disks, temporary_folder

SRN_DEPTH_UNIT = 1e-4
CAPTURE_DEPTH_UNIT = 1e-3
"""As nerfstudio takes it."""


def write_srn(sample: SceneSample, folder: Path) -> None:
    """One object as SRN lays it out, with all else that was drawn."""
    with _whole(folder) as root:
        _write_pictures(sample, root, "rgb", "{:06d}", SRN_DEPTH_UNIT)
        (root / "pose").mkdir()
        for number, pose in enumerate(geometry.flip_opencv(sample.camera.world_from_camera.double())):
            text = " ".join(f"{value:.9g}" for value in pose.ravel().tolist())
            (root / "pose" / f"{number:06d}.txt").write_text(text, encoding="utf-8")
        camera = sample.camera
        focal, (u, v) = float(camera.focal[0, 0]), camera.principal[0].tolist()
        lines = (f"{focal:g} {u:g} {v:g} 0.", "0. 0. 0.", "1.", f"{camera.height} {camera.width}")
        (root / "intrinsics.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        record = {"split": sample.split, "depth_unit": SRN_DEPTH_UNIT} | sample.metadata
        (root / "object.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def write_capture(sample: SceneSample, folder: Path) -> None:
    """One object as a ``transforms.json`` whose pictures are transparent where it is not."""
    camera = sample.camera
    with _whole(folder) as root:
        _write_pictures(sample, root, "images", "{:05d}", CAPTURE_DEPTH_UNIT)
        frames = [
            {
                "file_path": f"images/{number:05d}.png",
                "depth_file_path": f"depth/{number:05d}.png",
                "label_path": f"mask/{number:05d}.png",
                "normal_file_path": f"normals/{number:05d}.png",
                "transform_matrix": pose,
            }
            for number, pose in enumerate(camera.world_from_camera.tolist())
        ]
        content = {
            "camera_model": "PINHOLE",
            "metric": False,
            "up_axis": "z",
            "background": [1.0, 1.0, 1.0],
            "depth_unit_scale_factor": CAPTURE_DEPTH_UNIT,
            "w": camera.width,
            "h": camera.height,
            **dict(zip(("fl_x", "fl_y"), camera.focal[0].tolist(), strict=True)),
            **dict(zip(("cx", "cy"), camera.principal[0].tolist(), strict=True)),
            "map": sample.map,
            "box": {"lower": list(sample.box.lower), "upper": list(sample.box.upper)},
            **sample.metadata,
            "frames": frames,
        }
        (root / "transforms.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` at the end. Its hundreds of small files are not forced to the disk one
    by one, which would take longer than drawing them."""
    with telling_of_disks(folder), temporary_folder(folder) as temporary:
        yield temporary
        os.replace(temporary, folder)


def _write_pictures(sample: SceneSample, root: Path, colors: str, stem: str, unit: float) -> None:
    from PIL import Image

    assert sample.depth is not None and sample.labels is not None and sample.alpha is not None
    assert sample.normals is not None
    depth = (sample.depth.double() / unit).round().clamp(max=65535).numpy().astype(np.uint16)
    pictures = {
        colors: transparent_pixels(sample),
        "depth": depth,
        "normals": sample.normals.numpy(),
        "mask": sample.labels.numpy(),  # 0 behind the object, 1 on it
    }
    for kind, pixels in pictures.items():
        (root / kind).mkdir()
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(root / kind / f"{stem.format(number)}.png", compress_level=1)


def transparent_pixels(sample: SceneSample) -> np.ndarray:
    """Red, green, blue and opacity of an object that is seen before white."""
    assert sample.alpha is not None
    colors, opacity = sample.images.permute(0, 2, 3, 1).float(), sample.alpha[..., None].float() / 255
    bare = (colors - 255 * (1 - opacity)) / opacity.clamp(min=1 / 255)
    pixels = torch.cat((bare.clamp(0, 255).round().to(torch.uint8), sample.alpha[..., None]), dim=-1)
    return torch.where(opacity > 0, pixels, 0).numpy()
