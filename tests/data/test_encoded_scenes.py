"""Encodings on disk: a round trip, folders that are gone on with, damage that is named."""

from pathlib import Path

import pytest
import torch

from nfldm3d import DataFormatError
from nfldm3d.data.encoded_scenes import (
    EncodedScene,
    EncodedScenes,
    check_finite,
    has_encoding,
    parse_name,
    read_encoding,
    start_folder,
    write_encoding,
)

HEADER = {"kind": "fields", "weights": "abc"}


def encoding(key: str, turn: int, generator: torch.Generator) -> EncodedScene:
    """With a tensor that is not contiguous."""
    return EncodedScene(key, turn, {"opacity": torch.rand(3, 2, 4, generator=generator).half().transpose(0, 2)})


def test_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    start_folder(tmp_path, HEADER)
    scenes = [encoding(key, turn, generator) for key in ("map.01_0003", "b") for turn in (0, 3)]
    for scene in scenes:
        assert not has_encoding(tmp_path, scene.key, scene.turn)
        write_encoding(tmp_path, scene)
        assert has_encoding(tmp_path, scene.key, scene.turn)
    stored = EncodedScenes(tmp_path)
    assert len(stored) == 4 and stored.header["weights"] == "abc"
    assert [(scene.key, scene.turn) for scene in (stored[number] for number in range(4))] == [
        ("b", 0),
        ("b", 3),
        ("map.01_0003", 0),
        ("map.01_0003", 3),
    ]
    for scene in scenes:
        found = read_encoding(tmp_path, scene.key, scene.turn)
        assert found.tensors.keys() == scene.tensors.keys()
        assert torch.equal(found.tensors["opacity"], scene.tensors["opacity"])
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "map.01_0003.3.safetensors"


def test_names_hold_dots() -> None:
    assert parse_name("map.01_0003.2") == ("map.01_0003", 2)


def test_a_folder_goes_on_only_in_its_own_way(tmp_path: Path) -> None:
    start_folder(tmp_path / "new", HEADER)
    start_folder(tmp_path / "new", HEADER)
    with pytest.raises(ValueError, match="encodings with weights 'abc', not 'xyz'; repeat its options"):
        start_folder(tmp_path / "new", HEADER | {"weights": "xyz"})
    with pytest.raises(ValueError, match="encodings with turns missing, not 4"):
        start_folder(tmp_path / "new", HEADER | {"turns": 4})


HOSTILE = [
    "",
    ".",
    "..",
    "../up",
    "a/b",
    "a\\b",
    "/etc/a",
    "C:a",
    "a\0",
    "a\n",
    " a",
    "a.",
    "con",
    "NUL.b",
    "Com1",
    "x" * 201,
]


@pytest.mark.parametrize("key", [*HOSTILE, "x" * 201])
def test_keys_that_lead_elsewhere_are_refused(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "deep" / "out"
    with pytest.raises(DataFormatError, match="cannot be the name|Windows reserves"):
        start_folder(folder, HEADER, ["good", key])
    with pytest.raises(DataFormatError, match="cannot be the name|Windows reserves"):
        write_encoding(folder, EncodedScene(key, 0, {}))
    assert not list(tmp_path.iterdir())


def test_keys_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    start_folder(tmp_path, HEADER, ["map.01_0003", "Küche 2", "conduit"])
    for pair in (["Room", "room"], ["K\u00fcche", "Ku\u0308che"]):
        with pytest.raises(DataFormatError, match="one file on some systems; rename one"):
            start_folder(tmp_path, HEADER, pair)


def test_folders_without_encodings(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no encoded.json; write encodings with nfldm3d encode"):
        EncodedScenes(tmp_path)
    (tmp_path / "encoded.json").write_text('{"format": "other"}')
    with pytest.raises(DataFormatError, match="does not name the format"):
        EncodedScenes(tmp_path)
    (tmp_path / "encoded.json").write_text("[]")
    with pytest.raises(DataFormatError, match="does not name the format"):
        EncodedScenes(tmp_path)
    (tmp_path / "encoded.json").unlink()
    start_folder(tmp_path, HEADER)
    (tmp_path / "half-written.tmp.safetensors").write_bytes(b"")
    with pytest.raises(DataFormatError, match="holds no encoded scenes"):
        EncodedScenes(tmp_path)


def test_damaged_files_are_named(tmp_path: Path, generator: torch.Generator) -> None:
    start_folder(tmp_path, HEADER)
    write_encoding(tmp_path, encoding("a", 0, generator))
    path = tmp_path / "a.0.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataFormatError, match=r"a.0.safetensors: is no whole safe.*; delete it and encode"):
        EncodedScenes(tmp_path)[0]
    with pytest.raises(DataFormatError, match="b.1.safetensors: does not exist"):
        read_encoding(tmp_path, "b", 1)


def test_nothing_but_finite_numbers() -> None:
    check_finite({"opacity": torch.zeros(2, 3)}, "scene 7")
    with pytest.raises(ValueError, match="scene 7: sky holds NaN or infinity"):
        check_finite({"opacity": torch.zeros(2), "sky": torch.tensor([0.0, float("inf")])}, "scene 7")
