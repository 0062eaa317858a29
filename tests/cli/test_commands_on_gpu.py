"""Every command that takes a device runs on the GPU, from captures to generated scenes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from on_devices import CPU, ball
from PIL import Image
from small_fits import ball_scene, views_of
from small_objects import write_objects
from small_priors import write_own_texts, write_pixel_texts
from small_refining import make_restorer, make_scene
from small_rooms import latent_autoencoder, scene_autoencoder
from small_sentences import write_sentence_encoder
from small_views import cameras as ball_cameras, look, write_balls

from nfldm3d import Scene
from nfldm3d.cli import main
from nfldm3d.cli.commands import Command
from nfldm3d.cli.train import Train
from nfldm3d.cli.view import View
from nfldm3d.evaluation import dreams
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.viewer.frames import WHOLE, Look, draw
from nfldm3d.viewer.page_camera import first_camera

GPU = ("--device", "cuda")
IS_REAL = torch.cuda.is_available()
"""Asked before any test pretends."""
DEVICELESS = {"capture", "info", "export", "assemble"}
"""They read, record or write; scenes are on the CPU there."""
BRIEF = ("--steps", 2, "--batch-size", 2, "--evaluate-every", 2)

pytestmark = [pytest.mark.cuda, pytest.mark.slow]


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def encoded(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of both auto-encoders, and what they make of the shards."""
    folder = tmp_path_factory.mktemp("encoded")
    scene_autoencoder().save_pretrained(folder / "weights" / "scene_autoencoder")
    latent_autoencoder().save_pretrained(folder / "weights" / "latent_autoencoder")
    write_pixel_texts(folder / "prior")
    for split in ("train", "test"):
        given = ["--weights", folder / "weights", "--split", split, "--device", "cpu"]
        run("encode", shards, "--out", folder / f"latents_{split}", "--keep", "latents", *given)
        run("encode", shards, "--out", folder / f"fields_{split}", *given)
        run("encode", shards, "--out", folder / f"pairs_{split}", "--keep", "pairs", *given)
    write_objects(folder / "objects")
    write_sentence_encoder(folder / "sentences")
    return folder


def test_captures_are_fitted_and_rendered(tmp_path: Path) -> None:
    views_of(ball_scene(), count=6, size=(24, 20)).save(tmp_path / "capture")
    small = ["--steps", 12, "--rays-per-step", 128, "--voxels", 4096, "--surroundings", 1, "--holdout-every", 3]
    run("fit", tmp_path / "capture", "--out", tmp_path / "scene.nfld", *small, *GPU)
    ball(CPU).save(tmp_path / "ball.nfld")
    look = ["--out", tmp_path, "--views", 2, "--width", 16, "--height", 16, "--format", "gif", *GPU]
    pose = "[[1, 0, 0, 0.1], [0, 1, 0, 1.6], [0, 0, 1, 6], [0, 0, 0, 1]]"
    (tmp_path / "way.json").write_text(f'{{"camera_angle_x": 0.8, "frames": [{{"transform_matrix": {pose}}}]}}')
    for path in ("orbit", "panorama", "fly", tmp_path / "way.json"):
        run("render", tmp_path / "ball.nfld", "--path", path, *look)
    assert all((tmp_path / f"{name}.gif").is_file() for name in ("orbit", "panorama", "fly", "way"))


def test_scenes_are_looked_at_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("viser")
    ball(CPU).save(tmp_path / "ball.nfld")
    viewer = View((tmp_path / "ball.nfld",), port=0, device="cuda").open()
    try:
        for look in (Look(), Look("normals", backdrop="grey"), Look("depth", clip=((0.0, 0.5), WHOLE, WHOLE))):
            viewer.look = look
            seen = viewer.seen()
            assert seen is not None and seen[0].scene.device.type == "cuda"
            draw(seen[0], first_camera(seen[0].scene, 16, 12), look)
    finally:
        viewer.close()


def test_scenes_are_generated_edited_and_grown(weights: Path, tmp_path: Path) -> None:
    color = SceneGenerator.from_pretrained(weights).config["map_palette"][1]
    Image.new("RGB", (8, 8), tuple(color)).save(tmp_path / "map.png")
    given = ["--weights", weights, "--steps", 2, *GPU]
    look = ["--frames", 2, "--width", 32, "--height", 24, "--bev", tmp_path / "map.png"]
    run("generate", "--out", tmp_path / "made", *look, *given)
    scene = tmp_path / "made" / "scene_000" / "scene.nfld"
    assert {"bev.png", "turntable.mp4", "flight.mp4", "scene.glb"} <= {path.name for path in scene.parent.iterdir()}
    run("edit", scene, "--box", 1, 1, -1, 2, 2, 1, "--out", tmp_path / "edited.nfld", *given)
    run("grow", "--windows", 2, 1, "--scene", scene, "--out", tmp_path / "world.nfld", *given)
    assert Scene.load(tmp_path / "world.nfld").field.voxel_size[0] > 0


def test_scenes_are_refined(tmp_path: Path) -> None:
    make_scene().save(tmp_path / "scene.nfld")
    make_restorer(0.1).network.save_pretrained(tmp_path / "weights" / "restorer")
    few = ["--steps", 4, "--views", 3, "--views-per-step", 2, *GPU]
    run("refine", tmp_path / "scene.nfld", "--weights", tmp_path / "weights", "--out", tmp_path / "new.nfld", *few)
    assert Scene.load(tmp_path / "new.nfld").field.channels == 3


