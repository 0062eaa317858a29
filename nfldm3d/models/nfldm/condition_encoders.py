"""Conditions of denoisers as tokens for cross-attention: bird's-eye maps, and embeddings of classes or texts."""

import itertools

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional


class MapEncoder(nn.Module):
    """A bird's-eye map as tokens for cross-attention, and as a picture beside the latents.

    Class ``classes`` means unknown: a map of nothing else is no condition, and parts of a map may be left open.
    """

    def __init__(self, classes: int, size: int, width: int, shrink: int = 4):
        super().__init__()
        if size % shrink:
            raise ValueError(f"a map of {size} cells cannot be shrunk {shrink} times; choose a multiple")
        self.classes, self.size, levels = classes, size, shrink.bit_length() - 1
        self.embedding = nn.Embedding(classes + 1, width // 2)
        widths = (width // 2,) + (width,) * levels
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))
        self.head = nn.Conv2d(width, width, 3, padding=1)
        self.place = nn.Parameter(0.02 * torch.randn((size // shrink) ** 2, width))

    def forward(
        self, bev: Int64[Tensor, "scenes x y"] | None, scenes: int
    ) -> tuple[Float[Tensor, "scenes tokens width"], Float[Tensor, "scenes width u v"]]:
        """Tokens and picture; without a map those of an unknown one."""
        if bev is None:
            bev = torch.full((1, self.size, self.size), self.classes, device=self.place.device).expand(scenes, -1, -1)
        if bev.shape[1:] != (self.size, self.size):
            raise ValueError(
                f"a BEV map must have {self.size} x {self.size} cells, got {' x '.join(map(str, bev.shape[1:]))}; "
                "resample it without mixing classes"
            )
        hidden = self.embedding(bev).movedim(-1, 1)
        for convolution in self.shrink:
            hidden = functional.silu(convolution(hidden))
        picture = self.head(hidden)
        return functional.silu(picture).flatten(2).movedim(1, 2) + self.place, picture


class EmbeddingEncoder(nn.Module):
    """An embedding by another network, of a class or a text, as tokens for cross-attention; zeros are no condition."""

    def __init__(self, dimensions: int, width: int):
        super().__init__()
        self.dimensions = dimensions
        self.norm, self.linear = nn.LayerNorm(dimensions), nn.Linear(dimensions, width)

    def forward(
        self, embedding: Float[Tensor, "scenes tokens dimensions"] | None, scenes: int
    ) -> Float[Tensor, "scenes tokens width"]:
        """Tokens; without an embedding that of no condition."""
        if embedding is None:
            embedding = self.linear.weight.new_zeros(scenes, 1, self.dimensions)
        if embedding.shape[-1] != self.dimensions:
            raise ValueError(
                f"an embedding must have {self.dimensions} numbers a token, got {embedding.shape[-1]}; take the "
                "encoder that the weights were trained with"
            )
        return self.linear(self.norm(embedding.to(self.linear.weight.dtype)))
