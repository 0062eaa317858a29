"""How fast the kernels are beside well-written torch: marching rays forward and backward, and splatting frustums.

The field is 128 x 128 x 32 voxels of 32 channels in a box of 4 x 4 x 1 m: solid balls of uneven density (20 to 60 per
metre, so that a ray is absorbed within some 5 voxels) that fill 10 or 2 % of the voxels. 128 x 128 rays see it from
outside and above; every ray crosses the box, in half-voxel steps. With --scatter the same share of voxels is drawn one
by one instead, with a twentieth of the density: nothing to leap over and no surface to stop at.

The peer of the march is ``grid_sample`` at every sample between entry and exit, in chunks of rays and as a batch of one
view of the grid per core (grid_sample parallelises over the batch alone): the fastest form that was found. The peer of
the splat is the torch twin, built on index_add. Ours builds its occupancy anew in each run.

The last row renders 16 frames of 64 x 48 pixels of a scene of 256 x 256 x 128 voxels, as viewers and videos do: ours
prepares the scene once, the peer renders each frame by itself.

    python examples/benchmarks/rendering.py [--json] [--scatter] [--device cuda]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField, prepare, render
from nfldm3d.ops import FieldGradient, March, integrate_rays, reference, splat_frustums

BOX = ((-2.0, -2.0, -0.5), (2.0, 2.0, 0.5))
RESOLUTION, CHANNELS, SIDE = (128, 128, 32), 32, 128
MARCH = March(BOX, step=4 / 128 / 2)
COLUMNS = ("name", "ours_s", "peer_s", "ratio", "extra_mb", "max_error")


def make_field(share: float, scatter: bool, device: str) -> list[Tensor]:
    """Density of balls (or single voxels) that fill a share of the grid, and random features."""
    generator = torch.Generator().manual_seed(0)
    places = torch.cartesian_prod(*((torch.arange(size) + 0.5) / size for size in RESOLUTION)) * torch.tensor([4, 4, 1])
    rank = -torch.rand(len(places), generator=generator) if scatter else torch.full((len(places),), torch.inf)
    for x, y, z, size in () if scatter else torch.rand(40, 4, generator=generator).tolist():
        rank = rank.minimum((places - torch.tensor([4 * x, 4 * y, z])).norm(dim=-1) - 0.2 * size)
    solid = (rank <= rank.kthvalue(int(share * len(places))).values).reshape(RESOLUTION)
    density = solid * (20 + 40 * torch.rand(RESOLUTION, generator=generator)) * (0.05 if scatter else 1)
    return [density.to(device), torch.randn(*RESOLUTION, CHANNELS, generator=generator).to(device)]


def make_rays(device: str) -> list[Tensor]:
    """Origins and directions from outside, 16 degrees above the horizon; every ray crosses the box."""
    eye = torch.tensor([-5.0, -4.2, 1.9])
    right = torch.nn.functional.normalize(torch.tensor([4.2, -5.0, 0.0]), dim=0)
    side, up = torch.meshgrid(torch.linspace(-1.3, 1.3, SIDE), torch.linspace(-0.9, 0.9, SIDE), indexing="xy")
    level = torch.nn.functional.normalize(torch.tensor([5.0, 4.2, 0.0]), dim=0)
    targets = side[..., None] * right - up[..., None] * level
    directions = torch.nn.functional.normalize(targets - eye, dim=-1).reshape(-1, 3)
    return [eye.expand_as(directions).contiguous().to(device), directions.to(device)]


def march_dense(density: Tensor, features: Tensor, origins: Tensor, directions: Tensor) -> list[Tensor]:
    """The peer: features, opacity and distance of ``integrate_rays`` from all samples of all rays."""
    batch = 1 if density.is_cuda else torch.get_num_threads()
    volumes = [t[None].expand(batch, *t.shape) for t in (density[None], features.permute(3, 0, 1, 2))]
    lower, upper = (torch.tensor(corner, device=density.device) for corner in BOX)
    faces = torch.stack([(lower - origins) / directions, (upper - origins) / directions])
    near, far = faces.amin(0).amax(-1, keepdim=True).clamp_min(0), faces.amax(0).amin(-1, keepdim=True)
    count = int(((far - near).max() / MARCH.step).ceil())
    offsets = (torch.arange(count, device=near.device) + 0.5) * MARCH.step
    results = []
    for rays in torch.arange(len(origins), device=near.device).split(2048):
        distances = near[rays] + offsets
        points = origins[rays, None] + distances[..., None] * directions[rays, None]
        places = ((points - lower) / (upper - lower) * 2 - 1).flip(-1).reshape(batch, 1, -1, count, 3)
        sampled = [
            torch.nn.functional.grid_sample(volume, places, padding_mode="border", align_corners=False)[:, :, 0]
            for volume in volumes
        ]  # each (batch channels rays count)
        depth = sampled[0].relu().reshape(-1, count) * (distances < far[rays]) * MARCH.step
        weights = torch.exp(depth - depth.cumsum(-1)) * -torch.expm1(-depth)
        parts = torch.einsum("bcrs,brs->brc", sampled[1], weights.reshape(batch, -1, count))
        results.append((parts.flatten(0, 1), weights.sum(-1), (weights * distances).sum(-1)))
    return [torch.cat(parts) for parts in zip(*results, strict=True)]


def march_ours(density: Tensor, features: Tensor, origins: Tensor, directions: Tensor) -> list[Tensor]:
    """The same three tensors from the kernels."""
    result = integrate_rays(density, features, origins, directions, None, MARCH)
    return [result.features, result.opacity, result.distance]


def march_nerfacc(density: Tensor, features: Tensor, origins: Tensor, directions: Tensor) -> list[Tensor]:
    """The same from nerfacc's occupancy grid and compositing, on CUDA."""
    import nerfacc

    bounds = torch.tensor(BOX, device=density.device)
    grid = nerfacc.OccGridEstimator(bounds.flatten(), resolution=list(RESOLUTION)).to(density.device)
    grid.binaries = reference.build_occupancy(density).cells.bool()[None]
    rays, starts, ends = grid.sampling(origins, directions, render_step_size=MARCH.step)
    middles = (starts + ends) / 2
    points = origins[rays] + middles[:, None] * directions[rays]
    places = ((points - bounds[0]) / (bounds[1] - bounds[0]) * 2 - 1).flip(-1)[None, None, None]
    volume = torch.cat([density[..., None], features], dim=-1).permute(3, 0, 1, 2)[None]
    sampled = torch.nn.functional.grid_sample(volume, places, padding_mode="border", align_corners=False)[0, :, 0, 0]
    count = len(origins)
    weights, *_ = nerfacc.render_weight_from_density(starts, ends, sampled[0], ray_indices=rays, n_rays=count)
    values = (sampled[1:].T, None, middles[:, None])
    sums = [nerfacc.accumulate_along_rays(weights, value, ray_indices=rays, n_rays=count) for value in values]
    return [sums[0], sums[1][:, 0], sums[2][:, 0]]


