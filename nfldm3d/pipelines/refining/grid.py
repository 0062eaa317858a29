"""What refinement moves: plain colours and densities on a finer grid, and the sky behind it."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.appearance import EnvironmentMap, Rgb
from nfldm3d.camera import Camera
from nfldm3d.fields import Field, VoxelField, voxelize
from nfldm3d.fitting.parameters import TensorParameters
from nfldm3d.fitting.schedule import Step
from nfldm3d.memory import require_memory
from nfldm3d.pipelines.refining.options import RefineOptions
from nfldm3d.pipelines.refining.palettes import Palette, apply_palette
from nfldm3d.rendering import composite
from nfldm3d.rendering.integration import find_occupancy
from nfldm3d.rendering.renderer import mean_distance, shade
from nfldm3d.scene import Background, Scene

COLORS = 3
SKY_ROWS = 128
"""Of a learned sky, at least: it has to hold what a decoder drew."""
COPIES = 6
"""Of the grid in memory: values, gradients, two moments, the start."""


class RefinedGrid:
    """A scene of plain colours while it is refined; see ``fitting.optimisation.Parameters``."""

    def __init__(self, scene: Scene, options: RefineOptions):
        """Begins with the scene's densities and the colours of its points, ``options.finer`` times finer."""
        self.options = options
        grid = _grid_of(scene.field)
        x, y, z = (options.finer * count for count in grid.resolution)
        require_memory((x, y, z), COLORS, grid.device, copies=COPIES)
        fine = grid.resampled((x, y, z))
        self.field = _colored(scene, fine)
        self.plain = replace(
            scene,
            field=self.field,
            appearance=Rgb(),
            background=_plain_background(scene.background),
            surroundings=tuple(_colored(scene, _grid_of(level)) for level in scene.surroundings),
            metadata={name: value for name, value in scene.metadata.items() if name != "nfldm3d"},
            extras={},  # latents tell nothing of what the scene becomes
        )
        self.unit = min(fine.voxel_size)
        self.start = fine.density * self.unit
        self.colors, self.thickness = self.field.features.clone(), self.start.clone()
        background = self.plain.background
        self.first_sky = background.image if isinstance(background, EnvironmentMap) else None
        self.sky = None if self.first_sky is None else self.first_sky.clone()
        parts = {"colors": self.colors, "thickness": self.thickness} | ({} if self.sky is None else {"sky": self.sky})
        self.adam = TensorParameters(parts, rates={"thickness": options.density_rate})
        self.occupancies = [find_occupancy(level) for level in self.plain.levels]
        self.neighbours = [_both_solid(self.start > 0, axis) for axis in range(3)]

    @torch.no_grad()
    def recolor(self, palette: Palette) -> None:
        """Maps all colours, also those beyond the field."""
        self.colors.copy_(apply_palette(self.colors, palette))
        around = tuple(
            replace(level, features=apply_palette(level.features, palette).contiguous())
            for level in (_grid_of(level) for level in self.plain.surroundings)
        )
        background = self.plain.background
        if self.sky is not None and self.first_sky is not None:
            self.sky.copy_(apply_palette(self.sky, palette))
            self.first_sky = self.sky.detach().clone()
            background = EnvironmentMap(self.first_sky)
        elif isinstance(background, Tensor):
            background = apply_palette(background, palette)
        self.plain = replace(self.plain, surroundings=around, background=background)

    def advance(self, step: Step) -> None:
        """A step of Adam; densities rest at first, and colours stay colours."""
        if step.share < self.options.frozen:
            self.thickness.grad = None
        self.adam.advance(step)
        with torch.no_grad():
            self.colors.clamp_(0, 1)
            if self.sky is not None:
                self.sky.clamp_(0, 1)
            if not self.field.signed:
                self.thickness.clamp_(min=0)
        if step.share >= self.options.frozen:
            self.occupancies[0] = find_occupancy(self.scene().field)

    def state(self) -> dict[str, Tensor]:
        """See ``Parameters``."""
        return self.adam.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """See ``Parameters``."""
        self.adam.restore(state)
        self.occupancies[0] = find_occupancy(self.scene().field)

    def scene(self) -> Scene:
        """The scene as it is now, without gradients."""
        return _detached(self._build())

    def draw(self, camera: Camera) -> Float[Tensor, "views 3 height width"]:
        """What cameras see, not clamped, with gradients."""
        scene, rays = self._build(), camera.rays()
        flat = rays.reshape(-1)
        sums = composite(scene.levels, flat, occupancies=self.occupancies, early_stop=1e-3)
        colors = shade(scene, sums.features, sums.opacity, mean_distance(sums), flat)
        return colors.unflatten(0, rays.shape).movedim(-1, -3)

    def saturated(self) -> float:
        """Share of the colours in matter that have run to black or to white and can run no further."""
        inside = self.colors.detach()[self.start > 0]
        return float(((inside <= 0) | (inside >= 1)).float().mean()) if len(inside) else 0.0

    def keep(self) -> dict[str, Tensor]:
        """Losses that keep densities near, neighbours alike, and what hardly shows of the sky as it was."""
        losses = {"near": self.options.near * (self.thickness - self.start).square().mean()}
        if self.sky is not None and self.first_sky is not None:
            losses["steady"] = self.options.steady * (self.sky - self.first_sky).square().sum()
        total = self.colors.new_zeros(())
        for axis, share in enumerate(self.neighbours):
            total = total + (self.colors.diff(dim=axis).abs().sum(-1) * share).sum()
        losses["smoothness"] = self.options.smoothness * total
        return losses

    def _build(self) -> Scene:
        field = VoxelField(self.thickness / self.unit, self.colors, self.plain.box, self.field.signed)
        background = self.plain.background if self.sky is None else EnvironmentMap(self.sky)
        return replace(self.plain, field=field, background=background)


