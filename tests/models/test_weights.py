"""Networks return from what diffusers writes, of one file or several; parts that do not belong together are refused."""

import json
from pathlib import Path

import pytest
import torch
from small_rooms import scene_generator

from nfldm3d.files import DataFormatError
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
from nfldm3d.models.weights import load_network

INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture(scope="module")
def network() -> GlobalDenoiser:
    network = scene_generator().denoiser_g
    assert network is not None
    return network


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["10GB", "10KB"])
def test_networks_return(variant: str | None, size: str, network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, variant=variant, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "10KB")
    assert same(load_network(GlobalDenoiser, tmp_path, variant), network)
    other = "fp16" if variant is None else None
    with pytest.raises(DataFormatError, match="holds no safetensors .*variant.*, but diffusion_pytorch_model"):
        load_network(GlobalDenoiser, tmp_path, other)


def test_variants_lie_side_by_side(network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    half = load_network(GlobalDenoiser, tmp_path).half()
    half.save_pretrained(tmp_path, variant="fp16")
    assert same(load_network(GlobalDenoiser, tmp_path), network)
    assert same(load_network(GlobalDenoiser, tmp_path, "fp16"), half.float())


def test_other_formats_are_named(network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(
        DataFormatError, match=r"holds no safetensors without a variant, but diffusion_pytorch_model.bin"
    ):
        load_network(GlobalDenoiser, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda places: places | {"g": "../other.safetensors"}, "leads outside"),
        (lambda places: places | {"g": "none.safetensors"}, "none.safetensors: does not exist"),
        (
            lambda places: places | {"g": next(iter(places.values()))},
            "lacks the tensor g; copy the files that belong to",
        ),
        (lambda places: dict(list(places.items())[1:]), "is not of this GlobalDenoiser: .* is missing"),
        (lambda places: [], "holds no weight_map"),
        (lambda places: {"g": 1}, "holds no weight_map"),
    ],
)
def test_indices_that_lie_are_refused(change, message: str, network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, max_shard_size="10KB")
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"weight_map": change(index["weight_map"])}))
    with pytest.raises(DataFormatError, match=message):
        load_network(GlobalDenoiser, tmp_path)


def test_a_missing_shard_is_named(network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, max_shard_size="10KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DataFormatError, match=f"{shard.name}: does not exist"):
        load_network(GlobalDenoiser, tmp_path)


def rewrite(folder: Path, **options: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | options))


def test_networks_that_the_file_does_not_hold_are_not_built(
    network: GlobalDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.save_pretrained(tmp_path)
    built = []
    monkeypatch.setattr(torch.nn.Parameter, "__new__", watch(torch.nn.Parameter.__new__, built))
    rewrite(tmp_path, widths=[2**20, 2**20])  # 4 TiB for one layer
    with pytest.raises(DataFormatError, match="is not of this GlobalDenoiser: "):
        load_network(GlobalDenoiser, tmp_path)
    rewrite(tmp_path, widths=[8] * 10**4)  # each of them small
    with pytest.raises(DataFormatError, match="describes no GlobalDenoiser: asks for more than"):
        load_network(GlobalDenoiser, tmp_path)
    rewrite(tmp_path, widths=[2**31])  # somebody may make a list as long as that
    with pytest.raises(DataFormatError, match=r"widths is \[2147483648\], which no network has"):
        load_network(GlobalDenoiser, tmp_path)
    assert built and set(built) == {"meta"}


def watch(make, devices: list[str]):
    """The constructor of parameters, noting where they are."""

    def make_and_note(cls, data=None, requires_grad=True):
        devices.extend([] if data is None else [data.device.type])
        return make(cls, data, requires_grad)

    return make_and_note


@pytest.mark.parametrize("widths", [[], [0], ["a"], [1.5, 2], [-4, 8], None])
def test_options_that_make_no_network_are_refused(widths: object, network: GlobalDenoiser, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    rewrite(tmp_path, widths=widths)
    with pytest.raises(DataFormatError, match=r"describes no GlobalDenoiser|is not of this GlobalDenoiser"):
        load_network(GlobalDenoiser, tmp_path)
