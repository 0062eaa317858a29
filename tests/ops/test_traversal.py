"""Walks through nested grids: against a slow walk over sorted plane crossings, and at the corners of floating point."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from nfldm3d.ops.traversal import (
    Crossings,
    NestedGrids,
    RayStretches,
    Stepping,
    Traversal,
    intersect_boxes,
    traverse_grids,
)

BOX = torch.tensor([-1.0, 0.5, -0.7, 1.4, 2.0, 0.9])


def nested_grids(
    generator: torch.Generator, levels: int = 3, share: float = 0.4, shape: tuple[int, int, int] = (5, 7, 3)
) -> NestedGrids:
    """Non-cubic grids around one off-centre box and its doubles."""
    centre, extent = (BOX[:3] + BOX[3:]) / 2, (BOX[3:] - BOX[:3]) / 2
    boxes = torch.stack([torch.cat((centre - extent * 2**n, centre + extent * 2**n)) for n in range(levels)])
    return NestedGrids(torch.rand(levels, *shape, generator=generator) < share, boxes)


def random_rays(generator: torch.Generator, count: int = 40) -> RayStretches:
    """Rays that mostly meet the box; they do not begin at zero and may end within it."""
    origins = torch.randn(count, 3, generator=generator) * 3
    targets = BOX[:3] + torch.rand(count, 3, generator=generator) * (BOX[3:] - BOX[:3]) * 1.3
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    near = torch.rand(count, generator=generator)
    return RayStretches(origins, directions, near, near + 7, torch.ones(count, dtype=torch.bool))


def crossings_of(rays: RayStretches, grids: NestedGrids) -> Crossings:
    entries, exits, hits = intersect_boxes(rays.origins, rays.directions, grids.boxes)
    return Crossings(*torch.sort(torch.cat((entries, exits), dim=-1), dim=-1), hits)


def walk(rays: RayStretches, grids: NestedGrids, stepping: Stepping, *, in_one_pass: bool = False) -> Traversal:
    return traverse_grids(rays, grids, crossings_of(rays, grids), stepping, in_one_pass=in_one_pass)


def pieces(rays: RayStretches, grids: NestedGrids, ray: int) -> list[tuple[float, float, bool]]:
    """Between which distances a ray is in which cell, and whether that is occupied; found by sorting all crossings."""
    origin, direction = (t[ray].double().numpy() for t in (rays.origins, rays.directions))
    near, far, boxes = float(rays.near[ray]), float(rays.far[ray]), grids.boxes.double().numpy()
    shape = np.array(grids.cells.shape[1:])
    planes = [
        (box[axis] + n * (box[3 + axis] - box[axis]) / shape[axis] - origin[axis]) / direction[axis]
        for box in boxes
        for axis in range(3)
        if direction[axis] != 0
        for n in range(shape[axis] + 1)
    ]
    ends = sorted([near, far, *(t for t in planes if near < t < far)])
    found: list[tuple[float, float, tuple[int, ...]]] = []
    for start, end in pairwise(ends):
        point = origin + (start + end) / 2 * direction
        for level, box in enumerate(boxes):
            place = (point - box[:3]) / (box[3:] - box[:3])
            if end > start and bool(((place > 0) & (place < 1)).all()):
                cell = (level, *(place * shape).astype(int).tolist())
                if found and found[-1][1:] == (start, cell):  # cut by a plane of a hidden grid only
                    start = found.pop()[0]
                found.append((start, end, cell))
                break
    return [(start, end, bool(grids.cells[cell])) for start, end, cell in found]


def slow_samples(
    found: list[tuple[float, float, bool]], near: float, stepping: Stepping
) -> tuple[list[tuple[float, float]], float]:
    """nerfacc's rules in plain Python: a sample belongs to the piece that holds its middle."""
    samples: list[tuple[float, float]] = []
    t = near

    def step() -> float:
        return max(t * stepping.cone, stepping.size)

    def leave_out(end: float) -> float:
        fixed, here = step(), t  # gaps are made of equal steps
        while here + fixed / 2 < end:
            here += fixed
        return here

    for start, end, occupied in found:
        if stepping.size <= 0:
            samples += [(start, end)] if occupied else []
            t = end
            continue
        t = leave_out(start)
        while occupied and t + step() / 2 < end:
            samples.append((t, t + step()))
            t += step()
        t = leave_out(end)
    return samples, t


