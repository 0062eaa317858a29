"""Encodings: from points to features that a small network can read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d.ops.hash_grids import HashLevels, hash_grid_gradient, read_hash_grid

ALIGNMENT = 8
"""Rows of levels that hold all nodes are rounded up to a multiple of this, as in tiny-cuda-nn."""
START = 1e-4
"""Features begin between minus and plus this."""
MAX_LEVELS, MAX_LOG2_ROWS, MAX_RESOLUTION = 32, 24, 2**20
TINYCUDANN_NAMES = {
    "n_levels": "levels",
    "n_features_per_level": "features",
    "log2_hashmap_size": "log2_rows",
    "base_resolution": "base_resolution",
    "per_level_scale": "growth",
}


class HashGrid(nn.Module):
    """A multi-resolution hash grid over the unit cube (Müller et al. 2022), row for row tiny-cuda-nn's.

    Its one parameter ``table`` holds the levels one after the other, coarsest first; flattened it is tiny-cuda-nn's
    parameter vector.
    """

    scales: Tensor
    resolutions: Tensor
    offsets: Tensor

    def __init__(
        self,
        *,
        levels: int = 16,
        features: int = 2,
        log2_rows: int = 19,
        base_resolution: int = 16,
        growth: float = 1.4473,
        generator: torch.Generator | None = None,
    ):
        """Begins with small random features.

        Args:
            features: of each level.
            log2_rows: rows of a level at most, as a power of two; finer levels share theirs by hashing.
            base_resolution: nodes along an axis of the coarsest level.
            growth: of the resolution, from one level to the next.

        Raises:
            ValueError: a size is out of range.
        """
        super().__init__()
        _check_range("features", features, 1, 8)
        self.config: dict[str, Any] = {
            "levels": levels,
            "features": features,
            "log2_rows": log2_rows,
            "base_resolution": base_resolution,
            "growth": float(growth),
        }
        scales, resolutions, offsets = lay_out_levels(levels, log2_rows, base_resolution, growth)
        self.register_buffer("scales", torch.from_numpy(scales), persistent=False)
        self.register_buffer("resolutions", torch.from_numpy(resolutions), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)
        start = torch.rand(int(offsets[-1]), features, generator=generator)
        self.table = nn.Parameter(START * (2 * start - 1))

    @classmethod
    def from_tinycudann(cls, config: Mapping[str, object]) -> "HashGrid":
        """One with the options of a tiny-cuda-nn encoding; a ValueError for those that are something else."""
        kind = str(config.get("otype", "HashGrid")).lower()
        asked = {"type": "hash", "interpolation": "linear", "hash": "coherentprime"}
        strange = [name for name, wanted in asked.items() if str(config.get(name, wanted)).lower() != wanted]
        unknown = sorted(set(config) - set(TINYCUDANN_NAMES) - set(asked) - {"otype", "stochastic_interpolation"})
        if kind not in ("hashgrid", "grid") or strange or unknown or config.get("stochastic_interpolation"):
            raise ValueError(
                f"a HashGrid is tiny-cuda-nn's HashGrid, linear and with its usual hash, got {dict(config)}; known "
                f"options are {', '.join(TINYCUDANN_NAMES)}"
            )
        usual = {"log2_hashmap_size": 19, "base_resolution": 16, "per_level_scale": 2.0}
        values = usual | {name: value for name, value in config.items() if name in TINYCUDANN_NAMES}
        options: dict[str, Any] = {TINYCUDANN_NAMES[name]: value for name, value in values.items()}
        return cls(**options)

    def tinycudann_config(self) -> dict[str, object]:
        """The options of tiny-cuda-nn's encoding with the same rows."""
        return {"otype": "HashGrid", **{name: self.config[own] for name, own in TINYCUDANN_NAMES.items()}}

    @property
    def width(self) -> int:
        """Numbers that it gives for each point."""
        return int(self.config["levels"] * self.config["features"])

    @property
    def grid_levels(self) -> HashLevels:
        """What the kernels are told."""
        return HashLevels(self.scales, self.resolutions, self.offsets)

    def forward(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points width"]:
        """Features of all levels at points of the unit cube, coarsest level first."""
        return read_hash_grid(self.table.float(), points, self.grid_levels)

    def gradient(
        self, points: Float[Tensor, "points 3"], slopes: Float[Tensor, "points width"]
    ) -> Float[Tensor, "points 3"]:
        """The gradient of the features, times ``slopes``, by the points; differentiable once more."""
        return hash_grid_gradient(self.table.float(), points, self.grid_levels, slopes)


def lay_out_levels(
    levels: int, log2_rows: int, base_resolution: int, growth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales (float32), resolutions and first rows (int32) of all levels; tiny-cuda-nn reckons in float32, too.

    Raises:
        ValueError: a size is out of range.
    """
    _check_range("levels", levels, 1, MAX_LEVELS)
    _check_range("log2_rows", log2_rows, 3, MAX_LOG2_ROWS)
    _check_range("base_resolution", base_resolution, 2, 2**14)
    if not 1 <= growth <= 16 or base_resolution * growth ** (levels - 1) > MAX_RESOLUTION:
        raise ValueError(
            f"growth must be 1 to 16 and the finest level have at most {MAX_RESOLUTION} nodes along an axis, got "
            f"{growth} with {levels} levels from {base_resolution}"
        )
    exponent = np.log2(np.float64(np.float32(growth))).astype(np.float32)
    powers = np.exp2((np.arange(levels, dtype=np.float32) * exponent).astype(np.float64)).astype(np.float32)
    scales = (powers * np.float32(base_resolution) - np.float32(1)).astype(np.float32)
    resolutions = np.ceil(scales).astype(np.int64) + 1
    rows = np.minimum(-(-(resolutions**3) // ALIGNMENT) * ALIGNMENT, 2**log2_rows)
    return scales, resolutions.astype(np.int32), np.concatenate(([0], np.cumsum(rows))).astype(np.int32)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not (isinstance(value, int) and least <= value <= most):
        raise ValueError(f"{name} of a hash grid must be a whole number from {least} to {most}, got {value}")
