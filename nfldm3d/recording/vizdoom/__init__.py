"""Freedoom's maps, drawn by ViZDoom, measured by their own geometry."""

from nfldm3d.recording.vizdoom.recorder import CaptureOptions, record_vizdoom
from nfldm3d.recording.vizdoom.shard_recorder import SceneOptions, record_scenes

__all__ = ["CaptureOptions", "SceneOptions", "record_scenes", "record_vizdoom"]
