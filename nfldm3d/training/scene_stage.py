"""Trains the scene auto-encoder (stage 1)."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.data.scenes import Scenes, require_scenes, spread
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.evaluation.scene_scores import SceneScores, judge_scene, mean_scores
from nfldm3d.models.nfldm.lifting import find_bins
from nfldm3d.models.nfldm.losses import (
    cross_entropy,
    observe_voxels,
    relative_depth_error,
    structural_loss,
    texture_loss,
)
from nfldm3d.models.nfldm.scene_autoencoder import Encoding, SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import occupancy_of
from nfldm3d.training.scene_source import SceneBatch, SceneItem, SceneSource
from nfldm3d.training.stage import Evaluation

logger = logging.getLogger(__name__)

OBSERVED_STRIDE = 2
"""Pixels between those that tell which voxels are free."""
SURFACE_SHARE = 0.1
"""A voxel holds matter if surfaces are this share of the rays that pass it."""
SURE, SURE_SIGNED = 0.1, 0.3
"""Nats, the latter for signed fields; voxels nearer to the truth are left alone: how dense a surface is, and where
between voxels it lies, depth decides."""
TINY = 1e-4


@dataclass(frozen=True)
class SceneWeights:
    """How much each part of the loss counts."""

    absolute: float = 1.0
    """Mean absolute error of the pictures."""
    structure: float = 0.2
    """One minus structural similarity at three scales, where there is no LPIPS."""
    perceptual: float = 0.2
    """LPIPS, where its weights are given."""
    texture: float = 0.15
    """Relative error of local contrasts."""
    color: float = 0.3
    """Mean absolute error of the rendered colours, before the decoder."""
    depth: float = 1.0
    """Relative error of the expected depth."""
    squared_depth: float = 0.0
    """Squared error of the expected depth, in voxels; the paper's depth loss."""
    opacity: float = 0.1
    """Rays end at surfaces and pass where there is none."""
    voxels: float = 0.12
    """Voxels that were seen hold matter or none."""
    frustum: float = 0.05
    """Input rays of scenes that are encoded from colour alone end in the bin of the true depth."""


PAPER_WEIGHTS = SceneWeights(
    structure=0.2, texture=0.0, color=0.0, depth=0.0, squared_depth=0.01, opacity=0.0, voxels=0.0, frustum=0.0
)
"""Pictures and squared depth alone."""


