"""What a capture says about its world besides its cameras, moved with it; see ``placement``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d import placement
from nfldm3d.data.applied_transform import AppliedTransform
from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box, transform_points

LEVEL = ("bev", "trajectory")
"""Fields that only a world with z up can have."""


def move_points(points: Float[Tensor, "points 3"] | None, motion: Float[Tensor, "4 4"]) -> Tensor | None:
    """Points in double precision, in the moved world in single precision."""
    return None if points is None else transform_points(motion, points.double()).float()


def move_bev(bev: BevMap | None, motion: Float[Tensor, "4 4"], source: Path) -> BevMap | None:
    """The ground in the moved world."""
    if bev is None or placement.is_identity(motion):
        return bev
    _require_shift("bev", motion, source)
    x, y, z = motion[:3, 3].tolist()
    return replace(
        bev, lower=(bev.lower[0] + x, bev.lower[1] + y), height=None if bev.height is None else bev.height + z
    )


def move_metadata(values: Mapping[str, object], motion: Float[Tensor, "4 4"], source: Path) -> dict[str, object]:
    """Metadata in the moved world: box, trajectory and nerfstudio's transform, and what moved all that."""
    moved = dict(values)
    if placement.is_identity(motion):
        return moved
    record = Record.of(source, moved)
    if "box" in record:
        box = Record.of(source, moved["box"], "box")
        given = Box(tuple(box.numbers("lower")), tuple(box.numbers("upper")))  # type: ignore[arg-type]
        there = placement.move_box(given, motion)
        moved["box"] = {"lower": list(there.lower), "upper": list(there.upper)}
    if "trajectory" in record:
        _require_shift("trajectory", motion, source)
        shift = (*motion[:3, 3].tolist(), 0.0, 0.0)
        rows = [Record.of(source, {"pose": row}, "trajectory").numbers("pose") for row in record.items("trajectory")]
        if any(len(row) != len(shift) for row in rows):
            raise record.problem("trajectory", "write poses [x, y, z, cosine, sine of the heading]")
        moved["trajectory"] = [[a + b for a, b in zip(row, shift, strict=True)] for row in rows]
    if "applied_transform" in record or "applied_scale" in record:
        moved["applied_transform"] = AppliedTransform.of(record).followed_by(motion).matrix.tolist()
    moved[placement.KEY] = (motion @ _kept(record)).tolist()
    return moved


def _kept(record: Record) -> Float[Tensor, "4 4"]:
    return record.matrix(placement.KEY) if placement.KEY in record else torch.eye(4, dtype=torch.float64)


def _require_shift(key: str, motion: Float[Tensor, "4 4"], source: Path) -> None:
    if not placement.is_shift(motion):
        raise DataFormatError(source, f"has a {key}, which needs a world with z up; leave up=, or remove {key}")
