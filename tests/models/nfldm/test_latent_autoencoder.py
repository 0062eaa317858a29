"""Three latents: their shapes, what reaches what, units of voxels; and weights that are complete or refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_rooms import BOX, GRID, latent_autoencoder, scene_autoencoder

from nfldm3d import DataFormatError, EnvironmentMap, VoxelField
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.nfldm.panorama import PanoramaCode
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import (
    FULL,
    LEAST,
    Voxels,
    background_of,
    field_of,
    stack_voxels,
    tensors_from_voxels,
    voxels_from_tensors,
    voxels_of,
)
from nfldm3d.models.weights import load_network, take_over

CHANNELS, ROWS = 5, 4
WEIGHTS = "diffusion_pytorch_model.safetensors"


def random_voxels(generator: torch.Generator, scenes: int = 2, resolution: tuple[int, int, int] = GRID) -> Voxels:
    return Voxels(
        torch.rand(scenes, *resolution, generator=generator),
        torch.rand(scenes, *resolution, CHANNELS, generator=generator),
        torch.rand(scenes, ROWS, 2 * ROWS, 3, generator=generator),
    )


def equal(a: Voxels, b: Voxels) -> bool:
    pairs = ((a.occupancy, b.occupancy), (a.features, b.features), (a.sky, b.sky))
    return all(torch.allclose(x, y, atol=1e-6) for x, y in pairs)


@pytest.mark.parametrize(("downsampling", "heights"), [(4, 2), (8, 1), (16, 1)])
@torch.no_grad()
def test_shapes(downsampling: int, heights: int, generator: torch.Generator) -> None:
    resolution = (32, 16, 8)
    model = latent_autoencoder(resolution=resolution, downsampling=downsampling)
    voxels = random_voxels(generator, 2, resolution)
    latents, codes = model.quantize(model.encode(voxels).latents)
    assert latents.g.shape == (2, 6) and latents.f.shape == (2, 4, 32, 16)
    assert latents.c.shape == (2, 4, heights, 32 // downsampling, 16 // downsampling)
    assert codes["c"].indices.shape == latents.c[:, 0].shape and codes["f"].indices.shape == latents.f[:, 0].shape
    made = model.decode(latents)
    assert made.occupancy.shape == voxels.occupancy.shape and made.features.shape == voxels.features.shape
    assert made.sky.shape == voxels.sky.shape
    assert bool(((made.occupancy > 0) & (made.occupancy < 1)).all())
    assert made[1].occupancy.shape == resolution


@torch.no_grad()
def test_quantised_latents_are_codes(generator: torch.Generator) -> None:
    model = latent_autoencoder()
    before = model.encode(random_voxels(generator)).latents
    latents, codes = model.quantize(before)
    assert torch.equal(latents.g, before.g)
    book = model.quantizer_c.codebook
    assert torch.allclose(latents.c.movedim(1, -1), book[codes["c"].indices], atol=1e-6)
    continuous, none = latent_autoencoder(quantize=False).quantize(before)
    assert continuous is before and none == {}


@torch.no_grad()
def test_every_latent_reaches_the_field(generator: torch.Generator) -> None:
    model = latent_autoencoder()
    latents = model.encode(random_voxels(generator)).latents
    made = model.decode(latents)
    for name in ("g", "c", "f"):
        parts = {part: getattr(latents, part) for part in ("g", "c", "f")}
        parts[name] = parts[name] + 1.0
        other = model.decode(Latents(**parts))
        assert float((other.occupancy - made.occupancy).abs().max()) > 1e-3, name
        assert float((other.features - made.features).abs().max()) > 1e-3, name
        assert (float((other.sky - made.sky).abs().max()) > 1e-3) == (name == "g")


@torch.no_grad()
def test_a_panorama_has_numbers_of_its_own(generator: torch.Generator) -> None:
    model = latent_autoencoder(sky_dimensions=3, fine_stages=2)
    assert model.vector_size == 9
    voxels = random_voxels(generator)
    encoding = model.encode(voxels)
    latents, codes = model.quantize(encoding.latents)
    assert latents.g.shape == (2, 9) and encoding.log_variance.shape == (2, 6) and codes["f"].indices.shape[-1] == 2
    made = model.decode(latents)
    assert made.sky.shape == voxels.sky.shape
    for part, sky_moves in ((slice(6), False), (slice(6, 9), True)):
        g = latents.g.clone()
        g[:, part] += 1.0
        other = model.decode(Latents(g, latents.c, latents.f))
        assert (float((other.sky - made.sky).abs().max()) > 1e-3) == sky_moves
        assert (float((other.features - made.features).abs().max()) > 1e-3) != sky_moves


@torch.no_grad()
def test_panoramas_are_told_by_their_principal_components(generator: torch.Generator) -> None:
    """All panoramas that are mixtures of two come back whole, turned by a quarter and mirrored ones, too."""
    code = PanoramaCode(6, 20)
    parts = torch.rand(2, 6, 12, 3, generator=generator)
    skies = torch.einsum("np,prcf->nrcf", torch.rand(9, 2, generator=generator), parts)
    code.measure(skies)
    for sky in (skies, skies.roll(3, 2), skies.flip(2)):
        assert torch.allclose(code.decode(code.encode(sky)), sky, atol=1e-3)
    numbers = code.encode(torch.cat([skies.flip(2) if m else skies for m in (0, 1)]).roll(3, 2))
    assert bool((numbers.abs() < 6).all())
    before = code.basis.clone()
    code.measure(skies)
    assert torch.equal(before, code.basis)
    with pytest.raises(ValueError, match="a panorama of 96 values has no 97 components"):
        PanoramaCode(4, 97)


@torch.no_grad()
def test_few_panoramas_have_few_components(generator: torch.Generator) -> None:
    code, sky = PanoramaCode(4, 30), torch.rand(1, 4, 8, 3, generator=generator)
    code.measure(sky)
    assert torch.allclose(code.decode(code.encode(sky)), sky, atol=1e-4) and not code.basis[:, 8:].any()


@torch.no_grad()
def test_f_is_fine_and_c_is_coarse(generator: torch.Generator) -> None:
    """A change of one pixel of f stays near its column; one of c is seen at four times the distance."""
    model = latent_autoencoder(resolution=(64, 64, 4))
    latents = model.encode(random_voxels(generator, 1, (64, 64, 4))).latents
    other = latents.f.clone()
    other[0, :, 20, 40] += 1.0
    change = model.decode(Latents(latents.g, latents.c, other)).occupancy - model.decode(latents).occupancy
    strength = change[0].abs().amax(-1)
    assert float(strength[20, 40]) > 1e-3
    strength[10:31, 30:51] = 0
    assert float(strength.max()) < 0.3 * float(change.abs().max())  # group norms pass a little on to everywhere


@torch.no_grad()
def test_without_g_or_without_f(generator: torch.Generator) -> None:
    voxels = random_voxels(generator)
    plain = latent_autoencoder(use_global=False).encode(voxels).latents
    assert not plain.g.any() and plain.f.any()
    model = latent_autoencoder(use_fine=False)
    latents, _ = model.quantize(model.encode(voxels).latents)
    assert latents.g.any() and latents.c.any() and not latents.f.any()
    assert model.decode(latents).occupancy.shape == voxels.occupancy.shape


def test_gradients_reach_everything(generator: torch.Generator) -> None:
    model, voxels = latent_autoencoder().train(), random_voxels(generator)
    encoding = model.encode(voxels)
    latents, codes = model.quantize(encoding.latents)
    made = model.decode(latents)
    loss = made.occupancy.mean() + made.features.mean() + made.sky.square().mean() + codes["c"].commitment
    (loss + encoding.log_variance.mean()).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not silent


@torch.no_grad()
def test_scenes_of_a_batch_do_not_mix(generator: torch.Generator) -> None:
    model, voxels = latent_autoencoder(), random_voxels(generator, 3)
    together = model.decode(model.encode(voxels).latents)
    for number in range(3):
        alone = model.decode(model.encode(stack_voxels([voxels[number : number + 1]])).latents)
        assert torch.allclose(alone.occupancy[0], together.occupancy[number], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downsampling": 5}, "downsampling must be 4, 8 or 16"),
        ({"downsampling": 16}, r"divide the resolution \(8, 8, 4\)"),
        ({"sky_rows": 5}, "sky_rows must be even, got 5"),
        ({"fine_codes": 0}, "at least 1 coarse_codes, fine_codes and fine_stages, .* got 8, 0, 1 and 0"),
        ({"sky_dimensions": -1}, "sky_dimensions of 0 or more, got 8, 6, 1 and -1"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latent_autoencoder(**options)


def test_fields_of_another_network_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(
        ValueError, match=r"takes fields .* of \(8, 8, 4, 5\) .* got \(8, 4, 4, 5\).*both stages together"
    ):
        latent_autoencoder().encode(random_voxels(generator, 1, (8, 4, 4)))


def test_voxels_count_in_voxels(generator: torch.Generator) -> None:
    """A field, its occupancies and back; densities are kept between -2 and 11.8 a voxel."""
    density = 24 * torch.rand(GRID, generator=generator) - 3  # a voxel is 0.5 m wide
    field = VoxelField(density, torch.rand(*GRID, CHANNELS, generator=generator), BOX, signed=True)
    background = EnvironmentMap(torch.rand(ROWS, 2 * ROWS, CHANNELS, generator=generator))
    voxels = voxels_of(field, background)
    back = field_of(voxels[0], BOX)
    assert back.signed and torch.equal(back.features, field.features)
    assert torch.allclose(back.density, density.clamp(-4.0, 22.0), rtol=2e-3, atol=1e-4)
    assert torch.allclose(voxels.opacity[0], 1 - torch.exp(-0.5 * density.clamp(0, 22.0)), atol=1e-4)
    assert torch.allclose(voxels.occupancy[0][density.abs() < 0.1].mean(), torch.tensor(0.632), atol=0.02)
    again = background_of(voxels[0], torch.tensor([7.0, 8.0]))
    assert torch.equal(again.image[..., :3], background.image[..., :3])
    assert torch.equal(again.image[..., 3:], torch.tensor([7.0, 8.0]).expand(ROWS, 2 * ROWS, 2))
    solid = field_of(voxels_of(VoxelField(1e6 * density.relu(), field.features, BOX), background)[0], BOX)
    assert float(solid.density.max()) == pytest.approx(LEAST * (-math.log(FULL) - 1) / 0.5, rel=1e-3)


def test_the_open_is_empty(generator: torch.Generator) -> None:
    """Voxels beside matter keep their density, for surfaces depend on it; all others become the same."""
    density = torch.full(GRID, -0.5)
    density[2, 2, 2] = 3.0
    field = VoxelField(density, torch.rand(*GRID, CHANNELS, generator=generator), BOX, signed=True)
    occupancy = voxels_of(field, EnvironmentMap(torch.rand(ROWS, 2 * ROWS, CHANNELS, generator=generator))).occupancy[0]
    assert int((occupancy > 0).sum()) == 27 and float(occupancy[2, 2, 3]) > 0.5
    nowhere = replace(field, density=torch.zeros(GRID))
    background = EnvironmentMap(torch.rand(ROWS, 2 * ROWS, CHANNELS, generator=generator))
    assert not voxels_of(nowhere, background).occupancy.any()


def test_voxels_on_disk_are_halves(generator: torch.Generator) -> None:
    voxels = random_voxels(generator, 1)
    tensors = tensors_from_voxels(voxels)
    assert {name: value.dtype for name, value in tensors.items()} == dict.fromkeys(
        ("occupancy", "features", "sky"), torch.float16
    )
    back = voxels_from_tensors(tensors)
    assert torch.allclose(back.occupancy, voxels.occupancy, atol=1e-3) and back.sky.shape == voxels.sky.shape
    assert equal(stack_voxels([back, back])[1:], back)
    with pytest.raises(ValueError, match="lacks sky"):
        voxels_from_tensors({name: tensors[name] for name in ("occupancy", "features")})
    with pytest.raises(ValueError, match=r"occupancy and features of shapes \(8, 8\) and"):
        voxels_from_tensors(tensors | {"occupancy": tensors["occupancy"][..., 0]})


@pytest.mark.parametrize("make", [latent_autoencoder, scene_autoencoder])
def test_weights_come_back_bit_for_bit(make, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    loaded = load_network(type(model), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.state_dict().keys() == model.state_dict().keys() and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == {
        k: v for k, v in model.config.items() if k[0] != "_"
    }


def test_half_precision_on_disk_becomes_single(tmp_path: Path, generator: torch.Generator) -> None:
    model, voxels = latent_autoencoder(), random_voxels(generator, 1)
    exact = model.encode(voxels).latents.g.detach()
    model.half().save_pretrained(tmp_path)
    loaded = load_network(LatentAutoencoder, tmp_path)
    assert loaded.quantizer_c.codebook.dtype == torch.float32
    assert torch.allclose(loaded.encode(voxels).latents.g, exact, atol=0.02)


def test_exported_weights_are_read_too(tmp_path: Path) -> None:
    model = latent_autoencoder()
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load_network(LatentAutoencoder, tmp_path)
    assert torch.equal(loaded.quantizer_f.codebook, model.quantizer_f.codebook)


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


DAMAGES = {
    "missing": (
        lambda p: change_tensors(p, lambda t: t.pop("encoder_f.head.bias")),
        "is not of this LatentAutoencoder: encoder_f.head.bias is missing; copy",
    ),
    "unexpected": (
        lambda p: change_tensors(p, lambda t: t.update(extra=torch.zeros(2))),
        "extra is unexpected",
    ),
    "shape": (lambda p: change_config(p, width=24), r"is \(16.*not \(24.*and \d+ more"),
    "NaN": (lambda p: change_tensors(p, lambda t: t["encoder_f.head.bias"].fill_(float("nan"))), "holds NaN"),
    "class": (
        lambda p: change_config(p, _class_name="UNet2DModel"),
        "describes a UNet2DModel, not a LatentAutoencoder",
    ),
    "newer": (lambda p: change_config(p, hyper=3), "does not know: hyper; upgrade"),
    "option": (lambda p: change_config(p, downsampling=5), "describes no LatentAutoencoder: downsampling must be"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), "not valid JSON"),
    "list": (lambda p: (p / "config.json").write_text("[1]"), "not a table of options"),
    "truncated": (
        lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:-9]),
        "is no whole safetensors file",
    ),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), f"holds no weights; copy {WEIGHTS}"),
    "no config": (lambda p: (p / "config.json").unlink(), "holds no config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_weights_are_refused(damage: str, tmp_path: Path) -> None:
    latent_autoencoder().save_pretrained(tmp_path)
    change, message = DAMAGES[damage]
    change(tmp_path)
    with pytest.raises(DataFormatError, match=message):
        load_network(LatentAutoencoder, tmp_path)


def test_weights_of_the_other_stage_are_refused(tmp_path: Path) -> None:
    latent_autoencoder().save_pretrained(tmp_path)
    with pytest.raises(DataFormatError, match="describes a LatentAutoencoder, not a SceneAutoencoder"):
        load_network(SceneAutoencoder, tmp_path)


def test_weights_are_taken_over_where_they_fit() -> None:
    old, same, wider = latent_autoencoder(), latent_autoencoder(), latent_autoencoder(sky_rows=8)
    for parameter in old.parameters():
        parameter.data += 1
    assert not torch.equal(same.encoder_c.stem.weight, old.encoder_c.stem.weight)
    assert take_over(same, old) == []
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), old.state_dict().values(), strict=True))
    fresh = take_over(wider, old)
    assert fresh and all(name.startswith(("sky_encoder", "sky_decoder")) for name in fresh)
    assert torch.equal(wider.encoder_c.stem.weight, old.encoder_c.stem.weight)
    with pytest.raises(ValueError, match="no weight of this Linear fits"):
        take_over(torch.nn.Linear(2, 3), torch.nn.Linear(4, 5))