def test_data_sets_are_encoded_and_judged(shards: Path, weights: Path, tmp_path: Path) -> None:
    for keep in ("fields", "decoded", "latents"):
        run("encode", shards, "--out", tmp_path / keep, "--keep", keep, "--turns", 0, 5, "--weights", weights, *GPU)
    run("encode", shards, "--out", tmp_path / "scene.nfld", "--weights", weights, "--views", 3, *GPU)
    given = ["--data", shards, "--weights", weights, "--scenes", 1, "--json", *GPU]
    run("evaluate", "autoencoders", *given, "--views", 3, "--page", tmp_path / "a.png")
    for keep in ("fields", "decoded", "latents"):
        assert len(list((tmp_path / keep).glob("*.safetensors"))) == 2 * 4  # two orientations of four scenes
    assert Scene.load(tmp_path / "scene.nfld").field.channels > 0 and (tmp_path / "a.png").stat().st_size > 0


def test_generators_are_judged(shards: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", shards, "--weights", weights, "--scenes", 2, "--pictures", 16, "--steps", 1, "--json", *GPU]
    run("evaluate", "generator", *given, "--page", tmp_path / "page.png")
    assert json.loads(capsys.readouterr().out)["frechet"] > 0


STAGES = {
    "scene-autoencoder": ("--data", "shards", "--start-from", "weights"),
    "image-decoder": ("--data", "shards", "--fields", "fields_train", "--weights", "weights"),
    "latent-autoencoder": ("--data", "shards", "--fields", "fields_train", "--weights", "weights"),
    "denoiser": ("--level", "c", "--latents", "latents_train", "--held-out", "latents_test"),
    "autodecoder": ("--data", "shards", "--fields", "fields_train", "--weights", "weights"),
    "frame-classifier": ("--data", "shards"),
    "bev-reader": ("--data", "shards", "--fields", "fields_train", "--held-out", "fields_test"),
    "restorer": ("--pairs", "pairs_train", "--held-out", "pairs_test"),
    "image-prior": ("--pairs", "pairs_train", "--held-out", "pairs_test"),
    "text-prior": ("--objects", "objects", "--sentences", "sentences"),
    "retriever": ("--objects", "objects", "--sentences", "sentences"),
    "multiview": (
        "--prior",
        "prior",
        "--data",
        "shards",
        "--rank",
        "2",
        "--grid",
        "8",
        "--views",
        "2",
        "--preserved",
        "0",
    ),
    "view-diffusion": ("--data", "shards", "--size", "16", "--channels", "8", "--multiples", "1", "--memory", "8"),
}


@pytest.fixture(autouse=True)
def quiet_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No other GPU takes part, real or pretended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    yield


@pytest.mark.parametrize("stage", STAGES)
def test_stages_are_trained(stage: str, shards: Path, encoded: Path, tmp_path: Path) -> None:
    if stage == "multiview" and not IS_REAL:
        pytest.skip("diffusers' loader makes no parameters on the pretended GPU; tests/training has this stage there")
    given = [shards if word == "shards" else word for word in STAGES[stage]]
    given = [encoded / word if isinstance(word, str) and (encoded / word).is_dir() else word for word in given]
    run("train", stage, *given, "--out", tmp_path / "run", *BRIEF)
    assert any((tmp_path / "run" / "weights").iterdir())
    for path in (tmp_path / "run" / "weights").rglob("*.safetensors"):
        assert path.stat().st_size > 0 and torch.cuda.is_available()


@pytest.mark.cuda
def test_objects_are_dreamt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreams, "SIZE", 16)
    few = ["--steps", "1", "--detail", "12", "--size", "8", "--coarse-size", "8", "--frames", "1"]
    prior = write_own_texts(tmp_path / "prior")
    run("dream", "a car", "--prior", prior, "--out", tmp_path / "car", *few)
    assert (tmp_path / "car" / "scene.nfld").stat().st_size > 0
    (tmp_path / "prompts.txt").write_text("a car\na chair\n")
    given = ["--dreams", tmp_path, "--prompts", tmp_path / "prompts.txt", "--retriever", prior, "--json"]
    run("evaluate", "dreams", *given, *GPU)


def test_objects_are_drawn_and_judged(tmp_path: Path) -> None:
    network = XUNet(size=16, channels=8, multiples=(1,), heads=1, memory=8)
    network.save_pretrained(tmp_path / "weights" / "view_denoiser")
    view = look(1, ball_cameras(1))[0]
    pixels = torch.cat((view, (view.amin(0, keepdim=True) < 1).float())).mul(255).byte().movedim(0, -1)
    Image.fromarray(pixels.numpy()).save(tmp_path / "ball.png")
    given = ["--weights", tmp_path / "weights", "--views", 5, "--steps", 1, *GPU]
    run(
        "views",
        tmp_path / "ball.png",
        "--out",
        tmp_path / "new",
        *given,
        "--scene",
        tmp_path / "a.nfld",
        "--fit-steps",
        4,
    )
    assert Scene.load(tmp_path / "a.nfld").field.channels == 3
    run(
        "evaluate",
        "views",
        "--data",
        write_balls(tmp_path / "balls"),
        *given,
        "--scenes",
        1,
        "--consistency",
        0,
        "--json",
    )


def test_no_command_is_left_out() -> None:
    names = {command.__metadata__[0].name for command in get_args(Command)}
    computing = {
        "fit",
        "render",
        "train",
        "encode",
        "evaluate",
        "generate",
        "edit",
        "grow",
        "view",
        "refine",
        "dream",
    } | {"views"}
    assert names - DEVICELESS == computing
    stages = get_args(Train.__dataclass_fields__["stage"].type)
    assert {stage.__metadata__[0].name for stage in stages} == set(STAGES)