STEPPINGS = (Stepping(0.05), Stepping(0.0), Stepping(0.03, 0.02), Stepping(0.7))


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("shape", "share"), [((5, 7, 3), 0.4), ((19, 9, 17), 0.02), ((8, 24, 16), 0.02)])
def test_samples_are_those_of_a_slow_walk(
    generator: torch.Generator, shape: tuple[int, int, int], share: float, levels: int, stepping: Stepping
) -> None:
    """Large, nearly empty grids have bricks to leap over, and bricks cut off at the border."""
    grids, rays = nested_grids(generator, levels, share, shape), random_rays(generator)
    result = walk(rays, grids, stepping)
    starts, ends = result.edges[result.is_left], result.edges[result.is_right]
    total = 0
    for ray in range(len(rays.origins)):
        expected, end = slow_samples(pieces(rays, grids, ray), float(rays.near[ray]), stepping)
        own = result.sample_rays == ray
        got = torch.stack((starts[own], ends[own]), dim=-1)
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float32).view(-1, 2), atol=1e-4, rtol=0)
        torch.testing.assert_close(result.middles[own], got.mean(dim=-1), atol=1e-6, rtol=0)
        assert int(result.sample_counts[ray]) == len(expected)
        if expected and stepping.size > 0:
            assert float(result.ends[ray]) == pytest.approx(end, abs=1e-4)
        total += len(expected)
    assert total > 15 or share < 0.1


def test_intervals_are_packed_and_adjoin_in_occupied_stretches(generator: torch.Generator) -> None:
    rays = random_rays(generator)
    result = walk(rays, nested_grids(generator), Stepping(0.05))
    assert bool(result.is_valid.all())
    assert torch.equal(torch.bincount(result.edge_rays, minlength=40), result.edge_counts)
    assert torch.equal(torch.bincount(result.sample_rays, minlength=40), result.sample_counts)
    assert bool((result.edge_rays.diff() >= 0).all())
    left, right = result.is_left.nonzero()[:, 0], result.is_right.nonzero()[:, 0]
    assert torch.equal(left + 1, right)  # the right edge follows the left one
    assert torch.equal(result.edge_rays[left], result.sample_rays)
    assert 0 < int((result.is_left & result.is_right).sum()) < len(left)


def test_a_full_grid_is_crossed_cell_by_cell(generator: torch.Generator) -> None:
    grids = NestedGrids(torch.ones(1, 5, 7, 3, dtype=torch.bool), BOX[None])
    rays = replace(random_rays(generator, 200), near=torch.zeros(200), far=torch.full((200,), torch.inf))
    result = walk(rays, grids, Stepping(0.0))
    entries, exits, hits = intersect_boxes(rays.origins, rays.directions, grids.boxes)
    place = rays.origins[result.sample_rays] + result.middles[:, None] * rays.directions[result.sample_rays]
    cells = ((place - BOX[:3]) / (BOX[3:] - BOX[:3]) * torch.tensor([5, 7, 3])).long()
    same = result.sample_rays[1:] == result.sample_rays[:-1]
    assert torch.equal((cells[1:] - cells[:-1]).abs().sum(-1)[same], torch.ones(int(same.sum()), dtype=torch.int64))
    for ray in hits[:, 0].nonzero()[:, 0]:
        edges = result.edges[result.edge_rays == ray]
        assert float(edges[0]) == pytest.approx(max(float(entries[ray, 0]), 0.0), abs=1e-5)
        assert float(edges[-1]) == pytest.approx(float(exits[ray, 0]), abs=1e-5)
        assert int(result.edge_counts[ray]) == int(result.sample_counts[ray]) + 1
    assert hits.sum() > 20 and not result.sample_counts[~hits[:, 0]].any()


