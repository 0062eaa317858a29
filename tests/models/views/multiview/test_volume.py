"""What is unprojected from views and rendered again is the same in every view: axes, lenses and contraction agree."""

import itertools

import pytest
import torch
from torch import Tensor

from nfldm3d import Camera
from nfldm3d.geometry import Rays
from nfldm3d.models.views.multiview.contraction import contract, expand, is_seen
from nfldm3d.models.views.multiview.volume import render_volume, unproject, voxel_points

CENTER, RADII = torch.tensor([0.2, -0.15, 0.1]), torch.tensor([0.55, 0.4, 0.3])
"""An ellipsoid off the middle, whose axes differ."""
EYES = torch.tensor([[2.4, 0.3, 0.9], [-1.5, 2.0, 0.4], [-0.4, -2.3, 1.2], [0.9, 1.1, 2.1]])
CAMERAS = Camera.look_at(EYES, (0.1, -0.1, 0.05), width=40, height=32)
"""Of pictures that are no squares."""


def hit(rays: Rays, center: Tensor = CENTER, radii: Tensor = RADII) -> tuple[Tensor, Tensor]:
    """Where rays meet the ellipsoid, and whether they do."""
    origins, directions = (rays.origins - center) / radii, rays.directions / radii
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    inner = b.square() - a * (origins.square().sum(-1) - 1)
    return rays.at((-b - inner.clamp(min=0).sqrt()) / a), inner > 0


def test_contraction_and_its_inverse_agree_on_all_faces(generator: torch.Generator) -> None:
    inside = torch.rand(20, 3, generator=generator) * 2 - 1
    assert torch.equal(contract(inside), inside) and torch.equal(expand(inside), inside)
    for axis, sign in itertools.product(range(3), (-1.0, 1.0)):
        points = torch.rand(30, 3, generator=generator) * 2 - 1
        points[:, axis] = sign
        points = points * torch.logspace(0.01, 1.5, 30)[:, None]  # from just beyond the face to 30 away
        made = contract(points)
        assert (made.abs() <= 2).all() and (made[:, axis] * sign > 1).all() and is_seen(made).all()
        assert torch.allclose(expand(made), points, rtol=1e-3, atol=1e-4)
    assert torch.allclose(contract(torch.tensor([[4.0, 2.0, -1.0]])), torch.tensor([[1.75, 0.5, -0.25]]))
    corners = torch.tensor([[1.5, 1.5, 0.0], [-1.5, 0.0, 1.2], [1.5, 0.9, 0.9]])
    assert is_seen(corners).tolist() == [False, False, True]


def test_voxels_lie_x_first() -> None:
    points, known = voxel_points(4, torch.zeros(1), unbounded=False)
    assert known.all() and torch.allclose(points.reshape(4, 4, 4, 3)[3, 1, 2], torch.tensor([0.75, -0.25, 0.25]))
    far, known = voxel_points(8, torch.zeros(1), unbounded=True)
    assert torch.allclose(contract(far[known]).amax(), torch.tensor(1.75), atol=1e-4)
    assert int(known.sum()) == 4**3 + 6 * 4**2 * 2


def test_pixels_are_fetched_where_points_project() -> None:
    ramps = CAMERAS.pixel_centers().movedim(-1, 0).expand(4, 2, 32, 40)  # u and v of every pixel
    points = torch.tensor([[0.1, 0.2, -0.1], [0.0, -0.3, 0.2], [9.0, 9.0, 9.0]])
    fetched = unproject(ramps, CAMERAS, points)
    pixels, depths = CAMERAS.project(points.expand(4, -1, -1))
    assert fetched.seen[:, :2].all() and torch.allclose(fetched.values[:, :2], pixels[:, :2], atol=1e-3)
    assert torch.allclose(fetched.depths[:, :2], depths[:, :2])
    assert not fetched.values[~fetched.seen].any()
    small = unproject(torch.nn.functional.avg_pool2d(ramps, 4), CAMERAS, points)  # a camera serves any size
    assert torch.allclose(small.values[:, :2], pixels[:, :2], atol=1e-3)
    directions = torch.nn.functional.normalize(points[0] - CAMERAS.centers, dim=-1)
    assert torch.allclose(fetched.directions[:, 0], directions, atol=1e-6)


@pytest.mark.parametrize("unbounded", [False, True])
def test_what_is_unprojected_comes_back_in_every_view(unbounded: bool) -> None:
    """Each point of the ellipsoid is painted with where it lies."""
    places, met = hit(CAMERAS.rays())
    pictures = torch.where(met[..., None], places, 0.0).movedim(-1, 1)
    grid = 64 if unbounded else 32
    points, known = voxel_points(grid, pictures, unbounded=unbounded)
    depth = ((points - CENTER) / RADII).norm(dim=-1)
    shell = (depth < 1.06) & known
    fetched = unproject(pictures, CAMERAS, points)
    toward = ((points - CENTER) / RADII.square() * -fetched.directions).sum(-1)  # only views that face a point see it
    weights = (fetched.seen & (toward > 0.3))[..., None].float()
    mean = (weights * fetched.values).sum(0) / weights.sum(0).clamp(min=1)
    shape = (grid, grid, grid)
    density, features = (80.0 * shell).reshape(shape), mean.reshape(*shape, 3)
    rays = CAMERAS.rays().reshape(-1)
    made = render_volume(density, features, rays, unbounded=unbounded)
    opaque = (made.opacity > 0.99).reshape(met.shape)
    shrunk = hit(CAMERAS.rays(), radii=RADII * 0.85)[1]
    assert opaque[shrunk].all() and (shrunk.sum((1, 2)) > 30).all()
    error = (made.foreground.unflatten(0, met.shape) - places).norm(dim=-1)[shrunk]
    assert float(error.median()) < 0.08 and float(error.mean()) < 0.12  # of a body half as wide as 1
    swapped = (made.foreground.unflatten(0, met.shape)[..., [1, 2, 0]] - places).norm(dim=-1)[shrunk]
    assert float(swapped.median()) > 0.25


def test_what_lies_beyond_is_seen_around_the_cube_and_not_before_it() -> None:
    """The upper half of the world is 1, the lower 0, where contracted space ends."""
    grid = 32
    centers = torch.linspace(-2 + 2 / grid, 2 - 2 / grid, grid)
    z = centers.expand(grid, grid, grid)
    outer = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij")).abs().amax(0) > 1.8
    density = torch.where(outer, 50.0, 0.0)
    down = CAMERAS.rays().reshape(-1)
    mirror = torch.tensor([1.0, 1.0, -1.0])
    rays = Rays(
        torch.cat((down.origins, down.origins * mirror)), torch.cat((down.directions, down.directions * mirror))
    )
    made = render_volume(density, (z > 0).float()[..., None], rays, unbounded=True)
    assert not made.opacity.any()
    upwards = rays.at(torch.full((len(rays),), 50.0))[:, 2]
    above, below = made.background[upwards > 20], made.background[upwards < -20]
    assert float(above.min()) > 0.9 and float(below.max()) < 0.1
    empty = render_volume(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8, 2), rays, unbounded=True)
    assert (empty.together() == 1).all()


def test_gradients_reach_the_volume() -> None:
    density, features = (torch.rand(8, 8, 8).requires_grad_(), torch.rand(8, 8, 8, 4).requires_grad_())
    rays = CAMERAS[0].resized(6, 5).rays().reshape(-1)
    render_volume(density, features, rays, unbounded=True).together().sum().backward()
    for grid in (density, features):
        assert grid.grad is not None and grid.grad[2:6, 2:6, 2:6].any() and grid.grad[:2].any()
