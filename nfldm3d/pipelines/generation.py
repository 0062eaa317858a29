"""New scenes in batches: latents sampled by the hierarchy of denoisers, decoded by the auto-encoders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.models.nfldm.trajectories import unpack_path
from nfldm3d.pipelines.hierarchy import Condition, Hierarchy
from nfldm3d.pipelines.sampling import Generators, Sampler, split_generator
from nfldm3d.pipelines.scene_coding import SceneCoder
from nfldm3d.pipelines.scene_latents import SceneLatents
from nfldm3d.scene import Scene


@dataclass(frozen=True)
class GeneratedScenes:
    """What ``SceneGenerator.generate`` returns."""

    scenes: list[Scene]
    """Each with its latents, its cameras along the sampled path, and the sha256 of the weights."""
    latents: SceneLatents
    trajectories: Float[Tensor, "scenes poses 5"]
    """Poses of the paths: x, y, z in metres, cosine and sine of the heading."""


def choose_draws(
    num_scenes: int, numbers: Sequence[int] | None, generator: Generators
) -> list[tuple[int, torch.Generator]]:
    """The number of each scene to make, and its generator, which does not depend on the scenes that are left out.

    Raises:
        ValueError: a number is that of no scene, or there are not as many generators as scenes.
    """
    wanted = list(range(num_scenes) if numbers is None else numbers)
    if not wanted or not 0 <= min(wanted) <= max(wanted) < num_scenes:
        raise ValueError(f"numbers must name scenes from 0 to {num_scenes - 1}, got {wanted}")
    generators = split_generator(generator, num_scenes)
    return [(number, generators[number]) for number in wanted]


def generate_scenes(
    coder: SceneCoder,
    hierarchy: Hierarchy,
    sampler: Sampler,
    draws: Sequence[tuple[int, torch.Generator]],
    condition: Condition,
    trajectory: Float[Tensor, "poses 5"] | None = None,
    batch_size: int = 8,
) -> GeneratedScenes:
    """See ``SceneGenerator.generate``.

    Args:
        draws: of ``choose_draws``; the number says which of the conditions a scene has.
    """
    scenes: list[Scene] = []
    parts: list[SceneLatents] = []
    for first in range(0, len(draws), batch_size):
        numbers, generators = zip(*draws[first : first + batch_size], strict=True)
        wanted = condition.of(torch.tensor(numbers)).to(hierarchy.device)
        parts.append(hierarchy.sample(sampler, generators, wanted, trajectory))
        scenes += coder.decode(parts[-1])
    made = SceneLatents.stack(parts)
    return GeneratedScenes(scenes, made, torch.stack([unpack_path(path, coder.box) for path in made.paths]))
