"""Whether generated scenes are what their bird's-eye maps say: a reader finds the classes again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.evaluation.distributions import intersection_over_union
from nfldm3d.models.nfldm.readers import BevReader
from nfldm3d.models.nfldm.scene_voxels import voxels_of
from nfldm3d.scene import Scene


@torch.no_grad()
def read_map(reader: BevReader, scene: Scene) -> Int64[Tensor, "1 x y"]:
    """The classes that a reader finds in a scene of the networks' own grid."""
    assert isinstance(scene.background, EnvironmentMap)
    return reader(voxels_of(scene.field, scene.background)).argmax(1)


def read_maps(reader: BevReader, scenes: Sequence[Scene]) -> Int64[Tensor, "scenes x y"]:
    """The same of several scenes."""
    return torch.cat([read_map(reader, scene).cpu() for scene in scenes])


def seen_maps(samples: Sequence[SceneSample]) -> Int64[Tensor, "scenes x y"]:
    """Recorded maps; ``UNSEEN`` where no view meets a surface: there real fields hold guesses, too."""
    return torch.stack([known for sample in samples if (known := sample.seen_map()) is not None])


def measure_class_overlap(
    reader: BevReader, scenes: Sequence[Scene], maps: Int64[Tensor, "scenes x y"]
) -> Float[Tensor, " classes"]:
    """IoU of each class of the maps with what the reader finds in scenes; not of ``UNSEEN`` cells, NaN for classes that
    maps lack."""
    return intersection_over_union(read_maps(reader, scenes), maps, int(reader.config["classes"]))


def measure_map_overlap(reader: BevReader, scenes: Sequence[Scene], maps: Int64[Tensor, "scenes x y"]) -> float:
    """Mean IoU over the classes that occur of the maps that the reader finds in scenes; not of ``UNSEEN`` cells."""
    return float(measure_class_overlap(reader, scenes, maps).nanmean())
