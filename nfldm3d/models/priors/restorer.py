"""A denoiser that is given the raw render of a scene and draws what a photograph from there would show.

What is denoised is the difference r = (photograph - render) / deviation, both scaled to [-1, 1], of pictures y given
the render x: p(r | x). The first step gives the mean E[r | x], which has no detail of its own; each further one draws
some. Where nothing is left of r, noise says nothing, so zeros stand for it: the network need not learn to overlook it.
As it begins with zeros, an untrained restorer leaves pictures as they are in its first step.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.models.priors.image_denoiser import ImageDenoiser, make_image_schedule, nearness
from nfldm3d.models.weight_folders import device_of, find_weights, require_options
from nfldm3d.models.weights import load_network
from nfldm3d.rendering import prepare
from nfldm3d.scene import Scene

FOLDER = "restorer"
BESIDE = 5
"""Channels that a restorer sees beside the noise: three colours, opacity, nearness."""
DEVIATION = 0.25
"""Of photographs from the renders of compressed scenes, both from -1 to 1."""
SCHEDULE = make_image_schedule()


@dataclass(frozen=True)
class RawViews:
    """What a scene shows."""

    render: Float[Tensor, "views 3 height width"]
    """sRGB in [0, 1]."""
    opacity: Float[Tensor, "views height width"]
    nearness: Float[Tensor, "views height width"]
    """See ``image_denoiser.nearness``."""

    def channels(self) -> Float[Tensor, "views 5 height width"]:
        """All of it, from -1 to 1."""
        return 2 * torch.cat((self.render, self.opacity[:, None], self.nearness[:, None]), dim=1) - 1

    def to(self, device: torch.device) -> "RawViews":
        """The same on another device."""
        return RawViews(self.render.to(device), self.opacity.to(device), self.nearness.to(device))


@dataclass(frozen=True)
class Restorer:
    """A trained network that restores."""

    network: ImageDenoiser

    def __post_init__(self):
        if int(self.network.config["beside"]) != BESIDE:
            raise ValueError("this network is a prior and restores nothing; give the weights of train restorer")

    @classmethod
    def from_pretrained(cls, weights: PathName, device: torch.device | str | None = None, **options: Any) -> "Restorer":
        """Reads the folder ``restorer`` of weights or of a training run.

        Args:
            options: diffusers' own, those of ``LoadOptions``.

        Raises:
            DataFormatError: weights are missing, damaged or of another network.
        """
        require_options(options, "Restorer.from_pretrained")
        folder, place = find_weights(weights, **options), device_of(device, options)
        if not (folder / FOLDER).is_dir():
            raise DataFormatError(folder, f"holds no folder {FOLDER}; give weights of nfldm3d train restorer")
        network = load_network(ImageDenoiser, folder / FOLDER)
        torch.nn.Module.to(network, place)
        try:
            return cls(network.requires_grad_(False))
        except ValueError as error:
            raise DataFormatError(folder / FOLDER, str(error)) from error

    @classmethod
    def find(cls, weights: PathName, device: torch.device | str | None = None, **options: Any) -> "Restorer | None":
        """The same, or None where the weights hold no restorer."""
        require_options(options, "Restorer.find")
        folder = find_weights(weights, **options)
        return cls.from_pretrained(weights, device, **options) if (folder / FOLDER).is_dir() else None

    @property
    def image_size(self) -> int:
        """Pixels along each side of the pictures that it was trained on."""
        return int(self.network.config["size"])

    def restore(
        self,
        raw: RawViews,
        *,
        steps: int = 1,
        noise: Float[Tensor, "views 3 height width"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """See ``restore``."""
        return restore(self.network, raw, steps=steps, noise=noise, generator=generator)

    @torch.no_grad()
    def draw(self, scene: Scene, camera: Camera) -> Float[Tensor, "*views 3 height width"]:
        """What photographs from these cameras would show, sRGB in [0, 1]: what the scene shows, restored in one step.

        Each picture for itself, so what is made up differs a little between cameras; ``pipelines.refining.refine``
        makes it part of the scene.
        """
        views = camera.reshape(-1)
        parts = [self.restore(RawViews(**look_at(scene, views[[number]]))) for number in range(len(views))]
        return torch.cat(parts).clamp(0, 1).unflatten(0, camera.shape) if camera.shape else parts[0][0].clamp(0, 1)


@torch.no_grad()
def restore(
    network: ImageDenoiser,
    raw: RawViews,
    *,
    steps: int = 2,
    noise: Float[Tensor, "views 3 height width"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "views 3 height width"]:
    """Photographs that could have been taken where a scene was looked at, by DDIM (Song et al. 2021) in few steps.

    Args:
        noise: what further steps start from; the same noise draws the same picture.

    Raises:
        ValueError: there are no steps.
    """
    total = len(SCHEDULE.alphas_cumprod)
    if not 1 <= steps <= total:
        raise ValueError(f"a restorer takes 1 to {total} steps, got {steps}")
    beside, (height, width) = raw.channels(), raw.render.shape[-2:]
    if noise is None:
        noise = torch.randn(raw.render.shape, generator=generator).to(raw.render)
    unit = int(network.config["patch"]) * 2 ** (len(network.config["widths"]) - 1)
    edges = (0, -width % unit, 0, -height % unit)
    beside, noise = functional.pad(beside, edges, mode="replicate"), functional.pad(noise, edges)
    noisy, clean = torch.zeros_like(noise), torch.zeros_like(noise)
    times = [total - 1 - number * total // steps for number in range(steps)]
    for time, following in zip(times, [*times[1:], None], strict=True):
        t = torch.full((len(noisy),), time, device=noisy.device)
        clean, seen = split_noise(network(noisy, t, None, beside), noisy, t)
        seen = noise if time == times[0] else seen
        if following is not None:
            signal = SCHEDULE.alphas_cumprod[following].to(noisy)
            noisy = signal.sqrt() * clean + (1 - signal).sqrt() * seen
    return raw.render + float(network.config["deviation"]) / 2 * clean[..., :height, :width]


@torch.no_grad()
def look_at(scene: Scene, camera: Camera) -> dict[str, Float[Tensor, "views ..."]]:
    """What a restorer is shown of a scene: ``render``, ``opacity`` and ``nearness``, all from 0 to 1."""
    seen = prepare(scene).render(camera.to(scene.device))
    return {"render": seen.image, "opacity": seen.opacity, "nearness": nearness(seen.distance)}


def split_noise(
    velocity: Float[Tensor, "views 3 height width"],
    noisy: Float[Tensor, "views 3 height width"],
    t: Int64[Tensor, " views"],
) -> tuple[Float[Tensor, "views 3 height width"], Float[Tensor, "views 3 height width"]]:
    """The clean part and the noise that v = sqrt(share) noise - sqrt(1 - share) clean means."""
    signal = SCHEDULE.alphas_cumprod.to(noisy)[t][:, None, None, None]
    kept, lost = signal.sqrt(), (1 - signal).sqrt()
    return kept * noisy - lost * velocity, kept * velocity + lost * noisy
