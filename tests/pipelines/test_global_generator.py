"""The GAUDI-style baseline: codes become scenes, weights return, and what does not fit is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_rooms import GRID, disturb, room_sample, scene_autoencoder

from nfldm3d import DataFormatError
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
from nfldm3d.models.nfldm.scene_voxels import voxels_of
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.pipelines.global_generator import GlobalGenerator
from nfldm3d.training.denoiser_stage import make_schedule

KEYS = ("room_0000", "room_0001", "room_0002")
SHAPE = {"resolution": GRID, "channels": 5, "sky_rows": 4, "width": 16, "fine_width": 8, "downsampling": 4}


def autodecoder() -> SceneAutodecoder:
    made = disturb(SceneAutodecoder(KEYS, global_dimensions=6, **SHAPE))
    assert isinstance(made, SceneAutodecoder)
    return made


@pytest.fixture(scope="module")
def pipeline() -> GlobalGenerator:
    denoiser = disturb(GlobalDenoiser(6 + 5 * POSES, (16, 16), map_classes=3, map_size=8, map_width=32))
    parts = scene_autoencoder(), autodecoder(), denoiser, make_schedule(), (4.0, 4.0, 2.0)
    made = GlobalGenerator(*parts, ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))  # type: ignore[arg-type]
    made.set_progress_bar_config(disable=True)
    return made


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_scenes_do_not_depend_on_their_number(pipeline: GlobalGenerator) -> None:
    made = pipeline.generate(3, num_inference_steps=2, generator=seed())
    some = pipeline.generate(3, numbers=[0, 2], num_inference_steps=2, generator=seed(), batch_size=1)
    assert torch.allclose(some.vectors, made.vectors[[0, 2]], atol=1e-5) and len(made.scenes) == 3
    scene = made.scenes[0]
    assert scene.cameras is not None and len(scene.cameras) == POSES and scene.box == pipeline.box
    image = scene.render(scene.cameras[:2].resized(8, 6)).image
    assert image.shape == (2, 3, 6, 8) and bool(torch.isfinite(image).all())


def test_maps_steer(pipeline: GlobalGenerator) -> None:
    bev = torch.full((8, 8), 2)
    plain, steered = (pipeline.generate(1, m, num_inference_steps=2, generator=seed()).vectors for m in (None, bev))
    assert float((plain - steered).abs().max()) > 1e-4
    with pytest.raises(ValueError, match="not 8 x 8"):
        pipeline.generate(1, bev[:4])
    with pytest.raises(ValueError, match="at least 1"):
        pipeline.generate(0)


def test_training_scenes_come_back_from_their_codes(pipeline: GlobalGenerator) -> None:
    scenes = [pipeline.recall(room_sample(number)) for number in range(2)]
    direct = pipeline.autodecoder.decode(pipeline.autodecoder.codes_of(torch.tensor([0, 1])))
    for number, scene in enumerate(scenes):
        voxels = voxels_of(scene.field, scene.background)  # type: ignore[arg-type]
        assert torch.allclose(voxels.features[0], direct.features[number], atol=1e-5) and scene.box == room_sample().box
    with pytest.raises(ValueError, match="room_0007 is none of the 3 scenes"):
        pipeline.recall(room_sample(7))


def test_weights_return(pipeline: GlobalGenerator, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "weights")
    again = GlobalGenerator.from_pretrained(tmp_path / "weights")
    again.set_progress_bar_config(disable=True)
    a, b = (one.generate(1, num_inference_steps=1, generator=seed()).vectors for one in (pipeline, again))
    assert torch.equal(a, b) and again.box == pipeline.box and again.autodecoder.find("room_0002") == 2
    shutil.rmtree(tmp_path / "weights" / "autodecoder")
    with pytest.raises(DataFormatError, match="holds no folder autodecoder"):
        GlobalGenerator.from_pretrained(tmp_path / "weights")
    index = tmp_path / "weights" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "SceneGenerator"}))
    with pytest.raises(DataFormatError, match="does not describe a GlobalGenerator"):
        GlobalGenerator.from_pretrained(tmp_path / "weights")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="denoiser_g is for vectors of 7 numbers, codes and paths have 86"):
        GlobalGenerator(scene_autoencoder(), autodecoder(), GlobalDenoiser(7, (16,)), make_schedule())
    with pytest.raises(ValueError, match="downsampling must be 4, 8 or 16"):
        SceneAutodecoder(KEYS, resolution=(12, 12, 4), downsampling=8)
    with pytest.raises(ValueError, match="one key for each training scene"):
        SceneAutodecoder((*KEYS, KEYS[0]))
