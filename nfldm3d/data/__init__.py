"""Captures in and out: posed images and one reader per layout."""

from nfldm3d.data.bev_map import BevMap
from nfldm3d.data.co3d import Co3dCategory
from nfldm3d.data.colmap import read_colmap
from nfldm3d.data.driving_rig import read_driving_rig, rig_scenes
from nfldm3d.data.frame import Frame
from nfldm3d.data.layouts import read_posed_images
from nfldm3d.data.posed_images import PosedImages
from nfldm3d.data.replica import read_replica
from nfldm3d.data.scene_folder import SceneFolder
from nfldm3d.data.srn import read_srn
from nfldm3d.data.transforms_json import read_transforms_json

__all__ = [
    "BevMap",
    "Co3dCategory",
    "Frame",
    "PosedImages",
    "SceneFolder",
    "read_colmap",
    "read_driving_rig",
    "read_posed_images",
    "read_replica",
    "read_srn",
    "read_transforms_json",
    "rig_scenes",
]