def make_splat(device: str) -> tuple[list[Tensor], Callable[..., Callable[..., list[Tensor]]]]:
    """16 views of 32 x 32 rays with 64 depths; and what turns a splat into a function of features and weights."""
    generator = torch.Generator().manual_seed(0)
    rays, depths = 16 * 32 * 32, 64
    origins = torch.rand(16, 3, generator=generator) * torch.tensor([3, 3, 0.4]) - torch.tensor([1.5, 1.5, 0.2])
    ahead = torch.nn.functional.normalize(torch.randn(16, 3, generator=generator) * torch.tensor([1, 1, 0.1]), dim=-1)
    side = torch.linalg.cross(ahead, torch.tensor([0.0, 0.0, 1.0]).expand(16, 3))
    pixels = torch.cartesian_prod(torch.linspace(-0.3, 0.3, 32), torch.linspace(-0.6, 0.6, 32))
    steps = pixels[:, 1:, None] * side + pixels[:, :1, None] * torch.tensor([0.0, 0.0, 1.0])  # (pixels views 3)
    directions = torch.nn.functional.normalize(ahead + steps, dim=-1).transpose(0, 1).reshape(-1, 3)
    distances = torch.linspace(0.05, 2.5, depths).expand(rays, depths)
    inputs = [torch.randn(rays, CHANNELS, generator=generator), torch.rand(rays, depths, generator=generator)]
    fixed = [t.contiguous().to(device) for t in (distances, origins.repeat_interleave(32 * 32, 0), directions)]

    def bind(splat: Callable) -> Callable[..., list[Tensor]]:
        def run(features: Tensor, weights: Tensor) -> list[Tensor]:
            result = splat(features, weights, *fixed, BOX, RESOLUTION)
            return [result.features, result.weights]

        return run

    return [tensor.to(device) for tensor in inputs], bind


def make_frames(device: str) -> tuple[Callable[[], list[Tensor]], Callable[[], list[Tensor]]]:
    """The frames of a flight around a large scene, prepared once and not at all."""
    box, generator = Box(*BOX), torch.Generator().manual_seed(0)
    field = VoxelField.zeros(box, (256, 256, 128), 3)
    far = torch.full(field.resolution, torch.inf)
    for middle in torch.rand(20, 3, generator=generator) * torch.tensor(box.size) + torch.tensor(box.lower):
        far = far.minimum((field.voxel_centers() - middle).norm(dim=-1))
    field = VoxelField(60.0 * (far < 0.25), torch.rand(field.features.shape, generator=generator), box)
    scene, flight = Scene(field, Rgb()).to(device), Camera.orbit(box.center, 6.0, views=16, width=64, height=48)
    cameras = list(flight.to(device))

    def prepared() -> list[Tensor]:
        renderer = prepare(scene)
        return [renderer.render(camera).image for camera in cameras]

    return prepared, lambda: [render(scene, camera).image for camera in cameras]


