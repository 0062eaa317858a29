"""Objects from folders and packages: what is read, what is skipped and named, what is drawn and written."""

import base64
import io
import json
import pickle  # noqa: TID251 - workers are sent what is recorded
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_furniture
import small_tracks
import torch
from PIL import Image
from small_furniture import CHAIR

from nfldm3d.data.layouts import read_posed_images
from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.files import DataFormatError
from nfldm3d.recording.furniture import CATALOGUE, list_furniture, read_furniture
from nfldm3d.recording.mesh_files import read_mesh
from nfldm3d.recording.objects import recorder
from nfldm3d.recording.objects.object_files import transparent_pixels, write_capture, write_srn
from nfldm3d.recording.objects.object_recorder import ObjectShape, record_object
from nfldm3d.recording.objects.recorder import Findings, ObjectOptions, plan_objects
from nfldm3d.recording.objects.sources import ObjectFile, describe, find_objects, split_objects
from nfldm3d.recording.objects.views import Sphere, name_view

pytest.importorskip("panda3d.core")
trimesh = pytest.importorskip("trimesh")

SHAPE = ObjectShape(views=6, size=24)


@pytest.fixture(scope="module")
def chair(tmp_path_factory: pytest.TempPathFactory) -> ObjectFile:
    folder = tmp_path_factory.mktemp("furniture")
    small_furniture.write_library(folder / "Small.sh3f", [CHAIR])
    return find_objects(str(folder))[0]


@pytest.fixture(scope="module")
def sample(chair: ObjectFile):
    try:
        return record_object(chair, "furniture_0000", "test", SHAPE, 0)
    except OSError as error:
        pytest.skip(str(error))


def look(folder: Path, things) -> Findings:
    """What the recorder finds, in this process."""
    signatures, problems = recorder._look([[(number, thing)] for number, thing in enumerate(things)])
    return Findings(split_objects(things, signatures), problems)


def test_furniture_has_its_size_its_front_and_its_licence(chair: ObjectFile):
    low, high = chair.read().bounds()
    assert np.allclose(low, (-0.3, -0.2, 0)) and np.allclose(high, (0.3, 0.2, 0.9))  # deep, wide, high
    assert chair.caption == "a plain chair" and chair.details["licence"] == "CC0 for tests"
    front = next(patch for patch in chair.read().patches if patch.texture is None)
    blue = front.colors[front.triangles[:, 0], 2] > 200
    assert np.allclose(front.positions[front.triangles[blue]][..., 0], 0.3)  # what looks ahead, along +x


def test_views_show_the_object_from_where_they_say(sample):
    assert sample.find_problem() is None and not sample.metric and sample.images.shape == (6, 3, 24, 24)
    points = sample.camera.unproject(sample.depth)[sample.depth > 0]
    low, high = (torch.tensor(corner) for corner in sample.metadata["object_box"])
    assert ((points > low - 0.01) & (points < high + 0.01)).all() and (high - low).norm() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(sample.camera.centers.norm(dim=1), torch.tensor(1.3))
    assert float(sample.camera.focal[0, 0]) == pytest.approx(131.25 / 128 * 24)
    blue = [
        float(view[2][alpha == 255].float().mean()) for view, alpha in zip(sample.images, sample.alpha, strict=True)
    ]
    names = sample.metadata["view_names"]
    assert min(b for b, name in zip(blue, names, strict=True) if name == "front") > 60
    assert max(b for b, name in zip(blue, names, strict=True) if name == "back") < 40
    assert sample.find_sky().equal(sample.depth == 0) and sample.labels.equal((sample.depth > 0).byte())
    normals = sample.normals.float() / 127.5 - 1
    seen = sample.depth > 0
    towards = (normals * -sample.camera.rays().directions).sum(-1)
    assert (towards[seen] > -0.02).all() and (sample.normals[~seen] == 0).all()
    assert torch.allclose(normals[seen].norm(dim=-1), torch.tensor(1.0), atol=0.02)


