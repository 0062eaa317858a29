"""tiny-cuda-nn beside our own hash grids, where it is not installed: a stand-in with its rules and its names."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from nfldm3d.fields import FieldState, HashGrid, NeuralField
from nfldm3d.interop import tinycudann
from nfldm3d.ops import reference

ENCODING = {"levels": 3, "features": 2, "log2_rows": 9, "base_resolution": 5, "growth": 1.7}


class Encoding(nn.Module):
    """As much of tinycudann.Encoding as the adapter touches."""

    def __init__(self, n_input_dims: int, encoding_config: dict, seed: int = 1337, dtype: torch.dtype | None = None):
        super().__init__()
        assert n_input_dims == 3 and dtype is torch.float32
        self.grid = [HashGrid.from_tinycudann(encoding_config)]
        self.params = nn.Parameter(torch.zeros(self.grid[0].table.numel()))

    def forward(self, points: Tensor) -> Tensor:
        table = self.params.view(self.grid[0].table.shape)
        return reference.read_hash_grid(table, points, self.grid[0].grid_levels)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("tinycudann")
    package.Encoding = Encoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", package)


def make(generator: torch.Generator) -> NeuralField:
    field = NeuralField(detail=16, encoding=ENCODING, width=16, generator=generator)
    nn.init.normal_(field.encoding.table, generator=generator)
    return field


def test_its_encoding_stands_in_for_ours(installed: None, generator: torch.Generator) -> None:
    field, points = make(generator), 2 * torch.rand(40, 3, generator=generator) - 1
    native = tinycudann.use_tinycudann(field)
    assert isinstance(native.encoding, tinycudann.NativeHashGrid) and isinstance(field.encoding, HashGrid)
    assert tinycudann.use_tinycudann(native) is native
    for ours, theirs in zip(field.query(points), native.query(points), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.normals(points), native.normals(points), rtol=1e-3, atol=1e-3)
    native.normals(points).sum().backward()
    assert bool(native.encoding.native.params.grad.any())
    kept = NeuralField.from_state(FieldState(*native.state()))
    assert isinstance(kept.encoding, HashGrid) and torch.equal(kept.encoding.table, field.encoding.table)
    assert torch.equal(native.encoding.to_hash_grid().table, field.encoding.table)


def test_parameter_vectors_go_out_and_in(generator: torch.Generator) -> None:
    field, other = make(generator), make(generator)
    vector = tinycudann.write_parameters(field)
    assert len(vector) == 16 * 16 + 16 * 16 + field.encoding.table.numel()  # 6 inputs and 4 outputs are padded to 16
    assert torch.equal(vector[16:22], field.weights[0][1].detach())  # the second row of the first matrix
    tinycudann.read_parameters_(other, vector)
    points = 2 * torch.rand(9, 3, generator=generator) - 1
    assert torch.equal(field.query(points)[1], other.query(points)[1])
    assert isinstance(field.encoding, HashGrid) and isinstance(other.encoding, HashGrid)
    rows = tinycudann.write_parameters(field.encoding)
    tinycudann.read_parameters_(other.encoding, 2 * rows)
    assert torch.equal(other.encoding.table, 2 * field.encoding.table)


def test_vectors_of_another_length_are_refused(generator: torch.Generator) -> None:
    field = make(generator)
    with pytest.raises(ValueError, match="the vector has 7 numbers, but this NeuralField needs"):
        tinycudann.read_parameters_(field, torch.zeros(7))
    with pytest.raises(ValueError, match="multiples of 16 wide, this one 12"):
        tinycudann.write_parameters(NeuralField(detail=16, encoding=ENCODING, width=12))


def test_without_it_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(ImportError, match="not on PyPI .* pip install git"):
        tinycudann.use_tinycudann(make(generator))
