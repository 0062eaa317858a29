"""The field that is a network: a hash grid and a small perceptron, in a ball."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d._types import Vector
from nfldm3d.fields.encodings import HashGrid, lay_out_levels
from nfldm3d.fields.protocol import FieldState
from nfldm3d.fields.voxel import VoxelField
from nfldm3d.fields.voxelization import POINTS_AT_ONCE
from nfldm3d.geometry import Box

LARGEST_EXPONENT = 15.0
"""Densities of the exponential kind end at its power: more is opaque anyway, and gradients stay finite."""
EMPTY_OPACITY = 0.01
"""A cell in which a voxel would absorb less than this is empty, as in nerfacc."""
SMALLEST_RADIUS = 1e-6
MAX_DETAIL, MAX_CELLS, MAX_WIDTH = 2048, 256, 1024


class Blob(NamedTuple):
    """What is added to the density, before its activation, so that something stands in the middle at the start."""

    strength: float
    size: float
    """As a share of the field's radius."""


BLOBS = {"exp": Blob(5.0, 0.2), "softplus": Blob(10.0, 0.5)}
"""DreamFusion's Gaussian, strength * exp(-r² / 2 size²), and Magic3D's cone, strength * (1 - r / size)."""


class Encoding(Protocol):
    """What the field asks of its encoding."""

    @property
    def config(self) -> dict[str, Any]:
        """Options of the ``HashGrid`` with the same rows."""
        ...

    @property
    def table(self) -> Float[Tensor, "rows features"]:
        """See ``HashGrid``."""
        ...

    @property
    def width(self) -> int:
        """Features of each point."""
        ...

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points width"]:
        """Features at points of the unit cube."""
        ...

    def gradient(
        self, points: Float[Tensor, "points 3"], slopes: Float[Tensor, "points width"]
    ) -> Float[Tensor, "points 3"]:
        """The gradient of the features, times ``slopes``, by the points."""
        ...


