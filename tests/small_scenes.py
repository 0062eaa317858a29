"""Tiny scenes for tests: pictures of 10x6 pixels in a box that is not in the middle of the world."""

from dataclasses import replace

import torch

from nfldm3d import Box, Camera
from nfldm3d.data import BevMap
from nfldm3d.data.scene_sample import SceneSample

BOX = Box((-2.0, 1.0, -1.0), (8.0, 7.0, 3.0))
PALETTE = ((0, 0, 0), (200, 20, 10), (10, 20, 200))


def small_scene(
    number: int = 0, *, views: int = 3, map_name: str = "MAP01", split: str = "train", depth_scale: float = 1.0
) -> SceneSample:
    """Scene ``number`` of a world; other numbers look differently."""
    generator = torch.Generator().manual_seed(number)
    eyes = torch.rand(views, 3, generator=generator) * 2 + torch.tensor([1.0, 2.0, 0.0])
    camera = Camera.look_at(eyes, (6.0, 5.0, 0.5), width=10, height=6, horizontal_fov_degrees=80.0)
    depth = torch.rand(views, 6, 10, generator=generator) * 9 + 0.5
    depth[:, 0] = 0.0
    heading = torch.rand(16, generator=generator) * 6 - 3
    path = torch.cat((torch.rand(16, 3, generator=generator), torch.stack((heading.cos(), heading.sin()), -1)), -1)
    return SceneSample(
        f"{map_name}_{number:04d}",
        torch.randint(256, (views, 3, 6, 10), generator=generator, dtype=torch.uint8),
        (depth * depth_scale * 1000).round() / 1000,
        camera,
        BOX,
        torch.randint(3, (views, 6, 10), generator=generator, dtype=torch.uint8),
        BevMap(
            torch.randint(3, (5, 3), generator=generator, dtype=torch.uint8),
            torch.randn(5, 3, generator=generator),
            (-2.0, 1.0),
            2.0,
            ("void", "floor", "wall"),
            PALETTE,
        ),
        map_name,
        split,
        ("scattered",) * (views - 1) + ("walk",),
        path,
        {"label_names": ["a", "b", "c"], "label_palette": [list(color) for color in PALETTE], "exposure": 1.25},
    )


def without_extras(scene: SceneSample) -> SceneSample:
    """The same with nothing but pictures and depth."""
    return replace(scene, labels=None, bev=None, trajectory=None, kinds=(), metadata={})
