"""Tiny COLMAP models, 8x6 pixels a view, written field by field as https://colmap.github.io/format.html says."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 8, 6
MODELS = {
    "SIMPLE_PINHOLE": (9.0, 4.25, 2.75),
    "PINHOLE": (9.0, 9.5, 4.25, 2.75),
    "SIMPLE_RADIAL": (9.0, 4.25, 2.75, 0.05),
    "RADIAL": (9.0, 4.25, 2.75, 0.05, -0.02),
    "OPENCV": (9.0, 9.5, 4.25, 2.75, 0.05, -0.02, 0.001, -0.002),
    "OPENCV_FISHEYE": (9.0, 9.5, 4.25, 2.75, 0.05, -0.02, 0.01, -0.005),
    "FULL_OPENCV": (9.0, 9.5, 4.25, 2.75, 0.05, -0.02, 0.001, -0.002, 0.01, 0.02, 0.03, 0.004),
}
# camera_from_world of each name, out of order; the second is turned by 90 degrees about x
IMAGES = {
    "b/10.png": ((0.5, 0.5, -0.5, 0.5), (0.25, -1.0, 4.0)),
    "b/9.png": ((0.5**0.5, 0.5**0.5, 0.0, 0.0), (1.0, 2.0, 3.0)),
    "a_1.png": ((0.8, 0.36, -0.48, 0.0), (-0.5, 0.25, 5.0)),
}
POINTS = ((0.5, -0.25, 1.5), (-1.0, 0.75, 2.0))


def write_pictures(folder: Path) -> None:
    for number, name in enumerate(IMAGES):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 20 * number, dtype=np.uint8)).save(path)


def write_binary(folder: Path, model: str = "OPENCV", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    write_pictures(folder)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True, exist_ok=True)
    number = list(MODELS).index(model)
    camera = struct.pack("<IiQQ", 1, number, *size) + np.array(MODELS[model], "<f8").tobytes()
    (sparse / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    images = struct.pack("<Q", len(IMAGES))
    for identity, (name, (rotation, translation)) in enumerate(IMAGES.items()):
        images += struct.pack("<I7dI", identity + 1, *rotation, *translation, 1) + name.encode() + b"\0"
        images += struct.pack("<Q", identity) + struct.pack("<2dq", 1.5, 2.5, -1) * identity
    (sparse / "images.bin").write_bytes(images)
    points = struct.pack("<Q", len(POINTS))
    for identity, point in enumerate(POINTS):
        points += (
            struct.pack("<Q3d3BdQ", identity, *point, 1, 2, 3, 0.5, identity) + struct.pack("<II", 2, 0) * identity
        )
    (sparse / "points3D.bin").write_bytes(points)
    return folder


def write_text(folder: Path, model: str = "OPENCV") -> Path:
    write_pictures(folder)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True, exist_ok=True)
    parameters = " ".join(map(str, MODELS[model]))
    (sparse / "cameras.txt").write_text(f"# Camera list\n1 {model} {WIDTH} {HEIGHT} {parameters}\n")
    lines = ["# Image list with two lines of data per image:"]
    for number, (name, (rotation, translation)) in enumerate(IMAGES.items()):
        lines += [f"{number + 1} {' '.join(map(str, (*rotation, *translation)))} 1 {name}", "1.5 2.5 -1 " * number]
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    points = "".join(f"{n} {' '.join(map(str, point))} 1 2 3 0.5{' 2 0' * n}\n" for n, point in enumerate(POINTS))
    (sparse / "points3D.txt").write_text("# points\n" + points)
    return folder
