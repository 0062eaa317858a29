"""Emoji become captioned pictures: things alone, by their names."""

import json
from pathlib import Path

import pytest
from PIL import Image

from nfldm3d.cli import main
from nfldm3d.data.captioned_pictures import read_picture_folder
from nfldm3d.files import DataFormatError
from nfldm3d.recording.emoji import record_emoji

ROWS = [
    {"hexcode": "1F34E", "label": "red apple", "group": 4},
    {"hexcode": "2708-FE0F", "label": "airplane", "group": 5},
    {"hexcode": "1F600", "label": "grinning face", "group": 0},
    {"hexcode": "1F9ED", "label": "compass", "group": 5},
    "nothing",
]


@pytest.fixture
def packages(tmp_path: Path) -> tuple[Path, Path]:
    pictures, names = tmp_path / "pictures", tmp_path / "names"
    (pictures / "assets").mkdir(parents=True)
    (names / "en").mkdir(parents=True)
    for stem in ("1f34e", "2708-fe0f", "1f600"):
        Image.new("RGBA", (32, 32), (200, 10, 10, 255)).save(pictures / "assets" / f"{stem}.webp", lossless=True)
    (names / "en" / "data.json").write_text(json.dumps(ROWS))
    return pictures, names


def test_things_are_written_with_captions(packages: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "emoji"
    given = ["--pictures", str(packages[0]), "--names", str(packages[1]), "--out", str(out), "--size", "8"]
    assert main(["capture", "emoji", *given]) == 0
    found = [subject for split in ("train", "test") for subject in read_picture_folder(out, split, size=8)]  # type: ignore[arg-type]
    assert {subject.caption for subject in found} == {"a red apple", "an airplane"}
    assert found[0].pixels[0, :, 4, 4].tolist() == [200, 10, 10, 255]


def test_what_is_missing_is_said(packages: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="assets is missing: npm pack @lobehub/fluent-emoji-3d emojibase-data"):
        record_emoji(tmp_path / "out", tmp_path, packages[1])
    with pytest.raises(ValueError, match=r"data.json is missing: npm pack"):
        record_emoji(tmp_path / "out", packages[0], tmp_path)
    (packages[1] / "en" / "data.json").write_text("[]")
    with pytest.raises(DataFormatError, match="names none of the pictures"):
        record_emoji(tmp_path / "out", *packages)