def with_gradients(function: Callable[..., list[Tensor]], differentiable: int) -> Callable[..., list[Tensor]]:
    """Results, and the gradients of a fixed linear function of them by the first inputs."""

    slopes: list[Tensor] = []

    def run(*inputs: Tensor) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs[:differentiable]]
        results = function(*leaves, *inputs[differentiable:])
        if not slopes:
            slopes.extend(torch.linspace(-1, 1, r.numel(), device=r.device).view_as(r) for r in results)
        return [result.detach() for result in results] + list(torch.autograd.grad(results, leaves, slopes))

    return run


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


def largest_error(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest distance of two corresponding tensors, as a share of the length of the second.

    Not the largest difference: next to empty voxels, a density of 1e-5 from rounding receives a whole gradient.
    """
    return max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))


def extra_megabytes(inputs: list[Tensor]) -> float | None:
    """Peak memory of forward + backward beyond inputs, results and gradients; None where it cannot be read."""
    density, features, *rays = inputs
    buffers = FieldGradient(*(torch.ones_like(tensor) for tensor in (density, features)))
    slopes = torch.ones(len(rays[0]), CHANNELS, device=density.device)

    def run(count: int) -> None:
        some = [ray[:count] for ray in rays]
        result = integrate_rays(density, features, *some, None, MARCH, gradient=buffers)
        result.features.backward(slopes[:count])

    run(64)  # compiles, starts the threads
    outputs = slopes.nbytes + 3 * slopes.nbytes // CHANNELS
    if density.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run(len(slopes))
        return (torch.cuda.max_memory_allocated() - before - outputs) / 1e6
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def kilobytes(key: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))

    reset.write_text("5")  # forgets the peak, VmHWM
    before = kilobytes("VmRSS")
    run(len(slopes))
    return ((kilobytes("VmHWM") - before) * 1024 - outputs) / 1e6


def measure(name: str, ours: Callable, peer: Callable, inputs: list[Tensor], extra: float | None = None) -> dict:
    """One row of the table."""
    error = largest_error(ours(*inputs), peer(*inputs))
    seconds, peer_seconds = best_time(lambda: ours(*inputs), 9), best_time(lambda: peer(*inputs), 3)
    return dict(zip(COLUMNS, (name, seconds, peer_seconds, peer_seconds / seconds, extra, error), strict=True))


def rows(device: str, scatter: bool) -> Iterable[dict]:
    """All measurements, one after the other."""
    rays = make_rays(device)
    field = make_field(0.1, scatter, device)
    extra = extra_megabytes(field + rays)
    peers = {"": march_dense}
    if device == "cuda":
        # nerfacc.py beside this file is not the package of that name: its folder comes last
        sys.path.sort(key=lambda entry: Path(entry).resolve() == Path(__file__).resolve().parent)
        try:
            import nerfacc  # noqa: F401

            peers["_nerfacc"] = march_nerfacc
        except ImportError:
            pass
    for suffix, peer in peers.items():
        inputs = field + rays
        with torch.no_grad():
            yield measure(f"march_forward_10{suffix}", march_ours, peer, inputs)
        ours, theirs = with_gradients(march_ours, 2), with_gradients(peer, 2)
        yield measure(f"march_backward_10{suffix}", ours, theirs, inputs, extra)
        with torch.no_grad():
            yield measure(f"march_forward_2{suffix}", march_ours, peer, make_field(0.02, scatter, device) + rays)
    inputs, bind = make_splat(device)
    ours, theirs = with_gradients(bind(splat_frustums), 2), with_gradients(bind(reference.splat_frustums), 2)
    yield measure("splat", ours, theirs, inputs)
    with torch.no_grad():
        yield measure("frames", *make_frames(device), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--scatter", action="store_true", help="single voxels instead of balls")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if not options.json:
        print(f"{'':24}{'ours':>10}{'peer':>10}{'ratio':>8}{'extra MB':>10}{'error':>10}")
    for row in rows(options.device, options.scatter):
        name, ours, peer, ratio, extra, error = row.values()
        memory = "" if extra is None else f"{extra:.1f}"
        text = f"{name:24}{1e3 * ours:7.1f} ms{1e3 * peer:7.0f} ms{ratio:7.1f}x{memory:>10}{error:10.1e}"
        print(json.dumps(row) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
