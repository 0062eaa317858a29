"""``nfldm3d views`` and the commands around it, with a tiny network: one picture in, a scene and a mesh out."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_priors import write_pixel_texts
from small_views import cameras, look, write_balls

from nfldm3d import Scene
from nfldm3d.cli import main
from nfldm3d.data import read_posed_images
from nfldm3d.files import DataFormatError
from nfldm3d.models.views.sampling import ViewSampling
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pictures import to_bytes
from nfldm3d.pipelines.views import ViewSynthesizer, object_fitting

TINY: dict = {"size": 16, "channels": 8, "multiples": (1,), "attention": (8,), "heads": 1, "memory": 8}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = XUNet(**TINY)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    network.save_pretrained(tmp_path / "weights" / "view_denoiser")
    return tmp_path / "weights"


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    view = look(1, cameras(1))[0]
    alpha = (view.amin(0) < 1).byte() * 255
    pixels = torch.cat((torch.from_numpy(to_bytes(view).numpy()), alpha[..., None]), dim=-1)
    Image.fromarray(pixels.numpy()).save(tmp_path / "ball.png")
    return tmp_path / "ball.png"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_one_picture_in_a_mesh_out(weights: Path, ball: Path, tmp_path: Path, capsys) -> None:
    few = ["--views", 3, "--steps", 2, "--fit-steps", 12, "--device", "cpu"]
    results = ["--out", tmp_path / "views", "--scene", tmp_path / "ball.nfld", "--mesh", tmp_path / "ball.ply"]
    assert run("views", ball, "--weights", weights, *few, *results) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["views"] == 3 and "faces" in figures
    capture = read_posed_images(tmp_path / "views")
    assert len(capture) == 4 and capture.camera.width == 16 and not capture.metric
    assert (tmp_path / "views" / "views.mp4").stat().st_size > 0 and (tmp_path / "ball.ply").stat().st_size > 0
    scene = Scene.load(tmp_path / "ball.nfld")
    assert max(scene.box.size) == pytest.approx(1.1) and not scene.metric
    assert run("views", ball, "--weights", weights, *few, *results) == 2  # nothing is written over unasked
    assert "overwrite" in capsys.readouterr().err
    assert run("views", ball, "--weights", weights, *few, *results[:2], "--overwrite", "--path", "sphere") == 0


def test_weights_say_how_they_draw_best(weights: Path) -> None:
    assert ViewSynthesizer.from_pretrained(weights).sampling == ViewSampling()
    said = weights / "view_denoiser" / "sampling.json"
    said.write_text('{"steps": 8, "eta": 0, "conditioning": "markov"}')
    model = ViewSynthesizer.from_pretrained(weights)
    assert model.sampling == ViewSampling(8, 2.0, "markov", eta=0.0)
    assert model.sampling_with(steps=3, guidance=None, eta=1.0) == ViewSampling(3, 2.0, "markov", eta=1.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"steps": 0.5}', "steps is 0.5; write a whole number$"),
        ('{"guide": 1}', "guide is 1; name only"),
        ('{"eta": 2}', "eta between 0 and 1"),
        ('{"conditioning": "last"}', "conditioning is 'last'; write one of stochastic, first, markov"),
        ("[8]", "write a JSON object"),
    ],
)
def test_odd_ways_of_drawing_are_named(weights: Path, text: str, problem: str) -> None:
    (weights / "view_denoiser" / "sampling.json").write_text(text)
    with pytest.raises(DataFormatError, match=problem):
        ViewSynthesizer.from_pretrained(weights)


def test_views_that_were_stopped_go_on(weights: Path, ball: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    few = ["--views", 3, "--steps", 2, "--fit-steps", 12, "--device", "cpu"]
    given = ["views", ball, "--weights", weights, *few, "--out", tmp_path / "views", "--scene", tmp_path / "ball.nfld"]

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(object_fitting, "fit_object", stop)
        assert run(*given) == 130
    assert (tmp_path / "views").is_dir() and not (tmp_path / "ball.nfld").exists()
    assert run(*given, "--seed", 1) == 2  # another command is another's
    assert "it is there already" in capsys.readouterr().err
    assert run(*given) == 0 and (tmp_path / "ball.nfld").is_file()
    assert not list(tmp_path.glob(".*checkpoint*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--fps", "nan"], "--fps must lie"),
        (["--guidance-scale", "-1"], "guidance must lie"),
        (["--path", "spiral"], "unknown path 'spiral'"),
        (["--mesh", "ball.xyz"], "unknown suffix"),
        (["--elevation", "95"], "an elevation lies between"),
    ],
)
def test_options_that_cannot_be_followed(weights: Path, ball: Path, tmp_path: Path, capsys, options, message) -> None:
    code = run(
        "views", ball, "--weights", weights, "--out", tmp_path / "new", "--steps", 1, *options, "--device", "cpu"
    )
    assert code == 2 and message in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_weights_of_another_kind_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no folder view_denoiser; give weights of nfldm3d train"):
        ViewSynthesizer.from_pretrained(weights / "view_denoiser")
    path = weights / "view_denoiser" / "config.json"
    path.write_text(path.read_text().replace('"XUNet"', '"ImageDenoiser"'))
    with pytest.raises(DataFormatError, match="describes a ImageDenoiser, not a XUNet"):
        ViewSynthesizer.from_pretrained(weights)


def test_it_is_trained_and_judged(tmp_path: Path, capsys) -> None:
    shards = write_balls(tmp_path / "shards")
    small = ["--size", 16, "--channels", 8, "--multiples", 1, "--attention", 8, "--memory", 8, "--pairs", 2]
    brief = ["--steps", 2, "--batch-size", 2, "--precision", "fp32", "--device", "cpu"]
    assert run("train", "view-diffusion", "--data", shards, "--out", tmp_path / "run", *small, *brief) == 0
    assert "psnr_copied" in capsys.readouterr().out
    given = ["--data", shards, "--weights", tmp_path / "run", "--device", "cpu", "--json"]
    few = ["--scenes", 1, "--views", 5, "--steps", 2, "--consistency", 0, "--page", tmp_path / "page.png"]
    assert run("evaluate", "views", *given, *few) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["objects"] == 1 and figures["psnr"] < figures["psnr_copied"]
    assert figures["published"]["confirmed"]["SRN cars"]["3DiM"]["FID"] == 8.99
    assert (tmp_path / "page.png").stat().st_size > 0
    for options, message in ((["--split", "all"], "--split test"), (["--out", tmp_path / "x"], "leave --out out")):
        assert run("evaluate", "views", *given, *few, *options) == 2 and message in capsys.readouterr().err
    again = ["--start-from", tmp_path / "run", "--kind", "concat", "--objective", "regression"]
    assert run("train", "view-diffusion", "--data", shards, "--out", tmp_path / "other", *small, *brief, *again) == 0
    assert "begins afresh" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solver, from numpy
def test_a_text_model_is_converted_and_draws(ball: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("transformers")
    given = ["--prior", write_pixel_texts(tmp_path / "prior"), "--data", write_balls(tmp_path / "shards")]
    small = ["--rank", 2, "--grid", 8, "--views", 2, "--preserved", 1, "--steps", 1, "--device", "cpu"]
    assert run("train", "multiview", *given, "--out", tmp_path / "run", *small) == 0
    assert "error_given" in capsys.readouterr().out
    few = ["--model", "viewdiff", "--weights", tmp_path / "run", "--views", 3, "--window", 2, "--steps", 2]
    for number, what in enumerate(("a red car", ball)):
        assert run("views", what, *few, "--out", tmp_path / f"out{number}", "--device", "cpu") == 0
        assert len(read_posed_images(tmp_path / f"out{number}")) == 3 + number
    opaque = ball.with_name("opaque.png")
    Image.open(ball).convert("RGB").save(opaque)
    assert run("views", opaque, *few, "--out", tmp_path / "out2", "--device", "cpu") == 3
    assert "has no transparency" in capsys.readouterr().err
    layers = tmp_path / "run" / "weights" / "view_layers" / "config.json"
    layers.write_text(layers.read_text().replace('"surroundings": false', '"surroundings": true'))
    assert run("views", opaque, *few, "--out", tmp_path / "out2", "--device", "cpu") == 0
    assert read_posed_images(tmp_path / "out2").background is None
    judged = ["--data", tmp_path / "shards", "--scenes", 1, "--views", 2, "--steps", 1, "--consistency", 0, "--json"]
    assert run("evaluate", "views", "--weights", tmp_path / "run", *judged, "--device", "cpu") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"] > 0
    assert run("views", ball, "--weights", tmp_path / "run", "--out", tmp_path / "other") == 3
    assert "holds no folder view_denoiser" in capsys.readouterr().err
