"""How good a scene generator is: sets of pictures and clips, maps that are followed, parts that are kept, memory."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from nfldm3d._moved import renamed_argument, warn_renamed
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, spread
from nfldm3d.evaluation.distributions import frechet_distance
from nfldm3d.evaluation.features import EfficientNetFeatures, InceptionFeatures, VideoFeatures
from nfldm3d.evaluation.generated_scenes import (
    GeneratorBudget,
    WorldGenerator,
    generate_scenes,
    mapped_samples,
    move_cars,
    rebuild,
)
from nfldm3d.evaluation.map_scores import (
    measure_class_overlap,
    measure_map_overlap,
    read_map,
    read_maps,
    seen_maps,
)
from nfldm3d.evaluation.memorisation import judge_memory
from nfldm3d.evaluation.moved_cars import CAR, judge_moves
from nfldm3d.evaluation.picture_scores import (
    CLASSIFIER,
    EFFICIENTNET,
    INCEPTION,
    ClipSets,
    Embed,
    FeatureNames,
    FeatureSets,
    PictureSets,
    embedding_by,
    frechet_chance,
    judge_clips,
    judge_pictures,
)
from nfldm3d.evaluation.pieces import Pieces
from nfldm3d.evaluation.scene_pictures import (
    SIZE,
    Clip,
    Draw,
    made_clips,
    made_pictures,
    rebuilt_pictures,
    recorded_clips,
    recorded_pictures,
)
from nfldm3d.geometry import Box
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.pipelines.scene_editing import MARGIN
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.rendering import render
from nfldm3d.scene import Scene

SHOWN = 8
"""Scenes on the page of pictures."""


@dataclass
class GeneratorReport:
    """Figures by name, and pictures to look at."""

    figures: dict[str, float] = field(default_factory=dict)
    strips: list[Float[Tensor, "3 height width"]] = field(default_factory=list)
    """Each a generated scene beside the training scene that is nearest to it."""
    nearest: list[int] = field(default_factory=list)
    """The number of the training scene that is nearest to each generated one."""


@dataclass(frozen=True)
class Judges:
    """Networks by which generated scenes are judged; what those that are None would tell is left out."""

    classifier: FrameClassifier | None = None
    """In its features: ``frechet`` and the like."""
    efficientnet: EfficientNetFeatures | None = None
    """``frechet_efficientnet`` and the like."""
    inception: InceptionFeatures | None = None
    """``fid``, ``kid`` and the like."""
    video: VideoFeatures | None = None
    """``fvd``."""
    reader: BevReader | None = None
    """``bev_miou`` and the like, for generators that take maps."""

    def spaces(self, device: torch.device) -> Iterator[tuple[FeatureNames, Embed]]:
        """What figures are called, and the features that they are measured in."""
        if self.classifier is not None:
            yield CLASSIFIER, embedding_by(self.classifier.embed, device, 256)
        for names, network in ((EFFICIENTNET, self.efficientnet), (INCEPTION, self.inception)):
            if network is not None:
                yield names, embedding_by(network.to(device), device, 32)


@torch.no_grad()
def measure_generator(
    pipeline: WorldGenerator,
    judges: Judges,
    training: Scenes,
    held_out: Scenes,
    *,
    budget: GeneratorBudget | None = None,
    pieces: Pieces | None = None,
    draw: Draw | None = None,
) -> GeneratorReport:
    """All figures of the evaluation.

    What is generated is seen by cameras that are mounted as those were that recorded the scenes.

    ``frechet_ratio`` is the distance of generated to held-out pictures over that of training pictures to held-out
    ones, ``frechet_floor``; ``frechet_halves`` is that of two halves of the training scenes, and
    ``frechet_rebuilt`` that of training scenes after encoding and decoding to held-out pictures; other scenes would
    have given a ratio from ``frechet_ratio_low`` to ``frechet_ratio_high``. ``frechet_video`` is that of clips in the
    features of single frames. ``pieces`` holds what ``sample_pieces`` has made, which is not made again; ``draw`` makes
    single pictures where plain rendering should not, such as ``Restorer.draw``.
    """
    budget, device = budget or GeneratorBudget(), pipeline._execution_device
    scenes = generate_scenes(pipeline, budget, "free", budget.scenes, pieces)
    figures: dict[str, float] = {}
    pictures, clips = _gather(pipeline, scenes, training, held_out, budget, draw)
    for names, embed in judges.spaces(device):
        figures |= _judge_in_space(pictures, clips, embed, names, budget)
    if judges.video is not None:
        figures["fvd"] = _judge_videos(judges.video.to(device), clips, budget)
    memory = judge_memory(pipeline, scenes, training, count=budget.remembered, progress=budget.progress)
    figures |= memory.figures
    strips = [_strip(scene, training[number]) for scene, number in zip(scenes[:SHOWN], memory.nearest, strict=False)]
    if judges.reader is not None and pipeline.map_size:
        figures |= judge_maps(pipeline, judges.reader, held_out, budget, pieces, free=scenes)
    if isinstance(pipeline, SceneGenerator) and budget.edited:
        figures["edit_kept_psnr"] = judge_edits(pipeline, scenes[: budget.edited], budget)
    return GeneratorReport(figures, strips, memory.nearest)


@renamed_argument("generator", "pipeline")
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
    """``measure_generator`` with its judges one by one; goes with the next release."""
    warn_renamed("judge_generator(pipeline, classifier, reader, ...)", "measure_generator(pipeline, Judges(...), ...)")
    judges = Judges(classifier, inception=inception, video=video, reader=reader)
    return measure_generator(pipeline, judges, training, held_out, budget=budget, pieces=pieces)


def _gather(
    pipeline: WorldGenerator,
    scenes: Sequence[Scene],
    training: Scenes,
    held_out: Scenes,
    budget: GeneratorBudget,
    draw: Draw | None,
) -> tuple[PictureSets, ClipSets]:
    """All pictures that are compared."""
    samples = list(spread(training, budget.rebuilt))
    shown = tqdm(samples, desc="rebuild", leave=False, disable=not budget.progress)
    pictures = PictureSets(
        made_pictures(scenes, held_out, budget.pictures, progress=budget.progress, draw=draw),
        rebuilt_pictures([rebuild(pipeline, sample) for sample in shown], samples, budget.pictures, draw=draw),
        recorded_pictures(training, 2 * budget.pictures),
        recorded_pictures(held_out, budget.pictures),
    )
    count = max(len(scenes), len(held_out))
    clips = made_clips(scenes, held_out), recorded_clips(training, count), recorded_clips(held_out, count)
    return pictures, ClipSets(*clips)


def _judge_in_space(
    pictures: PictureSets, clips: ClipSets, embed: Embed, names: FeatureNames, budget: GeneratorBudget
) -> dict[str, float]:
    sets, draws = FeatureSets.of(pictures, embed), torch.Generator().manual_seed(budget.seed)
    figures = judge_pictures(sets, names, generator=draws)
    if names is CLASSIFIER and names.frechet in figures:
        bounds = frechet_chance(sets.made, sets.held_out, generator=draws)
        for end, value in bounds._asdict().items():
            figures[f"frechet_ratio_{end}"] = value / figures["frechet_floor"]
    return figures | judge_clips(clips, embed, names)


@renamed_argument("generator", "pipeline")
def judge_maps(
    pipeline: WorldGenerator,
    reader: BevReader,
    held_out: Scenes,
    budget: GeneratorBudget,
    pieces: Pieces | None = None,
    *,
    free: Sequence[Scene] = (),
) -> dict[str, float]:
    """Overlap of given maps with those that the reader finds: in generated, unconditional and real fields.

    ``bev_miou_ceiling``, of real fields, is what the reader itself can do. ``bev_iou_road``, ``bev_iou_road_ceiling``
    and the like are those of single classes. Where maps hold cars, ``cars_moved`` and the other figures of
    ``judge_moves`` follow.

    Cells count in which some recorded view of the map's scene meets a surface: elsewhere real fields hold guesses, too.
    ``free`` are scenes made without maps; if they are fewer than the maps, others are generated.
    """
    samples, true = mapped_samples(held_out, budget)
    mapped = generate_scenes(pipeline, budget, "mapped", len(true), pieces, true)
    if len(free) < len(true):
        free = generate_scenes(pipeline, budget, "unmapped", len(true), pieces)
    real = [pipeline.networks.encode_sample(sample) for sample in samples]
    seen, names = seen_maps(samples), list(pipeline.config["map_classes"])
    figures: dict[str, float] = {}
    for kind, scenes in (("", mapped), ("_unconditional", free[: len(true)]), ("_ceiling", real)):
        each = measure_class_overlap(reader, scenes, seen)
        figures[f"bev_miou{kind}"] = float(each.nanmean())
        figures |= {f"bev_iou_{names[n]}{kind}": float(value) for n, value in enumerate(each) if not value.isnan()}
    moves, changed = move_cars(pipeline, true, budget)
    if any(move is not None for move in moves):
        moved = generate_scenes(pipeline, budget, "moved", len(true), pieces, changed)
        numbers = [number for number, move in enumerate(moves) if move is not None]
        now, before = (read_maps(reader, [scenes[n] for n in numbers]) for scenes in (moved, mapped))
        figures |= judge_moves([move for move in moves if move is not None], now, before, names.index(CAR))
    return figures


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


def _judge_videos(video: VideoFeatures, clips: ClipSets, budget: GeneratorBudget) -> float:
    """The Fréchet distance of generated to recorded clips; a ValueError if nothing was recorded along walks."""
    if not clips.made:
        raise ValueError("fvd needs scenes with views of the kind walk; record them with nfldm3d capture")
    made, real = (_embed_videos(video, some, budget.progress) for some in (clips.made, clips.held_out))
    return float(frechet_distance(made, real))


def _embed_videos(video: VideoFeatures, clips: Sequence[Clip], progress: bool) -> Float[Tensor, "clips features"]:
    device, shown = next(video.parameters()).device, {"desc": "clips", "leave": False, "disable": not progress}
    return torch.cat([video(clip[None].to(device)).cpu() for clip in tqdm(clips, **shown)])


def _strip(scene: Scene, sample: SceneSample) -> Float[Tensor, "3 height width"]:
    """Four views of a generated scene, and four of the training scene next to it."""
    assert scene.cameras is not None
    cameras = scene.cameras.resized(SIZE, SIZE)
    pictures = render(scene, cameras[torch.arange(0, len(cameras), len(cameras) // 4)[:4].tolist()]).image.cpu()
    real = functional.interpolate(sample.images[:4].float() / 255, (SIZE, SIZE), mode="bilinear", antialias=True)
    return torch.cat([*pictures, *real], dim=-1)


__all__ = [
    "SIZE",
    "GeneratorBudget",
    "GeneratorReport",
    "Judges",
    "judge_edits",
    "judge_generator",
    "judge_maps",
    "measure_generator",
    "measure_map_overlap",
    "read_map",
]
