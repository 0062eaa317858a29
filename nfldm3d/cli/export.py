"""``nfldm3d export``: meshes, point clouds, volumes and cameras for other programs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from nfldm3d._types import Vector
from nfldm3d.export import MeshOptions, export_cameras, export_mesh, export_points, export_volume
from nfldm3d.geometry import Box
from nfldm3d.scene import Scene


@dataclass(frozen=True)
class Export:
    """Writes what is asked for; the formats follow the suffixes."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A .nfld file or a scene folder."""
    mesh: Path | None = None
    """.glb, .obj, .ply, .usd, .usda, .usdc or .usdz."""
    points: Path | None = None
    """.ply"""
    volume: Path | None = None
    """.nvdb or .vdb"""
    cameras: Path | None = None
    """.usd or .usda"""
    box: tuple[Vector, Vector] | None = None
    """Export only what lies between these lower and upper corners, in metres."""

    def run(self) -> None:
        """Writes the files."""
