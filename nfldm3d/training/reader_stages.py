"""Trains the networks that judge: the classifier of pictures, and the reader of bird's-eye maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nfldm3d.data.bev_map import UNSEEN
from nfldm3d.data.encoded_scenes import EncodedScenes, check_finite
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scenes import Scenes, require_scenes, spread
from nfldm3d.evaluation.distributions import intersection_over_union
from nfldm3d.files import DataFormatError
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.nfldm.scene_voxels import ORIENTATIONS, Voxels, orient_map, stack_voxels, voxels_from_tensors
from nfldm3d.training.stage import Evaluation

FRAMES = 8
"""Views of a scene in a sample."""


@dataclass(frozen=True)
class Frames:
    """Pictures with what they show."""

    images: Float[Tensor, "views 3 height width"]
    maps: Int64[Tensor, " views"]
    shares: Float[Tensor, "views classes"]

    def to(self, device: torch.device) -> "Frames":
        """The same on another device."""
        return Frames(self.images.to(device), self.maps.to(device), self.shares.to(device))


def name_maps(scenes: Scenes) -> list[str]:
    """The worlds that scenes come from, in alphabetical order; reads them all."""
    return sorted({scenes[number].map for number in range(len(scenes))})


class FrameSource:
    """Draws views of scenes; see ``SampleSource``."""

    def __init__(self, scenes: Scenes, maps: Sequence[str]):
        """``maps`` names all worlds that scenes may come from."""
        self.scenes, self.maps = scenes, list(maps)
        labels = scenes[0].metadata.get("label_names")
        if not isinstance(labels, list | tuple) or scenes[0].labels is None:
            raise ValueError("a classifier of pictures needs scenes with labels; record them with nfldm3d capture")
        self.classes = len(labels)

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int, generator: torch.Generator) -> Frames:
        """Some views of a scene, half of them mirrored."""
        scene = self.scenes[index]
        chosen = torch.randperm(len(scene.images), generator=generator)[:FRAMES]
        frames = self.read(scene, chosen)
        mirrored = torch.rand(len(chosen), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], frames.images.flip(-1), frames.images)
        return Frames(images, frames.maps, frames.shares)

    def read(self, scene: SceneSample, chosen: Tensor) -> Frames:
        """The chosen views."""
        if scene.labels is None or scene.map not in self.maps:
            raise DataFormatError(scene.key, "has no labels, or comes from a map that is not among the others")
        labels = scene.labels[chosen].long().flatten(1)
        shares = functional.one_hot(labels, self.classes).float().mean(1)
        maps = torch.full((len(chosen),), self.maps.index(scene.map))
        return Frames(scene.images[chosen].float() / 255, maps, shares)

    def collate(self, samples: Sequence[Frames]) -> Frames:
        """All views in one."""
        return Frames(*(torch.cat([getattr(s, name) for s in samples]) for name in ("images", "maps", "shares")))


class FrameStage:
    """See ``Stage``. Half of each scene's views are drawn anew each time, so judging is by scenes kept aside."""

    name = "frame-classifier"
    optional_parameters = False

    def __init__(self, model: FrameClassifier, source: FrameSource, held_out: Scenes, *, judged: int = 64):
        """``held_out`` are scenes of the same maps."""
        self.model, self.source, self.held_out, self.judged = model, source, require_scenes(held_out), judged

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        self.model.to(device)  # type: ignore[arg-type]

    def loss(self, batch: Frames, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropies of the map and of the shares of classes."""
        maps, classes = self.model(batch.images)
        which = functional.cross_entropy(maps.float(), batch.maps)
        what = functional.cross_entropy(classes.float(), batch.shares)
        right = (maps.argmax(-1) == batch.maps).float().mean()
        return which + what, {"map": which.detach(), "classes": what.detach(), "right": right}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """The share of pictures whose map is found."""
        right, wrong = [], []
        for scene in spread(self.held_out, self.judged):
            frames = self.source.read(scene, torch.arange(len(scene.images))).to(self.model.device)
            maps, classes = self.model(frames.images)
            right.append((maps.argmax(-1) == frames.maps).float())
            wrong.append((classes.softmax(-1) - frames.shares).abs().sum(-1) / 2)
        accuracy = float(torch.cat(right).mean())
        return Evaluation(accuracy, {"map_accuracy": accuracy, "class_error": float(torch.cat(wrong).mean())})


@dataclass(frozen=True)
class MappedFields:
    """Fields with their bird's-eye maps."""

    voxels: Voxels
    classes: Int64[Tensor, "scenes x y"]
    """``UNSEEN`` where no view of the scene met anything: what a field holds there is a guess."""

    def to(self, device: torch.device) -> "MappedFields":
        """The same on another device."""
        return MappedFields(self.voxels.to(device), self.classes.to(device))


class MappedFieldSource:
    """Draws encoded fields in any orientation, with the maps of their scenes; see ``SampleSource``."""

    def __init__(self, encoded: Sequence[EncodedScenes], scenes: Scenes, keys: Sequence[str]):
        """Folders of encodings of the same scenes; ``keys`` names these in their order."""
        self.encoded, self.scenes = list(encoded), scenes
        if not self.encoded:
            raise ValueError("there are no folders of fields; give at least one")
        self.numbers = {key: number for number, key in enumerate(keys)}

    @property
    def classes(self) -> int:
        """How many classes the maps have."""
        bev = self.scenes[0].bev
        if bev is None:
            raise ValueError("a reader of bird's-eye maps needs scenes with maps; record them with nfldm3d capture")
        return len(bev.class_names)

    def __len__(self) -> int:
        return sum(len(encoded) for encoded in self.encoded)

    def sample(self, index: int, generator: torch.Generator) -> MappedFields:
        """One field."""
        return self.read(index, int(torch.randint(ORIENTATIONS, (), generator=generator)))

    def read(self, index: int, orientation: int = 0) -> MappedFields:
        """One field in an orientation; a DataFormatError if it is damaged or its scene has no map."""
        folders = iter(self.encoded)
        encoded = next(folders)
        while index >= len(encoded):
            index, encoded = index - len(encoded), next(folders)
        encoding, path = encoded[index], encoded.folder / encoded.names[index]
        scene = self.scenes[self.numbers[encoding.key]]
        known = scene.seen_map()
        if known is None:
            raise DataFormatError(path, "encodes a scene without a bird's-eye map; record it with one")
        try:
            check_finite(encoding.tensors, encoding.key)
            voxels = voxels_from_tensors(encoding.tensors)
        except ValueError as error:
            raise DataFormatError(path, str(error)) from error
        classes = orient_map(orient_map(known, encoding.turn), orientation)
        return MappedFields(voxels.oriented(orientation), classes[None])

    def collate(self, samples: Sequence[MappedFields]) -> MappedFields:
        """Several in one."""
        return MappedFields(stack_voxels([s.voxels for s in samples]), torch.cat([s.classes for s in samples]))


class BevReaderStage:
    """See ``Stage``."""

    name = "bev-reader"
    optional_parameters = False

    def __init__(self, model: BevReader, source: MappedFieldSource, held_out: MappedFieldSource, *, judged: int = 64):
        """``held_out`` are fields of other worlds."""
        self.model, self.source, self.held_out, self.judged = model, source, held_out, judged

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        self.model.to(device)  # type: ignore[arg-type]

    def loss(self, batch: MappedFields, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of the classes of cells that were seen, and one less their mean soft overlap, which counts rare
        classes like common ones (Milletari et al. 2016).
        """
        logits, seen = self.model(batch.voxels).float(), batch.classes != UNSEEN
        entropy = functional.cross_entropy(logits, batch.classes, ignore_index=UNSEEN)
        found = logits.softmax(1) * seen[:, None]
        true = functional.one_hot(batch.classes.clamp(min=0), logits.shape[1]).movedim(-1, 1) * seen[:, None]
        both, either = (found * true).sum((0, 2, 3)), (found + true).sum((0, 2, 3))
        present = true.sum((0, 2, 3)) > 0
        apart = (1 - 2 * both / either.clamp(min=1e-6))[present].mean()
        return entropy + apart, {"entropy": entropy.detach(), "apart": apart.detach()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Mean intersection over union on fields of other worlds, where they were seen."""
        found, true = [], []
        count = min(self.judged, len(self.held_out))
        for number in range(count):
            fields = self.held_out.read(number * len(self.held_out) // count).to(self.model.device)
            found.append(self.model(fields.voxels).argmax(1).cpu())
            true.append(fields.classes.cpu())
        each = intersection_over_union(torch.cat(found), torch.cat(true), int(self.model.config["classes"]))
        scores = {f"iou_{number}": float(value) for number, value in enumerate(each) if torch.isfinite(value)}
        mean = float(each.nanmean())
        return Evaluation(mean, {"miou": mean, **scores})
