"""Pictures of things with what is known of them: lists, recordings, other people's data sets, uploads, reports."""

import json
from pathlib import Path

import torch
from PIL import Image

from campaign.formats import Format


def _make_lists(folder: Path) -> None:
    from nfldm3d.data.captioned_pictures import write_picture_list

    (folder / "pictures").mkdir()
    for number, name in enumerate(("one.png", "two.png")):
        Image.new("RGBA", (6, 4), (90 * number, 30, 20, 200)).save(folder / "pictures" / name)
    write_picture_list(folder / "pictures", {"one.png": "a chair", "two.png": "a red car"})
    (folder / "prompts.txt").write_text("a chair\na table\na red car\n")
    (folder / "dreams" / "chair").mkdir(parents=True)
    (folder / "dreams" / "chair" / "dream.json").write_text(json.dumps({"prompt": "a chair", "prior": "objects"}))
    (folder / "dreams" / "chair" / "scene.nfld").write_bytes(b"")


def _read_lists(folder: Path) -> None:
    from nfldm3d.data.captioned_pictures import read_picture_folder
    from nfldm3d.evaluation.dreams import find_dreams, read_prompts

    for split in ("train", "test"):
        read_picture_folder(folder / "pictures", split, size=4)
    find_dreams(folder / "dreams", read_prompts(folder / "prompts.txt"))


def _make_objects(folder: Path) -> None:
    from small_objects import write_objects

    write_objects(folder, objects=2, size=8)


def _read_objects(folder: Path) -> None:
    from nfldm3d.data.captioned_pictures import read_objects
    from nfldm3d.data.scene_shards import rebuild_index

    if not (folder / "index.json").exists():
        rebuild_index(folder)
    for subject in read_objects(folder, "train", with_relief=True):
        subject.brightness()
    read_views(folder, "train")


def read_views(folder: Path, side) -> None:
    """The views of objects as networks learn from them."""
    from nfldm3d.data.view_sets import open_view_sets

    sets = open_view_sets(folder, side, size=8)
    for number in range(len(sets)):
        views = sets.read(number, lambda camera: torch.arange(len(camera)))
        assert bool(torch.isfinite(views.camera.rays().directions).all())


def _drop_index(folder: Path) -> None:
    (folder / "index.json").unlink(missing_ok=True)


def _make_category(folder: Path) -> None:
    from small_co3d import write_category

    from nfldm3d.data.point_files import write_points

    write_category(folder, names=("1_2_3", "4_5_6"))
    write_points(folder / "bear" / "4_5_6" / "pointcloud.ply", torch.rand(200, 3))
    lists = {"train": [["1_2_3", 10, "bear/1_2_3/images/frame000000.jpg"]], "test": []}
    (folder / "bear" / "set_lists").mkdir()
    (folder / "bear" / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(lists))


def _read_category(folder: Path) -> None:
    from nfldm3d.data.co3d import Co3dCategory

    Co3dCategory(folder / "bear").side("fewview_dev", "train")
    read_views(folder / "bear", "train")
    read_views(folder / "bear", "test")


def _make_srn(folder: Path) -> None:
    from small_srn import write_object

    write_object(folder / "cars_train" / "one", channels=4)
    made = write_object(folder / "cars_train" / "two")
    (made / "depth").mkdir()
    for pose in (made / "pose").glob("*.txt"):
        Image.new("I;16", (8, 8), 9000).save(made / "depth" / f"{pose.stem}.png")
    (made / "object.json").write_text(json.dumps({"split": "train", "depth_unit": 1e-4, "caption": "a car"}))


def _read_srn(folder: Path) -> None:
    from nfldm3d.data.srn import list_srn, read_srn

    for path in list_srn(folder, "train"):
        views = read_srn(path)
        views.load_images()
        views.load_depth()
    read_views(folder, "train")


def _make_given(folder: Path) -> None:
    """A picture of an object with its mask and camera, and a painted map."""
    from small_views import cameras, look

    from nfldm3d.data import PosedImages

    draw_ball(folder)
    PosedImages.from_tensors(look(1, cameras(2)), cameras(2)).save(folder / "capture")
    (folder / "capture" / "transforms.json").rename(folder / "camera.json")
    Image.new("RGB", (8, 8), (200, 20, 10)).save(folder / "map.png")


def draw_ball(folder: Path) -> None:
    """A ball before nothing, and its mask."""
    from small_views import cameras, look

    from nfldm3d.pictures import to_bytes

    view = look(1, cameras(1))[0]
    alpha = (view.amin(0) < 1).byte() * 255
    pixels = torch.cat((torch.from_numpy(to_bytes(view).numpy()), alpha[..., None]), dim=-1)
    Image.fromarray(pixels.numpy()).save(folder / "ball.png")
    Image.fromarray(alpha.numpy()).save(folder / "mask.png")


def _read_given(folder: Path) -> None:
    from nfldm3d.files import DataFormatError
    from nfldm3d.pipelines.views import read_object, read_object_camera
    from nfldm3d.viewer.painted_map import PaintedMap

    camera = read_object_camera(folder / "camera.json", folder / "ball.png")
    read_object(folder / "ball.png", 8)
    read_object(folder / "ball.png", 8, mask=folder / "mask.png", camera=camera)
    before = PaintedMap.blank(8, ("floor", "wall"), ((200, 20, 10), (10, 20, 200)))
    if not (folder / "map.png").is_file():  # it is sent by a page, not named
        return
    try:
        before.decode((folder / "map.png").read_bytes())
    except DataFormatError:
        raise
    except ValueError as error:  # another map
        assert str(error).isprintable()


def _make_report(folder: Path) -> None:
    from nfldm3d.evaluation.autoencoder_report import AutoencoderReport
    from nfldm3d.evaluation.scene_scores import SceneScores

    score = SceneScores(20.0, 0.9, 0.1, 12, 1.0, 10.0, 0.2)
    codes = {"c": [torch.arange(4)], "f": [torch.arange(6) % 3]}
    report = AutoencoderReport([score], [score], [score], [0.1], codes, {"c": 8, "f": 8}, 3, [torch.rand(3, 4, 5)])
    report.save(folder / "one.safetensors")
    report.save(folder / "two.safetensors")


def _read_report(folder: Path) -> None:
    from nfldm3d.evaluation.autoencoder_report import AutoencoderReport

    paths = (folder / "one.safetensors", folder / "two.safetensors")
    json.dumps(AutoencoderReport.join(map(AutoencoderReport.load, paths)).summary())


EVERYTHING = ("**/*",)
FORMATS = {
    "lists": Format(_make_lists, _read_lists, ("pictures/*", "*.txt", "**/*.json"), linked=True),
    "objects": Format(_make_objects, _read_objects, sign=_drop_index, slow=True),
    "CO3D": Format(_make_category, _read_category, EVERYTHING, linked=True, slow=True),
    "SRN": Format(_make_srn, _read_srn, EVERYTHING, linked=True, slow=True),
    "given picture": Format(_make_given, _read_given, ("*.*",), linked=True),
    "report": Format(_make_report, _read_report, linked=True),
}
