"""Light adds up to one along each ray; a measured surface lands in the voxel it lies in, whatever the scale."""

import math

import pytest
import torch
from small_rooms import BOX, GRID, HEIGHT, ROOM, WIDTH, cameras, room_views

from nfldm3d import Box, Camera
from nfldm3d.geometry import transform_points
from nfldm3d.models.nfldm import lifting
from nfldm3d.models.nfldm.lifting import NEAREST, bin_edges, build_frustums, find_bins, occupancy_weights

BINS = 12
UNEVEN = Box((-3.0, 1.0, 0.25), (0.5, 4.5, 2.0))
"""Voxels of 0.4375 x 0.5 x 0.35 m in the grid below."""
UNEVEN_GRID = (8, 7, 5)


def test_light_that_ends_and_light_that_passes_add_up_to_one(generator: torch.Generator) -> None:
    density, lengths = (3 * torch.rand(50, BINS, generator=generator) for _ in range(2))
    weights, passed = occupancy_weights(density, lengths)
    assert torch.allclose(weights.cumsum(-1) + passed, torch.ones(50, BINS), atol=1e-6)
    assert bool((weights >= 0).all()) and bool((passed.diff(dim=-1) <= 0).all())


def test_constant_density_absorbs_as_beer_and_lambert_say(generator: torch.Generator) -> None:
    lengths, sigma = torch.rand(5, BINS, generator=generator, dtype=torch.float64), 0.7
    weights, passed = occupancy_weights(torch.full_like(lengths, sigma), lengths)
    ends = lengths.cumsum(-1)
    assert torch.allclose(passed, torch.exp(-sigma * ends))
    assert torch.allclose(weights, torch.exp(-sigma * (ends - lengths)) * (1 - torch.exp(-sigma * lengths)))


def test_an_opaque_bin_takes_what_is_left(generator: torch.Generator) -> None:
    density = torch.zeros(1, BINS)
    density[0, 3], density[0, 7] = 0.5, 1e4
    weights, passed = occupancy_weights(density, torch.ones(1, BINS))
    assert weights[0, 3] == pytest.approx(1 - math.exp(-0.5)) and weights[0, 7] == pytest.approx(math.exp(-0.5))
    assert float(passed[0, 7:].max()) == 0 and float(weights[0, 8:].max()) == 0


def test_bins_are_even_in_the_logarithm_and_span_the_box() -> None:
    edges = bin_edges(BINS, UNEVEN_GRID, torch.device("cpu"))
    assert float(edges[0]) == pytest.approx(NEAREST) and float(edges[-1]) == pytest.approx(math.hypot(*UNEVEN_GRID))
    ratios = edges[1:] / edges[:-1]
    assert torch.allclose(ratios, ratios[:1].expand(BINS))


def test_bins_are_depths_along_the_axis_and_lengths_along_the_ray() -> None:
    camera = cameras(3)
    frustums = build_frustums(camera, UNEVEN, UNEVEN_GRID, BINS)
    points = frustums.origins[:, None] + frustums.directions[:, None] * frustums.distances[..., None]
    pixels, depth = camera.project(points.view(3, -1, 3))
    voxel, edges = min(UNEVEN.voxel_size(UNEVEN_GRID)), bin_edges(BINS, UNEVEN_GRID, torch.device("cpu"))
    middle = (edges[1:] * edges[:-1]).sqrt() * voxel
    assert torch.allclose(depth.view(3, HEIGHT, WIDTH, BINS), middle.expand(3, HEIGHT, WIDTH, BINS), rtol=1e-4)
    wanted = camera.pixel_centers()[None, :, :, None].expand(3, -1, -1, BINS, -1)
    assert torch.allclose(pixels.view_as(wanted), wanted, atol=1e-2)
    along = frustums.distances / middle  # distance of a unit of depth
    assert torch.allclose(frustums.lengths.sum(-1) * voxel, along[:, 0] * (edges[-1] - edges[0]) * voxel, rtol=1e-4)


def test_every_depth_has_its_bin() -> None:
    voxel, edges = min(UNEVEN.voxel_size(UNEVEN_GRID)), bin_edges(BINS, UNEVEN_GRID, torch.device("cpu"))

    def bins_of(depth: torch.Tensor) -> list[int]:
        return find_bins(depth * voxel, UNEVEN, UNEVEN_GRID, BINS).tolist()

    assert bins_of((edges[1:] * edges[:-1]).sqrt()) == list(range(BINS))
    assert bins_of(edges[:-1] * 1.001) == list(range(BINS)) and bins_of(edges[1:] * 0.999) == list(range(BINS))
    near, beyond, nothing = NEAREST / 10, 1.01 * math.hypot(*UNEVEN_GRID), math.nan
    assert bins_of(torch.tensor([near, beyond, 0.0, nothing, math.inf])) == [0, BINS, BINS, BINS, BINS]


