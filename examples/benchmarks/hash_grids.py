"""How fast hash grids are beside their torch twin: reading points, and the gradients by the table and by the points.

200,000 points in the unit cube read 8 levels of 2 features, of 2^15 rows each at most, from 16 to 128 nodes.

    python examples/benchmarks/hash_grids.py [--json] [--device cuda]
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from nfldm3d.fields import HashGrid
from nfldm3d.ops import reference
from nfldm3d.ops.hash_grids import read_hash_grid

POINTS = 200_000
COLUMNS = ("name", "ours_s", "peer_s", "ratio", "max_error")


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


def rows(device: str) -> Iterable[dict]:
    """Reading alone, and with each gradient."""
    generator = torch.Generator().manual_seed(0)
    grid = HashGrid(levels=8, log2_rows=15, growth=1.35, generator=generator).to(device)
    points = torch.rand(POINTS, 3, generator=generator).to(device)
    slopes = torch.randn(POINTS, grid.width, generator=generator).to(device)

    def run(read: Callable, by_table: bool, by_points: bool) -> list[Tensor]:
        table = grid.table.detach().requires_grad_(by_table)
        places = points.detach().requires_grad_(by_points)
        features = read(table, places, grid.grid_levels)
        leaves = [leaf for leaf in (table, places) if leaf.requires_grad]
        return [features.detach(), *(torch.autograd.grad(features, leaves, slopes) if leaves else ())]

    for name, *wanted in (("read", False, False), ("by_table", True, False), ("by_table_and_points", True, True)):
        ours, peer = (partial(run, read, *wanted) for read in (read_hash_grid, reference.read_hash_grid))
        error = max(float((a - b).norm() / b.norm()) for a, b in zip(ours(), peer(), strict=True))
        seconds, peer_seconds = best_time(ours, 5), best_time(peer, 2)
        yield dict(zip(COLUMNS, (name, seconds, peer_seconds, peer_seconds / seconds, error), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for row in rows(options.device):
        name, ours, peer, ratio, error = row.values()
        text = f"{name:24}{1e3 * ours:7.1f} ms{1e3 * peer:7.0f} ms{ratio:7.1f}x{error:10.1e}"
        print(json.dumps(row) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
