"""Image priors behind one contract, and how their gradients reach a scene."""

from nfldm3d.guidance.distillation import Distillation, distill
from nfldm3d.guidance.folders import load_prior
from nfldm3d.guidance.prior import Prior, add_noise, remove_noise

__all__ = ["Distillation", "Prior", "add_noise", "distill", "load_prior", "remove_noise"]
