"""Generated scenes are seen by cameras that are mounted as those of recorded ones."""

from dataclasses import replace

import torch
from small_rooms import ROOM, cameras, paint, room_sample, scene_generator

from nfldm3d.camera import Camera
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.evaluation.scene_pictures import (
    CLIP_FRAMES,
    SIZE,
    Mounts,
    made_clips,
    made_pictures,
    recorded_clips,
    recorded_pictures,
    stack_clips,
    views_along,
)
from nfldm3d.geometry import turn_about
from nfldm3d.models.nfldm.trajectories import path_cameras

STEPS = torch.linspace(0, 1, 7)
PATH = torch.stack(
    (2.0 + STEPS, -0.5 + STEPS**2, 1.4 + 0.1 * STEPS, STEPS.cos(), STEPS.sin()), dim=-1
)  # bends to the left and climbs
SHAPE = (9, 3, SIZE, SIZE)
ORDER = (4, 0, 6, 2)
"""Poses where pictures were taken, as shuffled as a recorder leaves them."""


def rig_sample(key: str = "rig") -> SceneSample:
    """At each of four poses one camera ahead and one to the left, and two views from elsewhere."""
    ahead = path_cameras(PATH, 12, 10, 70.0)[list(ORDER)]
    quarter = torch.eye(4)
    quarter[:3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # about the camera's own y
    left = replace(ahead, world_from_camera=ahead.world_from_camera @ quarter)
    elsewhere = replace(cameras(2), width=12, height=10)
    camera = Camera.cat([left, ahead, replace(elsewhere, focal=ahead.focal[:2], principal=ahead.principal[:2])])
    rays = camera.rays()
    _, distance = ROOM.clip(rays)
    images = (paint(rays.at(distance)).movedim(-1, 1) * 255).round().byte()
    kinds = ("rig",) * 4 + ("walk",) * 4 + ("scattered",) * 2
    return replace(
        room_sample(), key=key, images=images, depth=None, camera=camera, kinds=kinds, trajectory=PATH, split="test"
    )


def test_views_come_in_the_order_of_the_path() -> None:
    sample = rig_sample()
    assert views_along(sample, ("walk",)) == [5, 7, 4, 6] and views_along(sample) == [1, 5, 3, 7, 0, 4, 2, 6]
    assert views_along(replace(sample, kinds=())) == []


def test_cameras_find_back_to_their_own_path() -> None:
    """Mounted on the path that they come from, all cameras stand where they stood; in a turned world, turned."""
    sample = rig_sample()
    mounts = Mounts.of(sample)
    assert mounts is not None
    views, path = views_along(sample), path_cameras(PATH, 8, 8)
    back = mounts.along(path, 8)
    where = sample.camera[views]
    assert torch.allclose(back.world_from_camera, where.world_from_camera, atol=1e-5)
    assert (back.width, back.height) == (SIZE, SIZE)
    assert torch.allclose(back.focal, where.resized(SIZE, SIZE).focal)
    motion = turn_about(ROOM, 1)
    turned = mounts.along(path.transformed(motion), 8)
    assert torch.allclose(turned.world_from_camera, where.transformed(motion).world_from_camera, atol=1e-5)


def test_more_cameras_spread_over_the_path_and_fewer_are_of_all_places() -> None:
    mounts = Mounts.of(rig_sample())
    assert mounts is not None
    path = path_cameras(PATH, 8, 8)
    many = mounts.along(path, 19)
    assert (
        len(many) == 19
        and torch.allclose(many.centers[0], PATH[0, :3])
        and torch.allclose(many.centers[-1], PATH[-1, :3], atol=1e-5)
    )
    steps = many.centers.diff(dim=0).norm(dim=-1)
    assert float(steps.max()) < 2.5 * float(steps.mean())
    few = mounts.along(path, 4).centers
    assert len(few.unique(dim=0)) == 4  # one of each pose
    assert Mounts.of(replace(rig_sample(), kinds=("scattered",) * 10)) is None


def test_sets_hold_pictures_along_trajectories() -> None:
    sample = rig_sample()
    recorded = recorded_pictures([sample, replace(sample, key="other")], 10)
    assert recorded.images.shape == (10, 3, SIZE, SIZE) and recorded.scenes.tolist() == [0] * 5 + [1] * 5
    scenes = scene_generator().generate(2, num_inference_steps=1, generator=torch.Generator().manual_seed(0)).scenes
    for like in (sample, room_sample()):
        made = made_pictures(scenes, [like], 6, progress=False)
        assert made.images.shape == (6, 3, SIZE, SIZE) and made.scenes.tolist() == [0, 0, 0, 1, 1, 1]
    grey = made_pictures(
        scenes, [sample], 4, progress=False, draw=lambda _, camera: torch.full(SHAPE, 0.5)[: len(camera)]
    )
    assert float(grey.images.min()) == float(grey.images.max()) == 0.5


def test_clips_are_as_long_as_recorded_ones() -> None:
    """Four views ahead, in order, whatever order they were stored in; every fourth pose of sixteen of a longer walk."""
    sample = rig_sample()
    (clip,) = recorded_clips([sample], 3)
    large = torch.nn.functional.interpolate(
        sample.images[[5, 7, 4, 6]].float() / 255, (SIZE, SIZE), mode="bilinear", antialias=True
    )
    assert torch.allclose(clip, large.clamp(0, 1))
    scenes = scene_generator().generate(1, num_inference_steps=1, generator=torch.Generator().manual_seed(0)).scenes
    (made,) = made_clips(scenes, [sample])
    assert made.shape == clip.shape and stack_clips([clip, clip[:3], clip[:1]]).shape[:2] == (3, CLIP_FRAMES)
    assert torch.equal(
        stack_clips([torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 2, 2)])[0, :, 0, 0, 0].diff() > 0,
        torch.ones(3, dtype=torch.bool),
    )
    assert recorded_clips([room_sample()], 1) == [] and made_clips(scenes, [room_sample()]) == []
