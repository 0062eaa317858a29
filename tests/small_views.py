"""Balls of one colour whose right side is dark, as objects of a data set; closed forms, a few pixels wide."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Box, Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.data.view_sets import Choose, ViewSet

RADIUS = 0.45


def cameras(views: int, size: int = 16) -> Camera:
    """All around, at several heights."""
    angle = 2.4 * torch.arange(views)
    height = torch.linspace(-0.2, 0.8, views)
    flat = (1 - height**2).sqrt()
    eyes = 1.3 * torch.stack((flat * angle.cos(), flat * angle.sin(), height), dim=-1)
    return Camera.look_at(eyes, (0.0, 0.0, 0.0), width=size, height=size, horizontal_fov_degrees=52.0)


def look(number: int, camera: Camera) -> Tensor:
    """What cameras see of ball ``number``, before white: its colour where y < 0, half as bright elsewhere."""
    rays = camera.rays()
    middle = -(rays.origins * rays.directions).sum(-1)
    inner = middle**2 - (rays.origins.square().sum(-1) - RADIUS**2)
    points = rays.at(middle - inner.clamp(min=0).sqrt())
    color = torch.rand(3, generator=torch.Generator().manual_seed(number))
    shade = torch.where(points[..., 1:2] < 0, 1.0, 0.5)
    return torch.where(inner[..., None] > 0, color * shade, 1.0).movedim(-1, -3)


class Balls:
    """``ViewSets`` of ``count`` balls with ``views`` views of each."""

    def __init__(self, count: int = 4, views: int = 6, size: int = 16):
        self.count, self.camera = count, cameras(views, size)

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, choose: Choose) -> ViewSet:
        camera = self.camera[choose(self.camera)]
        return ViewSet(look(index, camera), camera, f"ball_{index}", "a ball")


def ball_sample(number: int, views: int = 6, size: int = 16, split: str = "train") -> SceneSample:
    """A ball as the recorder of objects gives it."""
    camera = cameras(views, size)
    images = look(number, camera)
    alpha = (images.amin(-3) < 1).byte() * 255
    depth = torch.where(alpha > 0, 0.9, 0.0)
    sample = SceneSample(
        f"balls_{number:04d}",
        (images * 255).round().byte(),
        depth,
        camera,
        Box.from_center((0.0, 0.0, 0.0), (2.7, 2.7, 2.7)),
        labels=(alpha > 0).byte(),
        map="balls",
        split=split,
        kinds=("scattered",) * views,
        metadata={"caption": "a ball", "label_names": ["sky", "object"]},
        metric=False,
    )
    return replace(sample, alpha=alpha, normals=torch.zeros(views, size, size, 3, dtype=torch.uint8))


def write_balls(folder: Path, views: int = 6, size: int = 16) -> Path:
    """Shards of three balls to learn and one for tests."""
    folder.mkdir()
    written = [
        write_shard(folder / f"{side}-000000.tar", [ball_sample(n, views, size, side) for n in numbers])
        for side, numbers in (("train", range(3)), ("test", (3,)))
    ]
    scenes = tuple(scene for _, part in written for scene in part)
    write_index(folder, ShardIndex(tuple(shard for shard, _ in written), scenes))
    return folder
