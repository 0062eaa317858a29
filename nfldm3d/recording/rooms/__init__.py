"""Furnished rooms, drawn without a screen from the furniture of Sweet Home 3D."""

from nfldm3d.recording.rooms.recorder import RoomOptions, record_rooms
from nfldm3d.recording.rooms.room_recorder import RoomShape

__all__ = ["RoomOptions", "RoomShape", "record_rooms"]
