"""Trains the auto-decoder of the GAUDI-style baseline on the same fields, views and losses as NF-LDM's stage 2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, parse_name, start_folder, write_encoding
from nfldm3d.data.scenes import Scenes, Selection, spread
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.evaluation.scene_scores import judge_field, mean_scores, split_views
from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.scene_voxels import background_of, field_of, stack_voxels
from nfldm3d.models.nfldm.trajectories import pack_path, path_of
from nfldm3d.models.nfldm.views import cubic_box
from nfldm3d.training.latent_stage import (
    LatentBatch,
    LatentItem,
    LatentSource,
    LatentWeights,
    measure_panoramas,
    picture_losses,
    voxel_losses,
)
from nfldm3d.training.scene_source import Drawing
from nfldm3d.training.stage import Evaluation

NOISE = 0.1
"""Added to codes in training, so that codes nearby give scenes nearby (GAUDI's beta)."""
SHRINKAGE = 1e-3
"""How much the mean square of codes counts."""
DRAWING = Drawing(targets=4, seen_targets=1, without_depth=0.0, turn=False)
"""A code stands for a scene seen from one side, so worlds are not turned."""


@dataclass(frozen=True)
class CodedItem:
    """A field with its views, and the place of its code."""

    number: int
    field: LatentItem


@dataclass(frozen=True)
class CodedBatch:
    """Several of them."""

    numbers: Int64[Tensor, " scenes"]
    fields: LatentBatch

    def to(self, device: torch.device) -> "CodedBatch":
        """The same on another device."""
        return CodedBatch(self.numbers.to(device), self.fields.to(device))


class CodedSource:
    """``LatentSource`` that tells which scene each field is of; see ``SampleSource``."""

    def __init__(self, encoded: EncodedScenes, scenes: Scenes, keys: Sequence[str], drawing: Drawing = DRAWING):
        """``keys`` names the scenes in their order; a ValueError if some are encoded in several orientations."""
        self.fields = LatentSource(encoded, scenes, keys, drawing)
        self.keys = tuple(parse_name(name)[0] for name in encoded.names)
        if len(set(self.keys)) < len(self.keys):
            raise ValueError(f"{encoded.folder} holds several encodings of a scene; encode with --turns 0")

    def __len__(self) -> int:
        return len(self.fields)

    def sample(self, index: int, generator: torch.Generator) -> CodedItem:
        """A field and views of it."""
        return CodedItem(index, self.fields.sample(index, generator))

    def collate(self, samples: Sequence[CodedItem]) -> CodedBatch:
        """Fields side by side."""
        numbers = torch.tensor([sample.number for sample in samples])
        return CodedBatch(numbers, self.fields.collate([sample.field for sample in samples]))

    @property
    def scenes(self) -> Scenes:
        """Those that are encoded, in the order of their codes."""
        views = self.fields.views
        return Selection(views.scenes, [self.fields.numbers[key] for key in self.keys])


class AutodecoderStage:
    """See ``Stage``; the scene auto-encoder stays as it is. Judged on training scenes, as there are no other codes."""

    name = "autodecoder"
    optional_parameters = True

    def __init__(
        self,
        model: SceneAutodecoder,
        scene_autoencoder: SceneAutoencoder,
        source: CodedSource,
        *,
        weights: LatentWeights | None = None,
        lpips: Lpips | None = None,
        judged: int = 12,
    ):
        """Raises a ValueError if the codes are those of other scenes than the fields."""
        if tuple(model.config["keys"]) != source.keys:
            raise ValueError("the codes are of other scenes than the fields; make the auto-decoder with source.keys")
        self.model, self.source = model.to(memory_format=torch.channels_last), source  # type: ignore[call-overload]
        self.scene_autoencoder = scene_autoencoder.eval().requires_grad_(False)
        self.weights, self.lpips, self.judged = weights or LatentWeights(), lpips, judged
        if model.config["sky_dimensions"]:
            measure_panoramas(model.panorama_code, source.fields)

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the networks."""
        self.model.to(device)
        self.scene_autoencoder.to(device)  # type: ignore[arg-type]
        if self.lpips is not None:
            self.lpips.to(device)

    def loss(self, batch: CodedBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean over scenes of all parts, and each part."""
        truth = stack_voxels([item.voxels for item in batch.fields.items])
        codes = self.model.codes_of(batch.numbers)
        noise = torch.randn(codes.shape, generator=generator).to(codes)
        made = self.model.decode(codes + NOISE * noise)
        parts = voxel_losses(made, truth)
        items = enumerate(batch.fields.items)
        pictures = [picture_losses(self.scene_autoencoder, made[number], item, self.lpips) for number, item in items]
        parts |= {name: torch.stack([each[name] for each in pictures]).mean() for name in pictures[0]}
        total = torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum()
        size = codes.square().mean()
        return total + SHRINKAGE * size, {name: value.detach() for name, value in (parts | {"size": size}).items()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Scores of what codes of training scenes show, by views that encoding would keep aside."""
        scores, strips = [], {}
        for number, sample in enumerate(spread(self.source.scenes, self.judged)):
            place = torch.tensor([self.model.find(sample.key)], device=self.model.device)
            made = self.model.decode(self.model.codes_of(place))[0]
            field = field_of(made, cubic_box(sample.box, self.scene_autoencoder.grid))
            background = background_of(made, self.scene_autoencoder.sky_code)
            score, strip = judge_field(self.scene_autoencoder, field, background, split_views(sample))
            scores.append(score)
            if number < 4:
                strips[f"scene{number}"] = strip
        figures = mean_scores(scores).figures()
        return Evaluation(figures["psnr"], figures, strips)


@torch.no_grad()
def write_codes(
    model: SceneAutodecoder, scenes: Scenes, numbers: Sequence[int], folder: PathName, about: Mapping[str, object]
) -> None:
    """Writes the codes of some scenes as latents that ``DenoiserStage`` learns g from: with paths and maps, no c and f.

    Args:
        scenes: in the order of the codes.
        numbers: of the scenes to write.
        about: what all scenes have in common, as the header of encodings notes it.
    """
    keys, (x, y, z) = list(model.config["keys"]), model.config["resolution"]
    start_folder(folder, {"keep": "latents", **about}, [keys[number] for number in numbers])
    for number in numbers:
        sample = scenes[number]
        code = model.codes_of(torch.tensor([number], device=model.device))[0].cpu()
        path = pack_path(path_of(sample), cubic_box(sample.box, (int(x), int(y), int(z))))
        tensors = {"g": code, "path": path, "c": torch.zeros(0, 1, 1, 1), "f": torch.zeros(0, 1, 1)}
        if sample.bev is not None:
            tensors["bev"] = sample.bev.classes
        write_encoding(folder, EncodedScene(sample.key, 0, tensors))
