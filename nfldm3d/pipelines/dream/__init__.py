"""Text to 3-D: objects dreamt from a prior of pictures (DreamFusion)."""

from typing import TYPE_CHECKING

from nfldm3d._lazy import lazily

if TYPE_CHECKING:
    from nfldm3d.pipelines.dream.dreaming import Dream, EmptyFieldError, dream
    from nfldm3d.pipelines.dream.options import DreamOptions
    from nfldm3d.pipelines.dream.prompts import Prompts
    from nfldm3d.pipelines.dream.showing import preview, save_sides, save_turntable
    from nfldm3d.pipelines.dream.views import DreamViews, ViewRanges, draw_views

__getattr__ = lazily(
    __name__,
    {
        "Dream": "dreaming",
        "DreamOptions": "options",
        "DreamViews": "views",
        "Prompts": "prompts",
        "EmptyFieldError": "dreaming",
        "ViewRanges": "views",
        "draw_views": "views",
        "dream": "dreaming",
        "preview": "showing",
        "save_sides": "showing",
        "save_turntable": "showing",
    },
)

__all__ = [
    "Dream",
    "DreamOptions",
    "DreamViews",
    "EmptyFieldError",
    "Prompts",
    "ViewRanges",
    "draw_views",
    "dream",
    "preview",
    "save_sides",
    "save_turntable",
]
