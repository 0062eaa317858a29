"""Octrees: bytes written by hand, the two directions against each other, and broken ones."""

import pytest
import torch

from nfldm3d.interop.kaolin.octree import (
    cells_above,
    decode_octree,
    encode_octree,
    morton_from_points,
    octree_level,
    points_from_morton,
)


def sorted_codes(points: torch.Tensor) -> torch.Tensor:
    return morton_from_points(points).sort().values


def octree_bytes(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def test_morton_codes_interleave_with_x_in_front() -> None:
    points = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 3], [0, 1, 0], [1, 0, 0], [5, 3, 6]])
    assert morton_from_points(points).tolist() == [1, 8, 9, 2, 4, 0b101_011_110]


def test_points_and_codes_are_inverse(generator: torch.Generator) -> None:
    points = torch.randint(0, 2**15, (1000, 3), generator=generator)
    points[0], points[1] = 0, 2**15 - 1
    codes = morton_from_points(points.short())
    assert torch.equal(points_from_morton(codes), points)
    assert int(codes.max()) == 8**15 - 1


@pytest.mark.parametrize(
    ("resolution", "level"),
    [
        ((1, 1, 1), 1),
        ((2, 1, 1), 1),
        ((1, 3, 2), 2),
        ((5, 7, 3), 3),
        ((4, 8, 1), 3),
        ((1, 1, 9), 4),
        ((2**15, 1, 1), 15),
    ],
)
def test_the_level_holds_the_grid(resolution: tuple[int, int, int], level: int) -> None:
    assert octree_level(resolution) == level


def test_a_grid_beyond_int16_is_refused() -> None:
    with pytest.raises(ValueError, match="32768 on a side"):
        octree_level((1, 32769, 1))


def test_bytes_of_three_leaves_written_by_hand() -> None:
    """(0, 0, 0) is child 0 of child 0, (3, 2, 0) child 4 of child 6, (3, 3, 3) child 7 of child 7."""
    leaves = sorted_codes(torch.tensor([[3, 3, 3], [0, 0, 0], [3, 2, 0]]))
    octree = encode_octree(cells_above(leaves, 2))
    assert octree.dtype == torch.uint8
    assert octree.tolist() == [1 << 0 | 1 << 6 | 1 << 7, 1 << 0, 1 << 4, 1 << 7]
    assert [codes.tolist() for codes in decode_octree(octree)] == [[0], [0, 6, 7], [0, 8 * 6 + 4, 63]]


def test_decodes_the_example_of_kaolins_documentation() -> None:
    cells = decode_octree(octree_bytes(255, 128, 64, 32, 16, 8, 4, 2, 23))
    assert cells[1].tolist() == list(range(8))
    assert cells[2].tolist() == [7, 14, 21, 28, 35, 42, 49, 56, 57, 58, 60]


def test_a_full_cube_has_full_bytes() -> None:
    level = 3
    leaves = torch.arange(8**level)
    octree = encode_octree(cells_above(leaves, level))
    assert octree.tolist() == [255] * (1 + 8 + 64)
    assert torch.equal(decode_octree(octree)[-1], leaves)


@pytest.mark.parametrize("level", [1, 3, 6])
@pytest.mark.parametrize("leaves", [1, 2, 40])
def test_encoding_and_decoding_are_inverse(level: int, leaves: int, generator: torch.Generator) -> None:
    codes = torch.randint(0, 8**level, (leaves,), generator=generator).unique()
    cells = cells_above(codes, level)
    decoded = decode_octree(encode_octree(cells))
    assert len(decoded) == level + 1
    assert all(torch.equal(first, second) for first, second in zip(cells, decoded, strict=True))


@pytest.mark.parametrize(
    "octree",
    [
        octree_bytes(0),
        octree_bytes(3, 1),
        octree_bytes(3, 1, 0),
        octree_bytes(3, 1, 1, 7),
        octree_bytes(*[1] * 16),
    ],
    ids=["empty root", "cut short", "cell without children", "level cut short", "too deep"],
)
def test_broken_octrees_are_refused(octree: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="check octrees and lengths"):
        decode_octree(octree)


@pytest.mark.cuda
def test_cuda_agrees(generator: torch.Generator) -> None:
    codes = torch.randint(0, 8**5, (500,), generator=generator).unique()
    octree = encode_octree(cells_above(codes, 5))
    on_gpu = encode_octree(cells_above(codes.cuda(), 5))
    assert torch.equal(on_gpu.cpu(), octree)
    assert torch.equal(decode_octree(on_gpu)[-1].cpu(), codes)
