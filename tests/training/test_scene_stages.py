"""Both auto-encoders learn on a made-up room; views are drawn as the generator says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_rooms import BOX, GRID, ROOM, latent_autoencoder, paint, room_sample, scene_autoencoder
from torch import Tensor

from nfldm3d import DataFormatError
from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, start_folder, write_encoding
from nfldm3d.data.scenes import spread
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.models.nfldm.scene_voxels import Voxels, tensors_from_voxels, voxels_of
from nfldm3d.models.nfldm.views import Views
from nfldm3d.training.decoder_stage import DecoderStage, DecoderWeights
from nfldm3d.training.latent_stage import LatentSource, LatentStage, voxel_losses
from nfldm3d.training.scene_source import Drawing, SceneItem, SceneSource
from nfldm3d.training.scene_stage import PAPER_WEIGHTS, SceneStage
from nfldm3d.training.stage import SampleSource, Stage

DRAWING = Drawing(inputs=(2, 4), targets=3, seen_targets=1, crop=12, without_depth=0.5)


def drawn(seed: int, drawing: Drawing = DRAWING, index: int = 0) -> SceneItem:
    source = SceneSource([room_sample(0), room_sample(1)], drawing)
    return source.sample(index, torch.Generator().manual_seed(seed))


def tensors_of(item: SceneItem) -> list[Tensor]:
    views = (item.inputs, item.observed)
    parts = [part for view in views for part in (view.images, view.camera.world_from_camera)]
    targets = item.targets
    return [*parts, targets.images, targets.depth, targets.cosine, targets.rays.origins, targets.rays.directions]


def test_drawing_follows_the_generator() -> None:
    for seed in range(4):
        a, b = (tensors_of(drawn(seed)) for _ in range(2))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(drawn(0).targets.images, drawn(1).targets.images)


def test_drawing_keeps_its_promises() -> None:
    counts, blind = set(), 0
    for seed in range(40):
        item = drawn(seed)
        counts.add(len(item.inputs.images))
        blind += item.inputs.depth is None
        assert item.targets.images.shape == (3, 3, 12, 12) and item.observed.depth is not None
        assert len(item.observed.images) == 6  # all there are
    assert counts == {2, 3, 4} and 8 < blind < 32


def test_targets_are_parts_of_the_pictures_and_lie_where_rays_meet_the_walls() -> None:
    for seed in range(8):  # all sides from which the world is seen
        item = drawn(seed)
        points = item.targets.rays.at(item.targets.depth / item.targets.cosine)
        assert bool(ROOM.scaled(1.001).contains(points).all()) and not bool(ROOM.scaled(0.999).contains(points).any())
        assert bool((item.targets.inside(BOX) == 1).all())
    still = drawn(3, replace(DRAWING, turn=False))
    points = still.targets.rays.at(still.targets.depth / still.targets.cosine)
    assert torch.allclose(paint(points).movedim(-1, 1), still.targets.images, atol=3e-3)


def test_turns_are_quarters_about_the_box() -> None:
    source, generator = SceneSource([room_sample()], DRAWING), torch.Generator()
    sides = [source.draw(0, turn, generator.manual_seed(0)).inputs.camera for turn in range(5)]
    assert torch.allclose(sides[4].world_from_camera, sides[0].world_from_camera, atol=1e-6)
    middle = torch.tensor(BOX.center)
    x, y, z = (sides[0].centers - middle).unbind(-1)
    assert torch.allclose(sides[1].centers - middle, torch.stack((-y, x, z), dim=-1), atol=1e-5)


def test_few_views_are_shared() -> None:
    source = SceneSource([room_sample(views=2)], replace(DRAWING, inputs=(8, 16)))
    item = source.sample(0, torch.Generator().manual_seed(0))
    assert len(item.inputs.images) == 1 and len(item.targets.images) == 2


def descend(stage: Stage, batch: object, steps: int, rate: float) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps with the same randomness each time, and the parts of the last."""
    stage.model.train()
    learned = [parameter for parameter in stage.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=rate)
    losses, parts = [], {}
    for _ in range(steps):
        loss, parts = stage.loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, parts


