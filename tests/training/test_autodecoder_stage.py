"""Codes and their decoder are found together; the denoiser takes what is written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rooms import GRID, labelled, scene_autoencoder

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.encoding import describe_scenes, encode_scenes
from nfldm3d.training.autodecoder_stage import DRAWING, AutodecoderStage, CodedSource, write_codes
from nfldm3d.training.denoiser_stage import DenoiserStage, LatentSetSource, make_denoiser
from nfldm3d.training.stage import SampleSource, Stage

SCENES = [labelled(number) for number in (2, 0, 3)]
KEYS = [sample.key for sample in SCENES]
SHAPE = {"resolution": GRID, "channels": 5, "sky_rows": 4, "width": 16, "fine_width": 8, "downsampling": 4}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> AutodecoderStage:
    folder, coder = tmp_path_factory.mktemp("fields"), scene_autoencoder()
    encode_scenes(Autoencoders(coder, None), SCENES, folder, progress=False)
    small = replace(DRAWING, inputs=(1, 2), targets=2, crop=10)
    source = CodedSource(EncodedScenes(folder), SCENES, KEYS, small)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        model = SceneAutodecoder(source.keys, global_dimensions=6, **SHAPE)
    return AutodecoderStage(model, coder, source, judged=2)


def test_codes_belong_to_their_scenes(stage: AutodecoderStage) -> None:
    """Encodings come in the order of their names, scenes in that of the data set."""
    assert isinstance(stage, Stage) and isinstance(stage.source, SampleSource)
    assert list(stage.source.keys) == sorted(KEYS) == [stage.source.scenes[n].key for n in range(3)]
    item = stage.source.sample(1, torch.Generator().manual_seed(0))
    camera = SCENES[KEYS.index(stage.source.keys[1])].camera
    nearest = torch.cdist(item.field.views.inputs.camera.centers, camera.centers).amin(1)
    assert item.number == 1 and float(nearest.max()) < 1e-5  # not turned


def test_panoramas_are_drawn_from_the_components_of_those_of_the_training_scenes(stage: AutodecoderStage) -> None:
    model = SceneAutodecoder(stage.source.keys, global_dimensions=6, sky_dimensions=3, **SHAPE)
    AutodecoderStage(model, stage.scene_autoencoder, stage.source, judged=1)
    sky = torch.cat([stage.source.fields.read(number).sky for number in range(3)])
    assert torch.allclose(
        model.panorama_code.mean, sky.mean((0, 2), keepdim=True).expand_as(sky)[0].flatten(), atol=1e-3
    )
    made = model.decode(model.codes_of(torch.arange(2))).sky - model.panorama_code.mean.view(4, 8, 3)
    basis = model.panorama_code.basis
    assert torch.allclose(made.flatten(1) @ basis @ basis.T, made.flatten(1), atol=1e-5)


def test_codes_and_decoder_learn_together(stage: AutodecoderStage) -> None:
    model = stage.model.train()
    batch = stage.source.collate([stage.source.sample(n, torch.Generator().manual_seed(n)) for n in (0, 1)])
    before, optimizer, losses = model.codes.detach().clone(), torch.optim.Adam(model.parameters(), lr=5e-3), []
    for _ in range(6):
        loss, parts = stage.loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0] and {"occupancy", "picture", "size"} <= set(parts)
    moved = (model.codes.detach() - before).abs().amax(1)
    assert bool((moved[:2] > 1e-3).all()) and float(moved[2]) == 0  # a scene that was not drawn keeps its code
    model.eval()
    found = stage.evaluate(torch.Generator())
    assert found.score == found.scalars["psnr"] and set(found.images) == {"scene0", "scene1"}


def test_denoisers_learn_codes(stage: AutodecoderStage, tmp_path: Path) -> None:
    about = describe_scenes(stage.source.scenes[0], GRID)
    write_codes(stage.model, stage.source.scenes, [0, 2], tmp_path / "codes", about)
    source = LatentSetSource(EncodedScenes(tmp_path / "codes"))
    some = source.spread(2)
    assert torch.allclose(some.g[:, :6], stage.model.codes_of(torch.tensor([0, 2]))) and some.bev is not None
    assert torch.equal(some.bev[1], stage.source.scenes[2].bev.classes.long())  # type: ignore[union-attr]
    denoiser = make_denoiser("g", source)
    assert isinstance(denoiser, GlobalDenoiser) and denoiser.config["dimensions"] == 6 + 5 * POSES
    loss, _ = DenoiserStage("g", denoiser, source, source).loss(some, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(loss))


def test_what_does_not_fit_is_refused(stage: AutodecoderStage, tmp_path: Path) -> None:
    other = SceneAutodecoder(("x", "y", "z"), global_dimensions=6, **SHAPE)
    with pytest.raises(ValueError, match="codes are of other scenes"):
        AutodecoderStage(other, stage.scene_autoencoder, stage.source)
    encode_scenes(Autoencoders(stage.scene_autoencoder, None), SCENES[:1], tmp_path, turns=(0, 1), progress=False)
    with pytest.raises(ValueError, match="several encodings of a scene; encode with --turns 0"):
        CodedSource(EncodedScenes(tmp_path), SCENES, KEYS)
