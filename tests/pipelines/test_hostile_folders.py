"""Folders of weights and painted maps from strangers: refused in words, before anything is built."""

import json
from pathlib import Path

import pytest
from PIL import Image

from nfldm3d.files import DataFormatError
from nfldm3d.pipelines.bev_input import read_classes
from nfldm3d.pipelines.generator_files import read_parts, read_scheduler
from nfldm3d.pipelines.global_generator import GlobalGenerator

PALETTE = ((0, 0, 0), (200, 20, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_size": [1, 2]}, "box_size is .*; write three lengths"),
        ({"box_size": [1, 2, 0]}, "box_size is .*; write three lengths"),
        ({"box_size": "large"}, "box_size is 'large'; write a list"),
        ({"path_odds": [-1]}, "path_odds is .*; write numbers of at least 0"),
        ({"map_classes": [1]}, "map_classes is .*; write names"),
        ({"map_palette": [[1, 2, 300]]}, "map_palette is .*; write red, green and blue"),
        ({"map_palette": [7]}, "map_palette is .*; write red, green and blue"),
    ],
)
def test_options_of_pipelines_are_checked(options: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SceneGenerator"} | options))
    with pytest.raises(DataFormatError, match=f"model_index.json: {message}"):
        read_parts(tmp_path, {})
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "GlobalGenerator"} | options))
    with pytest.raises(DataFormatError, match=f"model_index.json: {message}"):
        GlobalGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train_timesteps": 10**10}, "num_train_timesteps is 10000000000; write a whole number up to 100000"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps is 'many'"),
        ({"beta_schedule": "none"}, "describes no DDPMScheduler"),
        ({"beta_start": "x"}, "describes no DDPMScheduler"),
    ],
)
def test_schedules_are_checked_before_they_are_built(options: dict, message: str, tmp_path: Path) -> None:
    config = {"_class_name": "DDPMScheduler", "num_train_timesteps": 10}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    assert len(read_scheduler(tmp_path).betas) == 10
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config | options))
    with pytest.raises(DataFormatError, match=f"scheduler_config.json: {message}"):
        read_scheduler(tmp_path)


def test_maps_are_painted_in_known_formats_only(tmp_path: Path) -> None:
    """Pillow would hand PostScript to Ghostscript, and read 40 formats more."""
    image = Image.new("RGB", (4, 4), PALETTE[1])
    for suffix in ("png", "bmp", "gif"):
        image.save(tmp_path / f"map.{suffix}")
        assert read_classes(tmp_path / f"map.{suffix}", ("floor", "wall"), PALETTE, 4).tolist() == [[[1] * 4] * 4]
    for kind in ("EPS", "PPM", "TGA", "PCX", "ICNS"):
        image.resize((32, 32)).save(tmp_path / "map.png", kind)
        with pytest.raises(DataFormatError, match=r"map\.png: is not a PNG, JPEG, WebP, BMP or GIF picture; convert"):
            read_classes(tmp_path / "map.png", ("floor", "wall"), PALETTE, 32)


def test_unknown_options_of_a_scheduler_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 10, "charm": 1}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    assert len(read_scheduler(tmp_path).betas) == 10
    assert capfd.readouterr().err == ""