@pytest.mark.parametrize("in_one_pass", [False, True])
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_limited_walk_resumes_where_it_ended(
    generator: torch.Generator, stepping: Stepping, in_one_pass: bool
) -> None:
    grids, rays = nested_grids(generator), random_rays(generator)
    whole = walk(rays, grids, stepping)
    found: list[list[Tensor]] = [[] for _ in range(40)]
    part, limited = rays, replace(stepping, limit=3)
    while bool(part.mask.any()):
        result = walk(part, grids, limited, in_one_pass=in_one_pass)
        assert int(result.sample_counts.max()) <= 3
        middles, owners = result.middles[result.is_valid], result.sample_rays[result.is_valid]
        for ray in range(40):
            found[ray].append(middles[owners == ray])
        part = replace(part, near=result.ends, mask=result.sample_counts == 3)
    together = torch.cat([torch.cat(parts) for parts in found])
    torch.testing.assert_close(together, whole.middles, atol=2e-5, rtol=0)


def test_one_pass_leaves_room_and_marks_what_is_used(generator: torch.Generator) -> None:
    grids, rays = nested_grids(generator), random_rays(generator)
    rays = replace(rays, mask=torch.arange(40) % 3 > 0)
    exact = walk(rays, grids, Stepping(0.05, 0.0, 8))
    padded = walk(rays, grids, Stepping(0.05, 0.0, 8), in_one_pass=True)
    masked = int(rays.mask.sum())
    assert len(padded.middles) == 8 * masked and len(padded.edges) == 16 * masked
    assert torch.equal(padded.middles[padded.is_valid], exact.middles)
    assert torch.equal(padded.edges[padded.is_left], exact.edges[exact.is_left])
    assert torch.equal(padded.edges[padded.is_right], exact.edges[exact.is_right])
    assert torch.equal(padded.sample_counts, exact.sample_counts) and torch.equal(padded.ends, exact.ends)
    assert not exact.sample_counts[~rays.mask].any() and torch.equal(exact.ends[~rays.mask], rays.near[~rays.mask])


def test_first_grid_decides_and_gaps_between_boxes_stay_empty() -> None:
    boxes = torch.tensor([[3.0, 0, 0, 4, 1, 1], [1.0, 0, 0, 2, 1, 1], [0.0, 0, 0, 3.5, 1, 1]])
    cells = torch.ones(3, 1, 1, 1, dtype=torch.bool)
    ray = RayStretches(
        torch.tensor([[-1.0, 0.5, 0.5]]),
        torch.tensor([[1.0, 0.0, 0.0]]),
        torch.zeros(1),
        torch.full((1,), torch.inf),
        torch.ones(1, dtype=torch.bool),
    )
    for size in (0.0, 0.125):
        apart = walk(ray, NestedGrids(cells[:2], boxes[:2]), Stepping(size))
        spans = torch.stack((apart.edges[apart.is_left], apart.edges[apart.is_right]))
        assert bool((((spans >= 2) & (spans <= 3)) | ((spans >= 4) & (spans <= 5))).all())
        assert float((spans[1] - spans[0]).sum()) == 2.0
        cells[1] = False  # hides the third grid, which reaches all the way
        hidden = walk(ray, NestedGrids(cells, boxes), Stepping(size))
        covered = hidden.edges[hidden.is_right] - hidden.edges[hidden.is_left]
        assert float(covered.sum()) == 3.0 and float(hidden.edges.max()) == 5.0
        cells[1] = True


@pytest.mark.parametrize("cone", [0.0, 0.01])
def test_results_do_not_depend_on_threads_or_memory_layout(generator: torch.Generator, cone: float) -> None:
    grids, rays = nested_grids(generator), random_rays(generator, 3000)
    first = walk(rays, grids, Stepping(0.05, cone))
    strided = replace(
        rays,
        origins=rays.origins.T.contiguous().T,
        near=torch.stack((rays.near, rays.near), dim=-1)[:, 0],
    )
    cells = grids.cells.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        second = walk(strided, replace(grids, cells=cells), Stepping(0.05, cone))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def single_ray(origin: list[float], direction: list[float], near: float = 0.0, far: float = math.inf) -> RayStretches:
    tensors = (torch.tensor([origin]), torch.tensor([direction]), torch.tensor([near]), torch.tensor([far]))
    return RayStretches(*tensors, torch.ones(1, dtype=torch.bool))


UNIT = NestedGrids(torch.ones(1, 2, 3, 4, dtype=torch.bool), torch.tensor([[0.0, 0, 0, 2, 3, 4]]))


