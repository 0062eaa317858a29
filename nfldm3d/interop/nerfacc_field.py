"""A scene as nerfacc's radiance field: its callbacks, an occupancy grid filled from it, its results as a ``Rendering``.

nerfacc's interval k of a ray reaches from t_min + k * step to t_min + (k + 1) * step, and its sample is the midpoint.
With t_min where the ray enters the scene's box, as ``NerfaccCallbacks.t_min`` gives, these are the samples of
``render``; without it nerfacc counts from the camera, and pictures differ as two choices of samples do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.fields import Field, VoxelField, grid_resolution, occupied_cells, voxelize
from nfldm3d.geometry import Box, Rays
from nfldm3d.rendering import MIN_OPACITY, Rendering
from nfldm3d.scene import Scene

if TYPE_CHECKING:
    import nerfacc

MAX_LEVELS = 8
"""As many nested grids as nerfacc's own kernels take."""
MAX_EDGE = 128
"""Cells along an axis if none are asked for: nerfacc's own default, some 40 bytes a cell."""
SLACK = 1e-4
"""Share of a voxel by which two edges may differ and still count as one: nerfacc keeps its boxes in float32."""


@dataclass(frozen=True)
class NerfaccCallbacks:
    """What nerfacc asks of a radiance field, answered by a scene along a batch of rays.

    Its methods and properties bear the names of the arguments of ``OccGridEstimator.sampling``,
    ``OccGridEstimator.update_every_n_steps`` and ``nerfacc.rendering`` that they are made for. Gradients reach the
    scene's tensors.
    """

    scene: Scene
    rays: Rays
    """The rays that ``ray_indices`` count: origins and directions (rays 3)."""
    step_in_voxels: float = 0.5
    """Distance between samples as a share of the smallest voxel edge of the field in focus, as in ``render``."""

    def __post_init__(self):
        if len(self.rays.shape) != 1:
            raise ValueError(f"nerfacc takes rays (rays 3), got {tuple(self.rays.origins.shape)}; use rays.reshape(-1)")
        if self.rays.origins.device != self.scene.device:
            raise ValueError(f"the scene is on {self.scene.device}, the rays on {self.rays.origins.device}; move one")
        if not 0 < self.step_in_voxels < math.inf:
            raise ValueError(f"step_in_voxels must be positive, got {self.step_in_voxels}; 0.5 is usual")

    @property
    def render_step_size(self) -> float:
        """Distance between samples in metres."""
        return _step_size(self.scene, self.step_in_voxels)

    @property
    def t_min(self) -> Float[Tensor, " rays"]:
        """Distance in metres at which each ray enters the outermost box; 0 where it misses or starts inside."""
        return self.scene.levels[-1].box.clip(self.rays)[0]

    @property
    def t_max(self) -> Float[Tensor, " rays"]:
        """Distance in metres at which each ray leaves the outermost box; 0 where it misses."""
        return self.scene.levels[-1].box.clip(self.rays)[1]

    @property
    def render_bkgd(self) -> Float[Tensor, "rays 3"]:
        """What each ray sees behind everything; black without a background."""
        behind = self.scene.background_color(self.rays)
        if behind.shape[-1] == 3:
            return behind
        self._require_per_ray()  # a feature vector is seen through the appearance
        return self.scene.appearance.image(behind, torch.ones_like(behind[..., 0]), self.rays)

    def sigma_fn(
        self, t_starts: Float[Tensor, "*batch"], t_ends: Float[Tensor, "*batch"], ray_indices: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Density in 1/metre at the middle of intervals: flat ones with their rays' indices, or (rays samples)."""
        points = self._samples(t_starts, t_ends, ray_indices).origins
        return _read_innermost(self.scene.levels, points, _read_density)[..., 0]

    def rgb_sigma_fn(
        self, t_starts: Float[Tensor, "*batch"], t_ends: Float[Tensor, "*batch"], ray_indices: Tensor | None = None
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
        """Colour (not clamped: ``render`` clamps finished pictures) and density at the middle of intervals.

        Raises:
            ValueError: if the appearance looks at whole pictures, so that single samples have no colour.
        """
        self._require_per_ray()
        samples = self._samples(t_starts, t_ends, ray_indices)
        values = _read_innermost(self.scene.levels, samples.origins, _read_all)
        density, features = values[..., 0], values[..., 1:]
        normals = None
        if self.scene.appearance.needs_normals:
            normals = _read_innermost(self.scene.levels, samples.origins, lambda level, points: level.normals(points))
        opacity = torch.ones_like(density)
        return self.scene.appearance.image(features, opacity, samples, normals=normals), density

    def occ_eval_fn(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
        """Density times step at world points: to first order, what one sample absorbs."""
        return _read_innermost(self.scene.levels, x, _read_density) * self.render_step_size

    def _samples(self, t_starts: Tensor, t_ends: Tensor, ray_indices: Int[Tensor, "*batch"] | None) -> Rays:
        """Rays that start at the middle of each interval."""
        middles = (t_starts + t_ends) / 2
        if ray_indices is not None:
            rays = self.rays[ray_indices]
        elif middles.shape[:1] == self.rays.shape:
            lead = (slice(None), *[None] * (middles.dim() - 1))
            rays = Rays(*(t[lead].expand(*middles.shape, 3) for t in (self.rays.origins, self.rays.directions)))
        else:
            raise ValueError(
                f"intervals without ray_indices must be ({len(self.rays)} rays, samples), got {tuple(middles.shape)}"
            )
        return Rays(rays.at(middles), rays.directions)

    def _require_per_ray(self) -> None:
        appearance = self.scene.appearance
        if not appearance.per_ray:
            raise ValueError(
                f"{type(appearance).__name__} colours whole pictures, not single samples as nerfacc needs; use "
                "nfldm3d.render, or a scene with Rgb or SphericalHarmonics"
            )


def occ_grid_estimator(
    scene: Scene,
    *,
    resolution: int | tuple[int, int, int] | None = None,
    step_in_voxels: float = 0.5,
    threshold: float = 0.0,
) -> "nerfacc.OccGridEstimator":
    """A nerfacc occupancy grid that already knows the scene, on the scene's device.

    Level i covers the scene's box enlarged 2**i times, and there are as many levels as the surroundings need. No sample
    whose density exceeds the threshold lies in an empty cell. ``occs`` is the largest density that a cell's samples can
    have, times the step: what updates with ``NerfaccCallbacks.occ_eval_fn`` would tend to.

    Args:
        resolution: cells along x, y and z; None takes the field's, at most 128 along an axis.
        threshold: density in 1/metre up to which a cell counts as empty.

    Raises:
        ImportError: if nerfacc is missing.
        ValueError: if the surroundings reach farther than 8 levels.
    """
    try:
        from nerfacc import OccGridEstimator
    except ImportError as error:
        raise ImportError("occ_grid_estimator needs nerfacc: pip install nerfacc") from error
    if resolution is None:
        x, y, z = (min(count, MAX_EDGE) for count in grid_resolution(scene.field))
        resolution = (x, y, z)
    cells = (resolution, resolution, resolution) if isinstance(resolution, int) else resolution
    if min(cells) < 1:
        raise ValueError(f"an occupancy grid needs at least one cell along each axis, got {cells}")
    roi_aabb = torch.tensor([*scene.box.lower, *scene.box.upper], dtype=torch.float32)
    estimator = OccGridEstimator(roi_aabb, resolution=list(cells), levels=_count_levels(scene)).to(scene.device)
    buffers = dict(estimator.named_buffers())
    boxes = [Box((x0, y0, z0), (x1, y1, z1)) for x0, y0, z0, x1, y1, z1 in buffers["aabbs"].tolist()]
    sources = [_Source.read(level, threshold) for level in reversed(scene.levels)]
    grids = [_mark_cells(sources, box, cells) for box in boxes]
    buffers["binaries"].copy_(torch.stack([solid for _, solid in grids]))
    largest = torch.stack([largest for largest, _ in grids])
    buffers["occs"].copy_(largest.flatten() * _step_size(scene, step_in_voxels))
    return estimator


def from_nerfacc_rendering(
    camera: Camera, colors: Float[Tensor, "rays 3"], opacities: Float[Tensor, "rays 1"], depths: Float[Tensor, "rays 1"]
) -> Rendering:
    """The first three results of ``nerfacc.rendering`` for ``camera.rays().reshape(-1)``, as ``render`` gives them.

    nerfacc's depths are distances along the ray; here they become depths along the optical axis as well, and 0 where
    the opacity is below 1e-3.
    """
    rays = camera.rays()
    if len(colors) != rays.shape.numel():
        raise ValueError(f"the camera has {rays.shape.numel()} rays, but nerfacc's colours are for {len(colors)}")
    opacity, distance = opacities.view(rays.shape), depths.view(rays.shape)
    distance = torch.where(opacity > MIN_OPACITY, distance, 0.0)
    image = colors.view(*rays.shape, 3).movedim(-1, -3).clamp(0, 1)
    return Rendering(image, opacity, distance, distance * camera.depth_per_distance(rays))


def _step_size(scene: Scene, step_in_voxels: float) -> float:
    return step_in_voxels * min(scene.field.voxel_size)


def _read_density(level: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 1"]:
    return level.query_density(points).relu()[:, None]


def _read_all(level: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points values"]:
    """Density, then features."""
    density, features = level.query(points)
    return torch.cat((density.relu()[:, None], features), dim=-1)


def _read_innermost(
    levels: tuple[Field, ...], points: Float[Tensor, "*batch 3"], read: Callable[[Field, Tensor], Tensor]
) -> Float[Tensor, "*batch values"]:
    """What the innermost level around each point says; points beyond all boxes read zeros."""
    flat = points.reshape(-1, 3)
    ends = isinstance(levels[-1], VoxelField)  # reads zeros beyond its box by itself
    if len(levels) == 1 and ends:
        return read(levels[0], flat).unflatten(0, points.shape[:-1])
    free = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    places, values = [], []
    for level in levels:
        mine = free if ends and level is levels[-1] else free & level.box.contains(flat)
        places.append(mine.nonzero()[:, 0])
        values.append(read(level, flat[places[-1]]))
        free = free & ~mine
    if not ends:
        places.append(free.nonzero()[:, 0])
        values.append(values[0].new_zeros(len(places[-1]), *values[0].shape[1:]))
    order = torch.cat(places).argsort()
    return torch.cat(values)[order].unflatten(0, points.shape[:-1])


def _count_levels(scene: Scene) -> int:
    """How many boxes, each twice as large as the one before, enclose the surroundings."""
    box, outer = scene.box, scene.levels[-1].box
    reach = max(
        max(middle - low, high - middle) / (size / 2)
        for middle, size, low, high in zip(box.center, box.size, outer.lower, outer.upper, strict=True)
    )
    levels = 1 + max(0, math.ceil(math.log2(reach) - 1e-4))
    if levels > MAX_LEVELS:
        raise ValueError(
            f"the surroundings reach {reach:.4g} times as far as the scene's box, but nerfacc's {MAX_LEVELS} levels "
            f"reach {2 ** (MAX_LEVELS - 1)} times as far; crop them"
        )
    return levels


class _Source(NamedTuple):
    """What a level tells about where it is dense."""

    box: Box
    density: Float[Tensor, "x y z"]
    """At voxel centres."""
    mask: Bool[Tensor, "i j k"] | None
    """Cells with matter, which may lie between the voxel centres; None: the voxels tell it all."""
    threshold: float

    @classmethod
    def read(cls, level: Field, threshold: float) -> "_Source":
        grid = voxelize(level, with_features=False)
        mask = None if grid is level else occupied_cells(level, threshold)
        return cls(level.box, grid.density.detach().float(), mask, threshold)


def _mark_cells(
    sources: list[_Source], box: Box, cells: tuple[int, int, int]
) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The largest density of a sample in each cell of a grid over ``box``, and whether it may exceed the threshold.

    Levels come from the outside in; what an inner one hides does not count.
    """
    largest = torch.zeros(cells, device=sources[0].density.device)
    solid = torch.zeros_like(largest, dtype=torch.bool)
    for source in sources:
        reached, covered = _spread(source.density, source.box, box, cells, blur=0.5)
        found = reached > source.threshold
        if source.mask is not None:
            found = found | (_spread(source.mask.float(), source.box, box, cells, blur=0.0)[0] > 0)
        largest = torch.where(covered, reached, largest.maximum(reached))
        solid = torch.where(covered, found, solid | found)
    return largest, solid


def _spread(
    values: Float[Tensor, "i j k"], inner: Box, box: Box, cells: tuple[int, int, int], *, blur: float
) -> tuple[Float[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The largest of the values over ``inner`` that each cell of a grid over ``box`` meets, and if ``inner`` covers it.

    Values reach ``blur`` of their own extent beyond their borders: a trilinear sample at voxel coordinate p, where
    voxel j has its centre at j + 1/2, mixes the voxels less than 1 away.
    """
    covered = torch.ones((), dtype=torch.bool, device=values.device)
    for axis, count in enumerate(cells):
        voxels, low, high = values.shape[axis], box.lower[axis], box.upper[axis]
        edges = low + torch.arange(count + 1, dtype=torch.float64, device=values.device) * ((high - low) / count)
        edges = (edges - inner.lower[axis]) * (voxels / inner.size[axis])
        begin, end = edges[:-1].clamp(0, voxels), edges[1:].clamp(0, voxels)
        first = (begin - 1 - blur + SLACK).ceil().long().clamp(0, voxels - 1)
        last = (end + blur - SLACK).floor().long().clamp(0, voxels - 1)
        widest = int((last - first).max())
        # (... voxels ...) -> (... cells ...)
        slices = [values.index_select(axis, (first + k).minimum(last)) for k in range(widest + 1)]
        values = torch.stack(slices).amax(0)
        line = [-1 if other == axis else 1 for other in range(3)]
        values = torch.where((end - begin > SLACK).view(line), values, 0.0)
        covered = covered & ((edges[:-1] > -SLACK) & (edges[1:] < voxels + SLACK)).view(line)
    return values, covered
