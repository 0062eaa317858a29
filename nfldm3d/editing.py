"""Scenes out of scenes: cut out, resample, move, paste and put together.

What is edited becomes voxels: of other fields, what the edit needs is read at their ``voxel_size``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d.appearance import Appearance, EnvironmentMap, SphericalHarmonics
from nfldm3d.fields import Field, VoxelField, grid_resolution, read_innermost, voxelize
from nfldm3d.geometry import Box, find_pose_problem, invert_pose, transform_points
from nfldm3d.scene import Scene

Query: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Density, perhaps signed, and features at points."""

POINTS_AT_ONCE = 2**17


def crop(scene: Scene, box: Box) -> Scene:
    """The part of the field in focus that lies in ``box``, cut at the nearest voxel faces, without surroundings.

    Raises:
        ValueError: if the box lies beside the field.
    """
    field = voxelize(scene.field, box) if scene.box.overlaps(box) else None
    parts = None if field is None else _overlap(field, box, round, round)
    if field is None or parts is None:
        raise ValueError(f"cannot crop to {box}: the scene lies in {scene.box}; choose a box that overlaps it")
    density, features = field.density[parts].clone(), field.features[parts].clone()
    cut = VoxelField(density, features, _box_of(field, parts), field.signed)
    return replace(scene, field=cut, surroundings=())


def resample(scene: Scene, voxel_size: float, box: Box | None = None) -> Scene:
    """The field in focus on voxels of about ``voxel_size`` metres, over ``box`` (default: its own).

    Coarser voxels take the mean of what they cover. Beyond the old box the surroundings are read.
    """
    box = scene.box if box is None else box
    field = _fill(lambda points: _query(scene.levels, points), scene.levels, box, box.resolution(voxel_size))
    return replace(scene, field=field)


def transform(scene: Scene, motion: Float[Tensor, "4 4"]) -> Scene:
    """The scene after a rigid motion: fields, appearance, background and cameras.

    Quarter turns about the axes and shifts are exact; other turns resample the fields onto axis-aligned boxes around
    the turned ones.

    Raises:
        ValueError: if the motion is not rigid.
    """
    motion = motion.detach().double().cpu()
    problem = find_pose_problem(motion)
    if problem is not None:
        raise ValueError(f"a scene is moved by a rigid 4x4 matrix, this one {problem}")
    quarter = motion[:3, :3].round()
    exact = bool((motion[:3, :3] - quarter).abs().max() < 1e-6)
    if exact:
        motion[:3, :3] = quarter
    levels = [
        _permute(voxelize(level), motion) if exact else _turn(scene.levels[number:], motion)
        for number, level in enumerate(scene.levels)
    ]
    background, cameras = scene.background, scene.cameras
    return replace(
        scene,
        field=levels[0],
        surroundings=tuple(levels[1:]),
        appearance=scene.appearance.moved(motion),
        background=background.rotated(motion[:3, :3]) if isinstance(background, EnvironmentMap) else background,
        cameras=None if cameras is None else cameras.transformed(motion.to(cameras.world_from_camera)),
    )


def paste(scene: Scene, patch: Scene) -> Scene:
    """The scene with the box of the patch's field replaced by that field, on the scene's own grid.

    Raises:
        ValueError: if the appearances differ or the boxes lie apart.
    """
    field, new = voxelize(scene.field), _in_appearance_of(scene, patch)
    parts = _overlap(field, new.box, math.floor, math.ceil)
    if parts is None:
        raise ValueError(f"cannot paste into {field.box}: the patch lies in {new.box}; move it or resample the scene")

    def query(points: Tensor) -> tuple[Tensor, Tensor]:
        inside = new.box.contains(points)
        (density, features), (old_density, old_features) = _query((new,), points), field.interpolate(points)
        return torch.where(inside, density, old_density), torch.where(inside[:, None], features, old_features)

    shape = tuple(field.density[parts].shape)
    piece = _fill(query, (new, field), _box_of(field, parts), (shape[0], shape[1], shape[2]))
    density, features = field.density.clone(), field.features.clone()
    density[parts], features[parts] = piece.density.to(density), piece.features.to(features)
    return replace(scene, field=VoxelField(density, features, field.box, piece.signed))


