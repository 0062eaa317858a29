"""How often the right text is found for a picture: R-Precision (Park et al. 2021)."""

from collections.abc import Sequence
from math import comb

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def precision(scores: Float[Tensor, "views texts"], own: Int64[Tensor, " views"]) -> float:
    """The share of pictures to which no text fits better than their own."""
    return float((scores.argmax(-1) == own).float().mean())


def precision_in_pools(scores: Float[Tensor, "pictures pictures"], texts: Sequence[str], pool: int) -> float:
    """The chance that a picture's own text fits best among ``pool`` different texts drawn from all of them.

    Args:
        scores: how well each picture's text fits each picture; equal texts count once.

    Raises:
        ValueError: there are fewer different texts than a pool holds.
    """
    distinct = sorted(set(texts))
    if not 2 <= pool <= len(distinct):
        raise ValueError(f"a pool holds 2 to {len(distinct)} of the different texts, got {pool}")
    columns = torch.tensor([texts.index(text) for text in distinct], device=scores.device)
    own = torch.tensor([distinct.index(text) for text in texts], device=scores.device)
    among = scores[:, columns]
    worse = (among < among.gather(1, own[:, None])).sum(-1).tolist()
    drawn, others = pool - 1, len(distinct) - 1
    return sum(comb(count, drawn) / comb(others, drawn) for count in worse) / len(worse)
