"""Light on fields: closed forms on a ball, gradients through normals, and the penalties of shapes."""

import math
from dataclasses import replace

import pytest
import torch
from balls import BOX, Ball, make_ball
from on_devices import assert_same_on_gpu
from torch import Tensor

from nfldm3d import Camera, VoxelField
from nfldm3d.geometry import Rays
from nfldm3d.rendering import integrate
from nfldm3d.rendering.backgrounds import BackgroundNetwork
from nfldm3d.rendering.shading import (
    Light,
    ShadedRays,
    ShadingOptions,
    field_normals,
    look_shaded,
    opacity_penalty,
    orientation_penalty,
    render_shaded,
    render_with_shape,
)

CENTER = torch.tensor(BOX.center)


def solid(density: float = 400.0) -> Ball:
    return replace(make_ball(density=density), voxel_size=(0.02, 0.02, 0.02))


def rays_at(points: Tensor, eye: Tensor) -> Rays:
    """From one eye through points."""
    return Rays(eye.expand_as(points), torch.nn.functional.normalize(points - eye, dim=-1))


EYE = CENTER + torch.tensor((3.0, 0.5, 1.0))


def some_rays(generator: torch.Generator) -> Rays:
    return rays_at(CENTER + 0.15 * torch.randn(30, 3, generator=generator), EYE)


def test_albedo_is_what_the_renderer_sees(generator: torch.Generator) -> None:
    field, rays = solid(6.0), some_rays(generator)
    seen = look_shaded(field, rays, Light(EYE), ShadingOptions("albedo", early_stop=0.0))
    near_far = torch.stack(field.box.clip(rays), dim=-1)
    wanted = integrate(field, rays, near_far, min(field.voxel_size), 0.0)
    for ours, theirs in (
        (seen.color, wanted.features),
        (seen.opacity, wanted.opacity),
        (seen.distance, wanted.distance),
    ):
        torch.testing.assert_close(ours, theirs)
    assert seen.normals is None and seen.away is None


@pytest.mark.parametrize("normals", ["field", "differences"])
def test_a_solid_ball_is_lit_as_lambert_says(normals: str, generator: torch.Generator) -> None:
    field, rays = solid(4000.0), some_rays(generator)
    lamp = CENTER + torch.tensor((1.0, 2.0, 4.0))
    options = ShadingOptions("textureless", normals, difference=5e-4, early_stop=1e-6)  # type: ignore[arg-type]
    seen = look_shaded(field, rays, Light(lamp, diffuse=0.7, ambient=0.2), options)
    points = rays.at(seen.distance)
    normal = torch.nn.functional.normalize(points - CENTER, dim=-1)
    towards = torch.nn.functional.normalize(lamp - points, dim=-1)
    wanted = 0.2 + 0.7 * (normal * towards).sum(-1).relu()
    torch.testing.assert_close(seen.opacity, torch.ones(30))
    torch.testing.assert_close(seen.color, wanted[:, None].expand(30, 3), atol=0.02, rtol=0)
    lit = look_shaded(field, rays, Light(lamp, diffuse=0.7, ambient=0.2), replace(options, shading="lambertian"))
    torch.testing.assert_close(lit.color, seen.color * field.query(points)[1], atol=0.02, rtol=0)
    torch.testing.assert_close(seen.normals, normal, atol=0.03, rtol=0)
    assert float(orientation_penalty(seen)) < 1e-3  # nothing that is seen faces away


def test_normals_of_grids_and_formulas_agree(generator: torch.Generator) -> None:
    field = solid(40.0)
    points = CENTER + 0.15 * torch.randn(40, 3, generator=generator)
    exact = field.normals(points)
    for options in (ShadingOptions(), ShadingOptions(normals="differences", difference=0.01)):
        torch.testing.assert_close(field_normals(field, points, options), exact, atol=0.02, rtol=0)


def test_gradients_pass_through_the_normals(generator: torch.Generator) -> None:
    """The derivative of a textureless view of a grid along a change of its densities is that of a difference."""
    axes = [torch.linspace(0, 1, n, dtype=torch.float32) for n in (9, 8, 7)]
    density = 3 * (torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)) + torch.rand(9, 8, 7, generator=generator)
    way, features = torch.randn(9, 8, 7, generator=generator), torch.rand(9, 8, 7, 3, generator=generator)
    options, rays = ShadingOptions("textureless", early_stop=0.0), some_rays(generator)

    def look(values: Tensor) -> Tensor:
        seen = look_shaded(VoxelField(values, features, BOX), rays, Light(EYE), options)
        return seen.color.sum() + opacity_penalty(seen.opacity)

    leaf = density.clone().requires_grad_()
    (slope,) = torch.autograd.grad(look(leaf), leaf)
    numeric = (look(density + 1e-2 * way) - look(density - 1e-2 * way)) / 2e-2
    assert float((slope * way).sum()) == pytest.approx(float(numeric), rel=0.02)


