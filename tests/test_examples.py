"""Every example runs as its docstring says, on data small enough for the suite."""

import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_fits import ball_scene, views_of
from small_priors import write_own, write_own_texts, write_pixel_texts
from small_refining import make_restorer
from small_rooms import labelled, room_sample, scene_autoencoder, scene_generator
from small_views import write_balls

from nfldm3d import Box
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.evaluation import dreams
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.views.xunet import XUNet
from nfldm3d.pipelines import refining

WALK = torch.tensor([[2.0, 0.0, 1.5, 1.0, 0.0], [4.0, 1.0, 1.5, 0.0, 1.0]])
EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


def test_scene_from_points(folder, monkeypatch):
    run("01_scene_from_points.py", ["--out", str(folder), "--points", "20000"], monkeypatch)
    assert (folder / "torus.nfld").is_file() and (folder / "view3.png").is_file()


@pytest.mark.slow
def test_fit_photographs(folder, monkeypatch):
    views_of(ball_scene(), count=12, size=(24, 20)).save(folder / "capture")
    small = ["--out", str(folder / "fit"), "--seconds", "2", "--voxels", "4096"]
    run("02_fit_photographs.py", [str(folder / "capture"), *small], monkeypatch)
    assert (folder / "fit" / "scene.nfld").is_file() and (folder / "fit" / "contact.png").is_file()


def test_export_to_blender(folder, monkeypatch):
    ball_scene().save(folder / "ball.nfld")
    out = folder / "export"
    run("03_export_to_blender.py", [str(folder / "ball.nfld"), "--out", str(out), "--faces", "500"], monkeypatch)
    written = {path.name for path in out.iterdir()}
    assert {"scene.glb", "scene.usdc", "textured.obj", "points.ply", "density.vdb"} <= written


@pytest.mark.slow
def test_field_of_your_own(folder, monkeypatch, capsys):
    out = folder / "torus"
    run("07_field_of_your_own.py", ["--out", str(out), "--steps", "24"], monkeypatch)
    (learned,) = re.findall(r"thickness (\d\.\d+) m", capsys.readouterr().out)
    assert float(learned) == pytest.approx(0.35, abs=0.03)
    assert (out / "torus.glb").is_file() and (out / "view5.png").is_file()


@pytest.mark.slow
def test_nerfacc_training(folder, monkeypatch, capsys):
    pytest.importorskip("nerfacc")
    out = folder / "nerfacc"
    run("04_nerfacc_training.py", ["--out", str(out), "--steps", "25"], monkeypatch)
    assert (out / "contact.png").is_file() and (out / "scene.nfld").is_file()
    by_nerfacc, by_render = re.findall(r"(\d+\.\d+) dB", capsys.readouterr().out)
    assert float(by_nerfacc) > 17 and abs(float(by_nerfacc) - float(by_render)) < 0.2


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the proportions of the examples' fields, and weights."""
    folder, written = tmp_path_factory.mktemp("worlds"), []
    box = Box((1.0, -2.0, 0.9), (5.0, 2.0, 1.9))
    for split in ("train", "test"):
        some = [labelled(n + 4 * (split == "test")) for n in range(4)]
        kinds = ("walk",) * len(some[0].images)
        samples = [
            replace(sample, box=box, key=f"{split}_{n}", split=split, trajectory=WALK, kinds=kinds)
            for n, sample in enumerate(some)
        ]
        written.append(write_shard(folder / f"{split}-000000.tar", samples))
    scenes = tuple(scene for _, entries in written for scene in entries)
    write_index(folder, ShardIndex(tuple(shard for shard, _ in written), scenes))
    scene_generator().save_pretrained(folder / "weights")
    FrameClassifier(2, 2, 16, features=4, width=8).save_pretrained(folder / "weights" / "frame_classifier")
    BevReader((8, 8, 4), 5, 3, (8, 8)).save_pretrained(folder / "weights" / "bev_reader")
    make_restorer().network.save_pretrained(folder / "weights" / "restorer")
    return folder


