"""How much noise a diffusion model saw in training, and how the noise follows from whatever it predicts."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler
from jaxtyping import Float, Int64
from torch import Tensor, device

from nfldm3d.data.json_record import Record
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.guidance.prior import LEAST_NOISE, share_at

MOST_STEPS = 100_000
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise of a model's training."""

    alphas_cumprod: Float[Tensor, " steps"]
    """Share of signal at each time step."""
    prediction: str = "epsilon"
    """What the network predicts, one of ``PREDICTIONS``."""

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"a network predicts one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")
        if self.alphas_cumprod.dim() != 1 or not len(self.alphas_cumprod):
            raise ValueError(f"a schedule has a share for each step, got shape {tuple(self.alphas_cumprod.shape)}")
        if not bool(((self.alphas_cumprod >= 0) & (self.alphas_cumprod <= 1)).all()):
            raise ValueError("shares of signal lie between 0 and 1; its betas do not give such")

    @staticmethod
    def from_scheduler(scheduler: DDPMScheduler) -> "NoiseSchedule":
        """That of one of diffusers' schedulers."""
        return NoiseSchedule(scheduler.alphas_cumprod, str(scheduler.config["prediction_type"]))

    @staticmethod
    def read(folder: Path) -> "NoiseSchedule":
        """From the folder of a scheduler of any kind; raises DataFormatError if it holds none."""
        path = folder / "scheduler_config.json"
        if not path.is_file():
            raise DataFormatError(folder, f"holds no {path.name}; copy the whole folder of the pipeline")
        config = Record.of(path, read_json(path)).values
        steps = config.get("num_train_timesteps", 1000)
        if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
            raise DataFormatError(path, f"num_train_timesteps is {str(steps)[:40]}; write a number up to {MOST_STEPS}")
        try:
            taken = inspect.signature(DDPMScheduler).parameters  # other schedulers' options are about sampling
            known: dict[str, Any] = {name: value for name, value in config.items() if name in taken}
            return NoiseSchedule.from_scheduler(DDPMScheduler(**known))
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise DataFormatError(path, f"describes no schedule of noise: {error}") from error

    def to(self, device: device) -> "NoiseSchedule":
        """The same on another device."""
        return NoiseSchedule(self.alphas_cumprod.to(device), self.prediction)

    def target_of(
        self,
        latents: Float[Tensor, "views channels rows columns"],
        noise: Float[Tensor, "views channels rows columns"],
        t: Int64[Tensor, " views"],
    ) -> Float[Tensor, "views channels rows columns"]:
        """What a network should predict."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return latents
        signal = share_at(self.alphas_cumprod, t, latents)
        return signal.sqrt() * noise - (1 - signal).sqrt() * latents

    def noise_from(
        self,
        predicted: Float[Tensor, "views channels rows columns"],
        noisy: Float[Tensor, "views channels rows columns"],
        t: Int64[Tensor, " views"],
    ) -> Float[Tensor, "views channels rows columns"]:
        """The noise that a network's prediction means."""
        if self.prediction == "epsilon":
            return predicted
        signal = share_at(self.alphas_cumprod, t, noisy)
        if self.prediction == "v_prediction":
            return signal.sqrt() * predicted + (1 - signal).sqrt() * noisy
        return (noisy - signal.sqrt() * predicted) / (1 - signal).clamp(min=LEAST_NOISE).sqrt()
