"""Captures in and out: posed images and one reader per layout."""

from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.posed_images import Frame, PosedImages

__all__ = ["BevMap", "Frame", "PosedImages"]
