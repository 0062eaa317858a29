"""Attention across views by a U-Net's own weights, told of poses and times by low-rank additions (Hu et al. 2022).

Queries, keys and values are those of each view; every view then asks the tokens of all views of its object, its own
included. Additions begin with zeros: a converted U-Net is at first the old one with more tokens to ask.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nfldm3d.models.views.multiview.batches import NUMBERS, ViewBatch

TIMES = 8
"""Numbers in which the embedding of a view's time step is told."""


class LowRank(nn.Module):
    """What is added to a linear layer: two thin layers, of which the second begins with zeros."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, hidden: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return self.up(self.down(hidden))


class ViewAttention(nn.Module):
    """The additions to one attention layer of a U-Net."""

    def __init__(self, inner: int, channels: int, context: int, memory: int, rank: int, *, across: bool):
        """``context`` is the width of what is asked, ``memory`` that of time embeddings; ``across`` asks all views
        instead of a text."""
        super().__init__()
        self.across = across
        told = NUMBERS + (TIMES if across else 0)
        self.times = None
        if across:
            self.times = nn.Sequential(
                nn.Linear(memory, memory // 2), nn.ELU(), nn.Linear(memory // 2, TIMES), nn.ELU()
            )
        self.query = LowRank(channels + told, inner, rank)
        self.key, self.value = (LowRank(context + told, inner, rank) for _ in range(2))
        self.out = LowRank(inner, channels, rank)

    def tell(self, batch: ViewBatch) -> Float[Tensor, "views 1 told"]:
        """What the additions see of each view, beside its tokens."""
        told = batch.vectors
        if self.times is not None:
            assert batch.times is not None
            told = torch.cat((told, self.times(batch.times.to(told))), dim=-1)
        return told.flatten(0, 1)[:, None]


class ViewProcessor:
    """Takes the place of diffusers' own processor in an ``Attention``; see ``ViewAttention``.

    It holds its weights without being a module, so that the U-Net's own stay those of the plain one.
    """

    def __init__(self, layer: ViewAttention, *, shared: bool = True):
        """Without ``shared`` views ask themselves alone, an ablation."""
        self.layer, self.shared = layer, shared

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "views tokens channels"],
        encoder_hidden_states: Float[Tensor, "views words context"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *,
        views: ViewBatch | None = None,
    ) -> Float[Tensor, "views tokens channels"]:
        """What attention gives, to the numbers that ``views`` tells of each view; without them plain attention."""
        asked = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(asked), attn.to_v(asked)
        layer = self.layer
        if views is not None:
            told = layer.tell(views).to(hidden_states)
            beside = torch.cat((hidden_states, told.expand(-1, hidden_states.shape[1], -1)), dim=-1)
            query = query + layer.query(beside)
            beside = torch.cat((asked, told.expand(-1, asked.shape[1], -1)), dim=-1)
            key, value = key + layer.key(beside), value + layer.value(beside)
        together = views.views if views is not None and layer.across and self.shared else 1
        query, key, value = (_join(tokens, together) for tokens in (query, key, value))
        query, key, value = (tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for tokens in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=attn.scale).transpose(1, 2).flatten(2)
        mixed = mixed.to(query.dtype).reshape(len(hidden_states), -1, mixed.shape[-1])
        result = attn.to_out[0](mixed)
        if views is not None:
            result = result + layer.out(mixed)
        return attn.to_out[1](result) / attn.rescale_output_factor


def _join(tokens: Float[Tensor, "all tokens inner"], views: int) -> Float[Tensor, "objects _ inner"]:
    """The tokens of all views of an object in one row, so that each of them asks all."""
    return tokens.unflatten(0, (-1, views)).flatten(1, 2)