def _grid_of(field: Field) -> VoxelField:
    return field if isinstance(field, VoxelField) else voxelize(field)


def _colored(scene: Scene, field: VoxelField) -> VoxelField:
    """The field with the plain colours of its points, as seen from above."""
    down = field.features.new_tensor((0.0, 0.0, -1.0)).expand(*field.density.shape, 3)
    normals = field.normals(field.voxel_centers()) if scene.appearance.needs_normals else None
    colors = scene.appearance.point_color(field.features, down, normals)
    return VoxelField(field.density.float(), colors.float().contiguous(), field.box, field.signed)


def _plain_background(background: Background | None) -> Background | None:
    """The first three channels of whatever is behind the scene; skies get enough pixels."""
    if background is None:
        return None
    if not isinstance(background, EnvironmentMap):
        return background[:COLORS].float().clamp(0, 1)
    image = background.image[..., :COLORS].float().clamp(0, 1)
    if len(image) < SKY_ROWS:
        picture = image.movedim(-1, 0)[None]
        size = (SKY_ROWS, 2 * SKY_ROWS)
        image = functional.interpolate(picture, size, mode="bilinear", align_corners=False)[0].movedim(0, -1)
    return EnvironmentMap(image.contiguous())


def _both_solid(solid: Bool[Tensor, "x y z"], axis: int) -> Float[Tensor, "a b c"]:
    """For each pair of neighbours along an axis its share of those that are both solid."""
    count = solid.shape[axis] - 1
    both = (solid.narrow(axis, 0, count) & solid.narrow(axis, 1, count)).float()
    return both / both.sum().clamp(min=1)


def _detached(scene: Scene) -> Scene:
    field, background = scene.field, scene.background
    assert isinstance(field, VoxelField)
    if isinstance(background, EnvironmentMap):
        background = EnvironmentMap(background.image.detach().clone())
    field = VoxelField(field.density.detach().clone(), field.features.detach().clone(), field.box, field.signed)
    return replace(scene, field=field, background=background)
