"""Tiny transforms.json captures, 8x6 pixels a view, written as each dialect writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nfldm3d import Camera

WIDTH, HEIGHT = 8, 6
POSES = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=12).world_from_camera.double()
NGP = {"fl_x": 9.5, "fl_y": 9.25, "cx": 4.25, "cy": 2.75, "w": 8.0, "h": 6.0}


def picture(path: Path, value: int = 0, channels: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], channels), value, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def numbers(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
    return path


def frames(count: int = 3, name: str = "images/{:04d}.png", **extra: str) -> list[dict[str, Any]]:
    return [
        {
            "file_path": name.format(number),
            "transform_matrix": POSES[number].tolist(),
            **{key: value.format(number) for key, value in extra.items()},
        }
        for number in range(count)
    ]


def write(folder: Path, content: dict[str, Any], name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def write_instant_ngp(folder: Path) -> Path:
    """instant-ngp's dialect: three opaque frames whose grey is 10 times their number."""
    for number in range(3):
        picture(folder / f"images/{number:04d}.png", 10 * number)
    return write(folder, {**NGP, "aabb_scale": 4, "frames": frames()})


def alter(folder: Path, change: dict[str, Any], frame: dict[str, Any] | None = None) -> Path:
    """Sets fields at top level, and in frame 1; None removes."""
    content = json.loads((folder / "transforms.json").read_text())
    for target, fields in ((content, change), (content["frames"][1], frame or {})):
        for key, value in fields.items():
            target.pop(key, None) if value is None else target.update({key: value})
    return write(folder, content)
