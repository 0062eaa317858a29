"""What a prior is told, an embedding or the tokens of a text, and from where, as numbers that its blocks can use."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

VIEWPOINT = 8
"""Numbers that tell from where a thing is seen; zeros where that is not known."""


def tell_viewpoint(
    azimuth: Float[Tensor, "*views"], elevation: Float[Tensor, "*views"]
) -> Float[Tensor, "*views viewpoint"]:
    """Angles in degrees, from the front to the left and above the horizon, as numbers without jumps."""
    around, up = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    waves = [wave for order in (1, 2) for wave in ((order * around).cos(), (order * around).sin())]
    return torch.stack((torch.ones_like(up), *waves, up.cos(), up.sin(), (2 * up).cos()), dim=-1)


class Whitening(nn.Module):
    """The directions in which embeddings differ, each with a deviation of 1.

    Embeddings of an encoder share most of what they hold: those of a red and of a green chair hardly differ. A network
    that is told them as they are learns for long before it heeds the difference.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, numbers: int, directions: int):
        """Keeps the first ``directions`` of ``numbers`` until it is fitted."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("directions", torch.eye(directions, numbers))

    @torch.no_grad()
    def fit(self, embeddings: Float[Tensor, "samples numbers"], least: float = 1e-3) -> None:
        """Takes the principal components of samples.

        Args:
            least: share of the largest deviation that counts as one, so that noise is not drawn out.
        """
        mean = embeddings.mean(0)
        _, lengths, axes = torch.linalg.svd(embeddings.double() - mean, full_matrices=False)
        deviations = (lengths / len(embeddings) ** 0.5)[: len(self.directions)]
        found = int((deviations > 0).sum())
        scale = deviations[:found].clamp(min=least * float(deviations[0]))
        self.mean.copy_(mean)
        self.directions.zero_()
        self.directions[:found] = axes[:found] / scale[:, None]

    def forward(self, embeddings: Float[Tensor, "*batch numbers"]) -> Float[Tensor, "*batch directions"]:
        return (embeddings - self.mean) @ self.directions.mT


class TokenReader(nn.Module):
    """Asks learned questions of tokens, by attention; tokens of zeros are none."""

    def __init__(self, numbers: int, questions: int, memory: int, directions: int):
        super().__init__()
        self.whitening = Whitening(numbers, directions)
        self.questions = nn.Parameter(torch.randn(questions, memory))
        self.key, self.value = nn.Linear(directions, memory), nn.Linear(directions, memory)
        self.answer = nn.Sequential(nn.Linear(questions * memory, memory), nn.LayerNorm(memory))

    def forward(self, tokens: Float[Tensor, "views tokens numbers"]) -> Float[Tensor, "views memory"]:
        known = (tokens != 0).any(-1)
        hidden = self.whitening(tokens)
        scores = self.questions @ self.key(hidden).mT / self.questions.shape[-1] ** 0.5  # views questions tokens
        shares = scores.masked_fill(~known[:, None], torch.finfo(scores.dtype).min).softmax(-1)
        return self.answer((shares @ self.value(hidden)).flatten(1))


class VectorReader(nn.Module):
    """Reads embeddings that are one vector."""

    def __init__(self, numbers: int, memory: int, directions: int):
        super().__init__()
        self.whitening = Whitening(numbers, directions)
        self.answer = nn.Sequential(
            nn.Linear(directions, memory), nn.SiLU(), nn.Linear(memory, memory), nn.LayerNorm(memory)
        )

    def forward(self, embedding: Float[Tensor, "views numbers"]) -> Float[Tensor, "views memory"]:
        return self.answer(self.whitening(embedding))


class ViewpointReader(nn.Module):
    """Joins what a text tells with the viewpoint: what a thing looks like from behind depends on both."""

    def __init__(self, memory: int):
        super().__init__()
        self.place = nn.Sequential(nn.Linear(VIEWPOINT, memory), nn.SiLU(), nn.Linear(memory, memory))
        self.join = nn.Sequential(nn.Linear(2 * memory, 2 * memory), nn.SiLU(), nn.Linear(2 * memory, memory))
        for parameter in self.join[-1].parameters():
            nn.init.zeros_(parameter)  # first the text alone

    def forward(
        self, told: Float[Tensor, "views memory"], viewpoint: Float[Tensor, "views viewpoint"]
    ) -> Float[Tensor, "views memory"]:
        known = (viewpoint != 0).any(-1, keepdim=True)
        return self.join(torch.cat((told, known * self.place(viewpoint)), dim=-1))
