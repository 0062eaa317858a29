"""How fast nerfacc is on our kernels: traversing occupancy grids, and scanning packed segments.

Grid and steps are those of nerfacc's own training on NeRF-synthetic: a box of 3 m with 128 x 128 x 128 cells, of which
balls fill 4 %, and steps of 5 mm. 8192 rays from outside look at it; two thirds meet nothing. The second row has four
grids, each twice as large as the one before. What is scanned are the 1.3 million samples of its rays, and every ray
that meets nothing is an empty segment.

The peer on the CPU is vectorised torch: all samples of a ray between entry and exit at once, in chunks of rays that fit
into the cache, and each scan as one sum over all samples less the sum before each segment (in float64, or nothing would
remain of the small sums; products as sums of logarithms). On CUDA the peer is nerfacc's own extension, if it compiles.

    python examples/benchmarks/nerfacc.py [--json] [--device cuda]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

# This file has the name of the package, which must be found first: its folder goes to the end.
sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)

import nerfacc
import torch
from torch import Tensor

from nfldm3d.interop.nerfacc import install

RAYS, CELLS, STEP = 8192, 128, 5e-3
CHUNK = 256  # rays of the peer at a time on the CPU: fastest for one grid, and 32 to 1024 are all within a third
BOX = torch.tensor([-1.5, -1.5, -1.5, 1.5, 1.5, 1.5])
COLUMNS = ("name", "ours_s", "peer_s", "ratio", "ours_msamples_s", "peer_msamples_s", "max_error")


def make_rays(device: str) -> tuple[Tensor, Tensor]:
    """Origins on a sphere of 4 m and unit directions towards random points of the box."""
    generator = torch.Generator().manual_seed(0)
    origins = 4 * torch.nn.functional.normalize(torch.randn(RAYS, 3, generator=generator), dim=-1)
    targets = 2 * torch.rand(RAYS, 3, generator=generator) - 1
    return origins.to(device), torch.nn.functional.normalize(targets - origins, dim=-1).to(device)


def make_grids(levels: int, device: str) -> tuple[Tensor, Tensor]:
    """Occupied cells (levels x y z), balls in each, and the boxes."""
    generator = torch.Generator().manual_seed(1)
    places = torch.cartesian_prod(*[(torch.arange(CELLS) + 0.5) / CELLS] * 3)
    cells = torch.zeros(levels, CELLS**3, dtype=torch.bool)
    for level in cells:
        distance = torch.full((CELLS**3,), torch.inf)
        for x, y, z, size in torch.rand(12, 4, generator=generator).tolist():
            distance = distance.minimum((places - torch.tensor([x, y, z])).norm(dim=-1) - 0.2 * size)
        level.copy_(distance <= distance.kthvalue(int(0.04 * CELLS**3)).values)
    boxes = torch.stack([BOX * 2**level for level in range(levels)])
    return cells.view(levels, CELLS, CELLS, CELLS).to(device), boxes.to(device)


def traverse(origins: Tensor, directions: Tensor, cells: Tensor, boxes: Tensor) -> list[Tensor]:
    """Middles, ray indices and counts of the samples, through nerfacc."""
    _, samples, _ = nerfacc.traverse_grids(origins, directions, cells, boxes, step_size=STEP)
    return [samples.vals, samples.ray_indices, samples.packed_info[:, 1]]


def traverse_dense(origins: Tensor, directions: Tensor, cells: Tensor, boxes: Tensor) -> list[Tensor]:
    """The same by looking up every sample between entry and exit."""
    levels, flat = len(cells), cells.flatten()
    faces = torch.stack([(corner - origins) / directions for corner in boxes[-1].view(2, 3)])
    near, far = faces.amin(0).amax(-1).clamp_min(0), faces.amax(0).amin(-1)
    first, end = ((t / STEP - 0.5).ceil() for t in (near, far))
    scale = CELLS / (boxes[0, 3:] - boxes[0, :3])
    starts = (origins - (boxes[0, 3:] + boxes[0, :3]) / 2) * scale  # in cells of the first level, from the centre
    slopes = directions * (STEP * scale)
    found = []
    for rays in torch.arange(len(origins), device=origins.device).split(len(origins) if origins.is_cuda else CHUNK):
        count = int((end - first)[rays].amax().clamp_min(0))
        steps = first[rays, None] + torch.arange(count, device=origins.device)
        place = [torch.addcmul(starts[rays, axis, None], steps + 0.5, slopes[rays, axis, None]) for axis in range(3)]
        index = 0
        if levels > 1:
            farthest = torch.maximum(torch.maximum(place[0].abs(), place[1].abs()), place[2].abs())
            level = torch.frexp(farthest * (2 / CELLS)).exponent.clamp(0, levels - 1)
            place, index = [torch.ldexp(p, -level) for p in place], level
        for p in place:
            index = index * CELLS + (p + CELLS / 2).int().clamp_(0, CELLS - 1)
        ray, step = (flat[index] & (steps < end[rays, None])).nonzero(as_tuple=True)
        found.append(((steps[ray, step] + 0.5) * STEP, ray + rays[0]))
    values, rays = (torch.cat(parts) for parts in zip(*found, strict=True))
    return [values, rays, torch.bincount(rays, minlength=len(origins))]


def scan(values: Tensor, factors: Tensor, packed_info: Tensor, ray_indices: Tensor) -> list[Tensor]:
    """Inclusive and exclusive sums of values and products of factors along each ray, through nerfacc."""
    sums = [function(values, packed_info) for function in (nerfacc.inclusive_sum, nerfacc.exclusive_sum)]
    return sums + [function(factors, packed_info) for function in (nerfacc.inclusive_prod, nerfacc.exclusive_prod)]


def scan_flat(values: Tensor, factors: Tensor, packed_info: Tensor, ray_indices: Tensor) -> list[Tensor]:
    """The same, each from one sum over everything."""
    begins = packed_info[:, 0].clamp(max=len(values) - 1)  # empty rays at the end start behind the last sample

    def inclusive_sum(terms: Tensor) -> Tensor:
        total = terms.cumsum(0, dtype=torch.float64)
        return (total - (total[begins] - terms[begins])[ray_indices]).to(terms.dtype)

    def exclusive_sum(terms: Tensor) -> Tensor:
        before = terms.cumsum(0, dtype=torch.float64) - terms
        return (before - before[begins][ray_indices]).to(terms.dtype)

    sums = [inclusive_sum(values), exclusive_sum(values)]
    return [*sums, inclusive_sum(factors.log()).exp(), exclusive_sum(factors.log()).exp()]


def with_gradients(function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
    """Results, and the gradients of their sum by values and factors."""

    def run(values: Tensor, factors: Tensor, *rest: Tensor) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in (values, factors)]
        results = function(*leaves, *rest)
        slopes = [torch.ones_like(result) for result in results]
        return [result.detach() for result in results] + list(torch.autograd.grad(results, leaves, slopes))

    return run


def by_ray(result: list[Tensor]) -> list[Tensor]:
    """Sums over each ray's samples, which can be compared even if one sample more lies beyond an edge."""
    middles, rays, counts = result
    return [counts.double(), torch.zeros(len(counts), device=rays.device).double().index_add(0, rays, middles.double())]


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(
    name: str, ours: Callable, peer: Callable, inputs: Iterable[Tensor], samples: int, view: Callable = list
) -> dict:
    """One row of the table; the error is the largest distance of two tensors as a share of the length of the second."""
    pairs = zip(view(ours(*inputs)), view(peer(*inputs)), strict=True)
    error = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    seconds, peer_seconds = best_time(lambda: ours(*inputs), 9), best_time(lambda: peer(*inputs), 3)
    rates = (samples / seconds / 1e6, samples / peer_seconds / 1e6)
    return dict(zip(COLUMNS, (name, seconds, peer_seconds, peer_seconds / seconds, *rates, error), strict=True))


