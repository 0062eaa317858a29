"""Trains the image decoder alone, on fields that are there already, to draw texture as well as colour.

What voxels cannot hold, no error of pixels will bring back: its best answer is a blur. A critic that looks at patches
asks for pictures that could be photographs instead (Isola et al. 2017); errors of pixels keep them true.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from nfldm3d.data.scenes import Scenes, require_scenes, spread
from nfldm3d.evaluation.scene_scores import judge_scene, mean_scores
from nfldm3d.geometry import Rays
from nfldm3d.models.nfldm.critic import PatchCritic
from nfldm3d.models.nfldm.losses import structural_loss, texture_loss
from nfldm3d.models.nfldm.scene_autoencoder import FeatureImages, SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import background_of, field_of
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.training.latent_stage import LatentBatch, LatentSource
from nfldm3d.training.scene_source import Drawing
from nfldm3d.training.stage import Evaluation

DECODER_DRAWING = Drawing(targets=6, seen_targets=2, without_depth=0.0, crop=48)
"""More of each picture than stage 1 looks at: the critic wants to see patches whole."""


@dataclass(frozen=True)
class DecoderWeights:
    """How much each part of the loss counts."""

    absolute: float = 1.0
    """Mean absolute error of the pictures."""
    structure: float = 0.2
    """One minus structural similarity at three scales."""
    texture: float = 0.08
    """Relative error of local contrasts."""
    deceit: float = 0.06
    """How sure the critic is that pictures are no photographs."""
    critic: float = 1.0
    """The critic's own mistakes."""


class DecoderAndCritic(nn.Module):
    """What is trained together; only the decoder is kept."""

    def __init__(self, autoencoder: SceneAutoencoder):
        super().__init__()
        self.decoder = autoencoder.decoder
        self.critic = PatchCritic()


class DecoderStage:
    """See ``Stage``; all of the scene auto-encoder but its decoder stays as it is."""

    name = "image-decoder"
    optional_parameters = False

    def __init__(
        self,
        autoencoder: SceneAutoencoder,
        source: LatentSource,
        held_out: Scenes,
        *,
        weights: DecoderWeights | None = None,
        judged: int = 12,
    ):
        """Judges by ``judged`` scenes of ``held_out``, spread evenly."""
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.model = DecoderAndCritic(autoencoder).requires_grad_(True)
        self.source, self.held_out, self.judged = source, require_scenes(held_out), judged
        self.weights = weights or DecoderWeights()

    def config(self) -> dict[str, Any]:
        """The scene auto-encoder's constructor arguments."""
        return {name: value for name, value in self.autoencoder.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves all networks."""
        self.autoencoder.to(device)  # pyright: ignore[reportArgumentType]
        self.model.to(device)

    def loss(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the parts, and each part."""
        rendered, images = self._render(batch)
        picture = self.autoencoder.decode(rendered).float()
        colors = rendered.features[..., :3].movedim(-1, 1).detach()
        critic = self.model.critic
        frozen = {name: value.detach() for name, value in critic.named_parameters()}
        judged = functional_call(critic, frozen, (picture, colors))
        real, fake = critic(images, colors), critic(picture.detach(), colors)
        parts = {
            "absolute": (picture - images).abs().mean(),
            "structure": structural_loss(picture, images),
            "texture": texture_loss(picture, images),
            "deceit": -judged.float().mean(),
            "critic": functional.relu(1 - real.float()).mean() + functional.relu(1 + fake.float()).mean(),
        }
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Scores on held-out scenes; the score rewards sharpness up to that of photographs."""
        chosen = spread(self.held_out, self.judged)
        judged = [judge_scene(self.autoencoder, sample, with_depth=True) for sample in chosen]
        scores = mean_scores([score for score, _ in judged])
        strips: Mapping[str, Float[Tensor, "3 height width"]] = {
            f"scene{number}": picture for number, (_, picture) in enumerate(judged[:4])
        }
        return Evaluation(scores.psnr + 4 * min(scores.sharpness, 1.0), scores.figures(), strips)

    @torch.no_grad()
    def _render(self, batch: LatentBatch) -> tuple[FeatureImages, Float[Tensor, "views 3 height width"]]:
        parts = []
        for item in batch.items:
            voxels, views = item.voxels[0], item.views
            background = background_of(voxels, self.autoencoder.sky_code)
            field = field_of(voxels, cubic_box(views.box, self.autoencoder.grid))
            parts.append(self.autoencoder.render(field, background, views.targets.rays))
        rays = Rays(*(torch.cat([getattr(p.rays, name) for p in parts]) for name in ("origins", "directions")))
        names = ("features", "opacity", "distance")
        features, opacity, distance = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        images = torch.cat([item.views.targets.images for item in batch.items])
        return FeatureImages(features, opacity, distance, rays), images
