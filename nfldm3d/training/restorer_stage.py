"""Trains a restorer on pairs of renders and photographs; see ``models.priors.restorer`` for what it learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.evaluation.metrics import Lpips, psnr, sharpness
from nfldm3d.files import DataFormatError
from nfldm3d.models.nfldm.critic import FeatureCritic
from nfldm3d.models.nfldm.losses import structural_loss, texture_loss
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import BESIDE, DEVIATION, SCHEDULE, RawViews, restore, split_noise
from nfldm3d.training.image_denoising import weighted_mean
from nfldm3d.training.stage import Evaluation

NAMES = ("render", "opacity", "nearness", "photograph")
SHOWN = 8
"""Pictures in the logs."""
COARSE = 4
"""Pixels along each side of patches whose colours must be right."""
PROBE = 32
"""Pixels along each side of a picture that tells which features there are."""


@dataclass(frozen=True)
class Pairs:
    """What scenes show, and photographs from the same cameras."""

    raw: RawViews
    photograph: Float[Tensor, "views 3 height width"]

    def to(self, device: torch.device) -> "Pairs":
        """The same on another device."""
        return Pairs(self.raw.to(device), self.photograph.to(device))


class PairSource:
    """Reads pairs; see ``SampleSource``."""

    def __init__(self, encoded: EncodedScenes, views: int = 2, crop: int = 0):
        """Draws ``views`` pairs of a scene; raises DataFormatError if the folder holds something else.

        Args:
            crop: pixels along each side of the part of a picture that is drawn; 0 for all of it.
        """
        if crop < 0:
            raise ValueError(f"crop is a number of pixels, 0 for whole pictures, got {crop}")
        self.encoded, self.views, self.crop = encoded, views, crop
        if encoded.header.get("keep") != "pairs":
            raise DataFormatError(encoded.folder, "holds no pairs; write them with nfldm3d encode --keep pairs")

    def __len__(self) -> int:
        return len(self.encoded)

    def sample(self, index: int, generator: torch.Generator) -> Pairs:
        """Some pairs of a scene, mirrored or not, or the same part of each."""
        return self.draw(index, generator)[2]

    def draw(self, index: int, generator: torch.Generator) -> tuple[list[int], bool, Pairs]:
        """The same, after the numbers of the pairs in their scene and whether they are mirrored."""
        tensors = self._read(index)
        chosen = torch.randperm(len(tensors["render"]), generator=generator)[: self.views]
        pairs = _as_pairs(self._crop(tensors, generator), chosen)
        mirrored = float(torch.rand((), generator=generator)) < 0.5
        return chosen.tolist(), mirrored, _mirrored(pairs) if mirrored else pairs

    def spread(self, scenes: int, views: int = 2) -> Pairs:
        """The first views of at most so many scenes, evenly spread."""
        scenes = min(scenes, len(self))
        numbers = [number * len(self) // scenes for number in range(scenes)]
        return self.collate([_as_pairs(self._read(number), torch.arange(views)) for number in numbers])

    def collate(self, samples: Sequence[Pairs]) -> Pairs:
        """All pairs one after the other."""
        raw = (torch.cat([getattr(sample.raw, name) for sample in samples]) for name in NAMES[:-1])
        return Pairs(RawViews(*raw), torch.cat([sample.photograph for sample in samples]))

    def _crop(self, tensors: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        if not self.crop:
            return tensors
        height, width = tensors["opacity"].shape[-2:]
        size = min(self.crop, height, width)
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in (height, width))
        return {name: value[..., top : top + size, left : left + size] for name, value in tensors.items()}

    def _read(self, index: int) -> dict[str, Tensor]:
        tensors = self.encoded[index].tensors
        if missing := [name for name in NAMES if name not in tensors]:
            path = self.encoded.folder / self.encoded.names[index]
            raise DataFormatError(path, f"lacks {', '.join(missing)}; delete it and make the pairs again")
        return tensors


@dataclass(frozen=True)
class RestorerWeights:
    """How much each part of the loss counts."""

    error: float = 1.0
    """Squared error of v, over all time steps; less where little is noise."""
    absolute: float = 0.5
    """Mean absolute error of the restored picture, where most is noise."""
    structure: float = 0.2
    """One minus its structural similarity at three scales."""
    texture: float = 0.1
    """Relative error of its local contrasts."""
    coarse: float = 2.0
    """Mean absolute error of its colours over patches of ``COARSE`` pixels, where it has one of the two below: neither
    asks much for the right colours."""
    perceptual: float = 1.0
    """Its LPIPS, where the weights of that are given."""
    deceit: float = 0.1
    """How sure a critic is that it is no photograph, where there is one."""
    critic: float = 1.0
    """The critic's own mistakes."""


class RestorerAndCritic(nn.Module):
    """What is trained together; only the restorer is kept."""

    def __init__(self, restorer: ImageDenoiser, lpips: Lpips):
        super().__init__()
        levels = lpips.features(torch.zeros(1, 3, PROBE, PROBE))
        self.restorer, self.critic = restorer, FeatureCritic(tuple(level.shape[1] for level in levels))


