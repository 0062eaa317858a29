"""The last stage of NF-LDM: a 2-D prior sharpens a scene."""

from typing import TYPE_CHECKING

from nfldm3d._lazy import lazily

if TYPE_CHECKING:
    from nfldm3d.pipelines.refining.options import RefineOptions
    from nfldm3d.pipelines.refining.refinement import RefinementStopped, refine

__getattr__ = lazily(
    __name__,
    {
        "RefineOptions": "options",
        "RefinementStopped": "refinement",
        "refine": "refinement",
    },
)

__all__ = ["RefineOptions", "RefinementStopped", "refine"]
