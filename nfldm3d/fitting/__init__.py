"""Posed images to a Scene by optimisation, coarse to fine, on a laptop's CPU or a GPU."""

from nfldm3d.fitting.boxes import estimate_boxes
from nfldm3d.fitting.loop import fit
from nfldm3d.fitting.options import FitOptions

__all__ = ["FitOptions", "estimate_boxes", "fit"]
