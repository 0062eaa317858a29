"""The last stage of NF-LDM: a 2-D prior sharpens a scene."""

from nfldm3d.pipelines.refining.options import RefineOptions
from nfldm3d.pipelines.refining.refinement import RefinementStopped, refine

__all__ = ["RefineOptions", "RefinementStopped", "refine"]
