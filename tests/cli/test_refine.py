"""``nfldm3d refine`` writes a scene, pictures of before and after, and a mesh; what is wrong is said in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_priors import GaussianPrior
from small_refining import make_restorer, make_scene

from nfldm3d import Scene, guidance
from nfldm3d.cli import main
from nfldm3d.pictures import save_image

QUICK = ["--views", "4", "--views-per-step", "2", "--steps", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("refine")
    make_scene().save(place / "scene.nfld")
    make_restorer(0.1).network.save_pretrained(place / "weights" / "restorer")
    for number in range(4):
        save_image(torch.full((3, 70, 80), 0.1 * number), place / "look" / f"{number}.png")
    return place


def refine(folder: Path, out: Path, *arguments: str) -> int:
    given = ["refine", str(folder / "scene.nfld"), "--out", str(out), "--weights", str(folder / "weights")]
    return main([*given, *QUICK, *arguments])


def test_it_writes_what_is_asked_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "refined.nfld"
    code = refine(folder, out, "--mesh", str(tmp_path / "a.glb"), "--preview", str(tmp_path / "shown"))
    figures = json.loads(capsys.readouterr().out)
    assert code == 0 and set(figures) == {"seconds", "sharpness_gain", "coarse_psnr", "out"}
    assert figures["coarse_psnr"] > 10 and Scene.load(out).field.channels == 3
    names = {path.name for path in tmp_path.iterdir()}
    assert {"refined.nfld", "refined.refined.png", "a.glb", "shown"} <= names
    assert not [name for name in names if "checkpoint" in name]
    assert len(list((tmp_path / "shown").glob("step_*.png"))) == 4
    assert refine(folder, out) == 2 and "is there already" in capsys.readouterr().err


def test_photographs_beside_the_weights_are_the_look_unless_another_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guidance, "load_prior", lambda *_, **__: GaussianPrior(image_size=16))
    weights = tmp_path / "weights"
    shutil.copytree(folder / "weights", weights)
    shutil.copytree(folder / "look", weights / "photographs")
    out, sds = [tmp_path / name for name in ("a.nfld", "b.nfld")], ["--method", "sds", "--weights", str(weights)]
    assert refine(folder, out[0], *sds) == 0 and refine(folder, out[1], *sds, "--like", str(folder / "look")) == 0
    scenes = [Scene.load(path) for path in out]
    assert torch.equal(*(scene.field.features for scene in scenes))  # type: ignore[attr-defined]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "rain"], "need --method sds"),
        (["--like", "nowhere", "--method", "sds"], "holds no pictures"),
        (["--method", "sds"], "must be told what pictures should be like"),
        (["--steps", "0"], "steps must be a finite number above 0"),
    ],
)
def test_what_is_wrong_is_said(
    folder: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(guidance, "load_prior", lambda *_, **__: GaussianPrior(image_size=16))
    assert refine(folder, tmp_path / "a.nfld", *arguments) in (2, 3)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.nfld").exists()


def test_a_look_is_followed_and_bad_pictures_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guidance, "load_prior", lambda *_, **__: GaussianPrior(image_size=16))
    sds = ["--method", "sds", "--like", str(folder / "look")]
    assert refine(folder, tmp_path / "a.nfld", *sds) == 0
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "x.png").write_bytes(b"no picture")
    assert refine(folder, tmp_path / "b.nfld", "--method", "sds", "--like", str(tmp_path / "look")) == 3
    assert "x.png" in capsys.readouterr().err


def test_a_run_that_stops_keeps_the_last_good_scene(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = GaussianPrior(spread=float("nan"), image_size=16)
    monkeypatch.setattr(guidance, "load_prior", lambda *_, **__: broken)
    assert refine(folder, tmp_path / "a.nfld", "--method", "sds", "--like", str(folder / "look")) == 2
    error = capsys.readouterr().err
    assert "step 2: pull is nan" in error and "a.last_good.nfld" in error
    assert Scene.load(tmp_path / "a.last_good.nfld").field.channels == 3
