"""How good a scene generator is: pictures as a set, maps that are followed, parts that are kept, and memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from nfldm3d._moved import renamed_argument
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, spread
from nfldm3d.evaluation.distributions import (
    frechet_distance,
    intersection_over_union,
    kernel_distance,
    measure_coverage,
)
from nfldm3d.evaluation.features import InceptionFeatures, VideoFeatures
from nfldm3d.evaluation.generated_scenes import GeneratorBudget, generate_scenes, mapped_samples
from nfldm3d.evaluation.memorisation import judge_memory
from nfldm3d.evaluation.pieces import Pieces
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.nfldm.scene_voxels import voxels_of
from nfldm3d.pipelines.scene_editing import MARGIN
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.rendering import render
from nfldm3d.scene import Scene

SIZE = 64
"""Pixels along each side of them."""
NumberedPictures: TypeAlias = tuple[Float[Tensor, "views 3 height width"], Int64[Tensor, " views"]]
"""Pictures, and the number of the scene that each shows."""


@dataclass
class GeneratorReport:
    """Figures by name, and pictures to look at."""

    figures: dict[str, float] = field(default_factory=dict)
    strips: list[Float[Tensor, "3 height width"]] = field(default_factory=list)
    """Each a generated scene beside the training scene that is nearest to it."""


@renamed_argument("generator", "pipeline")
@torch.no_grad()
def judge_generator(
    pipeline: SceneGenerator,
    classifier: FrameClassifier,
    reader: BevReader | None,
    training: Scenes,
    held_out: Scenes,
    *,
    budget: GeneratorBudget | None = None,
    inception: InceptionFeatures | None = None,
    video: VideoFeatures | None = None,
    pieces: Pieces | None = None,
) -> GeneratorReport:
    """All figures of the evaluation; those of maps only with a reader and a generator that takes them.

    With ``inception`` there are ``fid`` and ``kid`` as well, with ``video`` there is ``fvd``, of a clip of each scene.

    ``frechet_ratio`` is the distance of generated to held-out pictures over that of training pictures to held-out
    ones, ``frechet_floor``; ``frechet_halves`` is that of two halves of the training pictures, and
    ``frechet_rebuilt`` that of training scenes after encoding and decoding to held-out pictures. ``pieces`` holds what
    ``sample_pieces`` has made, which is not made again.
    """
    budget = budget or GeneratorBudget()
    device = pipeline._execution_device
    scenes = generate_scenes(pipeline, budget, "free", budget.scenes, pieces)
    made = _own_pictures(scenes, budget)
    figures = _judge_pictures(made, pipeline, classifier, training, held_out, budget)
    if inception is not None:
        figures |= _judge_by_inception(inception.to(device), made[0], training, held_out, budget)
    if video is not None:
        figures["fvd"] = _judge_clips(video.to(device), scenes, held_out, budget)
    memory = judge_memory(pipeline, scenes, training, count=budget.remembered, progress=budget.progress)
    figures |= memory.figures
    strips = [_strip(scene, training[number]) for scene, number in zip(scenes[:8], memory.nearest, strict=False)]
    if reader is not None and pipeline.map_size:
        figures |= judge_maps(pipeline, reader, held_out, budget, pieces)
    figures["edit_kept_psnr"] = judge_edits(pipeline, scenes[: budget.edited], budget)
    return GeneratorReport(figures, strips)


@renamed_argument("generator", "pipeline")
def judge_maps(
    pipeline: SceneGenerator,
    reader: BevReader,
    held_out: Scenes,
    budget: GeneratorBudget,
    pieces: Pieces | None = None,
) -> dict[str, float]:
    """Overlap of given maps with those that the reader finds: in generated, unconditional and real fields.

    Cells count in which some recorded view of the map's scene meets a surface: elsewhere real fields hold guesses, too.
    """
    samples, true = mapped_samples(held_out, budget)
    real = [pipeline.networks.encode_sample(sample) for sample in samples]
    found = {
        "bev_miou": generate_scenes(pipeline, budget, "mapped", len(true), pieces, true),
        "bev_miou_unconditional": generate_scenes(pipeline, budget, "unmapped", len(true), pieces),
        "bev_miou_ceiling": real,
    }
    seen = torch.stack([known for sample in samples if (known := sample.seen_map()) is not None])
    figures = {}
    for name, scenes in found.items():
        figures[name] = measure_map_overlap(reader, scenes, seen)
    return figures


def measure_map_overlap(reader: BevReader, scenes: Sequence[Scene], maps: Int64[Tensor, "scenes x y"]) -> float:
    """Mean IoU over the classes that occur of the maps that the reader finds in scenes; not of ``UNSEEN`` cells."""
    found = torch.cat([read_map(reader, scene).cpu() for scene in scenes])
    return float(intersection_over_union(found, maps, int(reader.config["classes"])).nanmean())


@renamed_argument("generator", "pipeline")
def judge_edits(pipeline: SceneGenerator, scenes: Sequence[Scene], budget: GeneratorBudget) -> float:
    """PSNR, before against after, of what a scene's own cameras see of the kept part; a quarter of it is made anew."""
    scores = []
    for number, scene in enumerate(scenes):
        box = scene.box
        middle = [(low + high) / 2 for low, high in zip(box.lower, box.upper, strict=True)]
        corner = (number % 2, number // 2 % 2)
        lower = [middle[axis] if corner[axis] else box.lower[axis] for axis in (0, 1)]
        upper = [box.upper[axis] if corner[axis] else middle[axis] for axis in (0, 1)]
        region = Box((*lower, box.lower[2]), (*upper, box.upper[2]))  # type: ignore[arg-type]
        seed = torch.Generator().manual_seed(budget.seed + number)
        edited = pipeline.edit(scene, region, generator=seed, num_inference_steps=budget.steps)
        assert scene.cameras is not None
        cameras = scene.cameras.resized(SIZE, SIZE)
        before, after = render(scene, cameras), render(edited, cameras)
        margin = MARGIN * max(scene.field.voxel_size)
        low, high = ([edge + sign * margin for edge in side] for sign, side in ((-1, region.lower), (1, region.upper)))
        grown = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        entry, leave = grown.clip(cameras.rays())
        meets = (leave > entry) & ((entry < before.distance) | (before.distance == 0))
        error = (before.image - after.image).square().mean(1)[~meets]
        if len(error) == 0:
            continue
        scores.append(-10 * math.log10(max(float(error.mean()), 1e-10)))
    return sum(scores) / len(scores) if scores else math.nan


def _judge_pictures(
    made: NumberedPictures,
    pipeline: SceneGenerator,
    classifier: FrameClassifier,
    training: Scenes,
    held_out: Scenes,
    budget: GeneratorBudget,
) -> dict[str, float]:
    """Figures of generated, rebuilt and training pictures beside held-out ones, as the classifier sees them."""

    def embed(images: Tensor) -> Tensor:
        parts = images.split(256)
        return torch.cat([classifier.embed(part.to(pipeline._execution_device)).float().cpu() for part in parts])

    real_pictures, real_scenes = _real_pictures(held_out, budget.pictures)
    seen_pictures, seen_scenes = _real_pictures(training, 2 * budget.pictures)
    real, seen, own = embed(real_pictures), embed(seen_pictures), embed(made[0])
    half, other = seen[::2], seen[1::2]
    rebuilt = embed(_rebuilt_pictures(pipeline, training, budget))
    distance, floor = float(frechet_distance(own, real)), float(frechet_distance(half, real))
    covered = measure_coverage(own, real, made_scenes=made[1], real_scenes=real_scenes)
    ceiling = measure_coverage(half, real, made_scenes=seen_scenes[::2], real_scenes=real_scenes)
    draws = torch.Generator().manual_seed(budget.seed)
    return {
        "frechet": distance,
        "frechet_floor": floor,
        "frechet_ratio": distance / floor,
        "frechet_halves": float(frechet_distance(half, other)),
        "frechet_rebuilt": float(frechet_distance(rebuilt, real)),
        "kernel_distance": float(kernel_distance(own, real, generator=draws)),
        "kernel_distance_floor": float(kernel_distance(half, real, generator=draws)),
        "precision": covered.precision,
        "recall": covered.recall,
        "density": covered.density,
        "coverage": covered.coverage,
        "recall_of_training": ceiling.recall,
    }


def _judge_by_inception(
    inception: InceptionFeatures, pictures: Tensor, training: Scenes, held_out: Scenes, budget: GeneratorBudget
) -> dict[str, float]:
    device = next(inception.parameters()).device
    recorded = (_real_pictures(scenes, budget.pictures)[0] for scenes in (training, held_out))
    sets = (pictures, *recorded)
    made, seen, real = (torch.cat([inception(p.to(device)).cpu() for p in images.split(32)]) for images in sets)
    draws = torch.Generator().manual_seed(budget.seed)
    return {
        "fid": float(frechet_distance(made, real)),
        "fid_floor": float(frechet_distance(seen, real)),
        "kid": float(kernel_distance(made, real, generator=draws)),
        "kid_floor": float(kernel_distance(seen, real, generator=draws)),
    }


def _real_clips(scenes: Scenes) -> list[Float[Tensor, "frames 3 height width"]]:
    """What was recorded along each walk, in order."""
    clips = []
    for number in range(len(scenes)):
        sample = scenes[number]
        walked = [view for view, kind in enumerate(sample.kinds) if kind == "walk"]
        if walked:
            clips.append(sample.images[walked].float() / 255)
    return clips


def _own_clips(scenes: Sequence[Scene]) -> list[Float[Tensor, "frames 3 height width"]]:
    """Every second pose of each scene's own path, which is what is recorded of walks."""
    return [render(s, s.cameras.resized(SIZE, SIZE)[1::2]).image.cpu() for s in scenes if s.cameras is not None]


def _judge_clips(video: VideoFeatures, scenes: Sequence[Scene], held_out: Scenes, budget: GeneratorBudget) -> float:
    """The Fréchet distance of generated to recorded clips."""
    made, real = (_embed_clips(video, clips, budget.progress) for clips in (_own_clips(scenes), _real_clips(held_out)))
    return float(frechet_distance(made, real))


def _embed_clips(video: VideoFeatures, clips: Sequence[Tensor], progress: bool) -> Float[Tensor, "clips features"]:
    device, shown = next(video.parameters()).device, {"desc": "clips", "leave": False, "disable": not progress}
    return torch.cat([video(clip[None].to(device)).cpu() for clip in tqdm(clips, **shown)])


def read_map(reader: BevReader, scene: Scene) -> Int64[Tensor, "1 x y"]:
    """The classes that a reader finds in a scene of the networks' own grid."""
    assert scene.background is not None and not isinstance(scene.background, Tensor)
    return reader(voxels_of(scene.field, scene.background)).argmax(1)


def _strip(scene: Scene, sample: SceneSample) -> Float[Tensor, "3 height width"]:
    """Four views of a generated scene, and four of the training scene next to it."""
    assert scene.cameras is not None
    cameras = scene.cameras.resized(SIZE, SIZE)
    pictures = render(scene, cameras[torch.arange(0, len(cameras), len(cameras) // 4)[:4].tolist()]).image.cpu()
    real = functional.interpolate(sample.images[:4].float() / 255, (SIZE, SIZE), mode="bilinear", antialias=True)
    return torch.cat([*pictures, *real], dim=-1)


def _real_pictures(scenes: Scenes, count: int) -> NumberedPictures:
    """Recorded pictures, the same number of each scene, those taken along walks first."""
    each = math.ceil(count / len(scenes))
    return _join([sample.images[_walks_first(sample)[:each]].float() / 255 for sample in spread(scenes, count)], count)


def _join(parts: Sequence[Float[Tensor, "_ 3 height width"]], count: int) -> NumberedPictures:
    """The pictures of several scenes, at most ``count``."""
    lengths = torch.tensor([len(part) for part in parts])
    return torch.cat(list(parts))[:count], torch.arange(len(parts)).repeat_interleave(lengths)[:count]


def _rebuilt_pictures(
    pipeline: SceneGenerator, scenes: Scenes, budget: GeneratorBudget
) -> Float[Tensor, "views 3 height width"]:
    """Renders of recorded scenes that went through both auto-encoders, along their walks."""
    chosen, networks, parts = list(spread(scenes, budget.rebuilt)), pipeline.networks, []
    each = math.ceil(budget.pictures / len(chosen))
    for sample in tqdm(chosen, desc="rebuild", leave=False, disable=not budget.progress):
        scene = pipeline.networks.encode_sample(sample)
        rebuilt = networks.decompress(networks.compress(scene), scene.box)
        cameras = sample.camera[_walks_first(sample)[:each]].resized(SIZE, SIZE)
        parts.append(render(rebuilt, cameras.to(pipeline._execution_device)).image.cpu())
    return torch.cat(parts)[: budget.pictures]


def _walks_first(sample: SceneSample) -> list[int]:
    """All views of a scene, those taken along walks before the others."""
    return sorted(range(len(sample.images)), key=lambda view: sample.kinds[view : view + 1] != ("walk",))


def _own_pictures(scenes: Sequence[Scene], budget: GeneratorBudget) -> NumberedPictures:
    """Renders along each scene's own path."""
    count, parts = budget.pictures, []
    each = math.ceil(count / len(scenes))
    for scene in tqdm(scenes, desc="render", leave=False, disable=not budget.progress):
        assert scene.cameras is not None
        cameras = scene.cameras.resized(SIZE, SIZE)
        cameras = cameras.interpolated(each) if each != len(cameras) else cameras
        parts.append(render(scene, cameras).image.cpu())
    return _join(parts, count)
