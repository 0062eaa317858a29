"""Looking at scenes: pictures by volume rendering, camera paths, videos."""

from nfldm3d.rendering.paths import make_path
from nfldm3d.rendering.renderer import MIN_OPACITY, Rendering, composite, mean_distance, render, shade
from nfldm3d.rendering.video import render_video

__all__ = ["MIN_OPACITY", "Rendering", "composite", "make_path", "mean_distance", "render", "render_video", "shade"]
