"""Scenes by optimisation: posed images to a Scene, coarse to fine, and the loop for whatever else has a gradient."""

from nfldm3d.fitting.boxes import estimate_boxes
from nfldm3d.fitting.checkpoint import Checkpoint
from nfldm3d.fitting.optimisation import Parameters, optimise
from nfldm3d.fitting.options import FitOptions
from nfldm3d.fitting.parameters import TensorParameters
from nfldm3d.fitting.photographs import fit
from nfldm3d.fitting.schedule import OptimisationError, Schedule, Step

__all__ = [
    "Checkpoint",
    "FitOptions",
    "OptimisationError",
    "Parameters",
    "Schedule",
    "Step",
    "TensorParameters",
    "estimate_boxes",
    "fit",
    "optimise",
]
