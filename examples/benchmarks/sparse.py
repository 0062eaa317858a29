"""What scenes cost by size: sparse fields, which follow the surface, beside dense ones, which follow the volume.

The scene is a hollow ball, a shell two voxels thick with three channels, that fills the box: 1 % of the voxels at 512.
Each row is a process of its own. Memory is its peak (getrusage) beyond that of a scene of 32 voxels, which is made,
looked at and trained first, so that no compilation counts. Times are CPU seconds of one thread: the first look (which
finds out what is empty), a march of 192 x 144 rays after it, a training step with the same rays (forward, backward and
Adam on the bricks that hold anything), saving, loading and meshing. ``--peak march`` leaves out all from training on,
so that the memory is that of rendering alone.

The last rows are slopes of memory and times against the surface (voxels squared) between the two largest sizes: a cost
that follows the surface has 1, one that follows the volume 1.5.

    python examples/benchmarks/sparse.py [--json] [--sizes 64 128 256] [--peak march]
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Box, Camera, Rgb, Scene, VoxelField, extract_mesh, prepare
from nfldm3d.fields import SparseField
from nfldm3d.geometry import Rays
from nfldm3d.ops import FieldGradient
from nfldm3d.ops.bricks import BRICK, AdamRates, AdamState, adam_features_
from nfldm3d.rendering import composite

BOX = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
RADIUS, THICKNESS, CHANNELS = 0.9, 2, 3
AT_ONCE = 128
"""Bricks that are filled at a time."""
DENSE_LIMIT = 512
"""Voxels along an edge up to which the dense side is tried: the next size takes 17 GB."""
COLUMNS = ("prepare_s", "march_s", "step_s", "save_s", "load_s", "mesh_s")


def shell(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Density and features of the hollow ball at points."""
    distance = (points.norm(dim=-1) - RADIUS).abs() * size / 2  # in voxels
    density = (distance < THICKNESS / 2) * (0.4 * size)
    return density, (0.5 + 0.5 * torch.sin(9 * points)) * (density > 0)[..., None]