def compiled_backend() -> object | None:
    """nerfacc's own extension, built on the spot; None, and a word about it, where it does not build."""
    try:
        from nerfacc.cuda import _backend

        compiled, reason = _backend._C, "no nvcc"
    except (ImportError, OSError, RuntimeError) as error:
        compiled, reason = None, str(error).split("\n")[0]
    if compiled is None:
        print(f"nerfacc's own kernels do not build here ({reason}): the peer is torch", file=sys.stderr)
    return compiled


def on_backend(backend: object, function: Callable) -> Callable:
    """The function with another module of kernels under nerfacc; nerfacc looks for its kernels at every call."""

    def run(*inputs: Tensor) -> list[Tensor]:
        from nerfacc.cuda import _backend

        kept, _backend._C = _backend._C, backend
        try:
            return function(*inputs)
        finally:
            _backend._C = kept

    return run


def rows(device: str) -> Iterable[dict]:
    """All measurements, one after the other."""
    compiled = compiled_backend() if device == "cuda" else None
    install(force=True)
    peers = (traverse_dense, scan_flat, with_gradients(scan_flat))
    if compiled is not None:
        peers = tuple(on_backend(compiled, function) for function in (traverse, scan, with_gradients(scan)))
    rays, counts = make_rays(device), torch.zeros(0)
    for name, levels in (("traverse", 1), ("traverse_levels", 4)):
        inputs = (*rays, *make_grids(levels, device))
        _, ray_indices, counts = traverse(*inputs)
        with torch.no_grad():
            yield measure(name, traverse, peers[0], inputs, len(ray_indices), by_ray)
    packed_info = torch.stack([counts.cumsum(0) - counts, counts], dim=-1)
    values = torch.rand(len(ray_indices), generator=torch.Generator().manual_seed(2)).to(device)
    inputs = (values, 1 - 0.1 * values, packed_info, ray_indices)
    with torch.no_grad():
        yield measure("scan", scan, peers[1], inputs, 4 * len(values))
    yield measure("scan_gradient", with_gradients(scan), peers[2], inputs, 4 * len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if not options.json:
        print(f"{'':16}{'ours':>10}{'peer':>10}{'ratio':>8}{'ours':>14}{'peer':>14}{'error':>10}")
    for row in rows(options.device):
        name, ours, peer, ratio, rate, peer_rate, error = row.values()
        speeds = f"{rate:9.1f} M/s {peer_rate:9.1f} M/s"
        text = f"{name:16}{1e3 * ours:7.1f} ms{1e3 * peer:7.1f} ms{ratio:7.1f}x {speeds}{error:10.1e}"
        print(json.dumps(row) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
