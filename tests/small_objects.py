"""Recorded objects as tests need them: coloured squares before nothing, with captions and sides."""

from dataclasses import replace
from pathlib import Path

import torch
from small_scenes import BOX, small_scene

from nfldm3d import Camera
from nfldm3d.data.captioned_pictures import Subject
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard

ANGLES = torch.tensor(((0.0, 10.0), (90.0, 10.0), (180.0, 10.0), (0.0, 70.0)))
SIDES = ("front", "side", "back", "overhead")
THINGS = ("a chair", "a table", "a car")


def make_subject(caption: str, color: tuple[int, int, int], *, size: int = 8, sides: bool = True) -> Subject:
    """A square in the middle: a quarter of the picture, half of it opaque."""
    pictures = len(SIDES) if sides else 1
    pixels = torch.full((pictures, 4, size, size), 255, dtype=torch.uint8)
    pixels[:, 3] = 0
    part = slice(size // 4, size - size // 4)
    pixels[:, :3, part, part] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    pixels[:, 3, part, part] = 255
    relief = torch.where(pixels[:, 3] > 0, 200, 0).byte() if sides else None
    return Subject(caption, pixels, SIDES if sides else (), ANGLES if sides else None, relief)


def object_scene(number: int, *, split: str = "train", size: int = 16) -> SceneSample:
    """A recorded object, whose fourth picture is empty."""
    caption = THINGS[number % len(THINGS)]
    subject = make_subject(caption, (40 * (number % 5), 90, 200), size=size)
    eyes = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [-4.0, 0.0, 0.0], [0.1, 0.0, 4.0]])
    camera = Camera.look_at(eyes, (0.0, 0.0, 0.0), width=size, height=size, horizontal_fov_degrees=50.0)
    opacity = subject.pixels[:, 3]
    normals = torch.zeros(4, size, size, 3, dtype=torch.uint8)
    normals[opacity > 0] = torch.tensor([255, 128, 128], dtype=torch.uint8)  # all face along x
    return replace(
        small_scene(number),
        key=f"furniture_{split}_{number:04d}",
        images=subject.pixels[:, :3],
        depth=(opacity > 0).float() * 3.5,
        camera=camera,
        box=BOX.from_center((0.0, 0.0, 0.0), (10.0, 10.0, 10.0)),
        labels=None,
        bev=None,
        map="furniture",
        split=split,
        kinds=("scattered",) * 4,
        trajectory=None,
        metadata={"caption": caption, "view_names": list(SIDES)},
        metric=False,
        alpha=opacity,
        normals=normals,
    )


def write_objects(folder: Path, *, objects: int = 3, size: int = 16) -> Path:
    """A recording in shards, with as many objects on each side of the split."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for split in ("train", "test"):
        samples = [object_scene(number, split=split, size=size) for number in range(objects)]
        parts.append(write_shard(folder / f"{split}-000000.tar", samples))
    scenes = tuple(scene for _, found in parts for scene in found)
    write_index(folder, ShardIndex(tuple(shard for shard, _ in parts), scenes))
    return folder