def test_normals_are_those_of_the_walls() -> None:
    camera = cameras(5)
    views, rays = room_views(camera), camera.rays()
    assert views.depth is not None
    normals, surface = lifting.estimate_normals(views.depth, camera), rays.at(ROOM.clip(rays)[1])
    apart = torch.stack([(surface - torch.tensor(corner)).abs() for corner in (ROOM.lower, ROOM.upper)])
    wall = apart.amin(0).argmin(-1)  # across x, y or z
    same = torch.ones_like(wall, dtype=torch.bool)
    for shift, axis in ((1, 1), (-1, 1), (1, 2), (-1, 2)):
        same &= wall.roll(shift, axis) == wall
    same = same[:, 1:-1, 1:-1]  # all neighbours lie on one wall; at a corner either wall will do
    across = normals.gather(-1, wall[..., None])[..., 0]
    inward = torch.where(apart[0] < apart[1], 1.0, -1.0).gather(-1, wall[..., None])[..., 0]
    assert torch.allclose(across[:, 1:-1, 1:-1][same], inward[:, 1:-1, 1:-1][same], atol=1e-3)
    assert float(same.float().mean()) > 0.6
    assert torch.allclose(normals.norm(dim=-1), torch.ones(normals.shape[:-1]), atol=1e-4)
    assert bool(((normals * rays.directions).sum(-1) < 1e-5).all())


def test_a_lonely_pixel_faces_the_camera() -> None:
    camera = cameras(1)
    depth = torch.zeros(1, HEIGHT, WIDTH)
    depth[0, 4, 7] = 2.0
    normals = lifting.estimate_normals(depth, camera)
    assert torch.allclose(normals[0, 4, 7], -camera.rays().directions[0, 4, 7])
    assert bool(torch.isfinite(normals).all())


def test_surfaces_are_sunken_by_a_share_of_a_voxel() -> None:
    camera = cameras(3)
    views, rays = room_views(camera), camera.rays()
    assert views.depth is not None
    points = lifting.sunken_points(views.depth, camera, UNEVEN, UNEVEN_GRID)
    moved = points - rays.at(ROOM.clip(rays)[1])
    size = min(UNEVEN.voxel_size(UNEVEN_GRID))
    assert torch.allclose(moved.norm(dim=-1), torch.full(moved.shape[:-1], lifting.SINK * size), atol=1e-4)
    assert float((~ROOM.contains(points)).float().mean()) > 0.97  # behind the wall


def test_surfaces_on_the_faces_of_the_box_stay_in_it() -> None:
    """Ceilings often lie exactly on the top; sunken behind it, they would leave a hole."""
    camera = cameras(5)
    rays = camera.rays()
    distance = BOX.clip(rays)[1]
    cosine = (rays.directions * camera.forward[:, None, None]).sum(-1)
    assert bool(lifting.in_box(rays.at(distance), BOX).all())
    points = lifting.sunken_points(distance * cosine, camera, BOX, GRID).reshape(-1, 3)
    hits = lifting.deposit_surfaces(torch.ones(len(points), 1), torch.ones(len(points)), points, (BOX, GRID))[1]
    assert float(hits.sum()) == len(points)
    beyond = lifting.sunken_points(1.1 * distance * cosine, camera, BOX, GRID)
    assert not bool(BOX.contains(beyond).any())


@pytest.mark.parametrize(
    ("box", "grid"), [(BOX, GRID), (BOX, (16, 16, 8)), (Box((1.3, -1.7, 0.5), (5.1, 2.3, 2.4)), (9, 7, 5))]
)
def test_a_measured_pixel_lands_in_the_voxel_of_its_surface(box: Box, grid: tuple[int, int, int]) -> None:
    rays = cameras(5).rays().reshape(-1)
    points, weights = rays.at(ROOM.clip(rays)[1]), torch.ones(len(rays))
    weights[::7] = 0  # some pixels know nothing
    colors = torch.stack((torch.ones(len(rays)), torch.arange(len(rays)) / len(rays)), dim=-1)
    features, hits, offsets = lifting.deposit_surfaces(colors, weights, points, (box, grid))
    place = (points - torch.tensor(box.lower)) / torch.tensor(box.voxel_size(grid))
    held = ((place >= 0) & (place < torch.tensor(grid))).all(-1) & (weights > 0)
    wanted, unsure, shades = torch.zeros(grid), torch.zeros(grid), torch.zeros(grid)
    for target, chosen, values in (
        (wanted, held, weights),
        (shades, held, colors[:, 1]),
        (unsure, held & ((place - place.round()).abs().amin(-1) < 1e-3), weights),  # rounding decides on a face
    ):
        target.index_put_(tuple(place[chosen].long().unbind(-1)), values[chosen], accumulate=True)
    clear = unsure == 0
    assert torch.allclose(hits[clear], wanted[clear], atol=1e-4) and float(wanted[clear].sum()) > 500
    assert torch.allclose(features[clear], torch.stack((wanted, shades), dim=-1)[clear], atol=1e-3)
    assert bool((offsets.abs() <= 0.5 * hits[..., None] + 1e-4).all()) and float(offsets.abs().max()) > 0.1


