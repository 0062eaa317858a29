"""Copies of training scenes are told from new ones."""

import pytest
import torch
from small_rooms import room_sample, scene_generator

from nfldm3d.evaluation.memorisation import judge_memory
from nfldm3d.models.nfldm.scene_voxels import background_of, field_of, voxels_of
from nfldm3d.scene import Scene

GENERATOR = scene_generator()
TRAINING = [room_sample(number) for number in range(4)]


def turned(scene: Scene, orientation: int) -> Scene:
    """The same world, turned or mirrored."""
    voxels = voxels_of(scene.field, scene.background)  # type: ignore[arg-type]
    again = voxels.oriented(orientation)[0]
    code = GENERATOR.scene_autoencoder.sky_code
    return Scene(field_of(again, scene.box), scene.appearance, background_of(again, code))


@pytest.mark.parametrize("orientation", [0, 2, 5])
def test_copies_are_found_in_any_orientation(orientation: int) -> None:
    copies = [turned(GENERATOR.networks.encode_sample(TRAINING[number]), orientation) for number in (2, 0)]
    memory = judge_memory(GENERATOR, copies, TRAINING)
    assert memory.nearest == [2, 0] and memory.figures["memorised_fraction"] == 1
    assert memory.figures["nearest_distance"] < 1e-3 < memory.figures["nearest_distance_of_training"]


def test_others_are_not_copies() -> None:
    made = GENERATOR.generate(2, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).scenes
    memory = judge_memory(GENERATOR, made, TRAINING, count=2)
    assert memory.figures["memorised_fraction"] == 0
    assert set(memory.figures) == {"memorised_fraction", "nearest_distance", "nearest_distance_of_training"}
