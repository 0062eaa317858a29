"""Looking at scenes: pictures by volume rendering, camera paths, videos."""

from nfldm3d.rendering.integration import find_occupancy, integrate
from nfldm3d.rendering.paths import make_path
from nfldm3d.rendering.renderer import (
    MIN_OPACITY,
    Renderer,
    Rendering,
    composite,
    mean_distance,
    prepare,
    render,
    shade,
)
from nfldm3d.rendering.video import render_video

__all__ = [
    "MIN_OPACITY",
    "Renderer",
    "Rendering",
    "composite",
    "find_occupancy",
    "integrate",
    "make_path",
    "mean_distance",
    "prepare",
    "render",
    "render_video",
    "shade",
]
