"""The trained parts working together: encoding, generating, editing."""

from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.scene_generator import SceneGenerator

__all__ = ["Autoencoders", "SceneGenerator"]
