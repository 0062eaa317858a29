"""Files are found under the names that other systems gave them, as long as one file alone can be meant."""

import os
from pathlib import Path

import pytest

from nfldm3d.file_names import find_spelling, is_reserved
from nfldm3d.files import DataFormatError, resolve_inside

COMPOSED, DECOMPOSED = "k\u00fcche/\u00e9t\u00e9.png", "ku\u0308che/e\u0301te\u0301.png"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(("written", "wanted"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_are_found_however_they_are_spelled(tmp_path: Path, written: str, wanted: str) -> None:
    there = touch(tmp_path / written)
    assert find_spelling(tmp_path, tuple(wanted.split("/"))).samefile(there)
    assert resolve_inside(tmp_path, wanted, source=tmp_path / "transforms.json").samefile(there)


def test_case_is_forgiven_where_one_file_can_be_meant(tmp_path: Path) -> None:
    there = touch(tmp_path / "Images" / "IMG_1.JPG")
    assert resolve_inside(tmp_path, "images\\img_1.jpg", source=tmp_path / "a.json").samefile(there)
    touch(tmp_path / "Images" / "Img_1.jpg")
    assert find_spelling(tmp_path, ("Images", "IMG_1.JPG")) == there, "the exact name comes first"
    if len(list((tmp_path / "Images").iterdir())) == 2:  # not where names differ by more than case
        assert find_spelling(tmp_path, ("images", "img_1.jpg")) == tmp_path / "Images" / "img_1.jpg"


def test_the_accent_counts_more_than_the_case(tmp_path: Path) -> None:
    there = touch(tmp_path / "e\u0301.png")
    touch(tmp_path / "E\u0301.png")
    assert find_spelling(tmp_path, ("\u00e9.png",)).samefile(there)


def test_what_is_not_there_keeps_its_name(tmp_path: Path) -> None:
    assert find_spelling(tmp_path, ("images", "a.png")) == tmp_path / "images" / "a.png"
    touch(tmp_path / "Images" / "b.png")
    assert find_spelling(tmp_path, ("images", "a.png")).name == "a.png"
    assert find_spelling(tmp_path, ()) == tmp_path
    assert find_spelling(tmp_path, ("a\0b",)) == tmp_path / "a\0b"


def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    os.utime(tmp_path, (1, 1))
    assert not find_spelling(tmp_path, ("a.png",)).exists()
    touch(tmp_path / "A.png")
    assert find_spelling(tmp_path, ("a.png",)).exists()


def test_absolute_names_inside_the_folder_are_taken(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    there = touch(root / "images" / "a.png")
    (tmp_path / "alias").symlink_to(root)
    source = root / "transforms.json"
    assert resolve_inside(root, str(there), source=source) == there
    assert resolve_inside(tmp_path / "alias", str(there), source=source).samefile(there)
    assert resolve_inside(tmp_path / "alias", str(tmp_path / "alias/images/a.png"), source=source).samefile(there)
    for name in (str(tmp_path / "capture2" / "a.png"), f"{root}/../secret.png", str(tmp_path)):
        with pytest.raises(DataFormatError, match="leads outside"):
            resolve_inside(root, name, source=source)


@pytest.mark.parametrize("name", ["con", "NUL.png", "Com1.tar.gz", "aux .png", "a.", "b ", "com0", "LPT\u00b9.png"])
def test_names_that_windows_keeps_for_itself(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["console", "com10.png", "a.b", "nul_1", "com"])
def test_names_that_windows_takes(name: str) -> None:
    assert not is_reserved(name)
