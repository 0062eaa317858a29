"""Light adds up to one along each ray; a measured surface lands in the voxel it lies in, whatever the scale."""

import math

import pytest
import torch
from small_rooms import BOX, GRID, HEIGHT, ROOM, WIDTH, cameras, room_views

from nfldm3d import Box, Camera
from nfldm3d.geometry import transform_points
from nfldm3d.models import lifting
from nfldm3d.models.lifting import NEAREST, bin_edges, build_frustums, find_bins, occupancy_weights

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


@pytest.mark.parametrize(
    ("box", "grid"), [(BOX, GRID), (BOX, (16, 16, 8)), (Box((1.3, -1.7, 0.5), (5.1, 2.3, 2.4)), (9, 7, 5))]
)
def test_a_measured_pixel_lands_in_the_voxel_of_its_surface(box: Box, grid: tuple[int, int, int]) -> None:
    views = room_views(cameras(5))
    assert views.depth is not None
    depth = views.depth.reshape(-1).clone()
    depth[::7] = 0  # some pixels know nothing
    frustums, bins = build_frustums(views.camera, box, grid, BINS), find_bins(depth, box, grid, BINS)
    snapped = lifting.snap_distances(frustums, depth, bins, views.camera)
    known = depth > 0
    rays = views.camera.rays().reshape(-1)
    _, distance = ROOM.clip(rays)
    rows = known.nonzero()[:, 0]
    assert torch.allclose(snapped.distances[rows, bins[known]], distance[known], rtol=1e-5)
    assert torch.equal(snapped.distances[~known], frustums.distances[~known])
    assert int((snapped.distances != frustums.distances).sum()) <= len(rows)

    density = torch.nn.functional.one_hot(bins, BINS + 1)[:, :-1] * 1e4
    weights, passed = occupancy_weights(density, snapped.lengths)
    features = torch.cat((torch.ones(len(depth), 1), torch.arange(len(depth))[:, None].float()), dim=1)
    sums = lifting.splat(features, weights, passed, density, snapped, (box, grid))
    place = (rays.at(distance)[known] - torch.tensor(box.lower)) / torch.tensor(box.voxel_size(grid))
    inside = ((place >= 0) & (place < torch.tensor(grid))).all(-1)
    safe = (place - place.round()).abs().amin(-1) > 1e-3  # rounding decides for those on a face
    wanted, unsure = torch.zeros(grid), torch.zeros(grid)
    for target, chosen in ((wanted, inside & safe), (unsure, ~safe)):
        target.index_put_(tuple(place[chosen].long().clamp(min=0).unbind(-1)), torch.ones(int(chosen.sum())), True)
    clear = unsure == 0
    assert torch.allclose(sums.hits[clear], wanted[clear], atol=1e-4) and float(wanted.sum()) > 500
    assert torch.allclose(sums.features[..., 0], sums.hits, atol=1e-4)


def test_evidence_counts_bins_and_tells_where_in_the_voxel() -> None:
    camera = Camera.look_at((1.05, 0.1, 1.3), (5.0, 0.1, 1.3), width=1, height=1, horizontal_fov_degrees=10.0)
    frustums = build_frustums(camera.reshape(1), BOX, GRID, 1)
    point = torch.tensor([3.6, 0.1, 1.3])  # voxel (5, 4, 1) begins at (3.5, 0, 1)
    depth = torch.tensor([float(point[0] - 1.05)])
    frustums = lifting.snap_distances(frustums, depth, torch.tensor([0]), camera.reshape(1))
    quarter = torch.full((1, 1), 0.25)
    sums = lifting.splat(torch.tensor([[2.0]]), quarter, 3 * quarter, 8 * quarter, frustums, (BOX, GRID))
    voxel = (5, 4, 1)
    found = [float(value[voxel]) for value in (sums.hits, sums.free, sums.density, sums.counts)]
    assert found == pytest.approx([0.25, 0.75, 2.0, 1.0])
    assert float(sums.features[voxel]) == pytest.approx(0.5)
    offset = ((point - torch.tensor([3.5, 0.0, 1.0])) / 0.5 - 0.5) * 0.25
    assert torch.allclose(sums.offsets[voxel], offset, atol=1e-5)
    assert float(sums.hits.sum()) == 0.25


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
