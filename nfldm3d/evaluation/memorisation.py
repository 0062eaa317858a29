"""Whether generated scenes are copies of those that the networks were trained with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from nfldm3d._moved import renamed_argument
from nfldm3d.appearance import EnvironmentMap
from nfldm3d.data.scenes import Scenes
from nfldm3d.models.nfldm.scene_voxels import ORIENTATIONS, Voxels, voxels_of
from nfldm3d.pipelines.global_generator import GlobalGenerator
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.scene import Scene

BLOCK = 4
"""Voxels along each side of a block."""
NEAR = 0.05
"""Two training scenes are near if the distance is this quantile of those to the nearest other one."""


@dataclass(frozen=True)
class Resemblance:
    """What generated scenes have in common with training scenes."""

    figures: dict[str, float]
    nearest: list[int]
    """The number of the training scene that is nearest to each."""


@renamed_argument("generator", "pipeline")
@torch.no_grad()
def judge_memory(
    pipeline: SceneGenerator | GlobalGenerator,
    scenes: Sequence[Scene],
    training: Scenes,
    *,
    count: int = 256,
    progress: bool = True,
) -> Resemblance:
    """Distances of normalised coarse latents to the nearest of all training scenes, in any orientation.

    A ``GlobalGenerator`` has none: there the means of occupancy and colours over blocks of voxels are compared.

    ``memorised_fraction`` of the scenes are nearer to a training scene than ``NEAR`` of ``count`` training scenes are
    to another one.
    """
    count = min(count, len(training))
    asked = [number * len(training) // count for number in range(count)]
    known, turned = [], []
    for number in tqdm(range(len(training)), desc="remember", leave=False, disable=not progress):
        scene = pipeline.networks.encode_sample(training[number])
        described = _describe(pipeline, scene, ORIENTATIONS if number in asked else 1)
        known.append(described[0])
        if number in asked:
            turned.append(described)
    table = torch.stack(known)
    among = []
    for number, described in zip(asked, turned, strict=True):
        distance = torch.cdist(described, table).amin(0)
        distance[number] = torch.inf
        among.append(distance.min())
    ordinary = torch.stack(among)
    found = [torch.cdist(_describe(pipeline, scene, ORIENTATIONS), table).amin(0).min(0) for scene in scenes]
    distances = torch.stack([least.values for least in found])
    figures = {
        "memorised_fraction": float((distances < ordinary.quantile(NEAR)).float().mean()),
        "nearest_distance": float(distances.mean()),
        "nearest_distance_of_training": float(ordinary.mean()),
    }
    return Resemblance(figures, [int(least.indices) for least in found])


def _describe(
    pipeline: SceneGenerator | GlobalGenerator, scene: Scene, orientations: int
) -> Float[Tensor, "orientations numbers"]:
    assert isinstance(scene.background, EnvironmentMap)
    voxels = voxels_of(scene.field, scene.background)
    if isinstance(pipeline, GlobalGenerator):
        return torch.cat([_blocks(voxels.oriented(k)) for k in range(orientations)]).cpu()
    parts = [
        pipeline.latent_autoencoder.encode(voxels.oriented(k)).latents.c.flatten(1, 2) for k in range(orientations)
    ]
    return pipeline.denoiser_c.scaling.normalize(torch.cat(parts)).flatten(1).cpu()


def _blocks(voxels: Voxels) -> Float[Tensor, "scenes numbers"]:
    """Occupancy, and colours weighed by it, means over blocks."""
    grid = torch.cat((voxels.occupancy[..., None], voxels.features[..., :3] * voxels.occupancy[..., None]), dim=-1)
    return functional.avg_pool3d(grid.movedim(-1, 1), BLOCK).flatten(1)