@pytest.mark.parametrize("size", [0.0, 0.25])
@pytest.mark.parametrize(
    ("origin", "direction", "length"),
    [
        ([-1.0, 0.5, 0.5], [1.0, 0.0, 0.0], 2.0),
        ([0.5, 4.0, 0.5], [0.0, -1.0, 0.0], 3.0),
        ([0.5, 0.5, 9.0], [-0.0, 0.0, -1.0], 4.0),
        ([-1.0, 1.0, 2.0], [1.0, 0.0, 0.0], 2.0),  # along planes between cells
        ([-1.0, 3.0, 0.0], [1.0, 0.0, 0.0], 2.0),  # along the edge of the box
        ([1.0, 1.0, 1.0], [0.0, 0.0, 1.0], 3.0),  # from a corner of cells
        ([2.5, 0.5, 0.5], [0.0, 1.0, 0.0], 0.0),  # parallel beside the box
        ([3.0, 0.5, 0.5], [1.0, 0.0, 0.0], 0.0),  # the box lies behind
        ([-1.0, 0.5, 0.5], [1.0, 1e-38, 1e-42], 2.0),
        ([0.5, 0.5, 0.5], [0.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.5], [math.nan, 0.0, 1.0], 0.0),
        ([0.5, math.inf, 0.5], [0.0, 0.0, 1.0], 0.0),
        ([3.0e38, 0.5, 0.5], [-1.0, 0.0, 0.0], 0.0),
    ],
)
def test_rays_along_axes_and_broken_rays(
    origin: list[float], direction: list[float], length: float, size: float
) -> None:
    result = walk(single_ray(origin, direction), UNIT, Stepping(size))
    assert float((result.edges[result.is_right] - result.edges[result.is_left]).sum()) == length
    assert bool(torch.isfinite(result.edges).all())


@pytest.mark.parametrize("stepping", [Stepping(0.0), Stepping(0.25), Stepping(0.25, 1e-3)])
@pytest.mark.parametrize(
    ("near", "far", "length"),
    [
        (-math.inf, math.inf, 2.0),
        (-1e30, 1e30, 2.0),
        (1e30, math.inf, 0.0),
        (2.0, 1.0, 0.0),
        (math.nan, 5.0, 0.0),
        (0.0, math.nan, 0.0),
        (1.5, 2.5, 1.0),
    ],
)
def test_extreme_planes(near: float, far: float, length: float, stepping: Stepping) -> None:
    result = walk(single_ray([-1.0, 0.5, 0.5], [1.0, 0.0, 0.0], near, far), UNIT, stepping)
    assert float((result.edges[result.is_right] - result.edges[result.is_left]).sum()) == pytest.approx(length, abs=0.2)


@pytest.mark.parametrize("cone", [0.0, 1e-12])
def test_a_step_below_the_resolution_of_distances_comes_to_an_end(cone: float) -> None:
    ray = single_ray([-1000.0, 0.5, 0.5], [1.0, 0.0, 0.0])
    result = walk(ray, UNIT, Stepping(1e-12, cone, 100), in_one_pass=True)
    assert int(result.sample_counts[0]) == 100
    assert bool((result.edges[result.is_right] > result.edges[result.is_left]).all())
    assert len(walk(ray, UNIT, Stepping(1e-12, cone)).middles) < 20_000


def test_grids_of_one_cell_and_batches_of_nothing(generator: torch.Generator) -> None:
    one = NestedGrids(torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]))
    result = walk(single_ray([-1.0, 0.5, 0.5], [1.0, 0.0, 0.0]), one, Stepping(0.25))
    assert result.edges.tolist() == [1.0, 1.25, 1.5, 1.75, 2.0]
    nobody = RayStretches(*(t[:0] for t in vars(random_rays(generator)).values()))
    for rays, grids in ((nobody, one), (random_rays(generator), NestedGrids(one.cells[:0], one.boxes[:0]))):
        nothing = walk(rays, grids, Stepping(0.25))
        assert len(nothing.edges) == len(nothing.middles) == 0 and len(nothing.ends) == len(rays.origins)


