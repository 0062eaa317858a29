"""A category of CO3Dv2 as its archives hold it: sequences of six tiny views, with masks and depth."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small_captures import picture

from nfldm3d import Camera
from nfldm3d.geometry import flip_opencv, invert_pose

WIDTH, HEIGHT = 12, 8
CAMERAS = Camera.orbit((0.0, 0.0, 0.0), 4.0, views=6, width=WIDTH, height=HEIGHT)


def viewpoint(pose: torch.Tensor, kind: str | None = None) -> dict[str, Any]:
    """PyTorch3D's: X_camera = X_world R + T, x left, y up, z ahead."""
    opencv = invert_pose(flip_opencv(pose.double()))
    signs = torch.tensor((-1.0, -1.0, 1.0)).double()
    found = {
        "R": (opencv[:3, :3].T * signs).tolist(),
        "T": (opencv[:3, 3] * signs).tolist(),
        "focal_length": [2.0, 2.5],
        "principal_point": [0.25, -0.5],
    }
    return found if kind is None else found | {"intrinsics_format": kind}


def frames(sequence: str, kind: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "sequence_name": sequence,
            "frame_number": 10 + number,
            "frame_timestamp": 0.1 * number,
            "image": {"path": f"bear/{sequence}/images/frame{number:06d}.jpg", "size": [HEIGHT, WIDTH]},
            "depth": {
                "path": f"bear/{sequence}/depths/frame{number:06d}.jpg.geometric.png",
                "scale_adjustment": 2.0,
                "mask_path": None,
            },
            "mask": {"path": f"bear/{sequence}/masks/frame{number:06d}.png", "mass": 9.0},
            "viewpoint": viewpoint(pose, kind),
            "meta": None,
        }
        for number, pose in enumerate(CAMERAS.world_from_camera)
    ]


def write_category(root: Path, *, kind: str | None = None, names: tuple[str, ...] = ("1_2_3",)) -> Path:
    folder = root / "bear"
    for name in names:
        for number in range(6):
            picture(folder / name / f"images/frame{number:06d}.jpg", 40 * number, size=(WIDTH, HEIGHT))
            mask = folder / name / f"masks/frame{number:06d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(np.full((4, 6), 200, np.uint8), ((2, 2), (3, 3)))).save(mask)
            depth = np.full((HEIGHT, WIDTH), 1.5, np.float16)
            depth[0, 0], depth[0, 1] = np.inf, 0.333
            path = folder / name / f"depths/frame{number:06d}.jpg.geometric.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(depth.view(np.uint16)).save(path)
    write_rows(folder, [row for name in names for row in frames(name, kind)])
    return folder


def write_rows(folder: Path, rows: object) -> None:
    with gzip.open(folder / "frame_annotations.jgz", "wt", encoding="utf-8") as file:
        json.dump(rows, file)
