"""Weights in 8 bits: small errors, half the file, and files that do not fit together."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from nfldm3d.files import DataFormatError
from nfldm3d.models.eight_bits import SCALE, pack_file, pack_weights, unpack_weights
from nfldm3d.models.weights import load_network
from nfldm3d.tensor_files import read_tensors, write_tensors


def network() -> UNet2DModel:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    torch.manual_seed(0)
    return UNet2DModel(8, 3, 3, block_out_channels=(32,), norm_num_groups=8, layers_per_block=1, **blocks)  # type: ignore[arg-type]


def test_weights_come_back_within_half_a_step_of_each_channel(generator: torch.Generator) -> None:
    wide = torch.randn(64, 32, 3, 3, generator=generator) * torch.logspace(-3, 1, 64).view(-1, 1, 1, 1)
    wide[5] = 0
    given = {"wide": wide, "bias": torch.randn(64, generator=generator), "count": torch.tensor(3)}
    packed = pack_weights(given)  # type: ignore[arg-type]
    assert packed["wide"].dtype == torch.int8 and packed["wide" + SCALE].shape == (64,)
    back = unpack_weights(packed, "a.safetensors")
    assert back.keys() == given.keys() and torch.equal(back["bias"], given["bias"]) and back["count"] == 3
    step = wide.flatten(1).abs().amax(1) / 127
    error = (back["wide"] - wide).flatten(1).abs().amax(1)
    assert bool((error <= step.clamp(min=2.0**-14) * 0.57).all())  # 0.5, and 127 rounded steps of fp16
    with pytest.raises(ValueError, match="wide holds NaN"):
        pack_weights({"wide": wide / 0})


def test_what_whitens_stays_exact(generator: torch.Generator) -> None:
    factor = torch.randn(80, 80, generator=generator).triu()
    assert torch.equal(pack_weights({"scaling.factor": factor})["scaling.factor"], factor)


def test_networks_are_read_from_8_bits_as_from_any(tmp_path: Path, generator: torch.Generator) -> None:
    made = network().eval()
    made.half().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    size = path.stat().st_size
    pack_file(path)
    assert path.stat().st_size < 0.6 * size
    read, noise = load_network(UNet2DModel, tmp_path), torch.randn(2, 3, 8, 8, generator=generator)
    with torch.no_grad():
        expected, found = (net(noise, 10).sample for net in (made.float(), read))
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert {value.dtype for value in read.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("harm", ["no tensor", "other rows", "other numbers"])
def test_scales_that_fit_nothing_are_refused(tmp_path: Path, harm: str) -> None:
    network().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    pack_file(path)
    tensors = read_tensors(path)
    name = next(name for name in tensors if name.endswith(SCALE))
    if harm == "no tensor":
        tensors[f"other{SCALE}"] = tensors[name]
    elif harm == "other rows":
        tensors[name] = tensors[name][:-1]
    else:
        tensors[name.removesuffix(SCALE)] = tensors[name.removesuffix(SCALE)].float()
    write_tensors(path, tensors)
    with pytest.raises(DataFormatError, match="fits no tensor of 8-bit weights"):
        load_network(UNet2DModel, tmp_path)
    if harm == "other rows":
        del tensors[name]
        write_tensors(path, tensors)
        with pytest.raises(DataFormatError, match="kept as torch.int8"):
            load_network(UNet2DModel, tmp_path)