def test_crossings_that_make_no_sense_are_survived(generator: torch.Generator) -> None:
    grids, rays = nested_grids(generator), random_rays(generator)
    wild = Crossings(
        torch.randn(40, 6, generator=generator) * 5,
        torch.randint(-9, 9, (40, 6), generator=generator),
        torch.ones(40, 3, dtype=torch.bool),
    )
    for stepping in STEPPINGS:
        result = traverse_grids(rays, grids, wild, stepping)
        assert bool(torch.isfinite(result.edges).all())
    wild.distances[::2, 3:] = math.nan
    grids.boxes[1] = math.nan
    for stepping in STEPPINGS:
        traverse_grids(rays, grids, wild, stepping)


def test_misfits_are_named(generator: torch.Generator) -> None:
    grids, rays = nested_grids(generator), random_rays(generator)
    crossings = crossings_of(rays, grids)

    def refused(message: str, *, stepping: Stepping = STEPPINGS[0], in_one_pass: bool = False, **changes: Tensor):
        parts = [
            replace(part, **{name: value for name, value in changes.items() if hasattr(part, name)})
            for part in (rays, grids, crossings)
        ]
        with pytest.raises(ValueError, match=message):
            traverse_grids(*parts, stepping, in_one_pass=in_one_pass)

    refused("rays_o must be torch.float32 on cpu, got torch.float64", origins=rays.origins.double())
    refused("binaries of the grid are on meta, the rays are on cpu: move", cells=grids.cells.to("meta"))
    refused("aabbs of the grid are on meta, the rays are on cpu: move", boxes=grids.boxes.to("meta"))
    refused("t_sorted must have the shape", distances=crossings.distances[:, :2], indices=crossings.indices[:, :2])
    refused("step_size must be finite", stepping=Stepping(math.nan))
    refused("cone_angle must be 0 or more", stepping=Stepping(0.1, -1.0))
    refused("over_allocate needs a positive traverse_steps_limit", in_one_pass=True)
    many = NestedGrids(torch.ones(63, 1, 1, 1, dtype=torch.bool), torch.zeros(63, 6))
    with pytest.raises(ValueError, match="at most 62"):
        walk(rays, many, STEPPINGS[0])


def test_boxes_are_hit_where_points_of_the_ray_lie_in_them(generator: torch.Generator) -> None:
    rays = random_rays(generator, 200)
    lower = torch.randn(50, 3, generator=generator)
    boxes = torch.cat((lower, lower + torch.rand(50, 3, generator=generator) * 2), dim=-1)
    entries, exits, hits = intersect_boxes(rays.origins, rays.directions, boxes)
    planes = (boxes.view(1, 50, 2, 3) - rays.origins[:, None, None]) / rays.directions[:, None, None]
    low, high = planes.amin(2).amax(-1), planes.amax(2).amin(-1)
    expected = (low < high) & (high > 0)
    assert torch.equal(hits, expected) and hits.any() and not hits.all()
    torch.testing.assert_close(entries[hits], low[hits])
    torch.testing.assert_close(exits[hits], high[hits])
    assert bool((entries[~hits] == math.inf).all() and (exits[~hits] == math.inf).all())
    entries, exits, _ = intersect_boxes(rays.origins, rays.directions, boxes, near=0.5, far=2.0, miss=-7.0)
    torch.testing.assert_close(entries[hits], low[hits].clamp(0.5, 2.0))
    torch.testing.assert_close(exits[hits], high[hits].clamp(0.5, 2.0))
    assert bool((entries[~hits] == -7.0).all())


@pytest.mark.cuda
@pytest.mark.parametrize("stepping", STEPPINGS)
def test_cuda_finds_the_same_samples(generator: torch.Generator, stepping: Stepping) -> None:
    grids, rays = nested_grids(generator), random_rays(generator, 500)
    crossings = crossings_of(rays, grids)
    moved = [type(part)(*(t.cuda() for t in vars(part).values())) for part in (rays, grids, crossings)]
    here, there = traverse_grids(rays, grids, crossings, stepping), traverse_grids(*moved, stepping)
    # A middle that lies on the border of two cells may fall into the other one.
    assert int((here.sample_counts - there.sample_counts.cpu()).abs().sum()) <= 2
    if len(here.middles) == len(there.middles):
        torch.testing.assert_close(there.middles.cpu(), here.middles, atol=1e-4, rtol=0)
