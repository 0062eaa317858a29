"""Scenes as files, shards and their index."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_scenes import small_scene, without_extras

from nfldm3d.data.sample_files import decode_scene, encode_scene
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import index_shard, read_index, read_members, rebuild_index, write_shard
from nfldm3d.files import DataFormatError


def assert_equal(found: SceneSample, wanted: SceneSample) -> None:
    assert (found.key, found.map, found.split, found.kinds) == (wanted.key, wanted.map, wanted.split, wanted.kinds)
    assert found.box == wanted.box and found.metadata == wanted.metadata
    assert torch.equal(found.images, wanted.images)
    assert torch.allclose(found.depth, wanted.depth, atol=6e-4)
    assert torch.equal(found.depth == 0, wanted.depth == 0)
    assert torch.equal(found.camera.world_from_camera, wanted.camera.world_from_camera)
    assert torch.equal(found.camera.focal, wanted.camera.focal)
    assert torch.equal(found.camera.principal, wanted.camera.principal)
    assert (found.camera.width, found.camera.height) == (10, 6)
    assert (found.labels is None) == (wanted.labels is None) and (found.bev is None) == (wanted.bev is None)
    if wanted.labels is not None and wanted.bev is not None and wanted.trajectory is not None:
        assert found.labels is not None and found.bev is not None and found.trajectory is not None
        assert torch.equal(found.labels, wanted.labels) and torch.equal(found.bev.classes, wanted.bev.classes)
        assert torch.equal(found.bev.height, wanted.bev.height)
        assert replace(found.bev, classes=wanted.bev.classes, height=None) == replace(wanted.bev, height=None)
        assert torch.allclose(found.trajectory, wanted.trajectory, atol=1e-5)


def altered(members: dict[str, bytes], **fields: object) -> dict[str, bytes]:
    """The files of a scene with other fields in the JSON."""
    return members | {"json": json.dumps(json.loads(members["json"]) | fields).encode()}


@pytest.mark.parametrize("scene", [small_scene(), without_extras(small_scene(1, views=2))], ids=["full", "bare"])
def test_scenes_survive_their_files(scene: SceneSample):
    assert_equal(decode_scene(scene.key, encode_scene(scene), "here"), scene)


def test_masks_survive_their_files():
    scene = small_scene()
    masked = replace(scene, masks=torch.arange(scene.depth.numel()).view(scene.depth.shape) % 3 > 0)
    again = decode_scene(scene.key, encode_scene(masked), "here")
    assert again.masks is not None and torch.equal(again.masks, masked.masks)
    views = masked.posed_images()
    assert torch.equal(views.load_masks(), masked.masks)
    assert torch.equal(views.load_depth(), torch.where(masked.masks, scene.depth, 0))


def test_film_strips_have_view_0_on_top_and_maps_have_north_up():
    scene, members = small_scene(), encode_scene(small_scene())
    with Image.open(io.BytesIO(members["rgb.png"])) as strip:
        assert strip.size == (10, 18)
        assert np.array_equal(np.asarray(strip)[6:12], scene.images[1].permute(1, 2, 0).numpy())
    assert scene.bev is not None
    with Image.open(io.BytesIO(members["bev.png"])) as ground:
        assert ground.size == (5, 3) and ground.mode == "P"
        assert np.array_equal(np.asarray(ground)[0], scene.bev.classes[:, -1].numpy())


def test_far_depths_take_a_coarser_unit():
    scene = without_extras(small_scene())
    far = replace(scene, depth=scene.depth.index_fill(1, torch.tensor([5]), 137.123))
    members = encode_scene(far)
    assert json.loads(members["json"])["depth_unit"] == 0.005
    assert torch.allclose(decode_scene("a", members, "here").depth, far.depth, atol=2.6e-3)


def test_posed_images_show_the_same():
    scene = small_scene()
    views = scene.posed_images()
    assert torch.equal(views.load_images(), scene.images.float() / 255) and views.bev is scene.bev
    assert torch.equal(views.load_depth(), scene.depth) and torch.equal(views.load_labels(), scene.labels)
    assert views.metadata["box"] == {"lower": [-2.0, 1.0, -1.0], "upper": [8.0, 7.0, 3.0]}


@pytest.mark.parametrize("scale", [0.001, 100.0, 1000.0])
def test_depth_in_other_units_is_found(scale: float):
    scene = small_scene(depth_scale=scale)
    with pytest.raises(DataFormatError, match=r"here/MAP01_0000: has depths of .* they are not metres; check depth_un"):
        decode_scene(scene.key, encode_scene(scene), "here")


def test_useless_scenes_are_refused():
    scene = small_scene()
    moved = scene.camera.world_from_camera.clone()
    moved[1, 2, 3] = 9.0
    for bad, message in (
        (replace(scene, depth=torch.zeros_like(scene.depth)), "no depth at all"),
        (small_scene(views=1), "has one view, but a scene needs one to look from"),
        (
            replace(scene, camera=replace(scene.camera, world_from_camera=moved)),
            r"view 1 at \(.*, 9\) is outside the b",
        ),
    ):
        with pytest.raises(DataFormatError, match=message):
            decode_scene("a", encode_scene(bad), "here")


def test_damaged_files_are_refused():
    members = encode_scene(small_scene())
    bad: list[tuple[dict[str, bytes], str]] = [
        ({**members, "rgb.png": b"no picture"}, r"here/a.rgb.png: is no PNG picture"),
        ({**members, "rgb.png": members["rgb.png"][:200]}, r"here/a.rgb.png: is no PNG picture"),
        ({**members, "depth.png": members["rgb.png"]}, r"depth.png: is RGB of 10x18 pixels, not I;16 of 10x18"),
        ({**members, "labels.png": members["bev.png"]}, r"labels.png: is P of 5x3 pixels, not L of 10x18"),
        ({**members, "bev_height.npy": b"x"}, r"bev_height.npy: is no readable .npy array"),
        ({key: value for key, value in members.items() if key != "depth.png"}, r"a.depth.png: is missing"),
        ({key: value for key, value in members.items() if key != "json"}, r"here/a: has no .json file"),
        ({**members, "json": b"{"}, r"a.json: is not valid JSON"),
        (altered(members, version=2), r"only 'nfldm3d scene' version 1 can be read"),
        (altered(members, focal=[[1.0, 2.0]]), r"focal .*; write an array of shape \(3, 2\)"),
        (altered(members, focal="x"), r"focal is 'x'; write lists of numbers"),
        (altered(members, trajectory=[[1.0, 2.0]]), r"trajectory .*; write poses \[x, y, z, heading\]"),
        (altered(members, views=4), r"world_from_camera .*; write an array of shape \(4, 4, 4\)"),
        (altered(members, box={"lower": [0, 0, 0], "upper": [-1, 1, 1]}), r"here/a: box from lower"),
        (altered(members, bev={}), r"bev.lower is missing"),
        (altered(members, depth_unit=-0.001), r"depth_unit is -0.001; write the metres of one step"),
        (altered(members, focal=[[9.0, 9.0], [9.0, 0.0], [9.0, 9.0]]), r"focal holds 0, but .*; record"),
        (altered(members, focal=[[1e300, 9.0]] * 3), r"focal .*; write an array of shape \(3, 2\)"),
        (altered(members, world_from_camera=[[[2.0] * 4] * 4] * 3), r"a.json: the pose of view 0 has the last row"),
    ]
    for files, message in bad:
        with pytest.raises(DataFormatError, match=message):
            decode_scene("a", files, "here")


def test_one_read_takes_a_scene_out_of_its_shard(tmp_path: Path):
    scenes = [small_scene(number) for number in range(3)]
    shard, entries = write_shard(tmp_path / "train-000000.tar", scenes)
    assert shard.size == (tmp_path / shard.name).stat().st_size and [e.key for e in entries] == [s.key for s in scenes]
    for scene, entry in zip(scenes, entries, strict=True):
        assert read_members(tmp_path, entry) == encode_scene(scene)
        assert (entry.map, entry.split, entry.views) == ("MAP01", "train", 3)
    again, _ = write_shard(tmp_path / "train-000001.tar", scenes)
    assert again.sha256 == shard.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-000000.tar", "train-000001.tar"]


def test_the_index_can_be_rebuilt(tmp_path: Path):
    write_shard(tmp_path / "train-000000.tar", [small_scene(0), small_scene(1)])
    write_shard(tmp_path / "test-000000.tar", [small_scene(0, map_name="MAP05", split="test")])
    index = rebuild_index(tmp_path)
    assert read_index(tmp_path) == index
    assert [(scene.key, scene.split) for scene in index.scenes] == [
        *(("MAP05_0000", "test"), ("MAP01_0000", "train"), ("MAP01_0001", "train"))
    ]
    write_shard(tmp_path / "train-000001.tar", [small_scene(1)])
    with pytest.raises(DataFormatError, match="holds scene MAP01_0001 twice"):
        rebuild_index(tmp_path)


def test_bad_shards_and_indices_are_refused(tmp_path: Path):
    with pytest.raises(DataFormatError, match=r"index.json: is missing; .*rebuild_index\(folder\)"):
        read_index(tmp_path)
    with pytest.raises(DataFormatError, match=r"holds no shards such as train-000000.tar"):
        rebuild_index(tmp_path)
    path = tmp_path / "train-000000.tar"
    write_shard(path, [small_scene()])
    rebuild_index(tmp_path)
    content = json.loads((tmp_path / "index.json").read_text())
    content["scenes"][0]["members"]["json"] = [-1, 2]
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=r"scenes\[0\].members.json is \[-1, 2\]; write \[offset, size\]"):
        read_index(tmp_path)
    content["scenes"][0]["members"] = {"json": [0, 512], "x": [511, 2]}
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=r"scenes\[0\].members is .*; name each file once"):
        read_index(tmp_path)
    content["scenes"][0] |= {"key": "../../outside", "members": {"json": [0, 2**60]}}
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=r"index.json: '../../outside' cannot be the name of a file"):
        read_index(tmp_path)
    content["scenes"][0]["key"] = "a"
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=r"ends within scene a; copy"):
        read_members(tmp_path, read_index(tmp_path).scenes[0])
    whole = path.read_bytes()
    for end in (100, 1000, len(whole.rstrip(b"\0")) - 600):  # within a header, the first file and the last one
        path.write_bytes(whole[:end])
        with pytest.raises(DataFormatError, match=r"train-000000.tar: cannot be read to its end .*again"):
            index_shard(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a.rgb.png"))
    with pytest.raises(DataFormatError, match=r"has no a.json"):
        index_shard(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("/etc/cron.json"))
    with pytest.raises(DataFormatError, match=r"'/etc/cron' cannot be the name of a file"):
        index_shard(path)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    scenes = [small_scene(number) for number in range(2)]
    write_shard(tmp_path / "train-000000.tar", scenes)
    read = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == [scene.key for scene in scenes]
    for sample, scene in zip(read, scenes, strict=True):
        files = {key: value for key, value in sample.items() if not key.startswith("__")}
        assert_equal(decode_scene(scene.key, files, "webdataset"), scene)
