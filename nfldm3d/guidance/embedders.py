"""From texts and pictures to the conditions of diffusion models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.guidance.prior import Described

CLIP_MEAN, CLIP_DEVIATION = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


@runtime_checkable
class Embedder(Protocol):
    """What the priors of this folder ask for conditions."""

    @property
    def numbers(self) -> int:
        """Of each token."""
        ...

    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        ...

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        ...


@dataclass(frozen=True)
class TextEmbedder:
    """The tokens of CLIP's or T5's text encoder."""

    encoder: Any
    """transformers' CLIPTextModel or T5EncoderModel."""
    tokenizer: Any
    length: int = 77
    """Tokens of each text; shorter ones are padded, longer ones cut."""

    @property
    def numbers(self) -> int:
        """Of each token."""
        config = self.encoder.config
        return int(config.d_model if config.model_type == "t5" else config.hidden_size)

    @torch.no_grad()
    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """The last hidden states; a ValueError if pictures are given."""
        texts = require_texts(described)
        found = self.tokenizer(
            texts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        seen = found.attention_mask if self.encoder.config.model_type == "t5" else None  # CLIP looks at its padding
        device = self.encoder.device
        seen = None if seen is None else seen.to(device)
        return self.encoder(found.input_ids.to(device), attention_mask=seen)[0].float()

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """Of the empty text."""
        return self.embed([""]).expand(views, -1, -1)


@dataclass(frozen=True)
class ClipPictureEmbedder:
    """CLIP's projected embedding of pictures, one token each; of nothing, zeros."""

    encoder: Any
    """transformers' CLIPVisionModelWithProjection."""
    mean: Sequence[float] = CLIP_MEAN
    deviation: Sequence[float] = CLIP_DEVIATION

    @property
    def numbers(self) -> int:
        """Of each token."""
        return int(self.encoder.config.projection_dim)

    @torch.no_grad()
    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``; a ValueError if texts are given."""
        images = require_pictures(described).to(self.encoder.device)
        size = int(self.encoder.config.image_size)
        seen = functional.interpolate(images.clamp(0, 1), (size, size), mode="bicubic", antialias=True)
        mean, deviation = (seen.new_tensor(each)[:, None, None] for each in (self.mean, self.deviation))
        seen = ((seen - mean) / deviation).to(self.encoder.dtype)
        return self.encoder(seen).image_embeds[:, None].float()

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return torch.zeros(views, 1, self.numbers, device=self.encoder.device)


@dataclass(frozen=True)
class FeatureEmbedder:
    """Features of a network that looks at pictures, as one token; of nothing, zeros."""

    features: Callable[[Tensor], Tensor]
    """From (views 3 height width) in [0, 1] to (views numbers)."""
    numbers: int
    """Of each token."""
    device: torch.device
    """Of the network."""

    @torch.no_grad()
    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``; a ValueError if texts are given."""
        return self.features(require_pictures(described).to(self.device).float())[:, None]

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return torch.zeros(views, 1, self.numbers, device=self.device)


def require_texts(described: Described) -> list[str]:
    """The texts; a ValueError if it is something else."""
    if isinstance(described, Tensor | str) or not all(isinstance(text, str) for text in described):
        raise ValueError("this prior is conditioned on texts; give a list of strings (--prompt TEXT)")
    return list(described)


def require_pictures(described: Described) -> Float[Tensor, "views 3 height width"]:
    """The pictures; a ValueError if it is something else."""
    if not isinstance(described, Tensor):
        raise ValueError("this prior is conditioned on pictures, not on texts; give pictures (--like PICTURES)")
    if described.dim() != 4 or described.shape[1] != 3 or not len(described):
        raise ValueError(f"pictures must be (views, 3, height, width), got {tuple(described.shape)}")
    return described
