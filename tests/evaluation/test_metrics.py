"""PSNR and SSIM against closed forms and torchmetrics, LPIPS against the package it stands on."""

import math
import warnings
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors.torch import load_file, save_file

from nfldm3d.evaluation.metrics import Lpips, WeightsNotFound, psnr, sharpness, ssim


def noise(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator)


@pytest.mark.parametrize("offset", [0.5, 0.1, 0.01])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    image = torch.full((2, 3, 5, 7), 0.25)
    assert float(psnr(image + offset, image)) == pytest.approx(-20 * math.log10(offset), abs=1e-3)


def test_psnr_is_the_mean_over_pictures_not_over_pixels() -> None:
    target = torch.zeros(2, 3, 4, 5)
    image = target + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert float(psnr(image, target)) == pytest.approx((20 + 40) / 2, abs=1e-3)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    assert math.isinf(float(psnr(torch.ones(3, 4, 5), torch.ones(3, 4, 5))))


def test_psnr_counts_masked_pixels_alone(generator: torch.Generator) -> None:
    target, mask = noise(generator, 2, 3, 6, 4), torch.zeros(2, 6, 4, dtype=torch.bool)
    mask[0, 1:3, 2] = True
    image = torch.where(mask[:, None], target + 0.1, 5.0)
    assert float(psnr(image, target, mask)) == pytest.approx(20, abs=1e-3)  # the second picture has nothing to say
    everything = torch.ones_like(mask)
    assert float(psnr(image, target, everything)) == pytest.approx(float(psnr(image, target)), rel=1e-5)


def test_psnr_refuses_an_empty_mask_and_other_shapes() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        psnr(torch.ones(3, 4, 5), torch.ones(3, 4, 5), torch.zeros(4, 5, dtype=torch.bool))


@pytest.mark.parametrize("metric", [psnr, ssim, sharpness])
def test_what_is_masked_out_changes_no_figure(metric, generator: torch.Generator) -> None:
    target, mask = noise(generator, 2, 3, 11, 14), torch.zeros(2, 11, 14, dtype=torch.bool)
    mask[0, 2:9, 3:12] = True  # the second picture has nothing to say
    mask[0, 5, 6] = False
    image = (target + 0.2 * noise(generator, 2, 3, 11, 14)).clamp(0, 1)
    worse, other = (torch.where(mask[:, None], value, noise(generator, 2, 3, 11, 14)) for value in (image, target))
    expected = float(metric(image, target, mask))
    assert float(metric(worse, other, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(metric(worse, other)) != pytest.approx(expected, rel=1e-3)
    everything = torch.ones_like(mask)
    assert float(metric(image, target, everything)) == pytest.approx(float(metric(image, target)), rel=1e-5)


@pytest.mark.parametrize("metric", [psnr, ssim, sharpness])
def test_masks_must_fit_and_leave_a_pixel(metric) -> None:
    image = torch.ones(3, 8, 9)
    with pytest.raises(ValueError, match="at least one pixel"):
        metric(image, image, torch.zeros(8, 9, dtype=torch.bool))
    with pytest.raises((ValueError, TypeCheckError), match="needs a mask of shape|Type-check"):
        metric(image, image, torch.ones(9, 8, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(3, 6, 9), (1, 3, 31, 17), (2, 3, 40, 24), (2, 2, 1, 12, 11)])
def test_ssim_is_that_of_torchmetrics(generator: torch.Generator, shape: tuple[int, ...]) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    target = noise(generator, *shape)
    image = (target + 0.2 * noise(generator, *shape)).clamp(0, 1)
    flat, flat_target = (value.reshape(-1, *shape[-3:]) for value in (image, target))
    expected = functional.structural_similarity_index_measure(flat, flat_target, data_range=1.0)
    assert float(ssim(image, target)) == pytest.approx(float(expected), abs=2e-6)


def test_ssim_laws(generator: torch.Generator) -> None:
    image, other = noise(generator, 2, 3, 12, 16), noise(generator, 2, 3, 12, 16)
    assert float(ssim(image, image)) == pytest.approx(1)
    assert float(ssim(image, other)) == pytest.approx(float(ssim(other, image)))
    flat = torch.full((3, 8, 9), 0.5)
    luminance = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert float(ssim(flat, flat / 2)) == pytest.approx(luminance, rel=1e-4)


def test_sharpness_is_the_share_of_the_differences(generator: torch.Generator) -> None:
    target = noise(generator, 2, 3, 12, 16)
    assert float(sharpness(target, target)) == pytest.approx(1)
    assert float(sharpness(0.4 * target + 0.2, target)) == pytest.approx(0.4, rel=1e-5)
    assert float(sharpness(torch.full_like(target, 0.5), target)) == 0
    ramp = torch.linspace(0, 1, 16).expand(3, 12, 16)  # its only slope is 1/15 along the rows
    assert float(sharpness(ramp, ramp[..., ::2].repeat_interleave(2, -1))) == pytest.approx(15 / 14, rel=1e-5)
    blurred = torch.nn.functional.avg_pool2d(target, 3, 1, 1)
    assert float(sharpness(blurred, target)) < 0.5 < 1.5 < float(sharpness(target, blurred))
    assert math.isfinite(float(sharpness(target, torch.zeros_like(target))))


def test_both_are_differentiable(generator: torch.Generator) -> None:
    image, target = noise(generator, 1, 6, 7).double().requires_grad_(), noise(generator, 1, 6, 7).double()
    assert torch.autograd.gradcheck(lambda value: psnr(value, target), image)
    assert torch.autograd.gradcheck(lambda value: ssim(value, target), image)


@pytest.mark.parametrize("metric", [psnr, ssim, sharpness])
def test_pictures_must_have_one_shape(metric) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="one shape|Type-check"):  # the type checker may speak first
        metric(torch.ones(3, 8, 9), torch.ones(3, 9, 8))
    with pytest.raises(ValueError, match="empty"):
        metric(torch.ones(0, 3, 8, 9), torch.ones(0, 3, 8, 9))


def test_ssim_names_the_least_size() -> None:
    with pytest.raises(ValueError, match="at least 6 pixels a side, got 9x5"):
        ssim(torch.ones(3, 5, 9), torch.ones(3, 5, 9))


@pytest.fixture
def alexnet(tmp_path: Path) -> Path:
    """A file that looks like torchvision's, with random numbers: the metric must not care."""
    torchvision = pytest.importorskip("torchvision")
    path = tmp_path / "alexnet.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = torchvision.models.alexnet(weights=None).state_dict()
    save_file({name: value for name, value in tensors.items() if name.startswith("features")}, path)
    return path


def test_lpips_uses_the_given_weights(alexnet: Path, generator: torch.Generator) -> None:
    lpips = pytest.importorskip("lpips")
    metric = Lpips.load(alexnet)
    image, target = noise(generator, 2, 3, 64, 72), noise(generator, 2, 3, 64, 72)
    assert float(metric(image, image)) == 0
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)  # the same random trunk, and the package's own calibration
        peer = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    expected = peer(image, target, normalize=True).detach().mean()
    assert float(metric(image, target)) == pytest.approx(float(expected), rel=1e-5)
    assert float(metric(image[0], target[0])) > 0