def compose(scene: Scene, other: Scene) -> Scene:
    """Both scenes in one, as two media that fill the same space: densities add up, features mix by density.

    The grid is that of ``scene``, grown to hold both boxes and divided where ``other`` is finer. Background,
    surroundings and metadata are those of ``scene``; of ``other`` only the field in focus is taken.

    Raises:
        ValueError: if the appearances differ, or ``other`` sticks out of the surroundings.
    """
    guest = _in_appearance_of(scene, other)

    def query(points: Tensor) -> tuple[Tensor, Tensor]:
        (density, features), (more, their_features) = _query(scene.levels, points), _query((guest,), points)
        density, more = density.relu(), more.relu()
        alone = (density + more == 0) & guest.box.contains(points) & ~scene.box.contains(points)
        share = torch.where(alone, 1.0, more / (density + more).clamp(min=1e-30))
        return density + more, torch.lerp(features, their_features, share[:, None])

    box, resolution = _grow(scene.field, guest)
    return replace(scene, field=_fill(query, (scene.field,), box, resolution, signed=False))


def _in_appearance_of(scene: Scene, other: Scene) -> Field:
    """The field in focus of ``other``, such that the appearance of ``scene`` gives it its colours."""
    ours, theirs, field = scene.appearance, other.appearance, other.field
    if isinstance(ours, SphericalHarmonics) and isinstance(theirs, SphericalHarmonics) and ours.degree == theirs.degree:
        if ours == theirs:
            return field
        grid = voxelize(field)
        return replace(grid, features=theirs.change_frame(grid.features, ours.frame))
    if not _show_alike(ours, theirs):
        raise ValueError(f"scenes can be joined if they share one appearance, got {ours} and {theirs}; fit both alike")
    return field


def _show_alike(ours: Appearance, theirs: Appearance) -> bool:
    """Whether two appearances are equal, or learned ones of the same configuration and weights, wherever they stand."""
    if ours is theirs or not isinstance(ours, nn.Module) or not isinstance(theirs, nn.Module):
        return ours == theirs
    if type(ours) is not type(theirs):
        return False
    ours_config, theirs_config = ({**some.config(), "anchor": None} for some in (ours, theirs))
    here, there = ours.state_dict(), theirs.state_dict()
    return ours_config == theirs_config and all(
        value is there.get(name) or torch.equal(value.cpu().float(), there[name].cpu().float())
        for name, value in here.items()
    )


def _query(levels: Sequence[Field], points: Float[Tensor, "points 3"]) -> tuple[Tensor, Tensor]:
    """Density, with its sign where a grid keeps it, and features of nested fields; nothing beyond all boxes."""
    values = read_innermost(levels, points, _read)
    return values[..., 0], values[..., 1:]


