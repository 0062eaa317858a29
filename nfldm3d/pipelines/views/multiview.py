"""ViewDiff at work: many views of a thing at once, from a text or pictures, or window by window along a path."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.camera import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.guidance.folders import load_prior
from nfldm3d.guidance.latent_prior import LatentPrior
from nfldm3d.guidance.pixel_prior import PixelPrior
from nfldm3d.memory import free_memory
from nfldm3d.models.views.multiview.batches import ViewBatch, to_cube
from nfldm3d.models.views.multiview.network import MultiViewNetwork
from nfldm3d.models.views.multiview.view_layers import ViewLayers
from nfldm3d.models.weight_folders import device_of, find_weights, require_options
from nfldm3d.models.weights import load_network
from nfldm3d.written_files import atomic_folder

LAYERS, UNET = "view_layers", "unet"
ACTIVATIONS = 64
"""Copies of its finest features that a U-Net has in memory at once, roughly."""
AT_ONCE = 8
"""Pictures that ``preserve_pictures`` draws together."""
COPIED = (".json", ".safetensors", ".txt", ".model")
"""What is taken over of the folder of a text-to-image model."""


@dataclass(frozen=True)
class KnownViews:
    """Pictures of a thing that are given."""

    images: Float[Tensor, "given 3 height width"]
    """sRGB in [0, 1]."""
    camera: Camera
    """(given)."""


@dataclass(frozen=True)
class MultiViewSampling:
    """How views are drawn."""

    steps: int = 10
    """Of UniPC (Zhao et al. 2023)."""
    guidance: float = 7.5
    """How much more the text counts than in training, for views that none are given for; 1 asks once for each step."""
    guidance_given: float = 1.0
    """The same for views that others are given for, which as published do without."""
    window: int = 8
    """Views drawn together by ``draw_along``."""
    remembered: int = 4
    """Views that each window but the first is given."""

    def __post_init__(self):
        if self.steps < 1 or self.window < 2 or not 1 <= self.remembered < self.window:
            raise ValueError(
                "steps must be at least 1, window at least 2 and remembered from 1 to one less, got "
                f"{self.steps}, {self.window} and {self.remembered}"
            )
        if not all(0 <= guidance < 100 for guidance in (self.guidance, self.guidance_given)):
            raise ValueError(f"guidance must lie between 0 and 100, got {self.guidance} and {self.guidance_given}")


@dataclass(frozen=True)
class MultiViewGenerator:
    """A text-to-image model with view layers in its U-Net."""

    network: MultiViewNetwork
    prior: LatentPrior | PixelPrior
    """What is around the U-Net: latents, texts and noise."""

    @classmethod
    def from_pretrained(
        cls, weights: PathName, device: torch.device | str | None = None, **options: Any
    ) -> "MultiViewGenerator":
        """Reads a pipeline's folder that holds ``view_layers``, too.

        Args:
            options: diffusers' own, those of ``LoadOptions``.

        Raises:
            DataFormatError: weights are missing, damaged or of another kind of model.
        """
        require_options(options, "MultiViewGenerator.from_pretrained")
        folder, place = find_weights(weights, **options), device_of(device, options)
        if not (folder / LAYERS).is_dir():
            raise DataFormatError(folder, f"holds no folder {LAYERS}; give weights of nfldm3d train multiview")
        layers = load_network(ViewLayers, folder / LAYERS)
        torch.nn.Module.to(layers, place)
        return cls.join(open_text_model(folder, place), layers)

    @classmethod
    def join(cls, prior: LatentPrior | PixelPrior, layers: ViewLayers) -> "MultiViewGenerator":
        """Puts layers into the U-Net of a model, which is changed."""
        assert isinstance(prior.unet, UNet2DConditionModel)
        return cls(MultiViewNetwork(prior.unet, layers).eval(), prior)

    @property
    def image_size(self) -> int:
        """Pixels along each side of the pictures that it draws."""
        return self.prior.image_size

    @property
    def surroundings(self) -> bool:
        """Whether its pictures show what is around things; else these stand before white."""
        return bool(self.network.layers.config["surroundings"])

    def draw(
        self,
        text: str,
        wanted: Camera,
        sampling: MultiViewSampling | None = None,
        *,
        known: KnownViews | None = None,
        generator: torch.Generator | None = None,
        tell: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """All views at once, sRGB in [0, 1]; as many as memory holds, whatever the network was trained on.

        Args:
            wanted: (views), around a thing in the middle whose box has a diagonal of 1.
            known: views that are given: they stay at time step 0, and ``guidance_given`` counts.
            generator: on the CPU; gives the same draws on every device.
        """
        sampling = sampling or MultiViewSampling()
        images = self._sample(text, wanted, sampling, known, generator, tell or (lambda share: None))
        return images.clamp(0, 1)

    def draw_along(
        self,
        text: str,
        wanted: Camera,
        sampling: MultiViewSampling | None = None,
        *,
        known: KnownViews | None = None,
        generator: torch.Generator | None = None,
        tell: Callable[[float], None] | None = None,
    ) -> Float[Tensor, "views 3 height width"]:
        """As many views as one likes, a window at a time: the first spreads over the whole path, each further one is
        given the nearest views that are there."""
        sampling = sampling or MultiViewSampling()
        windows = plan_windows(wanted, sampling)
        made: dict[int, Tensor] = {}
        for number, window in enumerate(windows):

            def share(done: float, number: int = number) -> None:
                if tell is not None:
                    tell((number + done) / len(windows))

            given = self._remember(made, wanted, window, sampling, known)
            images = self._sample(text, wanted[window], sampling, given, generator, share).clamp(0, 1)
            made |= dict(zip(window.tolist(), images, strict=True))
        return torch.stack([made[number] for number in range(len(wanted))])

    def save_pretrained(self, folder: PathName, source: PathName) -> None:
        """Writes a pipeline's folder: the U-Net as diffusers keeps it, the layers beside it, all else as in
        ``source``, the folder of the model that was converted."""
        with atomic_folder(folder) as temporary:
            self.write_into(temporary, find_weights(source))

    def write_into(self, folder: Path, origin: Path) -> None:
        """The same, into a folder that is there."""
        for path in sorted(origin.rglob("*")):
            inner = path.relative_to(origin)
            if path.is_file() and path.suffix in COPIED and inner.parts[0] not in (UNET, LAYERS):
                (folder / inner).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / inner)
        self.network.unet.save_pretrained(folder / UNET)
        self.network.layers.save_pretrained(folder / LAYERS)

    def _remember(
        self,
        made: dict[int, Tensor],
        wanted: Camera,
        window: Int64[Tensor, " views"],
        sampling: MultiViewSampling,
        known: KnownViews | None,
    ) -> KnownViews | None:
        """Views given to a window: all that are known, and the nearest of those that are made."""
        if not made:
            return known
        numbers = torch.tensor(sorted(made))
        middle = wanted.centers[window].mean(0)
        near = (wanted.centers[numbers] - middle).norm(dim=-1).argsort()[: sampling.remembered]
        numbers = numbers[near]
        images, camera = torch.stack([made[number] for number in numbers.tolist()]), wanted[numbers]
        if known is None:
            return KnownViews(images, camera)
        return KnownViews(
            torch.cat((known.images.to(images), images)), Camera.cat([known.camera.to(camera.device), camera])
        )

    @torch.no_grad()
    def _sample(
        self,
        text: str,
        wanted: Camera,
        sampling: MultiViewSampling,
        known: KnownViews | None,
        generator: torch.Generator | None,
        tell: Callable[[float], None],
    ) -> Float[Tensor, "views 3 height width"]:
        prior, device = self.prior, self.network.unet.device
        camera = wanted if known is None else Camera.cat([known.camera.to(wanted.device), wanted])
        _require_memory(self.network.unet, len(camera), device)
        batch = ViewBatch.of(to_cube(camera).reshape(1, -1)).to(device)
        fixed = None if known is None else prior.to_latents(known.images.to(device))
        channels = int(self.network.unet.config["in_channels"])
        side = int(self.network.unet.config["sample_size"])
        noisy = torch.randn(len(wanted), channels, side, side, generator=generator).to(device)
        guidance = sampling.guidance if known is None else sampling.guidance_given
        guided = guidance != 1
        texts = prior.embed([text]) if not guided else torch.cat((prior.embed([text]), prior.embed_nothing(1)))
        batch = batch.twice() if guided else batch
        scheduler = _make_scheduler(prior)
        scheduler.set_timesteps(sampling.steps, device=device)
        for number, t in enumerate(scheduler.timesteps):
            latents = noisy if fixed is None else torch.cat((fixed, noisy))
            times = torch.full((len(latents),), int(t), device=device)
            times[: len(latents) - len(noisy)] = 0
            count = len(texts)
            said = self.network(latents.expand(count, *latents.shape), times.expand(count, -1), texts, batch).float()
            said = said[:, len(latents) - len(noisy) :]
            told = said[1] + guidance * (said[0] - said[1]) if guided else said[0]
            noisy = scheduler.step(told, t, noisy, return_dict=False)[0]
            tell((number + 1) / sampling.steps)
        return prior.to_images(noisy).cpu()


def open_text_model(
    weights: PathName, device: torch.device | str | None = None, **options: Any
) -> LatentPrior | PixelPrior:
    """A text-to-image model whose U-Net can be given view layers.

    Raises:
        DataFormatError: it has no such U-Net.
    """
    prior = load_prior(weights, device, **options)
    if not isinstance(prior, LatentPrior | PixelPrior) or not isinstance(prior.unet, UNet2DConditionModel):
        raise DataFormatError(
            weights,
            "has no U-Net of diffusers whose attention could be told of views; give a folder like Stable Diffusion's",
        )
    return prior


def plan_windows(wanted: Camera, sampling: MultiViewSampling) -> list[Int64[Tensor, " views"]]:
    """The numbers of the views of each window: the first evenly spread, the others stretches of what is left."""
    count = len(wanted)
    first = torch.linspace(0, count - 1, min(sampling.window, count)).round().long()
    left = torch.tensor([number for number in range(count) if number not in set(first.tolist())], dtype=torch.int64)
    return [first, *(part for part in left.split(sampling.window - sampling.remembered) if len(part))]


def preserve_pictures(
    prior: LatentPrior | PixelPrior,
    captions: Sequence[str],
    *,
    steps: int = 20,
    guidance: float = 7.5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "pictures 3 height width"]:
    """What a model draws of captions before it is converted, one picture each, for ``MultiViewStage``."""
    unet = prior.unet
    assert isinstance(unet, UNet2DConditionModel)
    channels, side = int(unet.config["in_channels"]), int(unet.config["sample_size"])
    pictures = []
    for first in range(0, len(captions), AT_ONCE):
        some = captions[first : first + AT_ONCE]
        noisy = torch.randn(len(some), channels, side, side, generator=generator).to(unet.device)
        texts = torch.cat((prior.embed(some), prior.embed_nothing(len(some))))
        scheduler = _make_scheduler(prior)
        scheduler.set_timesteps(steps, device=unet.device)
        with torch.no_grad():
            for t in scheduler.timesteps:
                said = unet(noisy.repeat(2, 1, 1, 1), t, encoder_hidden_states=texts, return_dict=False)[0]
                told, untold = said[:, :channels].float().chunk(2)
                noisy = scheduler.step(untold + guidance * (told - untold), t, noisy, return_dict=False)[0]
            pictures.append(prior.to_images(noisy).clamp(0, 1).cpu())
    return torch.cat(pictures)


def _require_memory(unet: UNet2DConditionModel, views: int, device: torch.device) -> None:
    """Raises a ValueError if so many views drawn together would not fit, as far as their finest features tell."""
    side, channels = int(unet.config["sample_size"]), int(unet.config["block_out_channels"][0])
    needed, free = 4.0 * ACTIVATIONS * views * side**2 * channels, free_memory(device)
    if needed > free:
        raise ValueError(
            f"{views} views together need some {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; draw fewer "
            "together (a smaller --window, window=)"
        )


def _make_scheduler(prior: LatentPrior | PixelPrior) -> UniPCMultistepScheduler:
    """UniPC on the noise of the model's training."""
    shares = prior.alphas_cumprod.double().cpu()
    betas = 1 - shares / torch.cat((torch.ones(1).double(), shares[:-1]))
    return UniPCMultistepScheduler(
        num_train_timesteps=len(shares),
        trained_betas=betas.float().numpy(),  # pyright: ignore[reportArgumentType]
        prediction_type=prior.schedule.prediction,  # pyright: ignore[reportArgumentType]
    )
