"""Hash grids against a transcription of tiny-cuda-nn's rules, their torch twin, and finite differences."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from ops_cases import DEVICES
from torch import Tensor

from nfldm3d.fields.encodings import HashGrid
from nfldm3d.ops import reference
from nfldm3d.ops.hash_grids import HashLevels, hash_grid_gradient, read_hash_grid

CONFIGS = (
    {"levels": 6, "features": 2, "log2_rows": 11, "base_resolution": 5, "growth": 1.7},
    {"levels": 3, "features": 3, "log2_rows": 14, "base_resolution": 16, "growth": 2.0},
    {"levels": 1, "features": 1, "log2_rows": 9, "base_resolution": 8, "growth": 1.0},
    {"levels": 16, "features": 2, "log2_rows": 12, "base_resolution": 16, "growth": 1.4473},
)


def transcribe_layout(config: dict) -> tuple[list[float], list[int], list[int]]:
    """grid.h and common_device.h: scale, resolution and first row of each level, in 32-bit numbers."""
    scales, resolutions, offsets = [], [], [0]
    log2 = np.float32(math.log2(np.float32(config["growth"])))
    for level in range(config["levels"]):
        power = np.float32(2.0 ** float(np.float32(level) * log2))
        scale = np.float32(np.float32(power * np.float32(config["base_resolution"])) - np.float32(1))
        resolution = math.ceil(float(scale)) + 1
        rows = resolution**3 if resolution**3 <= (2**32 - 1) // 2 else (2**32 - 1) // 2
        rows = min((rows + 7) // 8 * 8, 1 << config["log2_rows"])
        scales.append(float(scale))
        resolutions.append(resolution)
        offsets.append(offsets[-1] + rows)
    return scales, resolutions, offsets


def transcribe_index(node: list[int], resolution: int, rows: int) -> int:
    """grid_index: dense while the stride fits, else the coherent prime hash; everything is uint32."""
    stride, index = 1, 0
    for dimension in range(3):
        if stride > rows:
            break
        index = (index + node[dimension] * stride) % 2**32
        stride *= resolution
    if rows < stride:
        index = 0
        for value, prime in zip(node, (1, 2654435761, 805459861), strict=True):
            index ^= value * prime % 2**32
    return index % rows


def transcribe_reading(config: dict, table: np.ndarray, point: list[float]) -> tuple[list[int], list[float]]:
    """kernel_grid for one point: the rows it reads, and its features."""
    rows, features = [], []
    scales, resolutions, offsets = transcribe_layout(config)
    for scale, resolution, (first, end) in zip(scales, resolutions, pairwise(offsets), strict=True):
        fraction, base = [], []
        for coordinate in point:
            position = np.float32(float(np.float32(scale)) * coordinate + 0.5)  # doubles hold the product whole
            base.append(math.floor(position) % 2**32)
            fraction.append(float(np.float32(position - np.float32(math.floor(position)))))
        total = np.zeros(config["features"])
        for index in range(8):
            weight, node = 1.0, []
            for dimension in range(3):
                up = index >> dimension & 1
                weight *= fraction[dimension] if up else 1 - fraction[dimension]
                node.append((base[dimension] + up) % 2**32)
            rows.append(first + transcribe_index(node, resolution, end - first))
            total += weight * table[rows[-1]]
        features += total.tolist()
    return rows, features


def make(config: dict, generator: torch.Generator, points: int) -> tuple[HashGrid, Tensor]:
    grid = HashGrid(**config, generator=generator)
    grid.table.data = torch.randn(grid.table.shape, generator=generator)
    return grid, 1.2 * torch.rand(points, 3, generator=generator) - 0.1  # a part lies outside


@pytest.mark.parametrize("config", CONFIGS)
def test_levels_lie_where_tinycudann_has_them(config: dict) -> None:
    grid = HashGrid(**config)
    scales, resolutions, offsets = transcribe_layout(config)
    assert grid.scales.tolist() == scales and grid.resolutions.tolist() == resolutions
    assert grid.offsets.tolist() == offsets
    assert grid.table.numel() == offsets[-1] * config["features"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", CONFIGS[:3])
def test_features_are_those_of_the_rules(config: dict, device: str, generator: torch.Generator) -> None:
    grid, points = make(config, generator, 25)
    ours = grid.to(device)(points.to(device)).cpu()
    table = grid.table.detach().cpu().double().numpy()
    wanted = [transcribe_reading(config, table, point)[1] for point in points.tolist()]
    torch.testing.assert_close(ours, torch.tensor(wanted).float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", CONFIGS[:3])
def test_rows_are_those_of_the_rules_to_the_bit(config: dict, device: str, generator: torch.Generator) -> None:
    """The rows that get a gradient are the rows that are read."""
    grid, points = make(config, generator, 25)
    grid = grid.to(device)
    for point in points:
        grid.table.grad = None
        grid(point[None].to(device)).sum().backward()
        assert grid.table.grad is not None
        read = set(transcribe_reading(config, np.zeros(grid.table.shape), point.tolist())[0])
        assert set(grid.table.grad.cpu().abs().sum(-1).nonzero()[:, 0].tolist()) == read


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", CONFIGS)
def test_agrees_with_the_twin(config: dict, device: str, generator: torch.Generator) -> None:
    grid, points = make(config, generator, 200)
    levels = HashLevels(*(tensor.to(device) for tensor in grid.grid_levels))
    slopes = torch.randn(200, grid.width, generator=generator).to(device)
    results = []
    for read in (read_hash_grid, reference.read_hash_grid):
        table, places = (value.detach().to(device).requires_grad_() for value in (grid.table, points))
        features = read(table, places, levels)
        results.append([features, *torch.autograd.grad(features, (table, places), slopes)])
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-4, atol=1e-4 * float(twin.detach().abs().max()))


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_gradients_agree_with_the_twin(device: str, generator: torch.Generator) -> None:
    grid, points = make(CONFIGS[0], generator, 60)
    levels = HashLevels(*(tensor.to(device) for tensor in grid.grid_levels))
    first, second, third = (torch.randn(60, n, generator=generator).to(device) for n in (grid.width, 3, grid.width))
    results = []
    for read in (read_hash_grid, reference.read_hash_grid):
        inputs = [value.detach().to(device).requires_grad_() for value in (grid.table, points, first)]
        by_table, by_points = torch.autograd.grad(
            (read(*inputs[:2], levels) * inputs[2]).sum(), inputs[:2], create_graph=True
        )
        asked = (by_points * second).sum() + (
            by_table * read(inputs[0].detach(), inputs[1].detach(), levels)[0, 0]
        ).sum()
        results.append(torch.autograd.grad(asked + (read(*inputs[:2], levels) * third).sum(), inputs))
    for ours, twin in zip(*results, strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-4, atol=2e-4 * float(twin.abs().max()))


def test_the_gradient_by_points_is_that_of_differences(generator: torch.Generator) -> None:
    grid, _ = make(CONFIGS[1], generator, 1)
    points = torch.rand(40, 3, generator=generator)
    fraction = (points[..., None] * grid.scales + 0.5) % 1
    points = points[((fraction - 0.5).abs() < 0.45).all(-1).all(-1)]  # no cell ends within the difference
    slopes = torch.randn(len(points), grid.width, generator=generator)
    ours = hash_grid_gradient(grid.table.detach(), points, grid.grid_levels, slopes)
    step = 2e-4
    for axis, unit in enumerate(torch.eye(3)):
        up, down = (grid(points + sign * step * unit) for sign in (1, -1))
        difference = ((up - down) * slopes).sum(-1) / (2 * step)
        torch.testing.assert_close(ours[:, axis], difference.detach(), rtol=2e-2, atol=2e-2 * float(ours.abs().max()))


def test_the_gradient_by_the_table_does_not_depend_on_the_threads(generator: torch.Generator) -> None:
    grid, points = make(CONFIGS[3], generator, 700)
    before, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(torch.autograd.grad(grid(points).square().sum(), grid.table)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_no_points_have_no_features_and_a_zero_gradient(generator: torch.Generator) -> None:
    grid, points = make(CONFIGS[0], generator, 0)
    features = grid(points.requires_grad_())
    assert features.shape == (0, grid.width)
    features.sum().backward()
    assert grid.table.grad is not None and not bool(grid.table.grad.any())


def test_wrong_input_is_refused() -> None:
    grid = HashGrid(**CONFIGS[0])
    with pytest.raises(ValueError, match=r"points must be torch.float32 on cpu, got torch.float64"):
        read_hash_grid(grid.table, torch.zeros(4, 3, dtype=torch.float64), grid.grid_levels)
    with pytest.raises(ValueError, match="slopes must have the shape"):
        hash_grid_gradient(grid.table, torch.zeros(4, 3), grid.grid_levels, torch.zeros(4, 5))
    for wrong in ({"levels": 0}, {"features": 9}, {"log2_rows": 40}, {"growth": 0.5}, {"growth": 16.0}):
        with pytest.raises(ValueError, match="got"):
            HashGrid(**(CONFIGS[0] | wrong))


def test_options_are_read_from_and_written_for_tinycudann() -> None:
    grid = HashGrid(**CONFIGS[0])
    config = grid.tinycudann_config()
    assert config["n_levels"] == 6 and config["per_level_scale"] == 1.7
    assert HashGrid.from_tinycudann(config).config == grid.config
    usual = HashGrid.from_tinycudann({"otype": "Grid", "type": "Hash", "n_levels": 2, "n_features_per_level": 4})
    assert usual.config["growth"] == 2.0 and usual.width == 8
    for strange in ({"otype": "Frequency"}, {"type": "Dense"}, {"interpolation": "Smoothstep"}, {"n_frequencies": 3}):
        with pytest.raises(ValueError, match="a HashGrid is tiny-cuda-nn's HashGrid"):
            HashGrid.from_tinycudann(config | strange)


def test_every_cell_is_read_whole() -> None:
    """A table of ones gives ones everywhere: weights add up to one."""
    grid = HashGrid(**CONFIGS[0])
    torch.nn.init.ones_(grid.table)
    corners = torch.tensor(list(product((0.0, 0.37, 1.0), repeat=3)))
    torch.testing.assert_close(grid(corners), torch.ones(27, grid.width))