def test_what_faces_away_is_counted_without_moving_the_weights(generator: torch.Generator) -> None:
    density = torch.tensor(5.0, requires_grad=True)
    field = replace(solid(), density=density)  # its normals do not depend on its density
    rays = rays_at(CENTER + 0.2 * torch.randn(20, 3, generator=generator), EYE)
    seen = look_shaded(field, rays, Light(EYE), ShadingOptions("albedo", early_stop=0.0), with_normals=True)
    penalty = orientation_penalty(seen)
    assert float(penalty) > 0.01 and not penalty.requires_grad  # the far side of a thin ball
    assert seen.color.requires_grad


def test_penalties_are_their_formulas() -> None:
    opacity = torch.tensor((0.0, 0.6, 1.0))
    wanted = (0.1 + math.sqrt(0.37) + math.sqrt(1.01)) / 3
    assert float(opacity_penalty(opacity)) == pytest.approx(wanted)
    rays = ShadedRays(torch.zeros(3, 3), opacity, opacity, torch.zeros(3, 3), torch.tensor((0.0, 0.3, 0.5)))
    assert float(orientation_penalty(rays)) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="needs normals"):
        orientation_penalty(replace(rays, away=None))


def test_pictures_show_the_ball_over_its_background() -> None:
    camera = Camera.orbit(BOX.center, 4.0, views=2, width=14, height=10)
    pictures = render_shaded(solid(), camera, ShadingOptions("textureless"), background=torch.tensor((0.0, 0.5, 1.0)))
    assert pictures.image.shape == (2, 3, 10, 14) and pictures.normals is not None
    torch.testing.assert_close(pictures.image[:, :, 0, 0], torch.tensor((0.0, 0.5, 1.0)).expand(2, 3))
    assert float(pictures.opacity[:, 5, 7].min()) > 0.99
    towards = -camera.forward
    assert float((pictures.normals[:, :, 5, 7] * towards).sum(-1).min()) > 0.9
    assert float(pictures.image[:, :, 5, 7].min()) > 0.9  # the lamp is at the camera
    assert 3.0 < float(pictures.depth[0, 5, 7]) < 3.5


def test_colors_and_shape_are_seen_at_once() -> None:
    camera, grey = Camera.orbit(BOX.center, 4.0, views=2, width=14, height=10), torch.full((3,), 0.4)
    lit, bare = render_with_shape(solid(), camera, background=grey)
    for shading, image in (("lambertian", lit.image), ("textureless", bare)):
        alone = render_shaded(solid(), camera, ShadingOptions(shading), background=grey)
        torch.testing.assert_close(image, alone.image)
        torch.testing.assert_close(lit.normals, alone.normals)


def test_backgrounds_are_learned_and_kept(generator: torch.Generator) -> None:
    network = BackgroundNetwork(generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(4, 5, 3, generator=generator), dim=-1)
    torch.testing.assert_close(network(directions), torch.full((4, 5, 3), 0.5))
    torch.nn.init.normal_(network.output, generator=generator)
    network(directions).sum().backward()
    assert network.hidden.grad is not None and bool(network.hidden.grad.any())
    kept = network.to_environment_map(48)
    torch.testing.assert_close(kept.query(directions), network(directions).detach(), atol=0.02, rtol=0)


def test_wrong_options_are_refused() -> None:
    for wrong in ({"step_in_voxels": 0.0}, {"difference": -1.0}):
        with pytest.raises(ValueError, match="got"):
            ShadingOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        BackgroundNetwork(0)


@pytest.mark.cuda
def test_gives_the_same_on_the_gpu(generator: torch.Generator) -> None:
    rays = some_rays(generator)

    def call(device: torch.device) -> list[Tensor]:
        moved = Rays(rays.origins.to(device), rays.directions.to(device))
        seen = look_shaded(solid().to(device), moved, Light(EYE.to(device)), ShadingOptions("lambertian"))
        return [seen.color, seen.opacity, *([] if seen.normals is None else [seen.normals])]

    assert_same_on_gpu(call)
