"""tiny-cuda-nn: its encoding in place of ours, and its parameter vectors in and out of our fields.

A parameter vector of tiny-cuda-nn's ``NetworkWithInputEncoding`` holds the network's matrices, row by row and padded
to multiples of 16, and then the rows of the hash grid; that of an ``Encoding`` the rows alone.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d.fields import HashGrid, NeuralField

PADDED = 16
"""Inputs and outputs of tiny-cuda-nn's FullyFusedMLP are padded to multiples of this."""


class NativeHashGrid(nn.Module):
    """A hash grid whose features tiny-cuda-nn computes; it stands where a ``HashGrid`` stands, on CUDA."""

    def __init__(self, grid: HashGrid):
        """Takes over options and rows; an ImportError says how to get tiny-cuda-nn."""
        super().__init__()
        native = import_tinycudann()
        self.config: dict[str, Any] = dict(grid.config)
        self.width = grid.width
        self.native = native.Encoding(3, grid.tinycudann_config(), dtype=torch.float32)
        _fill_(self.native.params, grid.table.detach().reshape(-1))

    @property
    def table(self) -> Float[Tensor, "rows features"]:
        """Its parameters as ``HashGrid.table``."""
        return self.native.params.view(-1, int(self.config["features"]))

    def forward(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points width"]:
        """See ``HashGrid``."""
        return self.native(points)

    def gradient(
        self, points: Float[Tensor, "points 3"], slopes: Float[Tensor, "points width"]
    ) -> Float[Tensor, "points 3"]:
        """See ``HashGrid``."""
        needed = torch.is_grad_enabled()
        with torch.enable_grad():
            places = points if points.requires_grad else points.detach().requires_grad_()
            return torch.autograd.grad(self.native(places), places, slopes, create_graph=needed)[0]

    def to_hash_grid(self) -> HashGrid:
        """The same on our own kernels."""
        grid = HashGrid(**self.config).to(self.native.params.device)
        _fill_(grid.table, self.native.params.detach())
        return grid


def use_tinycudann(field: NeuralField) -> NeuralField:
    """A copy of a field whose encoding is tiny-cuda-nn's; scene files keep it as any other."""
    if not isinstance(field.encoding, HashGrid):
        return field
    native, other = NativeHashGrid(field.encoding), copy.deepcopy(field)
    other.encoding = native
    return other


def write_parameters(part: HashGrid | NeuralField) -> Float[Tensor, " numbers"]:
    """The parameter vector that tiny-cuda-nn's ``Encoding``, or its ``NetworkWithInputEncoding``, has for the same."""
    if isinstance(part, HashGrid):
        return part.table.detach().reshape(-1).clone()
    matrices = []
    for weights, shape in zip(part.weights, _padded_shapes(part), strict=True):
        padded = weights.new_zeros(shape)
        padded[: weights.shape[0], : weights.shape[1]] = weights.detach()
        matrices.append(padded.reshape(-1))
    return torch.cat([*matrices, part.encoding.table.detach().reshape(-1)])


@torch.no_grad()
def read_parameters_(part: HashGrid | NeuralField, vector: Float[Tensor, " numbers"]) -> None:
    """Fills a grid or a field with a parameter vector of tiny-cuda-nn's; numbers in padding are left out.

    Raises:
        ValueError: the vector has another length.
    """
    wanted = len(write_parameters(part))
    if len(vector) != wanted:
        raise ValueError(f"the vector has {len(vector)} numbers, but this {type(part).__name__} needs {wanted}")
    if isinstance(part, HashGrid):
        _fill_(part.table, vector)
        return
    first = 0
    for weights, (rows, columns) in zip(part.weights, _padded_shapes(part), strict=True):
        matrix = vector[first : first + rows * columns].view(rows, columns)
        weights.copy_(matrix[: weights.shape[0], : weights.shape[1]])
        first += rows * columns
    _fill_(part.encoding.table, vector[first:])


def import_tinycudann() -> Any:
    """The package; raises one ImportError that says how to get it if it cannot be had."""
    try:
        import tinycudann
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"this needs tiny-cuda-nn, but tinycudann cannot be imported ({error}). It is not on PyPI and needs a GPU "
            "and nvcc: pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch. "
            "Our own HashGrid has the same rows and runs on CPU and CUDA without it"
        ) from error
    return tinycudann


def _padded_shapes(field: NeuralField) -> list[tuple[int, int]]:
    if len(field.weights[0]) % PADDED:
        raise ValueError(f"tiny-cuda-nn's networks are multiples of {PADDED} wide, this one {len(field.weights[0])}")
    return [tuple(-(-size // PADDED) * PADDED for size in weights.shape) for weights in field.weights]  # type: ignore[misc]


def _fill_(target: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        target.copy_(values.view(target.shape))
