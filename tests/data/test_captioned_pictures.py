"""Captioned pictures: out of recordings and folders, in other colours, before other backgrounds."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_objects import SIDES, THINGS, make_subject, object_scene, write_objects
from small_scenes import small_scene

from nfldm3d.data.captioned_pictures import (
    COLORS,
    LIST_NAME,
    add_color,
    bare_pixels,
    is_unseen,
    keep_common,
    lay_over,
    read_objects,
    read_picture_folder,
    recolor,
    write_picture_list,
)
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.files import DataFormatError
from nfldm3d.recording.objects.sources import describe

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_objects_come_with_captions_and_sides(tmp_path: Path) -> None:
    found = read_objects(write_objects(tmp_path), "train", maps=["furniture"], leave_out=["table", "tab"])
    assert [subject.caption for subject in found] == [THINGS[0], THINGS[2]]
    assert found[0].sides == SIDES and found[0].relief is None
    torch.testing.assert_close(
        found[0].angles, torch.tensor(((0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (0.0, 88.57))), atol=0.01, rtol=0
    )
    scene = object_scene(0)
    assert scene.alpha is not None
    assert torch.equal(found[0].pixels, torch.cat((scene.images, scene.alpha[:, None]), dim=1))


def test_bare_shapes_are_lit_from_the_camera(tmp_path: Path) -> None:
    relief = read_objects(write_objects(tmp_path), "test", with_relief=True)[0].relief
    assert relief is not None
    middle = relief[:, 8, 8].float() / 255
    assert torch.allclose(middle, torch.tensor([1.0, 0.1, 0.1, 0.12]), atol=0.02)  # it faces the first camera
    assert not relief[:, 0].any()


def test_recordings_of_something_else_are_refused(tmp_path: Path) -> None:
    shard, scenes = write_shard(tmp_path / "train-000000.tar", [small_scene(1)])
    write_index(tmp_path, ShardIndex((shard,), scenes))
    with pytest.raises(DataFormatError, match="is no object with a caption"):
        read_objects(tmp_path, "train")


def write_pictures(folder: Path, count: int = 30) -> None:
    names = {}
    for number in range(count):
        Image.new("RGBA", (32, 32), (255, 0, 0, 0 if number % 2 else 128)).save(folder / f"{number}.png")
        names[f"{number}.png"] = f"a thing {number}"
    write_picture_list(folder, names)


def test_picture_folders_are_split_and_scaled(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    train, test = (read_picture_folder(tmp_path, split, size=8) for split in ("train", "test"))  # type: ignore[arg-type]
    assert len(train) + len(test) == 30 and train and test and train[0].pixels.shape == (1, 4, 8, 8)
    assert not {subject.caption for subject in train} & {subject.caption for subject in test}
    for subject in (*train, *test):
        clear = int(subject.caption.rpartition(" ")[2]) % 2
        expected = torch.tensor([255, 255, 255, 0] if clear else [255, 127, 127, 128])
        assert (subject.pixels[0, :, 3, 3].int() - expected).abs().max() <= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "0.png"}', "line 1 has no file_name and text"),
        ('{"file_name": "0.png", "text": " "}', "line 1 has no file_name and text"),
        ("[1]", "line 1 has no file_name and text"),
        ("{", "metadata.jsonl:1"),
        (json.dumps({"file_name": "../0.png", "text": "a"}), "0.png"),
        (json.dumps({"file_name": "none.png", "text": "a thing"}), "is missing"),
    ],
)
def test_damaged_lists_are_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / LIST_NAME).write_text(line)
    with pytest.raises(DataFormatError, match=message):
        read_picture_folder(tmp_path, "train")
        read_picture_folder(tmp_path, "test")


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / LIST_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(DataFormatError, match="cannot be read as text"):
        read_picture_folder(tmp_path, "train")


def test_a_folder_without_a_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="is missing; give a folder of pictures with a list"):
        read_picture_folder(tmp_path, "train")


def test_colors_are_put_into_captions() -> None:
    assert add_color("a chair", "red") == "a red chair"
    assert add_color("a chair", "orange") == "an orange chair"
    assert add_color("an armchair", "blue") == "a blue armchair"
    assert add_color("scissors", "blue") == "blue scissors"


def test_some_colors_are_kept_aside() -> None:
    captions = [f"a thing {number}" for number in range(200)]
    aside = sum(is_unseen(color, caption) for color in COLORS for caption in captions)
    assert 0.09 < aside / (200 * len(COLORS)) < 0.16


def test_the_prompts_of_the_example_are_kept_aside() -> None:
    prompts = (EXAMPLES / "dream_prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(prompts)) == 20
    for prompt in prompts:
        _, color, thing = prompt.split(" ", 2)
        caption = describe(thing)
        assert add_color(caption, color) == prompt and is_unseen(color, caption), prompt


@pytest.mark.parametrize("color", COLORS)
def test_things_are_painted(color: str) -> None:
    subject = make_subject("a chair", (30, 60, 90))
    pixels = subject.pixels.float() / 255
    painted = recolor(pixels, color, subject.brightness())
    assert torch.allclose(painted[:, :3, 4, 4], torch.tensor(COLORS[color]).expand(4, 3), atol=1e-4)
    assert torch.equal(painted[:, 3], pixels[:, 3]) and bool((painted[:, :3, 0] == 1).all())


def test_backgrounds_show_where_nothing_is() -> None:
    pixels = make_subject("a chair", (51, 102, 153)).pixels.float() / 255
    pixels[:, :, 2, 2] = torch.tensor([0.6, 0.7, 0.8, 0.5])  # half of (0.2, 0.4, 0.6) before white
    image = lay_over(pixels, torch.tensor([[1.0, 0.0, 0.5]]).expand(4, 3))
    assert torch.allclose(image[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.5]))
    assert torch.allclose(image[0, :, 4, 4], torch.tensor([0.2, 0.4, 0.6]))
    assert torch.allclose(image[0, :, 2, 2], torch.tensor([0.6, 0.2, 0.55]), atol=1e-6)


def test_bare_shapes_have_no_colors() -> None:
    subject = make_subject("a chair", (51, 102, 153))
    assert subject.relief is not None
    image = lay_over(bare_pixels(subject.pixels.float() / 255, subject.relief), torch.zeros(4, 3))
    assert torch.allclose(image[:, :, 4, 4], torch.full((4, 3), 200 / 255)) and not image[:, :, 0].any()


def test_rare_kinds_are_left_out() -> None:
    subjects = [make_subject(f"a {name}", (9, 9, 9)) for name in ("chair", "red chair", "table")]
    assert [each.caption for each in keep_common(subjects, 1)] == ["a chair", "a red chair", "a table"]
    assert [each.caption for each in keep_common(subjects, 2)] == ["a chair", "a red chair"]
    assert [each.caption for each in keep_common(subjects, 2, among=subjects[2:] * 2)] == ["a table"]
    assert keep_common(subjects, 3) == []
