"""Embeddings of a class or a text that users give: for scenes to generate, and for data sets to encode."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def read_embedding(
    embedding: Float[Tensor, "..."], dimensions: int, scenes: int
) -> Float[Tensor, "scenes tokens dimensions"]:
    """The tokens of each scene, from one vector, tokens for all scenes, or tokens with a scene axis first.

    Args:
        dimensions: of the embeddings that the weights were trained with; 0 for none.

    Raises:
        ValueError: the weights take no embeddings, or others.
    """
    if not dimensions:
        raise ValueError("these weights were trained without embeddings; leave it out, or take other weights")
    tokens = embedding.float()[(None,) * (3 - embedding.dim())] if 1 <= embedding.dim() <= 3 else embedding
    if tokens.dim() != 3 or tokens.shape[-1] != dimensions or len(tokens) not in (1, scenes):
        raise ValueError(
            f"an embedding of shape {tuple(embedding.shape)} does not fit {scenes} scenes; give ({dimensions},), "
            f"(tokens, {dimensions}) or ({scenes}, tokens, {dimensions})"
        )
    return tokens.expand(scenes, -1, -1)


def embedding_size(embeddings: Mapping[str, Tensor]) -> int:
    """How many numbers a token has, which must be the same for all scenes; a ValueError says that it is not."""
    sizes = {tuple(value.shape) if value.dim() != 1 else (1, len(value)) for value in embeddings.values()}
    if len(sizes) != 1 or len(shape := sizes.pop()) != 2:
        raise ValueError("embeddings must all be of one shape, (numbers,) or (tokens, numbers); pad the tokens")
    return int(shape[1])


def embedding_of(embeddings: Mapping[str, Tensor], key: str) -> Float[Tensor, "tokens numbers"]:
    """The tokens of a scene; a ValueError names a scene that has none."""
    if key not in embeddings:
        raise ValueError(f"there is no embedding of scene {key}; give one for every scene")
    return torch.atleast_2d(embeddings[key])