def _read(field: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points values"]:
    density, features = field.interpolate(points) if isinstance(field, VoxelField) else field.query(points)
    return torch.cat((density[:, None], features), dim=-1)


def _is_signed(fields: Sequence[Field]) -> bool:
    return any(isinstance(field, VoxelField) and field.signed for field in fields)


@torch.no_grad()
def _fill(
    query: Query, sources: Sequence[Field], box: Box, resolution: tuple[int, int, int], *, signed: bool | None = None
) -> VoxelField:
    """A new grid, each voxel the mean over so many points that no detail of the first source falls between them."""
    source = sources[0]
    field = VoxelField.zeros(box, resolution, source.channels, source.device)
    counts = [max(1, math.ceil(new / old - 1e-3)) for new, old in zip(field.voxel_size, source.voxel_size, strict=True)]
    offsets = torch.cartesian_prod(*((torch.arange(n) + 0.5) / n - 0.5 for n in counts)) * torch.tensor(
        field.voxel_size
    )
    density, features = field.density.view(-1), field.features.view(-1, source.channels)
    for number, centers in enumerate(field.voxel_centers().view(-1, 3).split(POINTS_AT_ONCE)):
        rows = slice(number * POINTS_AT_ONCE, number * POINTS_AT_ONCE + len(centers))
        plain, seen = torch.zeros_like(features[rows]), torch.zeros_like(density[rows, None])
        for offset in offsets.to(centers):
            some_density, some_features = query(centers + offset)
            density[rows] += some_density / len(offsets)
            share = some_density[:, None].relu()
            features[rows] += share * some_features / len(offsets)
            seen += share / len(offsets)
            plain += some_features / len(offsets)
        features[rows] = torch.where(seen > 0, features[rows] / seen.clamp(min=1e-30), plain)
    field = VoxelField(field.density, field.features, box, _is_signed(sources) if signed is None else signed)
    return field.to(source.density.dtype) if isinstance(source, VoxelField) else field


def _overlap(
    field: VoxelField, box: Box, first: Callable[[float], int], last: Callable[[float], int]
) -> tuple[slice, slice, slice] | None:
    """The voxels of a field that lie in a box, at least one along each axis; None if they lie apart."""
    parts = []
    axes = zip(field.box.lower, field.voxel_size, field.resolution, box.lower, box.upper, strict=True)
    for origin, size, count, lower, upper in axes:
        start, end = (lower - origin) / size, (upper - origin) / size
        if end <= 1e-6 or start >= count - 1e-6:
            return None
        begin = min(max(first(start + 1e-6), 0), count - 1)
        parts.append(slice(begin, max(begin + 1, min(last(end - 1e-6), count))))
    return (parts[0], parts[1], parts[2])


def _box_of(field: VoxelField, parts: tuple[slice, slice, slice]) -> Box:
    """The box around some voxels of a field."""
    ends = []
    for side in ("start", "stop"):
        axes = zip(field.box.lower, field.voxel_size, parts, strict=True)
        ends.append([origin + size * getattr(part, side) for origin, size, part in axes])
    (x, y, z), (u, v, w) = ends
    return Box((x, y, z), (u, v, w))


def _grow(host: Field, guest: Field) -> tuple[Box, tuple[int, int, int]]:
    """The host's grid with more voxels around it until it holds the guest, divided until it is as fine."""
    lower, upper, resolution = [], [], []
    host_size = host.box.voxel_size(grid_resolution(host))
    for axis in range(3):
        step = host_size[axis] / max(1, math.ceil(host_size[axis] / guest.voxel_size[axis] - 1e-3))
        low, high = host.box.lower[axis], host.box.upper[axis]
        before = max(0, math.ceil((low - guest.box.lower[axis]) / step - 1e-3))
        after = max(0, math.ceil((guest.box.upper[axis] - high) / step - 1e-3))
        lower.append(low - before * step)
        upper.append(high + after * step)
        resolution.append(before + round((high - low) / step) + after)
    x, y, z = resolution
    return Box(tuple(lower), tuple(upper)), (x, y, z)  # type: ignore[arg-type]


def _permute(field: VoxelField, motion: Float[Tensor, "4 4"]) -> VoxelField:
    """A field after quarter turns and a shift: the same numbers in another order."""
    source = motion[:3, :3].abs().argmax(dim=1).tolist()  # the old axis that each new axis was
    back = [axis for axis in range(3) if motion[axis, source[axis]] < 0]
    density = field.density.permute(*source).flip(back).contiguous()
    features = field.features.permute(*source, 3).flip(back).contiguous()
    return VoxelField(density, features, _turned_box(field.box, motion), field.signed)


def _turn(levels: Sequence[Field], motion: Float[Tensor, "4 4"]) -> VoxelField:
    """The first level after any motion, with the levels around it in the corners that its new box gains."""
    box = _turned_box(levels[0].box, motion)
    back = invert_pose(motion).float().to(levels[0].device)
    size = min(levels[0].voxel_size)
    return _fill(lambda points: _query(levels, transform_points(back, points)), levels, box, box.resolution(size))


def _turned_box(box: Box, motion: Float[Tensor, "4 4"]) -> Box:
    ends = torch.tensor((box.lower, box.upper), dtype=torch.float64)
    return Box.around(transform_points(motion, torch.cartesian_prod(*ends.unbind(-1))))
