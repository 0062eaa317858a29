"""Fine-tunes a text-to-image model to draw several views of a thing at once (ViewDiff, sections 3.3 and 4).

The views of an object share a time step, but each of the first two is at times given clean, at step 0, so that pictures
can be given at inference; such views do not count. The last view is left out of the volumes. Pictures that the
model drew before it was converted, one at a time and with a pose by chance, keep it from forgetting what it knew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.data.view_sets import ViewSet, ViewSets, find_given
from nfldm3d.guidance.embedders import TextEmbedder
from nfldm3d.guidance.latent_prior import LatentPrior
from nfldm3d.guidance.pixel_prior import PixelPrior
from nfldm3d.guidance.prior import share_at
from nfldm3d.models.views.multiview.batches import ViewBatch, picture_statistics, to_cube
from nfldm3d.models.views.multiview.network import MultiViewNetwork
from nfldm3d.training.stage import Evaluation, Pace

CLEAN_SHARE = 0.25
"""Of first and of second views that are given clean."""
GIVEN = 2
"""Views of an object that may be."""
LEVELS_OF_NOISE = 6
PLAIN_RADIUS, PLAIN_FOCAL = (2.0, 4.0), (1.1, 1.15)
"""Of the cameras that preserved pictures are told to be from: distance in half cubes, focal length in widths."""


@dataclass(frozen=True)
class MultiViews:
    """Views of several objects, as many of each, and what the objects are."""

    images: Float[Tensor, "objects views 3 height width"]
    """sRGB in [0, 1]."""
    camera: Camera
    """(objects views)."""
    captions: tuple[str, ...]

    def to(self, device: torch.device) -> "MultiViews":
        """The same on another device."""
        return replace(self, images=self.images.to(device), camera=self.camera.to(device))


@dataclass(frozen=True)
class PreservedPictures:
    """What the model drew before it was converted."""

    images: Float[Tensor, "pictures 3 height width"]
    """sRGB in [0, 1]."""
    captions: tuple[str, ...]


class MultiViewSource:
    """Draws several views of an object; see ``SampleSource``."""

    def __init__(self, sets: ViewSets, views: int = 5):
        """Half of the time ``views`` are any, half of the time a stretch of the object's, sorted by azimuth."""
        if views < 2:
            raise ValueError(f"views must be at least 2, got {views}")
        self.sets, self.views = sets, views

    def __len__(self) -> int:
        return len(self.sets)

    def sample(self, index: int, generator: torch.Generator) -> ViewSet:
        """Views of an object, in the order in which they are given."""
        return self.sets.read(index, lambda camera: draw_views_of(camera, self.views, generator))

    def spread(self, objects: int) -> MultiViews:
        """Views from evenly spread azimuths, ``find_given``'s first, of at most so many objects, evenly spread."""
        objects = min(objects, len(self))
        numbers = [number * len(self) // objects for number in range(objects)]
        return self.collate([self.sets.read(number, self._evenly) for number in numbers])

    def collate(self, samples: Sequence[ViewSet]) -> MultiViews:
        """All objects in a batch."""
        camera = Camera.cat([sample.camera for sample in samples]).reshape(len(samples), -1)
        images = torch.stack([sample.images for sample in samples])
        return MultiViews(images, camera, tuple(sample.caption for sample in samples))

    def _evenly(self, camera: Camera) -> Int64[Tensor, " views"]:
        order, count = _around(camera), len(camera)
        first = int((order == find_given(camera)).nonzero())
        return order[(first + torch.arange(self.views) * count // self.views) % count]


class MultiViewStage:
    """See ``Stage``."""

    name = "multiview"
    optional_parameters = True

    def __init__(
        self,
        model: MultiViewNetwork,
        prior: LatentPrior | PixelPrior,
        source: MultiViewSource,
        held_out: MultiViewSource,
        *,
        preserved: PreservedPictures | None = None,
        preservation: float = 0.1,
        untold: float = 0.2,
        renderer_rate: float = 100.0,
        judged: int = 8,
    ):
        """Judges by the views of ``judged`` held-out objects.

        Args:
            prior: the model around the U-Net of ``model``: its latents, texts and noise, which stay as they are.
            preservation: weight of the loss on preserved pictures.
            untold: share of objects whose caption is left out.
            renderer_rate: how much faster the layers that decode volumes learn than the rest; they do not decay.
        """
        if prior.unet is not model.unet:
            raise ValueError("the network to train and the prior must have one U-Net; attach layers to the prior's own")
        self.model, self.prior, self.source, self.held_out = model, prior, source, held_out
        self.preserved, self.preservation, self.untold = preserved, preservation, untold
        self.renderer_rate, self.judged = renderer_rate, judged
        model.requires_grad_(True)

    def config(self) -> dict[str, Any]:
        """What tells this network from others."""
        return {name: value for name, value in self.model.layers.config.items() if not name.startswith("_")}

    def paces(self) -> dict[str, Pace]:
        """See ``Paced``."""
        return dict.fromkeys(self.model.decoder_names(), Pace(self.renderer_rate, decays=False))

    def to(self, device: torch.device) -> None:
        """Moves the network, and what is around it."""
        networks: list[Any] = [self.model.unet, self.model.layers]
        if isinstance(self.prior, LatentPrior):
            networks.append(self.prior.autoencoder)
        if isinstance(self.prior.embedder, TextEmbedder):
            networks.append(self.prior.embedder.encoder)
        for network in networks:
            if not _is_on(network, device):
                torch.nn.Module.to(network, device)
        self.prior = replace(self.prior, schedule=self.prior.schedule.to(device))

    def loss(self, batch: MultiViews, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error over views that are not clean, and that of a preserved picture."""
        objects, views = batch.images.shape[:2]
        steps = len(self.prior.alphas_cumprod)
        times = torch.randint(steps, (objects, 1), generator=generator).expand(-1, views).clone()
        clean = draw_clean(objects, views, generator)
        times[clean] = 0
        silent = torch.rand(objects, generator=generator) < self.untold
        captions = ["" if quiet else text for quiet, text in zip(silent.tolist(), batch.captions, strict=True)]
        errors = self._errors(batch, captions, times, generator, left_out=1)
        counted = (~clean).to(errors)
        error = (errors * counted).sum() / counted.sum().clamp(min=1)
        figures = {"error": error.detach()}
        if self.preserved is None:
            return error, figures
        kept = self._preserve(generator, batch.images.device)
        return error + self.preservation * kept, figures | {"preserved": kept.detach()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Errors on held-out objects, at some time steps: of all views, and of the others when the first is given."""
        batch, seed = self.held_out.spread(self.judged).to(self.model.unet.device), generator.initial_seed()
        objects, views = batch.images.shape[:2]
        steps, sums = len(self.prior.alphas_cumprod), {"error": 0.0, "error_given": 0.0}
        for name, given in (("error", 0), ("error_given", 1)):
            draws = torch.Generator().manual_seed(seed)
            for level in range(LEVELS_OF_NOISE):
                times = torch.full((objects, views), int((level + 0.5) * steps / LEVELS_OF_NOISE))
                times[:, :given] = 0
                errors = self._errors(batch, list(batch.captions), times, draws, left_out=0)[:, 1:]
                sums[name] += float(errors.mean()) / LEVELS_OF_NOISE
        return Evaluation(-sums["error"], sums)

    def _errors(
        self,
        batch: MultiViews,
        captions: Sequence[str],
        times: Int64[Tensor, "objects views"],
        generator: torch.Generator,
        *,
        left_out: int,
    ) -> Float[Tensor, "objects views"]:
        objects, views = batch.images.shape[:2]
        flat = batch.images.flatten(0, 1)
        with torch.no_grad():
            latents, texts = self.prior.to_latents(flat), self.prior.embed(captions)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        place = times.flatten().to(latents.device)
        share = share_at(self.prior.alphas_cumprod, place, latents)
        noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
        target = self.prior.schedule.target_of(latents, noise, place)
        told = ViewBatch.of(to_cube(batch.camera), picture_statistics(2 * batch.images - 1))
        told = replace(told, left_out=left_out)
        said = self.model(noisy.unflatten(0, (objects, views)), times.to(latents.device), texts, told).flatten(0, 1)
        return (said.float() - target).square().flatten(1).mean(1).unflatten(0, (objects, views))

    def _preserve(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """The error on one preserved picture, as a thing with a single view."""
        assert self.preserved is not None
        number = int(torch.randint(len(self.preserved.images), (), generator=generator))
        image = self.preserved.images[number].to(device)[None, None]
        size = image.shape[-1]
        text = "" if float(torch.rand((), generator=generator)) < self.untold else self.preserved.captions[number]
        batch = MultiViews(image, plain_camera(size, generator).to(device), (text,))
        times = torch.randint(len(self.prior.alphas_cumprod), (1, 1), generator=generator)
        return self._errors(batch, [text], times, generator, left_out=0).mean()


def _is_on(network: torch.nn.Module, device: torch.device) -> bool:
    """Whether a network lies on a device already, as one that was read to it does."""
    here = next(network.parameters()).device
    return here.type == device.type and (None in (here.index, device.index) or here.index == device.index)


def draw_views_of(camera: Camera, views: int, generator: torch.Generator) -> Int64[Tensor, " numbers"]:
    """Any views of an object, or with equal chance a stretch of them by azimuth, with a stride from 1 to 4; with
    repetition only where there are too few."""
    count = len(camera)
    if float(torch.rand((), generator=generator)) < 0.5 or count < views:
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(math.ceil(views / count))])
        return order[:views]
    stride = min(int(torch.randint(1, 5, (), generator=generator)), (count - 1) // (views - 1))
    first = int(torch.randint(count, (), generator=generator))
    return _around(camera)[(first + stride * torch.arange(views)) % count]


def _around(camera: Camera) -> Int64[Tensor, " numbers"]:
    """The numbers of views by azimuth."""
    x, y = camera.centers[:, :2].cpu().unbind(-1)
    return torch.atan2(y, x).argsort()


def draw_clean(objects: int, views: int, generator: torch.Generator) -> Bool[Tensor, "objects views"]:
    """Which views are given clean: each of the first two by chance, never the last one."""
    chosen = torch.rand(objects, views, generator=generator) < CLEAN_SHARE
    chosen[:, min(GIVEN, views - 1) :] = False
    return chosen


def plain_camera(size: int, generator: torch.Generator) -> Camera:
    """A camera (1 1) somewhere above, aimed at the middle of the cube in world lengths."""
    radius, polar, azimuth, focal = torch.rand(4, generator=generator).tolist()
    low, high = PLAIN_RADIUS
    radius, polar, azimuth = low + (high - low) * radius, math.radians(30 + 60 * polar), 2 * math.pi * azimuth
    flat = radius * math.sin(polar)
    eye = (flat * math.cos(azimuth), flat * math.sin(azimuth), radius * math.cos(polar))
    found = Camera.look_at(torch.tensor([eye]), (0.0, 0.0, 0.0), width=size, height=size)
    lens = size * (PLAIN_FOCAL[0] + (PLAIN_FOCAL[1] - PLAIN_FOCAL[0]) * focal)
    return replace(to_cube(found, invert=True), focal=torch.full((1, 2), lens)).reshape(1, 1)
