"""How close two sets of pictures or maps are as sets: distances of feature clouds, coverage, overlap of classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CHUNK = 1024
"""Rows of a distance matrix at once."""


class FrechetReference:
    """Features that others are compared with, several times."""

    def __init__(self, features: Float[Tensor, "pictures features"]):
        """Raises a ValueError for fewer pictures than features: the covariance would have no full rank."""
        self.mean, self.covariance = _measure(features)
        values, vectors = torch.linalg.eigh(self.covariance)
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        """Of the covariance."""

    def distance(self, features: Float[Tensor, "pictures features"]) -> Float[Tensor, ""]:
        """See ``frechet_distance``."""
        mean, covariance = _measure(features)
        # tr sqrt(A B) is the sum of the roots of the eigenvalues of sqrt(B) A sqrt(B), which is symmetric
        cross = torch.linalg.eigvalsh(self.root @ covariance @ self.root).clamp(min=0).sqrt().sum()
        spread = self.covariance.trace() + covariance.trace() - 2 * cross
        return ((mean - self.mean).square().sum() + spread).clamp(min=0)


def frechet_distance(first: Float[Tensor, "a features"], second: Float[Tensor, "b features"]) -> Float[Tensor, ""]:
    """Squared 2-Wasserstein distance of the Gaussians with their means and covariances (Heusel et al. 2017, FID).

    Raises:
        ValueError: fewer pictures than features on a side: the covariance would have no full rank.
    """
    return FrechetReference(second).distance(first)


def _measure(features: Float[Tensor, "pictures features"]) -> tuple[Tensor, Tensor]:
    """Mean and covariance, in double precision."""
    if len(features) <= features.shape[1]:
        raise ValueError(
            f"a Fréchet distance of {features.shape[1]} features needs more than as many pictures, got "
            f"{len(features)}; render more"
        )
    values = features.double()
    return values.mean(0), torch.cov(values.T)


def kernel_distance(
    first: Float[Tensor, "a features"],
    second: Float[Tensor, "b features"],
    *,
    subsets: int = 50,
    size: int = 500,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Unbiased squared maximum mean discrepancy, mean over random subsets (Binkowski et al. 2018, KID).

    The kernel is (x y / features + 1)^3.
    """
    size = min(size, len(first), len(second))
    if size < 2:
        raise ValueError("a kernel distance needs at least two pictures on each side")
    total, where = first.new_zeros((), dtype=torch.float64), None if generator is None else generator.device

    def some(features: Tensor) -> Tensor:
        order = torch.randperm(len(features), generator=generator, device=where)
        return features[order[:size].to(features.device)].double()

    for _ in range(subsets):
        x, y = some(first), some(second)
        own = sum((k.sum() - k.diagonal().sum()) / (size * (size - 1)) for k in (_cubic(x, x), _cubic(y, y)))
        total = total + own - 2 * _cubic(x, y).mean()
    return total / subsets


def _cubic(x: Float[Tensor, "a features"], y: Float[Tensor, "b features"]) -> Float[Tensor, "a b"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


@dataclass(frozen=True)
class Coverage:
    """How two clouds of features overlap."""

    precision: float
    """Share of made pictures within the reach of a real one (Kynkaanniemi et al. 2019)."""
    recall: float
    """Share of real pictures within the reach of a made one."""
    density: float
    """Mean number of real pictures in whose reach a made one lies, over ``neighbors`` (Naeem et al. 2020)."""
    coverage: float
    """Share of real pictures in whose reach a made one lies."""


def measure_coverage(
    made: Float[Tensor, "a features"],
    real: Float[Tensor, "b features"],
    neighbors: int = 5,
    *,
    made_scenes: Int64[Tensor, " a"] | None = None,
    real_scenes: Int64[Tensor, " b"] | None = None,
) -> Coverage:
    """A picture's reach is the distance to its ``neighbors``-th nearest neighbour on its own side.

    Args:
        made_scenes, real_scenes: numbers of the scenes that pictures come from; those of the same scene are no
            neighbours. Views of one walk are nearly alike: else reach would tell how densely walks were sampled.

    Raises:
        ValueError: too few pictures, or too few of other scenes.
    """
    reach_real, reach_made = _reach(real, neighbors, real_scenes), _reach(made, neighbors, made_scenes)
    hits = torch.zeros(len(made), device=made.device)
    recalled, covered = [], []
    for start in range(0, len(real), CHUNK):
        distance = torch.cdist(real[start : start + CHUNK], made)  # (real made)
        near = distance <= reach_real[start : start + CHUNK, None]
        hits += near.sum(0)
        covered.append(near.any(1))
        recalled.append((distance <= reach_made).any(1))
    return Coverage(
        precision=float((hits > 0).float().mean()),
        recall=float(torch.cat(recalled).float().mean()),
        density=float(hits.mean()) / neighbors,
        coverage=float(torch.cat(covered).float().mean()),
    )


def _reach(
    features: Float[Tensor, "a features"], neighbors: int, scenes: Int64[Tensor, " a"] | None
) -> Float[Tensor, " a"]:
    scenes = torch.arange(len(features), device=features.device) if scenes is None else scenes
    most = int(scenes.unique(return_counts=True)[1].max())
    if len(features) - most < neighbors:
        raise ValueError(
            f"{neighbors} neighbours need as many pictures of other scenes, got {len(features)} pictures of which "
            f"{most} are of one; render more"
        )
    reaches = []
    for part, own in zip(features.split(CHUNK), scenes.split(CHUNK), strict=True):
        distance = torch.cdist(part, features).masked_fill(own[:, None] == scenes, torch.inf)
        reaches.append(distance.kthvalue(neighbors, dim=1).values)
    return torch.cat(reaches)


def intersection_over_union(
    found: Int64[Tensor, "scenes x y"], true: Int64[Tensor, "scenes x y"], classes: int
) -> Float[Tensor, " classes"]:
    """Of each class over all scenes together; NaN for classes that ``true`` lacks. Cells where ``true`` holds another
    number do not count.
    """
    known = (true >= 0) & (true < classes)
    table = torch.bincount((true[known] * classes + found[known]).flatten(), minlength=classes**2)
    table = table.view(classes, classes).double()
    both = table.diagonal()
    either = table.sum(0) + table.sum(1) - both
    return torch.where(table.sum(1) > 0, both / either, torch.nan).float()
