"""Vector quantisation: every vector becomes the nearest of a list of codes, which follow the data."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

IDLE_SHARE = 0.05
"""A code that is used less often than this share of the average is moved to where data is."""


class Quantized(NamedTuple):
    """Codes in place of vectors."""

    values: Float[Tensor, "*batch dimensions"]
    """The codes; the gradient passes straight through to the vectors."""
    indices: Int64[Tensor, "*codes"]
    """Of the batch's shape; with an axis more if several codes stand for a vector."""
    commitment: Float[Tensor, ""]
    """Mean squared distance that pulls the vectors towards their codes."""


class VectorQuantizer(nn.Module):
    """A list of codes, each the moving average of the vectors it stands for (van den Oord et al. 2017, appendix A.1).

    In training, codes that hardly anything uses are moved onto vectors of the batch, at no cost of randomness.
    """

    codebook: Float[Tensor, "codes dimensions"]
    usage: Float[Tensor, " codes"]
    sums: Float[Tensor, "codes dimensions"]
    steps: Int64[Tensor, ""]

    def __init__(self, codes: int, dimensions: int, *, decay: float = 0.97):
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", torch.zeros(codes, dimensions))
        self.register_buffer("usage", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dimensions))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Float[Tensor, "*batch dimensions"]) -> Quantized:
        """The nearest code of each vector; in training the codes move towards their vectors."""
        flat = vectors.detach().float().flatten(0, -2)
        if self.training and int(self.steps) == 0:
            self._place(torch.ones_like(self.usage, dtype=torch.bool), flat)
        found = self.nearest(flat)
        indices = found.unflatten(0, vectors.shape[:-1])
        codes = functional.embedding(indices, self.codebook).to(
            vectors.dtype
        )  # before the codes move, some of them far away
        if self.training:
            self._follow(flat, found)
        commitment = (vectors - codes).square().mean()
        return Quantized(vectors + (codes - vectors).detach(), indices, commitment)

    def nearest(self, vectors: Float[Tensor, "vectors dimensions"]) -> Int64[Tensor, " vectors"]:
        """Which code is nearest to each vector."""
        codebook = self.codebook.to(vectors.dtype)
        with torch.autocast(vectors.device.type, enabled=False):  # half precision would confuse neighbours
            distance = codebook.square().sum(-1) - 2 * vectors @ codebook.T
        return distance.argmin(-1)

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "vectors dimensions"], indices: Int64[Tensor, " vectors"]) -> None:
        counts = torch.bincount(indices, minlength=len(self.usage)).float()
        totals = torch.zeros_like(self.sums).index_add_(0, indices, vectors)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for value in (counts, totals):
                torch.distributed.all_reduce(value)
        self.usage.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(totals, 1 - self.decay)
        self.codebook.copy_(self.sums / self.usage.clamp(min=1e-6)[:, None])
        self.steps += 1
        self._place(self.usage < IDLE_SHARE * self.usage.mean(), vectors)

    @torch.no_grad()
    def _place(self, idle: Tensor, vectors: Float[Tensor, "vectors dimensions"]) -> None:
        """Moves the idle codes onto vectors that lie evenly spread through the batch."""
        count = int(idle.sum())
        if count == 0:
            return
        start = int(self.steps) * 7919  # a prime: other vectors at every step
        chosen = (torch.arange(count, device=vectors.device) * max(len(vectors) // count, 1) + start) % len(vectors)
        codes, mean = vectors[chosen], self.usage.mean().clamp(min=1.0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(codes, 0)
        self.codebook[idle], self.usage[idle], self.sums[idle] = codes, mean, codes * mean


class ResidualQuantizer(nn.Module):
    """Lists of codes one after another, each for what the ones before leave over (Zeghidour et al. 2021, III-C).

    Two lists of 128 codes make 16,384 vectors, and all codes are used.
    """

    def __init__(self, codes: int, dimensions: int, stages: int):
        super().__init__()
        if stages < 1:
            raise ValueError(f"a residual quantizer has at least 1 stage, got {stages}")
        self.stages = nn.ModuleList(VectorQuantizer(codes, dimensions) for _ in range(stages))

    @property
    def usage(self) -> Float[Tensor, " codes"]:
        """How often each code of each list was used lately, the lists one after another."""
        return torch.cat([stage.usage for stage in self.stages])  # type: ignore[misc]

    def forward(self, vectors: Float[Tensor, "*batch dimensions"]) -> Quantized:
        """Sums of codes; ``indices`` count through all lists, with those of each vector along a last axis."""
        made, indices, start = torch.zeros_like(vectors), [], 0
        commitment = vectors.new_zeros(())
        for stage in self.stages:
            part = stage((vectors - made).detach())
            made = made + part.values.detach()
            commitment = commitment + (vectors - made).square().mean()
            indices.append(part.indices + start)
            start += len(stage.usage)  # type: ignore[arg-type]
        return Quantized(vectors + (made - vectors).detach(), torch.stack(indices, dim=-1), commitment)


def make_quantizer(codes: int, dimensions: int, stages: int) -> VectorQuantizer | ResidualQuantizer:
    """One list of codes, or several."""
    return VectorQuantizer(codes, dimensions) if stages == 1 else ResidualQuantizer(codes, dimensions, stages)


def perplexity(indices: Int64[Tensor, "*batch"], codes: int) -> float:
    """The number of codes that would be as hard to guess if all were equally likely: exp of the entropy."""
    share = torch.bincount(indices.flatten(), minlength=codes).float() / max(indices.numel(), 1)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