def rows_of(name: str, which: str, worlds: Path, given: list[str], monkeypatch, capsys) -> list[dict]:
    run(name, [str(worlds), "--which", which, "--weights", str(worlds / "weights"), *given], monkeypatch)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "names"), [("direct", ["c+f", "voxels"]), ("latents", ["c", "c+f", "g+c+f", "GAUDI-style"])]
)
def test_ablations_of_generators(which, names, worlds, monkeypatch, capsys):
    few = ["--steps", "1", "--denoiser-steps", "1", "--scenes", "2", "--generated", "2", "--views", "8"]
    few += ["--sampling-steps", "2", *(["--adapted", "--restore"] if which == "latents" else [])]
    rows = rows_of("ablations.py", which, worlds, few, monkeypatch, capsys)
    assert [row["generator"] for row in rows] == names
    assert all(row["low"] <= row["frechet_ratio"] <= row["high"] for row in rows)
    assert all(("frechet_ratio_restored" in row) == (which == "latents") for row in rows)


@pytest.mark.slow
def test_ablations(worlds, monkeypatch, capsys):
    rows = rows_of("ablations.py", "pooling", worlds, ["--steps", "1", "--judged", "2"], monkeypatch, capsys)
    assert [row["pooling"] for row in rows] == ["mean", "attention"] and "psnr" in rows[0]
    low, high = rows[1]["gain"]
    assert low <= rows[1]["psnr"] - rows[0]["psnr"] + 0.001 <= high + 0.002 and "gain" not in rows[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' solvers
@pytest.mark.parametrize(("which", "rows"), [("sampler", 3), ("guidance", 5)])
def test_generator_ablations(which, rows, worlds, monkeypatch, capsys):
    few = ["--generated", "2", "--views", "8", "--tried-steps", "2", "--sampling-steps", "2"]
    found = rows_of("generator_ablations.py", which, worlds, few, monkeypatch, capsys)
    assert len(found) == rows and all(row["frechet_ratio"] > 0 for row in found)


@pytest.mark.slow
def test_refinement_ablation(tmp_path, monkeypatch, capsys):
    written = []
    for split in ("train", "test"):
        samples = [replace(room_sample(0), key=f"{split}_0", split=split)]
        written.append(write_shard(tmp_path / f"{split}-000000.tar", samples))
    scenes = tuple(scene for _, entries in written for scene in entries)
    write_index(tmp_path, ShardIndex(tuple(shard for shard, _ in written), scenes))
    scene_autoencoder().save_pretrained(tmp_path / "weights" / "scene_autoencoder")
    make_restorer(0.1).network.save_pretrained(tmp_path / "weights" / "restorer")
    write_own(tmp_path / "prior")
    few = ["--weights", str(tmp_path / "weights"), "--restorer", str(tmp_path / "weights"), "--count", "1"]
    few += ["--prior", str(tmp_path / "prior"), "--steps", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(refining.refinement, "FEWEST_PICTURES", 1)
    run("refinement_ablation.py", [str(tmp_path), *few], monkeypatch)
    table = json.loads(capsys.readouterr().out)
    assert list(table) == ["none", "plain guidance", "negative guidance", "restore"]
    assert table["none"]["seconds"] < table["restore"]["seconds"] and table["restore"]["psnr"] > 3
    assert len(list((tmp_path / "out" / "blind").glob("*.png"))) == 3 and (tmp_path / "out" / "scene_00.png").is_file()


@pytest.mark.slow
def test_restyle(tmp_path, monkeypatch, capsys):
    written = []
    for split in ("train", "test"):
        looks = [labelled(number) for number in range(4)]
        samples = [
            replace(
                look,
                key=f"{split}_{number}",
                split=split,
                metadata=dict(look.metadata) | {"weather": {"time_of_day": ("night", "day")[number % 2]}},
            )
            for number, look in enumerate(looks)
        ]
        written.append(write_shard(tmp_path / f"{split}-000000.tar", samples))
    scenes = tuple(scene for _, entries in written for scene in entries)
    write_index(tmp_path, ShardIndex(tuple(shard for shard, _ in written), scenes))
    scene_autoencoder().save_pretrained(tmp_path / "weights" / "scene_autoencoder")
    BevReader((8, 8, 4), 5, 3, (8, 8)).save_pretrained(tmp_path / "weights" / "bev_reader")
    write_own(tmp_path / "prior")
    few = ["--weights", str(tmp_path / "weights"), "--prior", str(tmp_path / "prior"), "--looks", "night"]
    few += ["--count", "2", "--steps", "1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(refining.refinement, "FEWEST_PICTURES", 1)
    run("restyle.py", [str(tmp_path), *few], monkeypatch)
    table = json.loads(capsys.readouterr().out)
    assert list(table) == ["photographs", "before", "night"] and table["photographs"]["named"] == 1
    assert 0 <= table["night"]["map_iou"] <= 1 and (tmp_path / "out" / "scene_01.png").is_file()


def test_every_example_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [path.name for path in EXAMPLES.glob("*.py") if path.name not in text]


FEW_DREAMS = ["--steps", "2", "--size", "8", "--detail", "12"]


@pytest.mark.slow
def test_text_to_3d(folder, monkeypatch, capsys):
    pytest.importorskip("tokenizers")
    monkeypatch.setattr(dreams, "SIZE", 16)
    weights, out = str(write_own_texts(folder / "texts")), folder / "dreams"
    given = ["--prior", weights, "--retriever", weights, "--frames", "2", "--out", str(out), *FEW_DREAMS]
    run("05_text_to_3d.py", ["a red car", "a chair", *given], monkeypatch)
    made = {path.name for path in (out / "a_red_car").iterdir() if not path.name.startswith(".")}
    assert made == {"scene.nfld", "preview.png", "turntable.mp4", "scene.glb", "dream.json"}
    assert json.loads(capsys.readouterr().out)["dreams"] == 2


@pytest.mark.slow
def test_dream_ablations(folder, monkeypatch, capsys):
    pytest.importorskip("tokenizers")
    monkeypatch.setattr(dreams, "SIZE", 16)
    weights = str(write_own_texts(folder / "judge"))
    (folder / "prompts.txt").write_text("a red car\na chair\n")
    given = ["--prior", weights, "--retriever", weights, "--out", str(folder / "ablations"), *FEW_DREAMS]
    run("dream_ablations.py", [str(folder / "prompts.txt"), *given], monkeypatch)
    table = json.loads(capsys.readouterr().out)
    assert list(table) == ["base", "+ ViewAug", "+ ViewDep", "+ Lighting", "+ Textureless"]
    assert all(0 <= row[kind] <= 1 for row in table.values() for kind in ("color", "shape"))
    assert (folder / "ablations" / "shapes.png").is_file()


@pytest.mark.slow
def test_picture_to_3d(folder, monkeypatch):
    XUNet(size=16, channels=8, multiples=(1,), heads=1, memory=8).save_pretrained(folder / "drawer" / "view_denoiser")
    picture = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
    picture.paste((200, 40, 30, 255), (6, 8, 18, 16))
    picture.save(folder / "thing.png")
    few = ["--weights", str(folder / "drawer"), "--views", "2", "--steps", "1", "--out", str(folder / "thing")]
    few += ["--fit-steps", "10"]
    run("06_picture_to_3d.py", [str(folder / "thing.png"), *few], monkeypatch)
    assert {"scene.nfld", "scene.glb", "views.png"} <= {path.name for path in (folder / "thing").iterdir()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solver, from numpy
def test_view_ablations(folder, monkeypatch, capsys):
    data, drawer = write_balls(folder / "balls", views=8), folder / "drawer2"
    tiny = {"channels": 8, "multiples": (1,), "heads": 1, "memory": 8}
    XUNet(size=16, **tiny).save_pretrained(drawer / "view_denoiser")
    few = ["--size", "16", "--steps", "1", "--sampler-steps", "1", "--objects", "1", "--views", "6", "--fit-steps", "4"]
    few += ["--consistency", "1"]
    run("view_ablations.py", [str(data), "--which", "conditioning", "--weights", str(drawer), *few], monkeypatch)
    network = json.dumps(tiny | {"multiples": [1]})
    run("view_ablations.py", [str(data), "--which", "networks", "--network", network, *few], monkeypatch)
    layers = json.dumps({"rank": 2, "width": 8, "grid": 8})
    prior = str(write_pixel_texts(folder / "prior_of_views"))
    multiview = ["--which", "multiview", "--prior", prior, "--network", layers, *few[2:]]
    run("view_ablations.py", [str(data), *multiview], monkeypatch)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(rows) == 4 + 3 + 3 and all("consistency_psnr" in row for row in rows)
