"""A driving world: roads, cars and weather, drawn from the tracks of TORCS without a screen."""

from nfldm3d.recording.driving.shard_recorder import DrivingOptions, record_scenes
from nfldm3d.recording.driving.torcs import TorcsData
from nfldm3d.recording.driving.world import SceneShape

__all__ = ["DrivingOptions", "SceneShape", "TorcsData", "record_scenes"]