def test_lpips_compares_features_that_are_there(alexnet: Path, generator: torch.Generator) -> None:
    pytest.importorskip("lpips")
    metric = Lpips.load(alexnet)
    image, target = noise(generator, 2, 3, 64, 72), noise(generator, 2, 3, 64, 72)
    found, wanted = metric.features(image), metric.features(target)
    assert float(metric.compare(found, wanted)) == pytest.approx(float(metric(image, target)), rel=1e-5)
    assert float(metric.compare(found, found)) == 0


def test_lpips_leaves_out_what_is_masked(alexnet: Path, generator: torch.Generator) -> None:
    pytest.importorskip("lpips")
    metric = Lpips.load(alexnet)
    image, target = noise(generator, 2, 3, 64, 72), noise(generator, 2, 3, 64, 72)
    mask = torch.zeros(2, 64, 72, dtype=torch.bool)
    mask[0, 10:50, 20:60] = True
    expected = float(metric(image, target, mask))
    other = torch.where(mask[:, None], image, noise(generator, 2, 3, 64, 72))
    assert float(metric(other, target, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(metric(torch.where(mask[:, None], target, 0), target, mask)) == 0
    assert float(metric(image, target, torch.ones_like(mask))) == pytest.approx(float(metric(image, target)), rel=1e-5)


def test_lpips_never_makes_weights_up(tmp_path: Path, alexnet: Path) -> None:
    pytest.importorskip("lpips")
    with pytest.raises(WeightsNotFound, match="missing.pth: there is no such file"):
        Lpips.load(tmp_path / "missing.pth")
    with pytest.raises(WeightsNotFound, match=r"alexnet.safetensors: does not fit at net.slice1.*weights of vgg"):
        Lpips.load(alexnet, network="vgg")


def test_lpips_is_found_where_torchvision_keeps_it(
    tmp_path: Path, alexnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lpips")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert Lpips.find() is None
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(load_file(alexnet), tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    assert Lpips.find() is not None and Lpips.find(network="vgg") is None


def test_lpips_reads_pth_files(tmp_path: Path, alexnet: Path, generator: torch.Generator) -> None:
    pytest.importorskip("lpips")
    torch.save(load_file(alexnet), tmp_path / "alexnet.pth")
    image, target = noise(generator, 3, 64, 64), noise(generator, 3, 64, 64)
    assert float(Lpips.load(tmp_path / "alexnet.pth")(image, target)) == float(Lpips.load(alexnet)(image, target))