def test_an_object_is_read_as_it_was_recorded(sample, chair: ObjectFile):
    again = decode_scene(sample.key, encode_scene(sample), "shard")
    assert again.alpha.equal(sample.alpha) and again.normals.equal(sample.normals) and not again.metric
    assert again.metadata["caption"] == "a plain chair" and again.images.equal(sample.images)
    repeated = encode_scene(record_object(chair, sample.key, "test", SHAPE, 0))
    assert repeated["rgb.png"] == encode_scene(sample)["rgb.png"]


def test_srn_files_are_those_of_its_readers(sample, tmp_path: Path):
    write_srn(sample, tmp_path / "chair")
    lines = (tmp_path / "chair" / "intrinsics.txt").read_text().splitlines()
    focal, cx, cy, _ = map(float, lines[0].split())
    assert (cx, cy) == (12, 12) and lines[-1] == "24 24"
    depth = np.array(Image.open(tmp_path / "chair" / "depth" / "000002.png")) * 1e-4
    pose = np.array((tmp_path / "chair" / "pose" / "000002.txt").read_text().split(), float).reshape(4, 4)
    pixels = np.array(Image.open(tmp_path / "chair" / "rgb" / "000002.png"))
    row, column = np.argwhere((depth > 0) & (pixels[..., 3] == 255))[5]
    local = (
        np.array(((column + 0.5 - cx) / focal, (row + 0.5 - cy) / focal, 1.0)) * depth[row, column]
    )  # y down, z ahead
    point = pose[:3, :3] @ local + pose[:3, 3]
    assert np.allclose(point, sample.camera.unproject(sample.depth)[2, row, column].numpy(), atol=1e-3)
    assert pixels.shape == (24, 24, 4) and (pixels[0, 0] == 0).all()
    assert json.loads((tmp_path / "chair" / "object.json").read_text())["caption"] == "a plain chair"


def test_captures_are_transparent_and_read_back(sample, tmp_path: Path):
    write_capture(sample, tmp_path / "chair")
    views = read_posed_images(tmp_path / "chair")
    assert len(views) == 6 and not views.metric and views.metadata["caption"] == "a plain chair"
    assert (views.load_images() - sample.images.float() / 255).abs().max() < 2.5 / 255  # over white
    depth = views.load_depth()
    assert depth is not None and (depth - sample.depth).abs().max() < 6e-4
    assert transparent_pixels(sample)[..., 3].max() == 255


def test_bad_meshes_are_named_and_left_out(tmp_path: Path):
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "good_box.glb")
    trimesh.creation.icosphere(1).export(tmp_path / "ball.ply")
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    (tmp_path / "damaged.glb").write_bytes(b"glTF\2\0\0\0nothing")
    (tmp_path / "bare.obj").write_text(small_furniture.box_obj())
    (tmp_path / "box.mtl").write_text(small_furniture.box_mtl((1, 1, 1), "wood.png"))
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    (tmp_path / "endless.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n")
    (tmp_path / "car.ac").write_text(small_tracks.TOP_HEADER + "OBJECT world\nkids 0\n")
    things = find_objects(str(tmp_path))
    found = look(tmp_path, things)
    reasons = {things[number].name: problem for number, problem in found.problems.items()}
    assert {things[number].name for number in found.sides} == {"good_box", "ball"}
    assert "wood.png; put them beside it" in reasons["bare"] and "has no faces" in reasons["points"]
    assert "no faces" in reasons["car"] and {"damaged", "empty", "endless"} < reasons.keys()
    assert {thing.caption for thing in things} >= {"a good box", "a ball"}
    (plan,) = [p for p in plan_objects(things, found) if p.name.startswith("train")] or plan_objects(things, found)[:1]
    assert plan.quota == len(plan.places)


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nfldm3d.recording.mesh_files.LARGEST_FILE", 1000)
    monkeypatch.setattr("nfldm3d.recording.mesh_files.MOST_TRIANGLES", 10)
    trimesh.creation.icosphere(3).export(tmp_path / "ball.ply")
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.stl")
    problems = look(tmp_path, find_objects(str(tmp_path))).problems
    assert "more than 1000" in problems[0] and "has 12 triangles, more than 10" in problems[1]


