"""The trained parts working together: encoding, generating, editing."""

from typing import TYPE_CHECKING

from nfldm3d._lazy import lazily

if TYPE_CHECKING:
    from nfldm3d.pipelines.autoencoders import Autoencoders
    from nfldm3d.pipelines.scene_generator import SceneGenerator

__getattr__ = lazily(
    __name__,
    {
        "Autoencoders": "autoencoders",
        "SceneGenerator": "scene_generator",
    },
)

__all__ = ["Autoencoders", "SceneGenerator"]
