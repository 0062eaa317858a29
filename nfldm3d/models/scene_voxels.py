"""Between scenes, which count in metres, and what the networks of stage 2 see, which counts in voxels."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d.appearance import EnvironmentMap
from nfldm3d.field import VoxelField
from nfldm3d.geometry import Box
from nfldm3d.models.latent_autoencoder import Voxels


def voxels_of(field: VoxelField, background: EnvironmentMap) -> Voxels:
    """One field with the colours of its background, with a scene axis of 1."""
    opacity = 1 - torch.exp(-field.density * min(field.voxel_size))
    return Voxels(opacity[None], field.features[None], background.image[None, ..., :3])


def field_of(voxels: Voxels, box: Box) -> VoxelField:
    """The field of one scene, which has no scene axis."""
    size = min(box.voxel_size(tuple(voxels.opacity.shape)))  # type: ignore[arg-type]
    return VoxelField(voxels.density / size, voxels.features, box)


def background_of(voxels: Voxels, code: Float[Tensor, " rest"]) -> EnvironmentMap:
    """The background of one scene: its colours, and the features that say that there is nothing."""
    return EnvironmentMap(torch.cat((voxels.sky, code.expand(*voxels.sky.shape[:-1], -1)), dim=-1))


def stack_voxels(parts: Sequence[Voxels]) -> Voxels:
    """Several scenes in one."""
    return Voxels(*(torch.cat([getattr(p, n) for p in parts]) for n in ("opacity", "features", "sky")))


def tensors_from_voxels(voxels: Voxels) -> dict[str, Tensor]:
    """What is kept of one scene on disk, in half precision."""
    return {name: getattr(voxels, name)[0].half() for name in ("opacity", "features", "sky")}


def voxels_from_tensors(tensors: Mapping[str, Tensor]) -> Voxels:
    """The inverse of ``tensors_from_voxels``; a ValueError if something is missing or does not fit together."""
    for name in ("opacity", "features", "sky"):
        if name not in tensors:
            raise ValueError(f"lacks {name}, which a field has; encode the scene again")
    if tensors["features"].dim() != 4 or tensors["features"].shape[:3] != tensors["opacity"].shape:
        shapes = " and ".join(str(tuple(tensors[name].shape)) for name in ("opacity", "features"))
        raise ValueError(f"has opacity and features of shapes {shapes}; encode the scene again")
    return Voxels(*(tensors[name].float()[None] for name in ("opacity", "features", "sky")))
