"""A scene from coloured points, rendered and saved: the objects of the library in one page.

python examples/01_scene_from_points.py --out out/points
"""

import argparse
import math
from pathlib import Path

import torch

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField
from nfldm3d.pictures import save_image
from nfldm3d.rendering import render


def torus(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random points on a torus, (count 3) in metres, and their colours."""
    around, across = 2 * math.pi * torch.rand(2, count, generator=generator)
    ring = 1.0 + 0.35 * torch.cos(across)
    points = torch.stack((ring * torch.cos(around), ring * torch.sin(around), 0.35 * torch.sin(across)), dim=-1)
    colors = 0.5 + 0.5 * torch.stack((torch.cos(around), torch.sin(around), torch.sin(across)), dim=-1)
    return points, colors


def main(out: Path, points: int) -> None:
    positions, colors = torus(points, torch.Generator().manual_seed(0))
    box = Box((-1.5, -1.5, -0.5), (1.5, 1.5, 0.5))
    field = VoxelField.from_points(positions, colors, box, resolution=(96, 96, 32))
    scene = Scene(field, Rgb(), background=torch.ones(3))
    print(scene)

    camera = Camera.orbit(box.center, radius=3.5, views=4, elevation_degrees=35.0, width=256, height=192)
    picture = render(scene, camera)  # image (4 3 192 256), depth (4 192 256)
    for view, image in enumerate(picture.image):
        save_image(image, out / f"view{view}.png")
    scene.save(out / "torus.nfld")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/points"))
    parser.add_argument("--points", type=int, default=200_000)
    arguments = parser.parse_args()
    main(arguments.out, arguments.points)
