"""The scenes by which a generator is judged, with and without maps; several processes can share the sampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Int64
from torch import Tensor

from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, spread
from nfldm3d.evaluation.moved_cars import CAR, ROAD, CarMove, move_car
from nfldm3d.evaluation.pieces import Pieces
from nfldm3d.pipelines.global_generator import GlobalGenerator
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.scene import Scene

WorldGenerator: TypeAlias = SceneGenerator | GlobalGenerator
"""What can be judged."""


@dataclass(frozen=True)
class GeneratorBudget:
    """How much is generated and looked at."""

    scenes: int = 128
    """Generated without a map; the pictures are spread over them."""
    mapped: int = 64
    """Generated from the maps of held-out scenes."""
    edited: int = 16
    """Of the generated scenes; a quarter of each is sampled again."""
    pictures: int = 2048
    """On each side of a comparison, as far as views along trajectories go."""
    rebuilt: int = 256
    """Training scenes that are encoded and decoded: what a generator without any fault would reach."""
    remembered: int = 256
    """Training scenes whose distance to all others tells how near two scenes are by chance."""
    steps: int = 40
    guidance_scale: float = 8.0
    seed: int = 0
    progress: bool = True
    """Whether bars are shown."""


def sample_pieces(pipeline: WorldGenerator, held_out: Scenes, budget: GeneratorBudget, pieces: Pieces) -> bool:
    """Makes this process's share of the scenes that are judged; whether those of other processes are there, too."""
    sets: list[tuple[str, int, Tensor | None]] = [("free", budget.scenes, None)]
    if pipeline.map_size:
        _, true = mapped_samples(held_out, budget)
        sets.append(("mapped", len(true), true))
        if len(true) > budget.scenes:
            sets.append(("unmapped", len(true), None))
        moves, changed = move_cars(pipeline, true, budget)
        if any(move is not None for move in moves):
            sets.append(("moved", len(true), changed))
    whole = [
        pieces.sample(name, count, lambda numbers: _sample(pipeline, budget, maps, count, numbers))  # noqa: B023
        for name, count, maps in sets
    ]
    return all(whole)


def mapped_samples(held_out: Scenes, budget: GeneratorBudget) -> tuple[list[SceneSample], Int64[Tensor, "_ x y"]]:
    """Held-out scenes that have maps, and the maps."""
    samples = [sample for sample in spread(held_out, budget.mapped) if sample.bev is not None]
    return samples, torch.stack([sample.bev.classes.long() for sample in samples if sample.bev is not None])


def move_cars(
    pipeline: WorldGenerator, maps: Int64[Tensor, "scenes x y"], budget: GeneratorBudget
) -> tuple[list[CarMove | None], Int64[Tensor, "scenes x y"]]:
    """A car of each map moved to another place of the road, where that is possible, and the changed maps."""
    names = list(pipeline.config["map_classes"])
    if CAR not in names or ROAD[0] not in names:
        return [None] * len(maps), maps
    draws = torch.Generator().manual_seed(budget.seed)
    moves = [move_car(one, names, generator=draws) for one in maps]
    changed = [one if move is None else move.classes for one, move in zip(maps, moves, strict=True)]
    return moves, torch.stack(changed)


@torch.no_grad()
def rebuild(pipeline: WorldGenerator, sample: SceneSample) -> Scene:
    """A training scene as the latents hold it: what a denoiser without any fault could give."""
    if isinstance(pipeline, GlobalGenerator):
        return pipeline.recall(sample)
    networks = pipeline.networks
    scene = networks.encode_sample(sample)
    return networks.decompress(networks.compress(scene), scene.box)


def generate_scenes(
    pipeline: WorldGenerator,
    budget: GeneratorBudget,
    name: str,
    count: int,
    pieces: Pieces | None,
    maps: Int64[Tensor, "scenes x y"] | None = None,
) -> list[Scene]:
    """A set of scenes, made now, or from its pieces."""
    if pieces is not None:
        return pieces.load(name, count, pipeline._execution_device)
    return _sample(pipeline, budget, maps, count)


def _sample(
    pipeline: WorldGenerator,
    budget: GeneratorBudget,
    maps: Int64[Tensor, "scenes x y"] | None,
    count: int,
    numbers: Sequence[int] | None = None,
) -> list[Scene]:
    """Scenes in batches; the same seeds with and without maps."""
    options: dict[str, Any] = {"guidance_scale": budget.guidance_scale, "num_inference_steps": budget.steps}
    draws = torch.Generator().manual_seed(budget.seed)
    return pipeline.generate(count, maps, numbers=numbers, generator=draws, **options).scenes