class NeuralField(nn.Module):
    """Density and features from a hash grid and a perceptron without biases, nothing outside a ball; see ``Field``.

    Its occupancy is what ``update_occupancy`` has seen: call it every few steps while the field learns.
    """

    cells: Tensor

    def __init__(
        self,
        *,
        center: Vector = (0.0, 0.0, 0.0),
        radius: float = 1.0,
        detail: int = 128,
        channels: int = 3,
        activation: Literal["exp", "softplus"] = "softplus",
        encoding: Mapping[str, object] | None = None,
        width: int = 64,
        generator: torch.Generator | None = None,
    ):
        """Begins with a blob in the middle, grey.

        Args:
            radius: of the ball, in metres.
            detail: voxels along the box; the finest that renderers and exporters look for.
            channels: features, between 0 and 1; the first three are the albedo.
            activation: of the density; the blob at the start belongs to it.
            encoding: options of ``HashGrid``.
            width: hidden units.

        Raises:
            ValueError: a size is out of range.
        """
        super().__init__()
        _check_sizes(radius, detail, channels, width)
        if activation not in BLOBS:
            raise ValueError(f"activation must be 'exp' or 'softplus', got {activation!r}")
        self.center: Vector = (float(center[0]), float(center[1]), float(center[2]))
        self.radius = float(radius)
        """Of the ball, in metres."""
        self.detail, self.channels, self.activation = detail, channels, activation
        self.encoding: Encoding = HashGrid(**(encoding or {}), generator=generator)  # type: ignore[arg-type]
        sizes = (self.encoding.width, width, 1 + channels)
        self.weights = nn.ParameterList(_draw_weights(a, b, generator) for a, b in pairwise(sizes))
        side = min(max(detail // 4, 8), MAX_CELLS)
        self.register_buffer("cells", torch.zeros(side, side, side))
        self.update_occupancy(generator=generator, decay=0.0, samples=2)

    @property
    def box(self) -> Box:
        """The cube around the ball."""
        side = 2 * self.radius
        return Box.from_center(self.center, (side, side, side))

    @property
    def voxel_size(self) -> Vector:
        """The finest detail, in metres."""
        edge = 2 * self.radius / self.detail
        return (edge, edge, edge)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.cells.device

    def __repr__(self) -> str:
        count = sum(value.numel() for value in self.parameters())
        return f"NeuralField {self._options()}, {count} parameters on {self.device}"

    def to(self, target: torch.device | torch.dtype | str) -> "NeuralField":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves the field itself; it answers in single precision whatever its weights are kept in."""
        return super().to(target)

    def query(
        self, points: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch channels"]]:
        """Density (1/metre) and features at world points; gradients reach the weights and the points."""
        flat = points.reshape(-1, 3)
        raw = self._perceive(self.encoding(self._to_unit_cube(flat)))
        features = torch.sigmoid(raw[:, 1:])
        return self._activate(raw[:, 0], flat).view(points.shape[:-1]), features.view(*points.shape[:-1], self.channels)

    def query_density(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """The density of ``query`` alone."""
        flat = points.reshape(-1, 3)
        hidden = functional.linear(self.encoding(self._to_unit_cube(flat)), self.weights[0].float()).relu()
        raw = functional.linear(hidden, self.weights[1][:1].float())
        return self._activate(raw[:, 0], flat).view(points.shape[:-1])

    def normals(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Unit vectors from dense to empty space, from the exact gradient; differentiable by the weights."""
        flat = points.reshape(-1, 3)
        inputs, needed = self._to_unit_cube(flat), torch.is_grad_enabled()
        with torch.enable_grad():
            encoded = self.encoding(inputs)
            encoded = encoded if encoded.requires_grad else encoded.requires_grad_()
            raw = self._perceive(encoded)[:, 0]
            (slopes,) = torch.autograd.grad(raw.sum(), encoded, create_graph=needed)
        gradient = self.encoding.gradient(inputs, slopes) / (2 * self.radius) + self._blob_gradient(flat)
        inside = self._is_inside(flat)[:, None]
        return -functional.normalize(torch.where(inside, gradient, 0.0), dim=-1).view(points.shape)

    def occupancy(self, threshold: float = 0.0) -> Bool[Tensor, "x y z"]:
        """Cells, and their neighbours, whose density was seen to exceed ``threshold`` and what a voxel shows."""
        faint = -math.log1p(-EMPTY_OPACITY) / min(self.voxel_size)
        least = max(threshold, min(faint, float(self.cells.mean())))
        seen = (self.cells > least).float()[None]
        return functional.max_pool3d(seen, 3, stride=1, padding=1)[0] > 0

    @torch.no_grad()
    def update_occupancy(
        self, *, generator: torch.Generator | None = None, decay: float = 0.95, samples: int = 1
    ) -> None:
        """Looks at random points of each cell, and lets what was seen before fade.

        Args:
            decay: share that is left of earlier densities; 0 forgets them.
            samples: points of each cell.
        """
        side = self.cells.shape[0]
        corners = torch.cartesian_prod(*[torch.arange(side, device=self.device)] * 3)
        lower, size = (
            self.cells.new_tensor(values) for values in (self.box.lower, self.box.voxel_size((side, side, side)))
        )
        seen = decay * self.cells.reshape(-1)
        for _ in range(samples):
            shift = torch.rand(corners.shape, generator=generator).to(corners.device)
            places = (lower + (corners + shift) * size).split(POINTS_AT_ONCE)
            seen = torch.maximum(seen, torch.cat([self.query_density(part) for part in places]))
        self.cells.copy_(seen.view_as(self.cells))

    @torch.no_grad()
    def to_voxels(self, resolution: tuple[int, int, int] | None = None) -> VoxelField:
        """The field on a grid over its box, read at all voxel centres; by default as fine as it gets."""
        sides = resolution or (self.detail, self.detail, self.detail)
        grid = VoxelField.zeros(self.box, sides, self.channels, self.device)
        flat = (grid.density.view(-1), grid.features.view(-1, self.channels))
        first = 0
        for points in grid.voxel_centers().reshape(-1, 3).split(POINTS_AT_ONCE):
            part = slice(first, first := first + len(points))
            flat[0][part], flat[1][part] = self.query(points)
        return grid

    def state(self) -> FieldState:
        """All that scene files keep."""
        tensors = {f"weights.{number}": value.detach() for number, value in enumerate(self.weights)}
        tensors |= {"table": self.encoding.table.detach().reshape(-1), "cells": self.cells}
        return FieldState(self._options(), tensors)

    @classmethod
    def from_state(cls, state: FieldState) -> "NeuralField":
        """The field that ``state`` was taken from; a ValueError if its parts do not fit together."""
        options: dict[str, Any] = dict(state.config)
        tensors, encoding = state.tensors, dict(options["encoding"])
        sizes = [encoding[name] for name in ("levels", "log2_rows", "base_resolution", "growth")]
        rows = int(lay_out_levels(*sizes)[2][-1])  # before the memory for them is asked for
        if rows * int(encoding["features"]) != tensors["table"].numel():
            raise ValueError(f"the table has {tensors['table'].numel()} numbers, but {encoding} makes {rows} rows")
        for name, count in (("weights.0", options["width"]), ("weights.1", 1 + options["channels"])):
            if tensors[name].shape[:1] != (count,):
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, needs {count} rows")
        options["center"] = tuple(options["center"])
        field = cls(**options)
        mine = field.state().tensors
        for name, value in mine.items():
            if tensors[name].shape != value.shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, needs {tuple(value.shape)}")
            if not bool(torch.isfinite(tensors[name]).all()):
                raise ValueError(f"{name} holds numbers that are not finite; save the scene again")
            value.copy_(tensors[name])  # shares the field's memory
        return field.requires_grad_(False).to(tensors["table"].device)

    def _options(self) -> dict[str, object]:
        """The arguments that make such a field, as plain JSON values."""
        own = {name: getattr(self, name) for name in ("center", "radius", "detail", "channels", "activation")}
        return {**own, "width": len(self.weights[0]), "encoding": dict(self.encoding.config)}

    def _to_unit_cube(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        lower = points.new_tensor(self.box.lower)
        return ((points - lower) / (2 * self.radius)).float()

    def _perceive(self, encoded: Float[Tensor, "points width"]) -> Float[Tensor, "points outputs"]:
        hidden = functional.linear(encoded, self.weights[0].float()).relu()
        return functional.linear(hidden, self.weights[1].float())

    def _offset(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        return points - points.new_tensor(self.center)

    def _is_inside(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        return self._offset(points).norm(dim=-1) <= self.radius

    def _activate(self, raw: Float[Tensor, " points"], points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        strength, size = BLOBS[self.activation]
        squared = self._offset(points).square().sum(-1) / (size * self.radius) ** 2
        if self.activation == "exp":
            density = (raw + strength * torch.exp(-squared / 2)).clamp(max=LARGEST_EXPONENT).exp()
        else:
            density = functional.softplus(raw + strength * (1 - squared.clamp(min=SMALLEST_RADIUS).sqrt()))
        return torch.where(self._is_inside(points), density / self.radius, 0.0)

    def _blob_gradient(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Of what ``_activate`` adds to the raw density."""
        strength, size = BLOBS[self.activation]
        offset, width = self._offset(points), size * self.radius
        if self.activation == "exp":
            falling = torch.exp(-offset.square().sum(-1, keepdim=True) / (2 * width**2))
            return -strength / width**2 * falling * offset
        return -strength / width * functional.normalize(offset, dim=-1)


def _draw_weights(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Parameter:
    """Uniform, as Glorot & Bengio 2010 and tiny-cuda-nn draw them."""
    limit = math.sqrt(6 / (inputs + outputs))
    return nn.Parameter(limit * (2 * torch.rand(outputs, inputs, generator=generator) - 1))


SMALLEST_BALL, LARGEST_BALL = 1e-6, 1e9


def _check_sizes(radius: float, detail: int, channels: int, width: int) -> None:
    if not SMALLEST_BALL <= radius <= LARGEST_BALL:  # beyond, single precision tells no points apart
        raise ValueError(
            f"the radius of a neural field must be a number of metres above 0, {SMALLEST_BALL} to {LARGEST_BALL}, got "
            f"{radius}"
        )
    limits = {"detail": (detail, 8, MAX_DETAIL), "channels": (channels, 1, 256), "width": (width, 1, MAX_WIDTH)}
    for name, (value, least, most) in limits.items():
        if not (isinstance(value, int) and least <= value <= most):
            raise ValueError(f"{name} of a neural field must be a whole number from {least} to {most}, got {value}")
