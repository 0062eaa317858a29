"""``nfldm3d dream``: its files, and what it refuses before it works."""

import json
from pathlib import Path

import pytest
from small_objects import write_objects
from small_priors import write_own_texts, write_pixel_texts

from nfldm3d import Scene
from nfldm3d.cli import main
from nfldm3d.evaluation import dreams
from nfldm3d.fields import NeuralField

FEW = ["--steps", "2", "--detail", "16", "--size", "8", "--coarse-size", "8", "--frames", "2", "--device", "cpu"]


def test_a_sentence_becomes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trimesh")
    prior = write_pixel_texts(tmp_path / "prior")
    code = main(["dream", "a red car", "--out", str(tmp_path / "car"), "--prior", str(prior), *FEW])
    assert code == 0, capsys.readouterr().err
    names = {path.name for path in (tmp_path / "car").iterdir() if not path.name.startswith(".")}
    assert names == {"preview.png", "turntable.mp4", "scene.nfld", "scene.glb", "dream.json"}
    scene = Scene.load(tmp_path / "car" / "scene.nfld")
    assert isinstance(scene.field, NeuralField) and scene.metadata["prompt"] == "a red car"
    record = json.loads((tmp_path / "car" / "dream.json").read_text())
    assert record["faces"] > 100 and record["options"]["steps"] == 2
    assert record["options"]["distillation"]["guidance_scale"] == 100  # as suits pipelines of others
    assert not list((tmp_path / "car").glob("*checkpoint*"))


def test_a_dream_that_was_killed_after_its_first_preview_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = tmp_path / "car", ["--prior", str(write_own_texts(tmp_path / "prior")), "--no-mesh", *FEW]
    assert main(["dream", "a car", "--out", str(out), *given]) == 0
    for name in ("scene.nfld", "dream.json", "turntable.mp4"):
        (out / name).unlink()
    assert main(["dream", "a car", "--out", str(out), *given]) == 0
    assert main(["dream", "a car", "--out", str(out), *given]) == 2 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--prior", "nowhere"], "the prompt is empty"),
        (["a chair", "--prior", "nowhere"], "nowhere"),
        (["a chair", "--prior", "nowhere", "--steps", "0"], "steps must be a whole number from 1"),
        (["a chair", "--prior", "nowhere", "--size", "2"], "size must be a whole number from 4"),
    ],
)
def test_what_cannot_be_dreamt_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dream", *arguments, "--out", str(tmp_path / "a"), "--device", "cpu"]) in (2, 3)
    assert message in capsys.readouterr().err


def test_dreams_of_our_own_prior_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreams, "SIZE", 16)
    weights, out = str(write_own_texts(tmp_path / "weights")), tmp_path / "dreams"
    assert main(["dream", "a chair", "--out", str(out / "chair"), "--prior", weights, "--no-mesh", *FEW]) == 0
    capsys.readouterr()
    (tmp_path / "prompts.txt").write_text("a chair\na table\n")
    given = ["--dreams", str(out), "--prompts", str(tmp_path / "prompts.txt"), "--retriever", weights, "--json"]
    objects = write_objects(tmp_path / "objects")
    assert main(["evaluate", "dreams", *given, "--data", str(objects), "--device", "cpu"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["dreams"], figures["missing"], figures["chance"]) == (1, ["a table"], 0.5)
    assert {"retriever_color", "retriever_shape", "real_retriever_color", "real_retriever_shape"} <= figures.keys()
    assert figures["published"]["DreamFusion"]["L/14"]["shape"] == 58.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dreams"], "give --dreams FOLDER and --prompts FILE"),
        (["dreams", "--dreams", "no", "--prompts", "no", "--retriever", "no"], "write one prompt a line"),
        (["autoencoders"], "autoencoders are measured on scenes: give --data"),
        (["generator"], "give --data"),
        (["generator", "--data", "a", "--dreams", "b"], "--dreams is about dreams, not generator; leave it out"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments, "--device", "cpu"]) in (2, 3)
    assert message in capsys.readouterr().err