class RestorerStage:
    """See ``Stage``."""

    name = "restorer"
    optional_parameters = True

    def __init__(
        self,
        restorer: ImageDenoiser,
        source: PairSource,
        held_out: PairSource,
        *,
        weights: RestorerWeights | None = None,
        single: float = 0.15,
        judged: int = 24,
        lpips: Lpips | None = None,
        critic: bool = False,
    ):
        """Judges by two pictures of each of ``judged`` held-out scenes.

        Args:
            single: share of pictures of which nothing is left in training, from which one step restores.
            lpips: a perceptual distance of what one step restores.
            critic: whether a critic sees that as well, in the features of ``lpips``, which it needs.
        """
        if critic and lpips is None:
            raise ValueError("a critic looks at the features of LPIPS; give its weights (--lpips)")
        self.restorer, self.source, self.held_out = restorer, source, held_out
        self.model = RestorerAndCritic(restorer, lpips) if critic and lpips is not None else restorer
        self.weights, self.single, self.judged = weights or RestorerWeights(), single, judged
        self.lpips = lpips

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.restorer.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the networks."""
        torch.nn.Module.to(self.model, device)
        if self.lpips is not None:
            self.lpips.to(device)

    def loss(self, batch: Pairs, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the parts, and each part."""
        views, steps = len(batch.photograph), len(SCHEDULE.alphas_cumprod)
        t = torch.randint(steps, (views,), generator=generator)
        t = torch.where(torch.rand(views, generator=generator) < self.single, steps - 1, t)
        deviation = float(self.restorer.config["deviation"])
        clean = 2 * (batch.photograph - batch.raw.render) / deviation
        alone = t == steps - 1
        noise = torch.randn(clean.shape, generator=generator) * ~alone[:, None, None, None]
        noise, t, alone = noise.to(clean), t.to(clean.device), alone.to(clean.device)
        noisy = SCHEDULE.add_noise(clean, noise, t)  # type: ignore[arg-type]
        target = SCHEDULE.get_velocity(clean, noise, t)  # type: ignore[arg-type]
        velocity = self.restorer(noisy, t, None, batch.raw.channels()).float()
        parts = {"error": weighted_mean((velocity - target).square().flatten(1).mean(1), t)}
        if bool(alone.any()):
            made = split_noise(velocity, noisy, t)[0]
            picture = (batch.raw.render + deviation / 2 * made)[alone]
            parts |= self._compare(picture, batch.photograph[alone])
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def _compare(
        self, picture: Float[Tensor, "views 3 height width"], photograph: Float[Tensor, "views 3 height width"]
    ) -> dict[str, Tensor]:
        """What is wrong with what one step restores."""
        parts = {
            "absolute": (picture - photograph).abs().mean(),
            "structure": structural_loss(picture, photograph),
            "texture": texture_loss(picture, photograph),
        }
        if self.lpips is None:
            return parts
        found = self.lpips.features(picture)
        with torch.no_grad():
            wanted = self.lpips.features(photograph)
        parts["perceptual"] = self.lpips.compare(found, wanted)
        parts["coarse"] = functional.avg_pool2d(picture - photograph, COARSE).abs().mean()
        if isinstance(self.model, RestorerAndCritic):
            parts |= _judge(self.model.critic, found, wanted)
        return parts

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """PSNR and sharpness of held-out renders before and after, restored in one, four and twelve steps."""
        batch = self.held_out.spread(self.judged).to(self.restorer.device)
        truth, noise = batch.photograph, torch.randn(batch.photograph.shape, generator=generator)
        raw = batch.raw.render
        scalars = {"psnr_raw": psnr(raw, truth), "sharpness_raw": sharpness(raw, truth)}
        shown = [raw[:SHOWN]]
        for steps in (1, 4, 12):
            made = restore(self.restorer, batch.raw, steps=steps, noise=noise.to(truth)).clamp(0, 1)
            scalars |= {f"psnr_{steps}": psnr(made, truth), f"sharpness_{steps}": sharpness(made, truth)}
            shown.append(made[:SHOWN])
        strip = torch.cat([torch.cat(list(row), dim=-1) for row in (*shown, truth[:SHOWN])], dim=-2)
        figures = {name: float(value) for name, value in scalars.items()}
        error = float(self.loss(batch, generator)[1]["error"])
        return Evaluation(-error, {"error": error, **figures}, {"restored": strip})


def make_restorer(
    source: PairSource, *, widths: tuple[int, ...] = (64, 96, 128, 160), blocks: int = 1
) -> ImageDenoiser:
    """A new restorer for pictures of the size of those in ``source``."""
    size = int(source.spread(1).photograph.shape[-1])
    return ImageDenoiser(size, widths=widths, blocks=blocks, beside=BESIDE, deviation=DEVIATION, predicts="picture")


def _judge(critic: FeatureCritic, found: list[Tensor], wanted: list[Tensor]) -> dict[str, Tensor]:
    """What a critic says of features of drawn pictures, and what it is wrong about: hinge losses, mean over levels."""
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    deceit = [-scores.float().mean() for scores in functional_call(critic, frozen, (found,))]
    real, fake = critic(wanted), critic([level.detach() for level in found])
    wrong = [functional.relu(1 - scores.float()).mean() for scores in real]
    wrong += [functional.relu(1 + scores.float()).mean() for scores in fake]
    return {"deceit": torch.stack(deceit).mean(), "critic": torch.stack(wrong).sum() / len(found)}


def _as_pairs(tensors: dict[str, Tensor], chosen: Tensor) -> Pairs:
    render, opacity, nearness, photograph = (tensors[name][chosen].float() / 255 for name in NAMES)
    return Pairs(RawViews(render, opacity, nearness), photograph)


def _mirrored(pairs: Pairs) -> Pairs:
    raw = RawViews(pairs.raw.render.flip(-1), pairs.raw.opacity.flip(-1), pairs.raw.nearness.flip(-1))
    return Pairs(raw, pairs.photograph.flip(-1))