def test_textures_colour_and_missing_ones_stop(tmp_path: Path):
    small_furniture.write_library(tmp_path / "a" / "Small.sh3f", [CHAIR], texture="green.png")
    patches = read_furniture(list_furniture(tmp_path / "a")[0]).patches
    assert any(p.texture is not None and (p.texture[0, 0] == (20, 200, 40, 255)).all() for p in patches)
    assert all((p.colors == 255).all() for p in patches if p.texture is not None)  # the picture replaces the colour
    small_furniture.write_library(tmp_path / "b" / "Small.sh3f", [CHAIR], texture="green.png", missing=True)
    with pytest.raises(DataFormatError, match="names files that are missing: green.png"):
        read_furniture(list_furniture(tmp_path / "b")[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("width#1=40.0", "width#1=nan"), "width of entry 1 is 'nan'; write a number"),
        (lambda text: text.replace("depth#1=60.0", "depth#1=0"), "depth of entry 1 is 0.0; it must be above 0"),
        (lambda text: text + "\nmodelRotation#1=1 0 0 0 1 0 0 0 0", "modelRotation of entry 1 is no rotation"),
        (lambda text: text.replace("model#1", "mode#1"), "entry 1 has no model, name or category"),
    ],
)
def test_damaged_catalogues_are_refused(tmp_path: Path, change, message: str):
    path = small_furniture.write_library(tmp_path / "Small.sh3f", [CHAIR])
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[CATALOGUE] = change(members[CATALOGUE].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(DataFormatError, match=message):
        list_furniture(tmp_path)


def test_pictures_within_meshes_are_of_known_formats(tmp_path: Path):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "EPS")
    uri = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    (tmp_path / "a.gltf").write_text(json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": uri}]}))
    with pytest.raises(DataFormatError, match="is not a PNG, JPEG"):
        read_mesh(tmp_path / "a.gltf")
    small_furniture.write_library(tmp_path / "Small.sh3f", [CHAIR], texture="green.eps", missing=True)
    with zipfile.ZipFile(tmp_path / "Small.sh3f", "a") as archive:
        archive.writestr("small/p1/green.eps", picture.getvalue())
    with pytest.raises(DataFormatError, match="missing: green.eps; put them beside it, pictures as PNG"):
        read_furniture(list_furniture(tmp_path)[0])


@pytest.mark.parametrize(
    "noted",
    [
        {},
        {"sides": {"0": "left"}, "problems": {}},
        {"sides": {"1": "train"}, "problems": {}},
        {"sides": {"0": "train"}, "problems": {"9" * 5000: "none"}},
        {"sides": {"0": "train"}, "problems": {"0": 1}},
    ],
)
def test_notes_of_other_objects_are_refused(tmp_path: Path, chair: ObjectFile, noted: dict[str, object]):
    (tmp_path / "objects.json").write_text(json.dumps(noted))
    with pytest.raises(DataFormatError, match="objects.json"):
        recorder.look_at_objects(tmp_path, [chair], progress=False)


def test_liveries_and_sizes_stay_on_one_side(tmp_path: Path):
    things = [ObjectFile("cars", f"car{n}", "a car", f"group{n // 2}", "mesh", Path(f"{n}.obj")) for n in range(200)]
    shapes = {n: f"shape{n // 3}" for n in range(200) if n != 7}
    sides = split_objects(things, shapes)
    assert (7 not in sides and set(sides.values()) == {"train", "test"}) or len(set(sides.values())) == 1
    apart = split_objects(things, {n: f"shape{n // 4}" for n in range(200)})
    assert all(apart[n] == apart[n - n % 4] for n in apart)
    assert 2 < sum(side == "test" for side in apart.values()) < 60


def test_aircraft_come_in_liveries(tmp_path: Path):
    root = tmp_path / "usr/share/games/flightgear/AI/Aircraft/738"
    face = [[(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 0.0, 1.0), (0.0, 0.0, 1.0)]]
    small_tracks.write_model(root / "Models" / "738.ac", [small_tracks.polygons("BODY", "tex.png", face)])
    small_tracks.paint(root / "Textures" / "AirBerlin" / "tex.png", (200, 0, 0))
    (root / "738-main.xml").write_text("<PropertyList><path>Models/738.ac</path><author>me</author></PropertyList>")
    for name in ("AirBerlin", "Nobody"):
        text = f'<PropertyList include="738-main.xml"><texture-path>Textures/{name}</texture-path></PropertyList>'
        (root / "Textures" / name).mkdir(parents=True, exist_ok=True)
        (root / f"738-{name}.xml").write_text(text)
    (root / "738-loop.xml").write_text('<PropertyList include="738-loop.xml"/>')
    things = find_objects(str(tmp_path))
    assert [(thing.details["livery"], thing.caption) for thing in things] == [
        ("AirBerlin", "an airliner"),
        ("Nobody", "an airliner"),
    ]
    found = look(tmp_path, things)
    assert list(found.sides) == [0] and "missing in Nobody: tex.png" in found.problems[1]


def test_torcs_cars_stand_on_their_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small_tracks.write_data(tmp_path)
    monkeypatch.setattr("nfldm3d.recording.driving.torcs.TRACKS", ())
    monkeypatch.setattr("nfldm3d.recording.driving.torcs.TRAINING_BODIES", ())
    from nfldm3d.recording.objects import sources

    things = sources._list_cars(tmp_path)
    assert [thing.name for thing in things] == ["acura-nsx-sz", "p406"] and things[0].caption == "a racing car"
    low, high = things[0].read().bounds()
    assert np.allclose(high - low, (4.4, 1.8, 1.3), atol=0.02) and abs(low[2]) < 0.01


def test_folders_are_filled_once(tmp_path: Path, chair: ObjectFile, sample):
    options = ObjectOptions(("x",), layout="srn", shape=ObjectShape(views=2, size=8))
    found = Findings({0: "train"}, {})
    (plan,) = plan_objects([chair], found)
    fill = partial(recorder._record_folders, options, [chair], found)
    assert fill(tmp_path, plan) == (["furniture_train/furniture_0000"], 2)
    assert fill(tmp_path, plan) == (["furniture_train/furniture_0000"], 0)
    assert pickle.dumps(fill)
    (shard,) = recorder._record_shard(options, [chair], found, plan)
    assert shard.split == "train" and shard.metadata["caption"] == "a plain chair"


def test_views_have_the_names_that_people_give_them():
    poses = Sphere(2.0, (-90.0, 90.0)).poses(400, 0.3)
    named = [name_view(pose) for pose in poses]
    assert {name for name, _, _ in named} == {"front", "side", "back", "overhead"}
    for (name, azimuth, elevation), pose in zip(named, poses, strict=True):
        x, _, z = pose[:3, 3] / 2
        assert (name == "overhead") == (elevation > 60) and abs(z - np.sin(np.radians(elevation))) < 1e-6
        assert name != "front" or x > 0
        assert abs(np.degrees(np.arctan2(pose[1, 3], pose[0, 3])) - azimuth) < 1e-6
    heights = np.sort(poses[:, 2, 3])
    assert np.allclose(np.diff(heights), 4 / 400)  # even over the sphere


@pytest.mark.parametrize(
    ("name", "caption"),
    [("Armchair", "an armchair"), ("office_chair_02", "an office chair"), ("RedCar3", "a red car"), ("p406", "a p406")],
)
def test_captions_are_words(name: str, caption: str):
    assert describe(name) == caption


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_objects("/nowhere/at/all"), "is no folder; give a folder of meshes, or a package: sweethome3d"),
        (lambda: ObjectShape(views=1), "views must lie between"),
        (lambda: Sphere(0.2), "radius must lie between"),
        (lambda: Sphere(1.3, (40.0, 10.0)), "the lower one first"),
        (lambda: ObjectOptions(()), "give at least one folder"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_packages_that_are_not_there_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no meshes"):
        find_objects(str(tmp_path))
    with pytest.raises(ValueError, match="sudo apt install sweethome3d-furniture"):
        list_furniture(tmp_path)
