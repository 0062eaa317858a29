"""A scene as nerfacc's radiance field: its callbacks, and its results as a ``Rendering``.

nerfacc's interval k of a ray reaches from t_min + k * step to t_min + (k + 1) * step, and its sample is the midpoint.
With t_min where the ray enters the scene's box, as ``NerfaccCallbacks.t_min`` gives, these are the samples of
``render``; without it nerfacc counts from the camera, and pictures differ as two choices of samples do.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.fields import Field, read_innermost
from nfldm3d.geometry import Rays
from nfldm3d.rendering import MIN_OPACITY, Rendering
from nfldm3d.scene import Scene


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
        return step_size(self.scene, self.step_in_voxels)

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
        return read_innermost(self.scene.levels, points, _read_density)[..., 0]

    def rgb_sigma_fn(
        self, t_starts: Float[Tensor, "*batch"], t_ends: Float[Tensor, "*batch"], ray_indices: Tensor | None = None
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
        """Colour (not clamped: ``render`` clamps finished pictures) and density at the middle of intervals.

        Raises:
            ValueError: if the appearance looks at whole pictures, so that single samples have no colour.
        """
        self._require_per_ray()
        samples = self._samples(t_starts, t_ends, ray_indices)
        values = read_innermost(self.scene.levels, samples.origins, _read_all)
        density, features = values[..., 0], values[..., 1:]
        normals = None
        if self.scene.appearance.needs_normals:
            normals = read_innermost(self.scene.levels, samples.origins, lambda level, points: level.normals(points))
        opacity = torch.ones_like(density)
        return self.scene.appearance.image(features, opacity, samples, normals=normals), density

    def occ_eval_fn(self, x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
        """Density times step at world points: to first order, what one sample absorbs."""
        return read_innermost(self.scene.levels, x, _read_density) * self.render_step_size

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


def step_size(scene: Scene, step_in_voxels: float) -> float:
    """Distance between samples in metres."""
    return step_in_voxels * min(scene.field.voxel_size)


def _read_density(level: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 1"]:
    return level.query_density(points).relu()[:, None]


def _read_all(level: Field, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points values"]:
    """Density, then features."""
    density, features = level.query(points)
    return torch.cat((density.relu()[:, None], features), dim=-1)
