"""Kernels on plain tensors: fast on CPU and CUDA, each with a readable torch twin in ``nfldm3d.ops.reference``."""

from nfldm3d.ops.interpolation import interpolate
from nfldm3d.ops.marching import integrate_rays
from nfldm3d.ops.occupancy import build_occupancy
from nfldm3d.ops.records import TILE, FieldGradient, March, Occupancy, RayIntegral, Splat
from nfldm3d.ops.splatting import splat_frustums

__all__ = [
    "TILE",
    "FieldGradient",
    "March",
    "Occupancy",
    "RayIntegral",
    "Splat",
    "build_occupancy",
    "integrate_rays",
    "interpolate",
    "splat_frustums",
]
