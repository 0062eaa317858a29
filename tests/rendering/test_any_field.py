"""Fields that only answer queries: their pictures are closed forms, with gradients, in bounded memory, at any level."""

from dataclasses import replace

import pytest
import torch
from balls import Ball, Network, SolidBall, make_ball
from torch import Tensor

from nfldm3d import Box, Camera, Rays, Rgb, Scene, VoxelField, render
from nfldm3d.fields import Field, FusedField, voxelize
from nfldm3d.ops import FieldGradient
from nfldm3d.rendering import composite, integrate, integration, prepare

WHITE = torch.tensor([0.9, 0.8, 1.0])


def look_at(field: Field, width: int = 19, height: int = 13) -> Camera:
    eye = torch.tensor(field.box.center) + torch.tensor([2.9, -1.7, 0.8])
    return Camera.look_at(eye, field.box.center, width=width, height=height, horizontal_fov_degrees=40.0)


def closed_form(ball: Ball, rays: Rays) -> Tensor:
    """Opacity by Beer and Lambert, from the chord that each ray cuts out of the ball."""
    offset = rays.origins - torch.tensor(ball.box.center)
    along = (offset * rays.directions).sum(-1)
    half_squared = (ball.radius**2 - offset.square().sum(-1) + along**2).clamp(min=0)
    if isinstance(ball, SolidBall):
        depth = ball.density * 2 * half_squared.sqrt()
    else:  # the integral of k (h² - s²) / R² for -h < s < h
        depth = ball.density * 4 / 3 * half_squared**1.5 / ball.radius**2
    return 1 - torch.exp(-depth)


def test_a_ball_is_a_field_and_no_more() -> None:
    assert isinstance(make_ball(), Field) and not isinstance(make_ball(), FusedField)
    assert not hasattr(make_ball(), "resolution") and not hasattr(make_ball(), "bricks")


@pytest.mark.parametrize(
    ("kind", "density", "step"), [(Ball, 0.6, 0.5), (Ball, 3.0, 0.5), (Ball, 40.0, 0.2), (SolidBall, 3.0, 0.01)]
)
def test_the_picture_of_a_ball_is_its_closed_form(kind: type[Ball], density: float, step: float) -> None:
    ball = make_ball(density=density, kind=kind)
    camera = look_at(ball)
    picture = render(Scene(ball, Rgb()), camera, step_in_voxels=step)
    expected = closed_form(ball, camera.rays())
    assert expected.max() > 0.4 and expected.min() == 0
    torch.testing.assert_close(picture.opacity, expected, atol=1e-3, rtol=0)


def test_colour_is_that_of_the_places_seen() -> None:
    """Features are linear in space and the ball is the same from both sides: thin ones show the chord's middle."""
    ball = make_ball(density=1e-3)
    camera = look_at(ball)
    seen = render(Scene(ball, Rgb()), camera, with_features=True)
    rays = camera.rays()
    along = ((torch.tensor(ball.box.center) - rays.origins) * rays.directions).sum(-1)
    assert seen.features is not None
    thick = seen.opacity > 3e-4
    colors = (seen.features / seen.opacity).movedim(0, -1)[thick]
    torch.testing.assert_close(colors, (0.5 + 0.4 * ball.offset(rays.at(along)))[thick], atol=1e-3, rtol=0)


def test_a_queried_grid_is_the_marched_one(generator: torch.Generator) -> None:
    """The samples are the same, so all sums are; from outside, from inside, and on stretches of rays."""
    field = VoxelField(
        3 * torch.rand(7, 5, 9, generator=generator).relu() * (torch.rand(7, 5, 9, generator=generator) < 0.3),
        torch.rand(7, 5, 9, 4, generator=generator),
        Box((-1.0, 0.5, 2.0), (2.5, 2.5, 6.5)),
    )
    origins = torch.tensor(field.box.center) + torch.randn(300, 3, generator=generator) * 3
    targets = torch.tensor(field.box.lower) + torch.rand(300, 3, generator=generator) * torch.tensor(field.box.size)
    rays = Rays(origins, torch.nn.functional.normalize(targets - origins, dim=-1))
    near, far = field.box.clip(rays)
    share = torch.rand(2, 300, generator=generator)
    for near_far in ((near, far), (near + share[0] * (far - near) / 2, far - share[1] * (far - near) / 3)):
        near_far = torch.stack(near_far, dim=-1)
        fused = field.integrate(rays, near_far, 0.21, 1e-3)
        queried = integrate(Queried(field), rays, near_far, 0.21, 1e-3)
        assert fused.opacity.max() > 0.5
        for name in ("features", "opacity", "distance", "distortion"):
            torch.testing.assert_close(getattr(queried, name), getattr(fused, name), atol=2e-4, rtol=1e-3)


