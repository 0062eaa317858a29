"""Fields as the networks of stage 2 see them, in units of a voxel; scenes count in metres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from nfldm3d.appearance import EnvironmentMap
from nfldm3d.fields import Field, VoxelField, require_voxels
from nfldm3d.geometry import Box

ORIENTATIONS = 8
"""Number k stands for a world mirrored along y if k >= 4, and then turned by k % 4 quarters, counter-clockwise."""
LEAST = 2.0
"""Densities go down to minus this many per voxel edge."""
NAMES = ("occupancy", "features", "sky")
FULL = 1e-3
"""Occupancies are kept this far from 1 before their logarithm is taken."""


@dataclass(frozen=True)
class Voxels:
    """One or more fields without their boxes."""

    occupancy: Float[Tensor, "*scenes x y z"]
    """1 - exp(-(density * voxel_size + LEAST) / LEAST): 0 in the open, 0.63 on surfaces, 1 in matter."""
    features: Float[Tensor, "*scenes x y z channels"]
    sky: Float[Tensor, "*scenes rows columns 3"]
    """Colours of what lies beyond the box."""

    def __getitem__(self, index) -> "Voxels":
        return Voxels(self.occupancy[index], self.features[index], self.sky[index])

    def to(self, device: torch.device | str) -> "Voxels":
        """The same on another device."""
        return Voxels(self.occupancy.to(device), self.features.to(device), self.sky.to(device))

    def oriented(self, orientation: int) -> "Voxels":
        """The same world turned or mirrored; see ``ORIENTATIONS``."""
        sky = self.sky.flip(-2) if orientation >= 4 else self.sky
        return Voxels(
            orient_map(self.occupancy.movedim(-1, 0), orientation).movedim(0, -1),
            orient_map(self.features.movedim((-2, -1), (0, 1)), orientation).movedim((0, 1), (-2, -1)),
            sky.roll(orientation % 4 * sky.shape[-2] // 4, -2),
        )

    @property
    def density(self) -> Float[Tensor, "*scenes x y z"]:
        """Per voxel edge, signed; divide by the voxel size for 1/metre."""
        return LEAST * (-torch.log1p(-self.occupancy.clamp(max=1 - FULL)) - 1)

    @property
    def opacity(self) -> Float[Tensor, "*scenes x y z"]:
        """The light that a voxel absorbs along its edge, in [0, 1)."""
        return 1 - torch.exp(-self.density.relu())


def occupancy_of(field: VoxelField) -> Float[Tensor, "*scenes x y z"]:
    """See ``Voxels.occupancy``."""
    density = field.density * min(field.voxel_size)
    return 1 - torch.exp(-(density.clamp(min=-LEAST) + LEAST) / LEAST)


def orient_map(values: Shaped[Tensor, "*batch x y"], orientation: int) -> Shaped[Tensor, "*batch x y"]:
    """A map of a world that was turned or mirrored; see ``ORIENTATIONS``. For a square from above."""
    return torch.rot90(values.flip(-1) if orientation >= 4 else values, orientation % 4, (-2, -1)).contiguous()


def voxels_of(field: Field, background: EnvironmentMap) -> Voxels:
    """One field with the colours of its background, with a scene axis of 1.

    Voxels that no surface depends on, in the open, get the lowest density.
    """
    field = require_voxels(field, "a network")
    matter = (field.density > 0).float()[None, None]
    near = functional.max_pool3d(matter, 3, 1, 1)[0, 0]
    return Voxels((occupancy_of(field) * near)[None], field.features[None], background.image[None, ..., :3])


def field_of(voxels: Voxels, box: Box) -> VoxelField:
    """The signed field of one scene, which has no scene axis."""
    size = min(box.voxel_size(tuple(voxels.occupancy.shape)))  # type: ignore[arg-type]
    return VoxelField(voxels.density / size, voxels.features, box, signed=True)


def background_of(voxels: Voxels, code: Float[Tensor, " rest"]) -> EnvironmentMap:
    """The background of one scene: its colours, and the features that say that there is nothing."""
    return EnvironmentMap(torch.cat((voxels.sky, code.to(voxels.sky).expand(*voxels.sky.shape[:-1], -1)), dim=-1))


def stack_voxels(parts: Sequence[Voxels]) -> Voxels:
    """Several scenes in one."""
    return Voxels(*(torch.cat([getattr(p, n) for p in parts]) for n in NAMES))


def tensors_from_voxels(voxels: Voxels) -> dict[str, Tensor]:
    """What is kept of one scene on disk, in half precision."""
    return {name: getattr(voxels, name)[0].half() for name in NAMES}


def voxels_from_tensors(tensors: Mapping[str, Tensor]) -> Voxels:
    """The inverse of ``tensors_from_voxels``; a ValueError if something is missing or does not fit together."""
    for name in NAMES:
        if name not in tensors:
            raise ValueError(f"lacks {name}, which a field has; encode the scene again")
    if tensors["features"].dim() != 4 or tensors["features"].shape[:3] != tensors["occupancy"].shape:
        shapes = " and ".join(str(tuple(tensors[name].shape)) for name in ("occupancy", "features"))
        raise ValueError(f"has occupancy and features of shapes {shapes}; encode the scene again")
    return Voxels(*(tensors[name].float()[None] for name in NAMES))