def make_sparse(size: int) -> SparseField:
    """The bricks that the shell meets."""
    axis = (torch.arange(size // BRICK) + 0.5) * (2 * BRICK / size) - 1
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    reach = (BRICK * math.sqrt(3) + THICKNESS) / size
    places = ((centers.norm(dim=-1) - RADIUS).abs() < reach).nonzero().int()
    held = [(shell(place_centers(some, size), size)[0] > 0).flatten(1).any(1) for some in places.split(AT_ONCE)]
    places = places[torch.cat(held)]
    density = torch.zeros(len(places), BRICK, BRICK, BRICK)
    features = torch.zeros(*density.shape, CHANNELS)
    for some, *pool in zip(places.split(AT_ONCE), density.split(AT_ONCE), features.split(AT_ONCE), strict=True):
        for part, values in zip(pool, shell(place_centers(some, size), size), strict=True):
            part.copy_(values)
    return SparseField(density, features, places, (size, size, size), BOX)


def place_centers(places: Tensor, size: int) -> Tensor:
    """The centres of all voxels of some bricks."""
    axis = torch.arange(BRICK)
    within = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return (places[:, None, None, None] * BRICK + within + 0.5) * (2 / size) - 1


def make_dense(size: int) -> VoxelField:
    """All voxels."""
    density, features = torch.zeros(size, size, size), torch.zeros(size, size, size, CHANNELS)
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    for layer in range(size):
        points = torch.stack(torch.meshgrid(axis[layer : layer + 1], axis, axis, indexing="ij"), dim=-1)
        density[layer : layer + 1], features[layer : layer + 1] = shell(points, size)
    return VoxelField(density, features, BOX)


def make_trainer(field: VoxelField | SparseField, rays: Rays, occupancy) -> Callable[[], None]:
    """A step of training of the features, on the bricks that hold anything."""
    gradient = FieldGradient(torch.zeros_like(field.density), torch.zeros_like(field.features))
    state = AdamState.zeros_like(field.features)
    if isinstance(field, SparseField):  # the pool is a grid of bricks in a row
        bricks = torch.arange(len(field.places), dtype=torch.int32)[:, None] * torch.tensor([1, 0, 0]).int()
        grids = [t.view(-1, BRICK, BRICK, CHANNELS) for t in (field.features, gradient.features)]
        state = AdamState(*(t.view_as(grids[0]) for t in (state.mean, state.variance)))
    else:
        bricks, grids = field.brick_mask().nonzero().int(), [field.features, gradient.features]

    def step() -> None:
        seen = composite((field,), rays, occupancies=(occupancy,), gradients=(gradient,))
        (seen.features - 0.5).square().mean().backward()
        adam_features_(*grids, state, AdamRates(1e-3, 1), bricks)
        gradient.density.zero_()

    return step


def timed(work: Callable[[], object], repeats: int = 1) -> tuple[float, object]:
    """CPU seconds of the fastest of some runs, and what it gave."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return min(times), result


def measure(side: str, size: int, *, march_only: bool) -> dict[str, float]:
    """The times of one scene."""
    field = make_sparse(size) if side == "sparse" else make_dense(size)
    camera = Camera.look_at((2.4, -1.6, 1.2), (0.0, 0.0, 0.0), width=192, height=144)
    scene, rays = Scene(field, Rgb()), camera.rays().reshape(-1)
    row = {"kept_mb": field.nbytes / 2**20}
    row["prepare_s"], renderer = timed(lambda: prepare(scene))
    row["march_s"], _ = timed(lambda: composite((field,), rays, occupancies=renderer.occupancies), 5)  # type: ignore[attr-defined]
    if march_only:
        return row
    trainer = make_trainer(field, rays, renderer.occupancies[0])  # type: ignore[attr-defined]
    row["step_s"], _ = timed(trainer, 3)
    del trainer
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.nfld"
        row["save_s"], _ = timed(lambda: scene.save(path))
        row["load_s"], _ = timed(lambda: Scene.load(path))
        row["file_mb"] = path.stat().st_size / 2**20
    row["mesh_s"], _ = timed(lambda: extract_mesh(scene))
    return row


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def run_one(side: str, size: int, *, march_only: bool) -> dict[str, float]:
    """A row, in this process: at best one of its own."""
    torch.set_num_threads(1)
    measure(side, 32, march_only=march_only)
    before = peak_megabytes()
    row = measure(side, size, march_only=march_only)
    return {"size": size, "memory_mb": peak_megabytes() - before, **row}


def start_one(side: str, size: int, peak: str) -> dict[str, float]:
    """A row, from a new process."""
    command = [sys.executable, __file__, "--one", side, str(size), "--peak", peak]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def find_slopes(rows: list[dict[str, float]]) -> dict[str, float]:
    """Powers of the surface that the costs follow from one size to the next."""
    small, large = rows[-2:]
    surface = 2 * math.log(large["size"] / small["size"])
    names = [name for name in small if name != "size" and small[name] > 0]
    return {name: math.log(large[name] / small[name]) / surface for name in names if large[name] > 0}


def show(name: str, row: dict[str, float]) -> str:
    """A line of the table."""
    cells = [f"{row.get('memory_mb', math.nan):10.2f}{row.get('kept_mb', math.nan):9.2f}"]
    cells += [f"{row[column]:10.3f}" if column in row else f"{'':10}" for column in COLUMNS]
    return f"{name:14}" + "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--peak", choices=("all", "march"), default="all", help="what to run, and so to hold in memory")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one[0], int(options.one[1]), march_only=options.peak == "march")))
        return
    if not options.json:
        print(f"{'':14}{'peak MB':>10}{'kept MB':>9}" + "".join(f"{name:>10}" for name in COLUMNS))
    rows: dict[str, list[dict[str, float]]] = {"dense": [], "sparse": []}
    for size in options.sizes:
        for side in ("dense", "sparse") if size <= DENSE_LIMIT else ("sparse",):
            rows[side].append(start_one(side, size, options.peak))
            text = (
                json.dumps({"side": side, **rows[side][-1]}) if options.json else show(f"{side} {size}", rows[side][-1])
            )
            print(text, flush=True)
    for side, made in rows.items():
        if len(made) > 1:
            slopes = find_slopes(made)
            print(json.dumps({"side": side, "slopes": slopes}) if options.json else show(f"{side} slope", slopes))


if __name__ == "__main__":
    main()