class Queried:
    """A grid that hides that it is one."""

    def __init__(self, grid: VoxelField):
        self.grid, self.box, self.channels, self.voxel_size = grid, grid.box, grid.channels, grid.voxel_size
        self.device, self.query, self.query_density = grid.device, grid.query, grid.query_density
        self.normals, self.occupancy = grid.normals, grid.occupancy

    def to(self, target) -> "Queried":
        return Queried(self.grid.to(target))


@pytest.mark.parametrize("at_once", [2**18, 2000])
def test_gradients_reach_what_queries_depend_on(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """In one block and in many, where the graph of each block is made anew in the backward pass."""
    monkeypatch.setattr(integration, "SAMPLES_AT_ONCE", at_once)
    camera = look_at(make_ball())

    def loss(radius: Tensor, density: Tensor) -> Tensor:
        picture = render(Scene(replace(make_ball(), radius=radius, density=density), Rgb(), WHITE), camera)
        return picture.image.square().mean() + 0.1 * picture.distance.mean()

    values = [torch.tensor(0.8, requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    found = torch.autograd.grad(loss(*values), values)
    for number, size in enumerate((2e-3, 1e-2)):
        shift = size * torch.eye(2)[number]
        with torch.no_grad():
            high, low = (loss(*(torch.stack(values) + sign * shift)) for sign in (1, -1))
        assert float(found[number]) == pytest.approx(float(high - low) / (2 * size), rel=0.02)


def test_gradients_reach_the_rays() -> None:
    """Poses can be refined by fields that are differentiable by points."""
    ball, camera = make_ball(), look_at(make_ball(), 5, 4)
    rays = camera.rays().reshape(-1)
    origins = rays.origins.clone().requires_grad_()
    sums = composite([ball], Rays(origins, rays.directions))
    (slope,) = torch.autograd.grad(sums.features.sum(), origins)
    assert torch.isfinite(slope).all() and slope.abs().max() > 1e-3


def test_blocks_change_nothing_and_bound_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(Ball):
        def query_density(self, points: Tensor) -> Tensor:
            asked.append(len(points))
            return super().query_density(points)

    ball, camera = make_ball(kind=Counting), look_at(make_ball())
    whole = render(Scene(ball, Rgb()), camera)
    monkeypatch.setattr(integration, "SAMPLES_AT_ONCE", 600)
    asked.clear()
    pieces = render(Scene(ball, Rgb()), camera)
    torch.testing.assert_close(pieces.image, whole.image, atol=1e-6, rtol=0)
    assert len(asked) > 10 and max(asked) < 600 + 80  # a block, and one ray more


def test_what_cannot_be_seen_is_not_asked_for_features() -> None:
    asked: list[int] = []

    class Counting(Ball):
        def query(self, points: Tensor) -> tuple[Tensor, Tensor]:
            asked.append(len(points))
            return super().query(points)

    camera, counts = look_at(make_ball()), []
    for density in (0.1, 1000.0):
        asked.clear()
        render(Scene(make_ball(density=density, kind=Counting), Rgb()), camera)
        counts.append(sum(asked))
    assert counts[1] < 0.2 * counts[0]
    rays = camera.rays().reshape(-1)
    asked.clear()
    composite([make_ball(density=1000.0, kind=Counting)], rays, early_stop=0.0)
    assert sum(asked) > counts[0]


def test_rays_that_meet_nothing() -> None:
    ball = make_ball(radius=0.1)
    away = Camera.look_at((9.0, 9.0, 9.0), (19.0, 9.0, 9.0), width=4, height=3)
    picture = render(Scene(ball, Rgb(), WHITE), away, with_normals=True)
    torch.testing.assert_close(picture.image, WHITE[:, None, None].expand(3, 3, 4))
    assert picture.opacity.max() == 0 and picture.distance.max() == 0
    sums = composite([ball], Rays(torch.zeros(0, 3), torch.zeros(0, 3)))
    assert sums.features.shape == (0, 3)


@pytest.mark.parametrize("inner_is_ball", [True, False])
def test_levels_of_both_kinds_nest(inner_is_ball: bool) -> None:
    """A ball within voxels, and voxels within a ball, look as if all were of one kind."""
    ball = replace(make_ball(density=6.0), voxel_size=(0.05, 0.05, 0.05))
    around = replace(make_ball(1.9, 0.7), box=ball.box.scaled(2.0))
    levels = (ball, voxelize(around)) if inner_is_ball else (voxelize(ball), around)
    scene = Scene(levels[0], Rgb(), WHITE, (levels[1],))
    camera = look_at(around)
    mixed = render(scene, camera, step_in_voxels=0.25, with_normals=True)
    plain = Scene(voxelize(ball), Rgb(), WHITE, (voxelize(around),))
    voxels = render(plain, camera, step_in_voxels=0.25, with_normals=True)
    exact = render(Scene(ball, Rgb(), WHITE, (around,)), camera, step_in_voxels=0.25, with_normals=True)
    assert mixed.opacity.max() > 0.9
    for other in (voxels, exact):
        torch.testing.assert_close(mixed.image, other.image, atol=0.02, rtol=0)
        torch.testing.assert_close(
            mixed.depth[mixed.opacity > 0.2], other.depth[mixed.opacity > 0.2], atol=0.05, rtol=0
        )


def test_normals_are_the_fields_own() -> None:
    ball, camera = make_ball(density=100.0), look_at(make_ball())
    seen = render(Scene(ball, Rgb()), camera, with_normals=True)
    assert seen.normals is not None
    solid = seen.opacity > 0.99
    points = camera.rays().at(seen.distance)[solid]
    torch.testing.assert_close(seen.normals.movedim(0, -1)[solid], ball.normals(points), atol=1e-4, rtol=0)
    assert (seen.normals[:, seen.opacity < 1e-3] == 0).all()


class Headlight(Rgb):
    """Lit from the camera: an appearance that asks for normals."""

    needs_normals = True

    def image(self, features, opacity, rays, distance=None, normals=None):
        assert normals is not None
        cosine = -(rays.directions * normals).sum(-1, keepdim=True)
        return features[..., :3] * cosine.clamp(min=0)


@pytest.mark.parametrize("on_grid", [False, True])
def test_appearances_may_ask_for_normals(on_grid: bool) -> None:
    ball = make_ball(density=300.0)
    field, camera = (voxelize(ball) if on_grid else ball), look_at(ball, 15, 15)
    plain, lit = (render(Scene(field, kind(), WHITE), camera) for kind in (Rgb, Headlight))
    assert lit.normals is None, "nobody asked the renderer for them"
    shade = (lit.image / plain.image).mean(0)
    inner = plain.opacity > 0.99
    assert shade[7, 7] > 0.98 and 0.2 < shade[inner].min() < 0.8
    chunks = render(Scene(field, Headlight(), WHITE), camera, rays_per_chunk=50)
    torch.testing.assert_close(chunks.image, lit.image, atol=1e-5, rtol=0)


def test_a_prepared_renderer_looks_at_empty_space_once() -> None:
    looks: list[float] = []

    class Watched(Ball):
        def occupancy(self, threshold: float = 0.0) -> Tensor:
            looks.append(threshold)
            return super().occupancy(threshold)

    scene = Scene(
        make_ball(kind=Watched), Rgb(), WHITE, (voxelize(replace(make_ball(), box=make_ball().box.scaled(2.0))),)
    )
    camera, renderer = look_at(scene.field), prepare(scene)
    pictures = [renderer.render(camera) for _ in range(3)]
    assert looks == [0.0]
    torch.testing.assert_close(pictures[2].image, render(scene, camera).image, atol=0, rtol=0)
    colors = renderer.color(camera.rays().reshape(-1))
    torch.testing.assert_close(colors.clamp(0, 1).view(13, 19, 3).movedim(-1, 0), pictures[0].image)


class Marched(Ball):
    """One with a march of its own, that keeps the mask which it gave."""

    def integrate(self, rays, near_far, step, early_stop, occupancy=None, gradient=None):
        assert isinstance(occupancy, Tensor)
        return integrate(make_ball(), rays, near_far, step, early_stop, occupancy)


def test_a_march_of_its_own_may_come_with_a_mask() -> None:
    camera = look_at(make_ball())
    marched, queried = (render(Scene(ball, Rgb()), camera) for ball in (make_ball(kind=Marched), make_ball()))
    assert isinstance(make_ball(kind=Marched), FusedField)
    torch.testing.assert_close(marched.image, queried.image, atol=1e-6, rtol=0)


def test_a_prepared_renderer_keeps_what_it_saw() -> None:
    """As its documentation says: what was empty stays skipped, what was not may change in place."""
    field = VoxelField.zeros(Box((0.0, 0.0, 0.0), (2.0, 1.0, 1.5)), (8, 4, 6), 3)
    field.density[2:4] = 5.0
    renderer, camera = prepare(Scene(field, Rgb())), look_at(field)
    before = renderer.render(camera).opacity
    field.density[2:4] = 1.0
    assert (renderer.render(camera).opacity < before + 1e-6).all() and renderer.render(
        camera
    ).opacity.max() < before.max()
    field.density[6:] = 50.0
    fresh = prepare(renderer.scene).render(camera).opacity
    assert fresh.max() > 0.99 and renderer.render(camera).opacity.max() < 0.9


def test_mistakes_are_named() -> None:
    ball, camera = make_ball(), look_at(make_ball())

    class Wrong(Ball):
        def occupancy(self, threshold: float = 0.0) -> Tensor:
            return torch.ones(2, 3)

    with pytest.raises(ValueError, match=r"Wrong.occupancy gave torch.float32 of shape \(2, 3\).*mask \(bool\)"):
        render(Scene(make_ball(kind=Wrong), Rgb()), camera)
    with pytest.raises(ValueError, match="Ball has no grid that a gradient could be added to"):
        buffers = FieldGradient(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2, 3))
        composite([ball], camera.rays().reshape(-1), gradients=[buffers])

    class Painter(Rgb):
        per_ray = False

    with pytest.raises(ValueError, match="Painter colours whole pictures, not single rays"):
        prepare(Scene(ball, Painter())).color(camera.rays().reshape(-1))


@pytest.mark.cuda
def test_a_gpu_sees_the_same() -> None:
    ball, gradients = make_ball(), []
    pictures = []
    for device in ("cpu", "cuda"):
        radius, density = (value.to(device).requires_grad_() for value in (ball.radius, ball.density))
        around = voxelize(replace(ball, box=ball.box.scaled(2.0))).to(device)
        scene = Scene(replace(ball, radius=radius, density=density), Rgb(), WHITE.to(device), (around,))
        pictures.append(render(scene, look_at(ball).to(device), with_normals=True))
        slopes = torch.autograd.grad(pictures[-1].image.square().mean(), (radius, density))
        assert {slope.device.type for slope in slopes} == {device}
        gradients.append(torch.stack([slope.cpu() for slope in slopes]))
    for name in ("image", "opacity", "distance", "normals"):
        here, there = (getattr(picture, name).detach().cpu() for picture in pictures)
        torch.testing.assert_close(there, here, atol=1e-3, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


@pytest.mark.cuda
def test_a_gpu_bounds_its_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, camera = Scene(make_ball().to("cuda"), Rgb()), look_at(make_ball()).to("cuda")
    whole = prepare(scene).render(camera)
    monkeypatch.setattr(integration, "SAMPLES_AT_ONCE", 2000)
    torch.testing.assert_close(render(scene, camera).image.cpu(), whole.image.cpu(), atol=1e-5, rtol=0)


def test_a_network_learns_from_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its weights get gradients, the same ones from blocks whose graphs are made anew."""
    network, gradients = Network(), []
    for at_once in (2**18, 3000):
        monkeypatch.setattr(integration, "SAMPLES_AT_ONCE", at_once)
        picture = render(Scene(network, Rgb(4), WHITE), look_at(network), with_normals=True)
        slopes = torch.autograd.grad(picture.image.square().mean(), list(network.parameters()))
        gradients.append(torch.cat([slope.flatten() for slope in slopes]))
    assert all(bool(slope.abs().max() > 0) for slope in slopes[:2])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-3)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    camera, target = look_at(network, 8, 6), torch.tensor([0.8, 0.3, 0.1])[:, None, None]
    losses = []
    for _ in range(12):
        loss = (render(Scene(network, Rgb(4)), camera).image - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
