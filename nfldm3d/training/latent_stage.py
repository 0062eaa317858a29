"""Trains the latent auto-encoder (stage 2) on fields that the scene auto-encoder made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, check_finite, parse_name
from nfldm3d.data.scenes import Scenes, require_scenes, spread
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.evaluation.scene_scores import judge_field, mean_scores, split_views
from nfldm3d.files import DataFormatError
from nfldm3d.models.nfldm.latent_autoencoder import LatentAutoencoder, Latents
from nfldm3d.models.nfldm.losses import structural_loss
from nfldm3d.models.nfldm.panorama import PanoramaCode
from nfldm3d.models.nfldm.quantizer import Quantized, perplexity
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import (
    FULL,
    Voxels,
    background_of,
    field_of,
    stack_voxels,
    voxels_from_tensors,
    voxels_of,
)
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.training.scene_source import Drawing, SceneItem, SceneSource
from nfldm3d.training.stage import Evaluation

MEASURED = 1024
"""Fields that the components of panoramas are taken from."""
BASE_VISIBILITY = 0.02
"""How much a voxel counts that nothing can be seen of: it lies deep in walls, or for features in the air."""


@dataclass(frozen=True)
class LatentWeights:
    """How much each part of the loss counts."""

    occupancy: float = 2.5
    """Cross entropy of the occupancy; the paper weighs density 2.5 times as much as features."""
    colors: float = 4.0
    """Mean absolute error of the first three features, sRGB, by visibility."""
    features: float = 1.0
    """Mean absolute error of the others."""
    sky: float = 4.0
    """Mean absolute error of the panorama."""
    picture: float = 1.0
    """Mean absolute error of the decoded pictures."""
    structure: float = 0.2
    """One minus their structural similarity."""
    perceptual: float = 0.1
    """Their LPIPS, beside structural similarity, where its weights are given."""
    depth: float = 0.3
    """Relative difference of the expected depth to that of the field."""
    divergence: float = 1e-4
    """Kullback-Leibler divergence of g from a unit Gaussian, per dimension."""
    commitment: float = 0.25
    """Distance of latents to their codes."""


@dataclass(frozen=True)
class LatentItem:
    """A field and views of it."""

    voxels: Voxels
    """Of one scene, with a scene axis of 1."""
    views: SceneItem


@dataclass(frozen=True)
class LatentBatch:
    """Fields to train on at once."""

    items: list[LatentItem]

    def to(self, device: torch.device) -> "LatentBatch":
        """The same on another device."""
        return LatentBatch([LatentItem(item.voxels.to(device), item.views.to(device)) for item in self.items])


class LatentSource:
    """Draws encodings, and views of the scenes that they encode; see ``SampleSource``."""

    def __init__(self, encoded: EncodedScenes, scenes: Scenes, keys: Sequence[str], drawing: Drawing | None = None):
        """``keys`` names the scenes in their order; a ValueError if there are encodings of other scenes."""
        self.encoded = encoded
        self.views = SceneSource(scenes, drawing or Drawing(targets=4, seen_targets=1, without_depth=0.0))
        self.numbers = {key: number for number, key in enumerate(keys)}
        unknown = sorted({parse_name(name)[0] for name in encoded.names} - set(self.numbers))
        if unknown:
            raise ValueError(
                f"{encoded.folder} holds encodings of {len(unknown)} scenes, {unknown[0]} the first, that are not in "
                "the data set; encode the data set that is given for training"
            )

    def __len__(self) -> int:
        return len(self.encoded)

    def sample(self, index: int, generator: torch.Generator) -> LatentItem:
        """One encoding and views of it, both after a random quarter turn of the world."""
        scene = self.encoded[index]
        if scene.turn >= 4:
            raise DataFormatError(self.encoded.folder / self.encoded.names[index], "is mirrored, but views are not")
        turn = int(torch.randint(4, (), generator=generator)) if self.views.drawing.turn else 0
        views = self.views.draw(self.numbers[scene.key], scene.turn + turn, generator)
        return LatentItem(self._voxels(scene, index).oriented(turn), views)

    def read(self, index: int) -> Voxels:
        """One encoding as it is, with a scene axis of 1; a DataFormatError if it is damaged."""
        return self._voxels(self.encoded[index], index)

    def _voxels(self, scene: EncodedScene, index: int) -> Voxels:
        try:
            check_finite(scene.tensors, scene.key)
            return voxels_from_tensors(scene.tensors)
        except ValueError as error:
            raise DataFormatError(self.encoded.folder / self.encoded.names[index], str(error)) from error

    def collate(self, samples: Sequence[LatentItem]) -> LatentBatch:
        """The fields side by side."""
        return LatentBatch(list(samples))


class LatentStage:
    """See ``Stage``; the scene auto-encoder stays as it is."""

    name = "latent-autoencoder"
    optional_parameters = True

    def __init__(
        self,
        model: LatentAutoencoder,
        scene_autoencoder: SceneAutoencoder,
        source: LatentSource,
        held_out: Scenes,
        *,
        weights: LatentWeights | None = None,
        lpips: Lpips | None = None,
        without_fine: float = 0.3,
        judged: int = 12,
    ):
        """Trains with f left out of a share ``without_fine`` of the scenes, lest c be ignored."""
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scene_autoencoder = scene_autoencoder.eval().requires_grad_(False)
        self.source, self.held_out = source, require_scenes(held_out)
        self.weights, self.lpips = weights or LatentWeights(), lpips
        self.without_fine, self.judged = without_fine, judged
        self.measure()

    def measure(self) -> None:
        """Takes the components of panoramas from some training fields."""
        if self.model.config["sky_dimensions"]:
            measure_panoramas(self.model.panorama_code, self.source)

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves both networks."""
        self.model.to(device)
        self.scene_autoencoder.to(device)  # type: ignore[arg-type]
        if self.lpips is not None:
            self.lpips.to(device)

    def loss(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean over scenes of all parts, and each part."""
        truth = stack_voxels([item.voxels for item in batch.items])
        encoding = self.model.encode(truth)
        latents, codes = self.model.quantize(self._sample(encoding.latents, encoding.log_variance, generator))
        kept = torch.rand(len(latents.f), 1, 1, 1, generator=generator).to(latents.f) >= self.without_fine
        made = self.model.decode(Latents(latents.g, latents.c, latents.f * kept))
        variance = encoding.log_variance.exp()
        parts = voxel_losses(made, truth)
        learned = encoding.latents.g[:, : variance.shape[1]]
        parts["divergence"] = 0.5 * (learned.square() + variance - 1 - encoding.log_variance).mean()
        parts["commitment"] = torch.stack([variance.new_zeros(()), *(code.commitment for code in codes.values())]).sum()
        pictures = [
            picture_losses(self.scene_autoencoder, made[number], item, self.lpips)
            for number, item in enumerate(batch.items)
        ]
        parts |= {name: torch.stack([each[name] for each in pictures]).mean() for name in pictures[0]}
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()} | _usage(codes)

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Scores on held-out scenes before and after compression, and use of the codes."""
        before, after, strips, used = [], [], {}, {"c": [], "f": []}
        for number, sample in enumerate(spread(self.held_out, self.judged)):
            split = split_views(sample)
            encoding = self.scene_autoencoder.encode(split.inputs.to(self.model.device), sample.box)
            before.append(judge_field(self.scene_autoencoder, encoding.field, encoding.background, split)[0])
            voxels = voxels_of(encoding.field, encoding.background)
            latents, codes = self.model.quantize(self.model.encode(voxels).latents)
            made = self.model.decode(latents)[0]
            background = background_of(made, self.scene_autoencoder.sky_code)
            score, strip = judge_field(self.scene_autoencoder, field_of(made, encoding.field.box), background, split)
            after.append(score)
            for name, code in codes.items():
                used[name].append(code.indices.flatten())
            if number < 4:
                strips[f"scene{number}"] = strip
        scalars = {f"{name}_of_field": value for name, value in mean_scores(before).figures().items()}
        scalars |= mean_scores(after).figures()
        for name, indices in used.items():
            if indices:
                size = len(getattr(self.model, f"quantizer_{name}").usage)
                scalars[f"perplexity_{name}"] = perplexity(torch.cat(indices), size)
                scalars[f"used_{name}"] = len(torch.cat(indices).unique()) / size
        return Evaluation(scalars["psnr"], scalars, strips)

    def _sample(self, latents: Latents, log_variance: Tensor, generator: torch.Generator) -> Latents:
        noise = torch.randn(log_variance.shape, generator=generator).to(latents.g)
        learned = log_variance.shape[1]
        g = torch.cat((latents.g[:, :learned] + torch.exp(0.5 * log_variance) * noise, latents.g[:, learned:]), dim=1)
        return Latents(g if self.model.config["use_global"] else latents.g, latents.c, latents.f)


def picture_losses(
    coder: SceneAutoencoder, made: Voxels, item: LatentItem, lpips: Lpips | None = None
) -> dict[str, Tensor]:
    """Of a field through the frozen decoder, against photographs; depth against that of the true field."""
    targets = item.views.targets
    box = cubic_box(item.views.box, coder.grid)
    rendered = coder.render(field_of(made, box), background_of(made, coder.sky_code), targets.rays)
    picture = coder.decode(rendered).float()
    inside = targets.inside(box)
    expected = rendered.distance / rendered.opacity.clamp(min=1e-2) * targets.cosine
    error = (expected - targets.depth).abs() / targets.depth.clamp(min=0.1)
    parts = {
        "picture": (picture - targets.images).abs().mean(),
        "structure": structural_loss(picture, targets.images),
        "depth": (error * inside).sum() / inside.sum().clamp(min=1),
    }
    if lpips is not None:
        with torch.autocast(picture.device.type, enabled=False):
            parts["perceptual"] = lpips(picture, targets.images)
    return parts


def voxel_losses(made: Voxels, truth: Voxels) -> dict[str, Float[Tensor, ""]]:
    """Cross entropy of occupancies; absolute errors of colours and other features, and of the panorama.

    Voxels count by what can be seen of them: surfaces, and for occupancies the air, but not what walls enclose.
    """
    occupancy, target, opacity = made.occupancy.clamp(FULL, 1 - FULL), truth.occupancy.clamp(0, 1), truth.opacity
    open_to_air = functional.max_pool3d(1 - opacity[:, None], 3, 1, 1)[:, 0]
    visible = functional.max_pool3d(opacity[:, None], 3, 1, 1)[:, 0] * open_to_air + BASE_VISIBILITY
    entropy = -(target * occupancy.log() + (1 - target) * torch.log1p(-occupancy))
    error = (made.features - truth.features).abs()
    return {
        "occupancy": _weighted_mean(entropy, open_to_air + BASE_VISIBILITY),
        "colors": _weighted_mean(error[..., :3].mean(-1), visible),
        "features": _weighted_mean(error[..., 3:].sum(-1) / max(1, error.shape[-1] - 3), visible),
        "sky": (made.sky - truth.sky).abs().mean(),
    }


def _weighted_mean(values: Float[Tensor, "*voxels"], weights: Float[Tensor, "*voxels"]) -> Float[Tensor, ""]:
    return (values * weights).sum() / weights.sum()


def _usage(codes: dict[str, Quantized]) -> dict[str, Tensor]:
    """Perplexity of the codes within a batch."""
    return {
        f"perplexity_{name}": torch.tensor(perplexity(code.indices, int(code.indices.max()) + 1))
        for name, code in codes.items()
    }


def measure_panoramas(code: PanoramaCode, source: LatentSource) -> None:
    """Takes the components of panoramas from some fields, evenly spread."""
    count = min(MEASURED, len(source))
    numbers = (number * len(source) // count for number in range(count))
    code.measure(torch.cat([source.read(number).sky for number in numbers]))
