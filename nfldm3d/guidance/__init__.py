"""Image priors behind one contract, and how their gradients reach a scene."""

from typing import TYPE_CHECKING

from nfldm3d._lazy import lazily

if TYPE_CHECKING:
    from nfldm3d.guidance.distillation import Distillation, distill
    from nfldm3d.guidance.folders import load_prior
    from nfldm3d.guidance.prior import CameraPrior, Prior, add_noise, remove_noise

__getattr__ = lazily(
    __name__,
    {
        "CameraPrior": "prior",
        "Distillation": "distillation",
        "Prior": "prior",
        "add_noise": "prior",
        "distill": "distillation",
        "load_prior": "folders",
        "remove_noise": "prior",
    },
)

__all__ = ["CameraPrior", "Distillation", "Prior", "add_noise", "distill", "load_prior", "remove_noise"]
