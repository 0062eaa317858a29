"""Rooms in Replica's layout, as small as can be."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from small_captures import POSES

SCALE = 6553.5


LENS = {"w": 8, "h": 6, "fx": 9.0, "fy": 7.5, "cx": 3.25, "cy": 2.75, "scale": SCALE}


TARGET = torch.tensor((1.2, -1.9, 0.4), dtype=torch.float64)
"""A world point that all views see."""


def see(opencv_pose: np.ndarray) -> tuple[int, int, float]:
    """Column, row and depth of TARGET by NICE-SLAM's own rule: pixel (i, j) looks along ((i-cx)/fx, (j-cy)/fy, 1)."""
    x, y, depth = (np.linalg.inv(opencv_pose) @ np.append(TARGET.numpy(), 1))[:3]
    return round(LENS["fx"] * x / depth + LENS["cx"]), round(LENS["fy"] * y / depth + LENS["cy"]), float(depth)


def write_room(room: Path, views: int = 4) -> Path:
    """Black pictures with one white pixel where TARGET is, its depth in the depth picture."""
    lines = []
    for number in range(views):
        pose = POSES[number].numpy() @ np.diag((1.0, -1.0, -1.0, 1.0))
        column, row, metres = see(pose)
        pixels, depth = np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint16)
        pixels[row, column], depth[row, column] = 255, round(metres * SCALE)
        (room / "results").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(room / f"results/frame{number:06d}.jpg", quality=100, subsampling=0)
        Image.fromarray(depth).save(room / f"results/depth{number:06d}.png")
        lines.append(" ".join(f"{value:.18e}" for value in pose.flatten()))
    (room / "traj.txt").write_text("\n".join(lines) + "\n")
    (room.parent / "cam_params.json").write_text(json.dumps({"camera": LENS}))
    return room
