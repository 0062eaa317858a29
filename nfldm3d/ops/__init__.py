"""Kernels on plain tensors: fast on CPU and CUDA, each with a readable torch twin in ``nfldm3d.ops.reference``."""

from nfldm3d.ops.interpolation import interpolate, interpolate_pool
from nfldm3d.ops.marching import integrate_rays, integrate_rays_in_pool
from nfldm3d.ops.occupancy import build_occupancy, build_pool_occupancy
from nfldm3d.ops.records import (
    TILE,
    FieldGradient,
    March,
    Occupancy,
    PoolMap,
    PoolOccupancy,
    RayIntegral,
    Splat,
)
from nfldm3d.ops.splatting import splat_frustums, splat_frustums_into_pool

__all__ = [
    "TILE",
    "FieldGradient",
    "March",
    "Occupancy",
    "PoolMap",
    "PoolOccupancy",
    "RayIntegral",
    "Splat",
    "build_occupancy",
    "build_pool_occupancy",
    "integrate_rays",
    "integrate_rays_in_pool",
    "interpolate",
    "interpolate_pool",
    "splat_frustums",
    "splat_frustums_into_pool",
]