class SceneStage:
    """See ``Stage``."""

    name = "scene-autoencoder"
    optional_parameters = True

    def __init__(
        self,
        model: SceneAutoencoder,
        source: SceneSource,
        held_out: Scenes,
        *,
        weights: SceneWeights | None = None,
        lpips: Lpips | None = None,
        judged: int = 16,
    ):
        """Judges by the first ``judged`` scenes of ``held_out``, spread evenly; the log names the picture loss.

        Args:
            lpips: takes the place of structural similarity.
        """
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.source, self.held_out = source, require_scenes(held_out)
        self.weights = weights or SceneWeights()
        self.lpips, self.judged = lpips, judged
        logger.info("picture loss: L1 and %s", "SSIM at three scales" if lpips is None else "LPIPS")

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the networks."""
        self.model.to(device)
        if self.lpips is not None:
            self.lpips.to(device)

    def loss(self, batch: SceneBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean over scenes of all parts, and each part."""
        encodings = self.model.encode_batch([s.inputs for s in batch.scenes], [s.box for s in batch.scenes])
        sums: dict[str, Tensor] = {}
        for encoding, scene in zip(encodings, batch.scenes, strict=True):
            for name, value in self._parts(encoding, scene).items():
                sums[name] = sums.get(name, value.new_zeros(())) + value / len(batch.scenes)
        total = torch.stack([getattr(self.weights, name) * value for name, value in sums.items()]).sum()
        return total, {name: value.detach() for name, value in sums.items()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Scores on held-out scenes, with and without depth, and pictures beside the truth."""
        chosen = list(spread(self.held_out, self.judged))
        scored = [judge_scene(self.model, sample, with_depth=True) for sample in chosen]
        blind = [judge_scene(self.model, sample, with_depth=False) for sample in chosen]
        scores, without = mean_scores([s for s, _ in scored]), mean_scores([s for s, _ in blind])
        scalars = scores.figures() | {f"{name}_from_colour": value for name, value in without.figures().items()}
        strips = {f"scene{number}": picture for number, (_, picture) in enumerate(scored[:4])}
        return Evaluation(scores.psnr, scalars, strips)

    def _parts(self, encoding: Encoding, scene: SceneItem) -> dict[str, Tensor]:
        targets, weights, box = scene.targets, self.weights, encoding.field.box
        rendered = self.model.render(encoding.field, encoding.background, targets.rays)
        picture = self.model.decode(rendered).float()
        inside = targets.inside(box)
        parts = {
            "absolute": (picture - targets.images).abs().mean(),
            **self._compare_structure(picture, targets.images),
            "texture": texture_loss(picture, targets.images),
            "color": (rendered.features[..., :3].movedim(-1, 1) - targets.images).abs().mean(),
            "depth": relative_depth_error(rendered.distance, rendered.opacity, targets.depth, targets.cosine, inside),
            "opacity": _opacity_loss(rendered.opacity, inside),
        }
        if weights.squared_depth:
            size = min(encoding.field.voxel_size)
            error = (rendered.distance * targets.cosine - targets.depth) / size
            parts["squared_depth"] = (error.square() * inside).sum() / inside.sum().clamp(min=1)
        if weights.voxels:
            parts["voxels"] = self._voxel_loss(encoding, scene)
        if weights.frustum:
            parts["frustum"] = self._frustum_loss(encoding, scene)
        return parts

    def _compare_structure(
        self, picture: Float[Tensor, "views 3 height width"], target: Float[Tensor, "views 3 height width"]
    ) -> dict[str, Tensor]:
        if self.lpips is None:
            return {"structure": structural_loss(picture, target)}
        with torch.autocast(picture.device.type, enabled=False):
            return {"perceptual": self.lpips(picture, target)}

    def _frustum_loss(self, encoding: Encoding, scene: SceneItem) -> Float[Tensor, ""]:
        """Cross entropy of the bins that input rays end in, where the network had to guess them."""
        if scene.inputs.depth is not None:
            return encoding.weights.sum() * 0  # measured
        stride, depth = int(self.model.config["stride"]), scene.observed.depth
        assert depth is not None
        known = depth[: len(scene.inputs.images), stride // 2 :: stride, stride // 2 :: stride]
        bins = find_bins(known.reshape(-1), encoding.field.box, self.model.grid, int(self.model.config["bins"]))
        ends = torch.cat((encoding.weights, encoding.passed[:, -1:]), dim=1).clamp(min=TINY)
        return -ends.gather(1, bins[:, None]).log().mean()

    def _voxel_loss(self, encoding: Encoding, scene: SceneItem) -> Float[Tensor, ""]:
        """Cross entropy of the occupancy of voxels known to hold matter or none; hidden ones count as seen ones.

        Hidden from the encoded views, and known from the others: there the network has to complete the scene.
        """
        views, field, count = scene.observed, encoding.field, len(scene.inputs.images)
        assert views.depth is not None
        with torch.autocast(views.depth.device.type, enabled=False):
            (hits, free), (more_hits, more_free) = (
                observe_voxels(views.depth[part], views.camera[part], field.box, self.model.grid, OBSERVED_STRIDE)
                for part in (slice(None, count), slice(count, None))
            )
        hidden = (hits == 0) & (free == 0)
        hits, free = hits + more_hits, free + more_free
        solid, empty = (hits > 0) & (hits > SURFACE_SHARE * free), (hits == 0) & (free > 1)
        opacity = 1 - torch.exp(-field.density * min(field.voxel_size))
        share = (occupancy_of(field) if field.signed else opacity).clamp(TINY, 1 - TINY)
        sure = SURE_SIGNED if field.signed else SURE
        total = share.new_zeros(())
        for some in (hidden, ~hidden):
            for known, entropy in ((solid & some, -share.log()), (empty & some, -(1 - share).log())):
                total = total + 0.5 * ((entropy - sure).relu() * known).sum() / known.sum().clamp(min=1)
        return total


def _opacity_loss(
    opacity: Float[Tensor, "views height width"], inside: Float[Tensor, "views height width"]
) -> Float[Tensor, ""]:
    clamped = opacity.clamp(TINY, 1 - TINY)
    return cross_entropy(clamped, inside)


__all__ = ["PAPER_WEIGHTS", "SceneScores", "SceneStage", "SceneWeights"]
