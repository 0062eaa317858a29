"""One training loop for every network: mixed precision, several processes, exact resuming, safe checkpoints."""

from nfldm3d.training.run_options import TrainingOptions
from nfldm3d.training.stage import Evaluation, SampleSource, Stage
from nfldm3d.training.steps import DivergenceError
from nfldm3d.training.trained_weights import export_weights, read_weights
from nfldm3d.training.trainer import TrainingResult, train

__all__ = [
    "DivergenceError",
    "Evaluation",
    "SampleSource",
    "Stage",
    "TrainingOptions",
    "TrainingResult",
    "export_weights",
    "read_weights",
    "train",
]