def test_evidence_counts_bins_and_tells_where_in_the_voxel() -> None:
    origin, along = torch.tensor([[1.05, 0.1, 1.3]]), torch.tensor([[1.0, 0.0, 0.0]])
    point = torch.tensor([3.6, 0.1, 1.3])  # voxel (5, 4, 1) begins at (3.5, 0, 1)
    frustums = lifting.Frustums(origin, along, torch.tensor([[2.55]]), torch.ones(1, 1))
    quarter = torch.full((1, 1), 0.25)
    sums = lifting.splat(torch.tensor([[2.0]]), quarter, 3 * quarter, 8 * quarter, frustums, (BOX, GRID))
    voxel = (5, 4, 1)
    found = [float(value[voxel]) for value in (sums.hits, sums.free, sums.density, sums.counts)]
    assert found == pytest.approx([0.25, 0.75, 2.0, 1.0])
    assert float(sums.features[voxel]) == pytest.approx(0.5)
    offset = ((point - torch.tensor([3.5, 0.0, 1.0])) / 0.5 - 0.5) * 0.25
    assert torch.allclose(sums.offsets[voxel], offset, atol=1e-5)
    assert float(sums.hits.sum()) == 0.25


def test_bins_in_the_box() -> None:
    origin, along = torch.tensor([[1.5, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    frustums = lifting.Frustums(origin, along, torch.tensor([[0.5, 3.4, 3.6]]), torch.ones(1, 3))
    assert lifting.inside(frustums, BOX).tolist() == [[1.0, 1.0, 0.0]]


def test_voxels_are_solid_where_hits_are_a_tenth_of_what_passed() -> None:
    hits, free = torch.tensor([0.0, 1.0, 5.0, 5.0, 0.0]), torch.tensor([0.0, 10.0, 10.0, 300.0, 50.0])
    unseen, even, solid, thin, clear = lifting.judge_evidence(hits, free).tolist()
    assert solid == 3 and even > 0 > thin > clear == -8 and unseen < -7.9
    more = lifting.judge_evidence(torch.linspace(0, 20, 50), torch.full((50,), 20.0))
    assert bool((more.diff() >= 0).all())


def test_neighbours_lend_a_little_and_no_other_colour(generator: torch.Generator) -> None:
    features, weights = torch.zeros(5, 4, 3, 2), torch.zeros(5, 4, 3)
    weights[2, 2, 1], features[2, 2, 1] = 4.0, 4 * torch.tensor([0.2, 0.7])
    filled, total = lifting.fill_neighbors(features, weights)
    share = 4 * lifting.FILL / 27
    assert float(total[2, 2, 1]) == pytest.approx(4 + share) and float(total[3, 1, 0]) == pytest.approx(share)
    assert int((total > 0).sum()) == 27 and float(total[0, 0, 0]) == 0
    colored = filled[total > 0] / total[total > 0][:, None]
    assert torch.allclose(colored, torch.tensor([0.2, 0.7]).expand(27, 2))


@pytest.mark.parametrize("scale", [4.0, 0.125])
def test_only_the_ratio_of_sizes_matters(scale: float, generator: torch.Generator) -> None:
    """Powers of two change no digit, so that no entry changes its voxel."""
    camera, density = cameras(2), torch.rand(2 * HEIGHT * WIDTH, BINS, generator=generator)
    poses = camera.world_from_camera.clone()
    poses[:, :3, 3] *= scale
    large = Camera(poses, camera.focal, camera.principal, WIDTH, HEIGHT)
    boxes = BOX, Box(*(tuple(scale * v for v in corner) for corner in (BOX.lower, BOX.upper)))
    results = []
    for each, box in zip((camera, large), boxes, strict=True):
        frustums = build_frustums(each, box, GRID, BINS)
        weights, passed = occupancy_weights(density, frustums.lengths)
        results.append(lifting.splat(density, weights, passed, density, frustums, (box, GRID)))
    assert torch.allclose(results[0].features, results[1].features, atol=1e-5)
    assert torch.allclose(results[0].offsets, results[1].offsets, atol=1e-4)
    assert torch.equal(results[0].counts, results[1].counts) and float(results[0].counts.sum()) > 1000


def test_moving_the_world_moves_the_frustums(generator: torch.Generator) -> None:
    motion = torch.eye(4)
    motion[:2, :2], motion[:3, 3] = torch.tensor([[0.6, -0.8], [0.8, 0.6]]), torch.tensor([1.0, -2.0, 3.0])
    camera = cameras(2)
    here, there = (build_frustums(each, BOX, GRID, BINS) for each in (camera, camera.transformed(motion)))
    assert torch.allclose(transform_points(motion, here.origins), there.origins, atol=1e-5)
    assert torch.allclose(here.directions @ motion[:3, :3].T, there.directions, atol=1e-5)
    assert torch.allclose(here.distances, there.distances, rtol=1e-4)
