"""Weights are found by name from any folder, in folders, or on a hub if told so; wheels carry them."""

from pathlib import Path

import huggingface_hub
import pytest
import torch

from nfldm3d.files import DataFormatError
from nfldm3d.models.weight_folders import DEFAULT, device_of, find_weights, require_options, shipped_weights

ROOT = Path(__file__).parents[2]


def test_shipped_weights_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    assert find_weights(DEFAULT) == shipped_weights()[DEFAULT] == ROOT / "assets" / DEFAULT
    assert find_weights(f"./{DEFAULT}") == Path(DEFAULT) == find_weights(Path(DEFAULT))


def test_runs_and_subfolders_are_meant(tmp_path: Path) -> None:
    assert find_weights(tmp_path) == tmp_path
    (tmp_path / "weights" / "inner").mkdir(parents=True)
    assert find_weights(tmp_path) == tmp_path / "weights"
    assert find_weights(tmp_path, subfolder="inner") == tmp_path / "weights" / "inner"
    with pytest.raises(DataFormatError, match="holds no folder other"):
        find_weights(tmp_path, subfolder="other")
    with pytest.raises(DataFormatError, match="leads outside"):
        find_weights(tmp_path, subfolder="../..")


def test_no_hub_is_asked_untold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(
        DataFormatError, match=rf"assets/vizdoom: does not exist here; .*{DEFAULT}, objects, vizdoom; .*say --hub"
    ):
        find_weights("assets/vizdoom")
    with pytest.raises(DataFormatError, match="weigths: does not exist here; give a folder of weights or one of"):
        find_weights("weigths")
    with pytest.raises(ValueError, match="revision, token can only be meant for the Hub"):
        find_weights(DEFAULT, token="t", revision="main")


def test_a_hub_is_asked_for_safe_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_weights("owner/name", hub=True, revision="v1", variant="fp16", cache_dir="here") == tmp_path
    patterns = ["*.json", "*/*.safetensors", "*/merges.txt", "*/spiece.model", "photographs/*.png"]
    assert asked == {"name": "owner/name", "allow_patterns": patterns, "revision": "v1", "cache_dir": "here"}


def test_downloads_of_before_are_taken(tmp_path: Path) -> None:
    options = {"hub": True, "cache_dir": tmp_path, "local_files_only": True}
    with pytest.raises(DataFormatError, match="owner/name: cannot be had from the Hub"):
        find_weights("owner/name", **options)
    with pytest.raises(DataFormatError, match="cannot be had from the Hub"):
        find_weights("no name at all", **options)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert find_weights("owner/name", **options) == snapshot


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"typo": 1}, TypeError, "the test does not take typo; it takes device, torch_dtype"),
        ({"custom_pipeline": "x"}, TypeError, "does not take custom_pipeline"),
        ({"use_safetensors": False}, ValueError, "use_safetensors=False is refused"),
        ({"device_map": "balanced"}, ValueError, "device_map='balanced' is not taken"),
        ({"device_map": {"": 0}}, ValueError, "is not taken: all networks lie on one device"),
        ({"torch_dtype": "auto"}, ValueError, "torch_dtype must be a dtype such as torch.float32, got 'auto'"),
        ({"torch_dtype": torch.int8}, ValueError, "got torch.int8"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        require_options(options, "the test")


def test_devices_have_two_names() -> None:
    assert device_of(None, {}) == torch.device("cpu") and device_of("meta", {}) == torch.device("meta")
    assert device_of(None, {"device_map": "meta"}) == device_of("meta", {"device_map": "meta"}) == torch.device("meta")
    with pytest.raises(ValueError, match="device='cpu' and device_map='meta' differ"):
        device_of("cpu", {"device_map": "meta"})


def test_wheels_carry_the_weights() -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    files = {file.distribution_path: Path(file.path) for file in builder.recurse_included_files()}
    for name, folder in shipped_weights().items():
        for file in folder.rglob("*.*"):
            assert files.get(f"nfldm3d/assets/{name}/{file.relative_to(folder).as_posix()}") == file
    assert "nfldm3d/__init__.py" in files and "nfldm3d/py.typed" in files
    assert not [name for name in files if not name.startswith("nfldm3d/") or name.startswith("nfldm3d/assets/readme")]
    assert sum(path.stat().st_size for path in files.values()) < 100e6
