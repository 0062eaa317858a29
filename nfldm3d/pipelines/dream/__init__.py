"""Text to 3-D: objects dreamt from a prior of pictures (DreamFusion)."""

from nfldm3d.pipelines.dream.dreaming import Dream, dream
from nfldm3d.pipelines.dream.options import DreamOptions
from nfldm3d.pipelines.dream.prompts import Prompts
from nfldm3d.pipelines.dream.showing import preview, save_sides, save_turntable
from nfldm3d.pipelines.dream.views import DreamViews, ViewRanges, draw_views

__all__ = [
    "Dream",
    "DreamOptions",
    "DreamViews",
    "Prompts",
    "ViewRanges",
    "draw_views",
    "dream",
    "preview",
    "save_sides",
    "save_turntable",
]
