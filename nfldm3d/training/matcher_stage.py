"""Trains the judge of dreams: pictures of objects, in colour or as bare shapes, beside their captions (Radford et al.
2021)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nfldm3d.data.captioned_pictures import Subject
from nfldm3d.evaluation.retrieval import precision_in_pools
from nfldm3d.guidance.sentences import MINILM, NUMBERS, RememberedTexts, average_tokens
from nfldm3d.models.priors.matcher import PictureTextMatcher
from nfldm3d.training.stage import Evaluation
from nfldm3d.training.text_prior_stage import CaptionDrawing, Captioned, CaptionSource

POOL = 20
"""Captions among which the right one is looked for."""
JUDGED_VIEWS = 4
ZOOM, SHIFT = (0.75, 1.2), 0.06
"""What is judged is seen from anywhere."""


class MatcherStage:
    """See ``Stage``."""

    name = "retriever"
    optional_parameters = False

    def __init__(
        self,
        model: PictureTextMatcher,
        source: CaptionSource,
        held_out: dict[str, CaptionSource],
        *,
        embed: Callable[[Sequence[str]], Float[Tensor, "texts tokens numbers"]],
    ):
        """Judges by held-out objects, by name of how they are drawn: in colour, as bare shapes.

        Args:
            embed: from texts to tokens, such as ``SentenceEmbedder.embed``.
        """
        self.model, self.source, self.held_out = model, source, held_out
        self.tell = RememberedTexts(lambda texts: average_tokens(embed(texts)).cpu())

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the network; texts are embedded where the encoder is."""
        torch.nn.Module.to(self.model, device)

    def loss(self, batch: Captioned, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropies of texts for each picture and of pictures for each text; equal captions are all right."""
        logits = self.model(batch.images, self.tell(batch.texts).to(self.model.device))
        same = torch.tensor([[a == b for b in batch.texts] for a in batch.texts], device=logits.device)
        loss = (_cross_entropy(logits, same) + _cross_entropy(logits.T, same)) / 2
        right = same[torch.arange(len(same)), logits.argmax(-1)].float().mean()
        return loss, {"right": right}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """How often a held-out object's caption is found among ``POOL``, from one view and from several at once."""
        scalars: dict[str, float] = {}
        for name, source in self.held_out.items():
            samples = [source.sample(number, generator) for number in range(len(source))]
            samples = [sample for sample in samples if len(sample.texts) == source.drawing.views]
            seen = torch.cat([self.model.look(sample.images.to(self.model.device)) for sample in samples])
            texts = [sample.texts[0] for sample in samples]
            read = self.model.read(self.tell(texts).to(self.model.device))
            scores = (seen @ read.T).unflatten(0, (len(samples), -1)).mean(1)
            scalars[f"precision_{name}"] = precision_in_pools(scores, texts, min(POOL, len(set(texts))))
        return Evaluation(sum(scalars.values()), scalars)


def make_source(subjects: Sequence[Subject]) -> CaptionSource:
    """Single pictures, some of bare shapes; no caption says the side."""
    return CaptionSource(subjects, CaptionDrawing(views=1, bare=0.4, zoom=ZOOM, shift=SHIFT))


def make_held_out(subjects: Sequence[Subject]) -> dict[str, CaptionSource]:
    """The same, several of each object, in colour and as bare shapes, of which no caption says a colour.

    Raises:
        ValueError: too few objects to tell apart.
    """
    captions = {subject.caption for subject in subjects if len(subject.pixels) >= JUDGED_VIEWS}
    if len(captions) < 2:
        raise ValueError(
            f"a judge of dreams is judged by held-out objects of two captions at least, with {JUDGED_VIEWS} views, but "
            f"there are {len(captions)}; record more, or leave less out"
        )
    drawing = CaptionDrawing(views=JUDGED_VIEWS, zoom=ZOOM, shift=SHIFT)
    drawings = {"color": drawing, "shape": replace(drawing, recolored=0.0, bare=1.0)}
    return {name: CaptionSource(subjects, each) for name, each in drawings.items()}


def make_matcher(size: int, numbers: int = NUMBERS) -> PictureTextMatcher:
    """A new judge on all-MiniLM-L6-v2's embeddings."""
    return PictureTextMatcher(size=size, sentence=numbers, embedder=MINILM)


def _cross_entropy(logits: Float[Tensor, "rows columns"], same: Bool[Tensor, "rows columns"]) -> Float[Tensor, ""]:
    """Of all right answers together."""
    right = logits.masked_fill(~same, -torch.inf).logsumexp(-1)
    return (logits.logsumexp(-1) - right).mean()
