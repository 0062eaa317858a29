"""Recordings of real vehicles as published: nuScenes and KITTI-360, cut into scenes along their drives."""

from nfldm3d.data.logs.cutting import LogCut
from nfldm3d.data.logs.local_scene import read_place
from nfldm3d.data.logs.log_scenes import find_log, open_log

__all__ = ["LogCut", "find_log", "open_log", "read_place"]