def scene_stage(**options: object) -> SceneStage:
    scenes = [room_sample(0), room_sample(1)]
    return SceneStage(scene_autoencoder(), SceneSource(scenes, DRAWING), scenes, judged=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("paper", [False, True])
def test_scene_stage_learns(paper: bool) -> None:
    stage = scene_stage(weights=PAPER_WEIGHTS) if paper else scene_stage()
    assert isinstance(stage, Stage) and isinstance(stage.source, SampleSource)
    batch = stage.source.collate([stage.source.sample(n, torch.Generator().manual_seed(n)) for n in range(2)])
    losses, parts = descend(stage, batch, 5, 5e-3)
    assert losses[-1] < 0.95 * losses[0]
    assert all(bool(torch.isfinite(value)) and not value.requires_grad for value in parts.values())
    wanted = {"absolute", "structure", "depth", "opacity", "color"}
    assert wanted <= set(parts) and ("squared_depth" in parts) == paper and ("voxels" in parts) != paper


def test_scene_stage_judges_with_and_without_depth() -> None:
    stage = scene_stage()
    stage.model.eval()
    first, second = (stage.evaluate(torch.Generator().manual_seed(n)) for n in range(2))
    assert first.scalars == second.scalars and first.score == first.scalars["psnr"]
    names = {"psnr", "ssim", "depth_error", "sharpness", "mean_colour_psnr"}
    assert set(first.scalars) == names | {f"{name}_from_colour" for name in names}
    assert all(0 <= value < 100 for value in first.scalars.values()) and list(first.images) == ["scene0"]
    assert stage.config()["resolution"] == GRID and not any(name.startswith("_") for name in stage.config())


class Distance(torch.nn.Module):
    """Stands for LPIPS."""

    def forward(self, a: Tensor, b: Tensor, normalize: bool) -> Tensor:
        return (a - b).square().mean((1, 2, 3), keepdim=True)


def test_lpips_takes_the_place_of_ssim(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = SceneSource([room_sample(0), room_sample(1)], DRAWING)
    stage = SceneStage(scene_autoencoder(), source, [room_sample(1)], lpips=Lpips(Distance()))
    assert "picture loss: L1 and LPIPS" in caplog.text
    loss, parts = stage.loss(source.collate([source.sample(0, torch.Generator().manual_seed(5))]), torch.Generator())
    assert "structure" not in parts and float(parts["perceptual"]) > 0 and bool(loss.isfinite())


def test_scene_stage_needs_scenes_to_judge_by() -> None:
    scenes = [room_sample()]
    with pytest.raises(ValueError, match="split for judging holds no scenes"):
        SceneStage(scene_autoencoder(), SceneSource(scenes, DRAWING), [])
    assert [sample.key for sample in spread([room_sample(n) for n in range(4)], 2)] == ["room_0000", "room_0002"]
    assert len(list(spread(scenes, 9))) == 1


@torch.no_grad()
def write_fields(folder: Path, turns: tuple[int, ...] = (0, 1)) -> EncodedScenes:
    """Encodings of both rooms; the views are those of the side from which they were encoded."""
    start_folder(folder, {"kind": "fields"})
    model = scene_autoencoder()
    for number in range(2):
        sample = room_sample(number)
        for turn in turns:
            source = SceneSource([sample], replace(DRAWING, inputs=(5, 5), without_depth=0.0))
            views: Views = source.draw(0, turn, torch.Generator().manual_seed(0)).inputs
            encoding = model.encode(views, sample.box)
            tensors = tensors_from_voxels(voxels_of(encoding.field, encoding.background))
            write_encoding(folder, EncodedScene(sample.key, turn, tensors))
    return EncodedScenes(folder)


def latent_stage(folder: Path, **options: object) -> LatentStage:
    scenes = [room_sample(0), room_sample(1)]
    source = LatentSource(write_fields(folder), scenes, [sample.key for sample in scenes], DRAWING)
    model = latent_autoencoder(**options)
    return LatentStage(model, scene_autoencoder(), source, scenes[:1], judged=2)


def latent_batch(stage: LatentStage):
    source = stage.source
    return source.collate([source.sample(n, torch.Generator().manual_seed(n)) for n in range(2)])


@pytest.mark.parametrize("options", [{}, {"use_fine": False, "use_global": False}, {"quantize": False}])
def test_latent_stage_learns(options: dict, tmp_path: Path) -> None:
    stage = latent_stage(tmp_path, **options)
    assert isinstance(stage, Stage) and isinstance(stage.source, SampleSource)
    frozen = {name: value.clone() for name, value in stage.scene_autoencoder.state_dict().items()}
    losses, parts = descend(stage, latent_batch(stage), 5, 5e-3)
    assert losses[-1] < 0.95 * losses[0]
    assert all(bool(torch.isfinite(value)) for value in parts.values())
    assert {"occupancy", "features", "sky", "picture", "structure", "depth", "divergence", "commitment"} <= set(parts)
    now = stage.scene_autoencoder.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in frozen.items())


def test_latent_stage_takes_lpips_besides(tmp_path: Path) -> None:
    stage = latent_stage(tmp_path)
    stage.model.eval()
    batch = latent_batch(stage)
    with torch.no_grad():
        plain, _ = stage.loss(batch, torch.Generator().manual_seed(0))
        stage.lpips = Lpips(Distance())
        total, parts = stage.loss(batch, torch.Generator().manual_seed(0))
    added = stage.weights.perceptual * parts["perceptual"]
    assert float(added) > 0 and float(total - plain) == pytest.approx(float(added), rel=1e-2)


def test_latent_stage_judges_before_and_after(tmp_path: Path) -> None:
    stage = latent_stage(tmp_path)
    stage.model.eval()
    with torch.no_grad():
        result = stage.evaluate(torch.Generator().manual_seed(0))
    names = {"psnr", "ssim", "depth_error", "sharpness", "mean_colour_psnr"}
    codes = {"perplexity_c", "used_c", "perplexity_f", "used_f"}
    assert set(result.scalars) == names | {f"{name}_of_field" for name in names} | codes
    assert 0 < result.scalars["used_c"] <= 1 <= result.scalars["perplexity_c"] <= 8
    assert result.score == result.scalars["psnr"] and list(result.images) == ["scene0"]


def test_mixed_precision_losses_are_finite(tmp_path: Path) -> None:
    scene, latent = scene_stage(), latent_stage(tmp_path)
    batch = scene.source.collate([scene.source.sample(0, torch.Generator().manual_seed(0))])
    fields = latent_batch(latent)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [
            scene.loss(batch, torch.Generator().manual_seed(0))[0],
            latent.loss(fields, torch.Generator().manual_seed(0))[0],
        ]
    assert all(loss.dtype == torch.float32 and bool(torch.isfinite(loss)) for loss in losses)


def test_f_is_dropped_as_often_as_asked(tmp_path: Path) -> None:
    stage = latent_stage(tmp_path)
    batch = latent_batch(stage)
    stage.model.eval()

    def opacity_loss(share: float) -> float:
        stage.without_fine = share
        with torch.no_grad():
            return float(stage.loss(batch, torch.Generator().manual_seed(0))[1]["occupancy"])

    kept = opacity_loss(0.0)
    stage.model.decoder.combine.weight.data[:, 8:] += 1.0  # f's share of the decoder
    assert opacity_loss(1.0) != kept and opacity_loss(0.0) != opacity_loss(1.0)


def test_fields_and_views_belong_together(tmp_path: Path) -> None:
    encoded, scenes = write_fields(tmp_path), [room_sample(0), room_sample(1)]
    with pytest.raises(ValueError, match="encodings of 1 scenes, room_0001 the first, that are not in the data set"):
        LatentSource(encoded, scenes[:1], ["room_0000"])
    source = LatentSource(encoded, scenes, ["room_0000", "room_0001"], DRAWING)
    assert len(source) == 4
    tensors = encoded[2].tensors
    for wrong, message in (
        ({"sky": tensors["sky"]}, "room_0001.0: lacks occupancy"),
        (tensors | {"sky": tensors["sky"] * float("nan")}, "sky holds NaN"),
    ):
        save_file(wrong, tmp_path / "room_0001.0.safetensors")
        with pytest.raises(DataFormatError, match=message):
            source.sample(2, torch.Generator())


def test_voxel_losses_in_closed_form(generator: torch.Generator) -> None:
    truth = Voxels(
        (torch.rand(1, *GRID, generator=generator) > 0.5).float(),
        torch.rand(1, *GRID, 5, generator=generator),
        torch.rand(1, 4, 8, 3, generator=generator),
    )
    half = Voxels(torch.full_like(truth.occupancy, 0.5), truth.features + 0.25, truth.sky - 0.5)
    losses = voxel_losses(half, truth)
    assert float(losses["occupancy"]) == pytest.approx(0.6931, abs=1e-3)
    assert float(losses["features"]) == pytest.approx(0.25, abs=1e-5)
    assert float(losses["colors"]) == pytest.approx(0.25, abs=1e-5)
    assert float(losses["sky"]) == pytest.approx(0.5, abs=1e-5)
    assert float(voxel_losses(truth, truth)["features"]) == 0


def test_features_count_where_something_is_near() -> None:
    opacity = torch.zeros(1, *GRID)
    opacity[0, 2, 2, 2] = 1.0
    truth = Voxels(opacity, torch.zeros(1, *GRID, 5), torch.zeros(1, 4, 8, 3))
    errors = []
    for place in ((3, 3, 3), (7, 7, 0)):
        features = torch.zeros(1, *GRID, 5)
        features[(0, *place)] = 1.0
        errors.append(float(voxel_losses(Voxels(opacity, features, truth.sky), truth)["features"]))
    assert errors[0] == pytest.approx(errors[1] * 1.02 / 0.02, rel=1e-4)


def test_what_walls_enclose_counts_little() -> None:
    opacity, errors = torch.zeros(1, *GRID), {}
    opacity[0, :3] = 1.0  # the air begins at x = 3
    sky = torch.zeros(1, 4, 8, 3)
    truth = Voxels(opacity, torch.zeros(1, *GRID, 5), sky)
    for x in (0, 2):
        features, wrong = torch.zeros(1, *GRID, 5), opacity.clone()
        features[0, x, 2, 2], wrong[0, x, 2, 2] = 1.0, 0.5
        losses = voxel_losses(Voxels(wrong, features, sky), truth)
        errors[x] = [float(losses[name]) for name in ("colors", "features", "occupancy")]
    assert all(errors[2][n] == pytest.approx(errors[0][n] * 1.02 / 0.02, rel=0.1) for n in (0, 1))
    assert errors[2][2] > 3 * errors[0][2]


def test_the_decoder_learns_alone(tmp_path: Path) -> None:
    scenes = [room_sample(0), room_sample(1)]
    autoencoder = scene_autoencoder()
    source = LatentSource(write_fields(tmp_path), scenes, [sample.key for sample in scenes], DRAWING)
    stage = DecoderStage(autoencoder, source, scenes[1:], judged=1)
    assert isinstance(stage, Stage)
    kept = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    optimizer = torch.optim.Adam(stage.model.parameters(), 3e-3)
    generator, errors = torch.Generator().manual_seed(0), []
    for _ in range(12):
        batch = source.collate([source.sample(0, torch.Generator().manual_seed(5))])
        loss, parts = stage.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(parts["absolute"]))
    assert errors[-1] < 0.9 * errors[0]
    changed = {name for name, value in autoencoder.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    stage.model.eval()
    assert stage.evaluate(generator).scalars["sharpness"] > 0


def test_the_critic_does_not_learn_from_the_decoders_loss(tmp_path: Path) -> None:
    """Each side of the game gets the gradient of its own part only."""
    scenes = [room_sample(0)]
    source = LatentSource(write_fields(tmp_path, (0,)), scenes * 2, ["room_0000", "room_0001"], DRAWING)
    stage = DecoderStage(scene_autoencoder(), source, scenes, weights=DecoderWeights(critic=0.0))
    batch = source.collate([source.sample(0, torch.Generator().manual_seed(5))])
    stage.loss(batch, torch.Generator())[0].backward()
    assert all(float(p.grad.abs().max()) == 0 for p in stage.model.critic.parameters() if p.grad is not None)
    assert any(float(p.grad.abs().max()) > 0 for p in stage.model.decoder.parameters() if p.grad is not None)


def test_the_sky_is_far_where_voxels_are_observed_and_unknown_where_scenes_are_encoded() -> None:
    room = room_sample(0)
    depth, labels = room.depth.clone(), torch.ones(room.depth.shape, dtype=torch.uint8)
    depth[:, :3], labels[:, :2] = 0, 0  # two rows of sky, then one of nothing known
    sample = replace(room, depth=depth, labels=labels, metadata={"label_names": ["sky", "wall"]})
    item = SceneSource([sample], replace(DRAWING, without_depth=0.0)).draw(0, 0, torch.Generator().manual_seed(0))
    assert item.observed.depth is not None and item.inputs.depth is not None
    assert (item.observed.depth[:, :2] > 3 * max(room.box.size)).all() and (item.observed.depth[:, 2] == 0).all()
    assert (item.inputs.depth[:, :3] == 0).all() and torch.equal(
        item.inputs.depth[:, 3:], item.observed.depth[: len(item.inputs.images), 3:]
    )
    unlabelled = SceneSource([replace(sample, metadata={})], DRAWING).draw(0, 0, torch.Generator().manual_seed(0))
    assert unlabelled.observed.depth is not None and (unlabelled.observed.depth[:, :3] == 0).all()
