"""Statistics of the latents that a denoiser is trained on, by which it takes them to mean 0 and deviation 1."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SHRINKAGE = 3e-4
"""Of correlations towards none: what is finer than 1.7 % of a number's deviation is not told apart."""


class Scaling(nn.Module):
    """Mean and deviation of each channel of a latent, measured on training data."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, values: Float[Tensor, "scenes channels *grid"]) -> None:
        """Takes the statistics of ``values``; channels that never change are left as they are."""
        flat = values.detach().double().movedim(1, 0).flatten(1)
        self.mean.copy_(flat.mean(1))
        self.deviation.copy_(torch.where(flat.std(1) > 1e-6, flat.std(1), 1.0))

    def normalize(self, values: Float[Tensor, "scenes channels *grid"]) -> Float[Tensor, "scenes channels *grid"]:
        """To mean 0 and deviation 1, in the precision of the values."""
        mean, deviation = self._shaped(values)
        return (values - mean) / deviation

    def denormalize(self, values: Float[Tensor, "scenes channels *grid"]) -> Float[Tensor, "scenes channels *grid"]:
        """The inverse."""
        mean, deviation = self._shaped(values)
        return values * deviation + mean

    def _shaped(self, values: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (values.dim() - 2)
        return self.mean.to(values.dtype).view(shape), self.deviation.to(values.dtype).view(shape)


class Whitening(nn.Module):
    """Takes out of vectors what correlates: neighbouring poses of a path agree to centimetres, and noise that leaves
    each number its own would have to be undone by the network.

    The factor of the covariance is upper triangular, so the last k numbers of a vector are whitened by themselves, and
    can be kept while the others are sampled.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, dimensions: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("factor", torch.eye(dimensions))

    def measure(self, values: Float[Tensor, "scenes dimensions"]) -> None:
        """Takes the statistics of ``values``; the correlations only if they are of many scenes."""
        flat = values.detach().double()
        scenes, dimensions = flat.shape
        deviation = torch.where(flat.std(0) > 1e-6, flat.std(0), 1.0)
        standard = (flat - flat.mean(0)) / deviation
        correlation = torch.eye(dimensions, dtype=torch.double, device=flat.device)
        if scenes >= 4 * dimensions:
            correlation = (1 - SHRINKAGE) * standard.T @ standard / (scenes - 1) + SHRINKAGE * correlation
        factor = torch.linalg.cholesky(correlation.flip(0, 1)).flip(0, 1)
        self.mean.copy_(flat.mean(0))
        self.factor.copy_(deviation[:, None] * factor)

    def normalize(self, values: Float[Tensor, "scenes dimensions"]) -> Float[Tensor, "scenes dimensions"]:
        """To mean 0 and unit covariance, in the precision of the values."""
        mean, factor = self.mean.to(values.dtype), self.factor.to(values.dtype)
        with torch.autocast(values.device.type, enabled=False):  # half precision would lose what is fine
            return torch.linalg.solve_triangular(factor, (values - mean).T, upper=True).T

    def denormalize(self, values: Float[Tensor, "scenes dimensions"]) -> Float[Tensor, "scenes dimensions"]:
        """The inverse."""
        mean, factor = self.mean.to(values.dtype), self.factor.to(values.dtype)
        with torch.autocast(values.device.type, enabled=False):
            return values @ factor.T + mean

    def unwhiten(self, errors: Float[Tensor, "scenes dimensions"]) -> Float[Tensor, "scenes dimensions"]:
        """Errors of whitened numbers as those of the numbers themselves, in parts of the latters' deviations."""
        factor = self.factor.float()  # of networks in half precision, too
        with torch.autocast(errors.device.type, enabled=False):
            return errors.float() @ (factor / factor.norm(dim=1, keepdim=True)).T.to(errors.device)


def find_importance(scaling: Whitening, panorama_spread: Sequence[float], path: int) -> Float[Tensor, " dimensions"]:
    """How much each number of g with its camera path counts, one in all: a third for each part, in it by variance.

    Args:
        panorama_spread: by how much the panorama differs along each of its numbers, which come before the path.
        path: numbers of the camera path, the last ones.
    """
    variance = scaling.factor.square().sum(1)
    sky = variance.new_tensor(panorama_spread)
    learned, last = len(variance) - path - len(sky), len(variance) - path
    parts = [variance[:learned], sky.square() * variance[learned:last], variance[last:]]
    shares = [part / part.sum().clamp(min=1e-12) for part in parts if len(part)]
    return torch.cat(shares) / len(shares)
