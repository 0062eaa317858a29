"""Priors for tests: one in closed form, and tiny random ones in folders as diffusers writes them."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from small_sentences import WIDTH as SENTENCE, write_sentence_encoder
from torch import Tensor

from nfldm3d.guidance.prior import Described, share_at
from nfldm3d.guidance.sentences import MINILM
from nfldm3d.models.priors.image_denoiser import ImageDenoiser, make_image_schedule
from nfldm3d.models.priors.matcher import PictureTextMatcher

SHARES = make_image_schedule().alphas_cumprod

WIDTH = 12
"""Numbers of a condition's token."""


@dataclass(frozen=True)
class GaussianPrior:
    """Pixels normal, of deviation ``spread``, about what the condition says; pictures are embedded as their mean."""

    spread: float = 0.3
    image_size: int = 4

    @property
    def alphas_cumprod(self) -> Tensor:
        return SHARES

    def to_latents(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def to_images(self, latents: Tensor) -> Tensor:
        return latents / 2 + 0.5

    def predict_noise(self, latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        signal = share_at(self.alphas_cumprod, t, latents)
        mean = condition[:, 0, 0, None, None, None]
        return (1 - signal).sqrt() * (latents - signal.sqrt() * mean) / (signal * self.spread**2 + 1 - signal)

    def embed(self, described: Described) -> Tensor:
        assert isinstance(described, Tensor)
        return 2 * described.mean((1, 2, 3))[:, None, None] - 1

    def embed_nothing(self, views: int) -> Tensor:
        return torch.zeros(views, 1, 1)


def small_unet(size: int = 8, channels: int = 4, outputs: int = 4) -> UNet2DConditionModel:
    """Two levels, attention at the coarse one."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=channels,
        out_channels=outputs,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def write_latent_texts(folder: Path) -> Path:
    """A pipeline as Stable Diffusion's: 16 pixels, latents of 4 channels and 8 pixels, CLIP's text encoder."""
    _write_latent_parts(folder, "StableDiffusionPipeline")
    _write_clip_texts(folder)
    return folder


def write_latent_pictures(folder: Path) -> Path:
    """The same on CLIP's embeddings of pictures, as Stable Diffusion image variations; predicts v."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    _write_latent_parts(folder, "StableDiffusionImageVariationPipeline", "v_prediction")
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    (folder / "feature_extractor").mkdir()
    known = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(known))
    return folder


def write_pixel_texts(folder: Path) -> Path:
    """A pipeline as DeepFloyd's first stage: 8 pixels, 6 outputs, T5's encoder."""
    from transformers import T5Config, T5EncoderModel

    small_unet(channels=3, outputs=6).save_pretrained(folder / "unet")
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    schedule.save_pretrained(folder / "scheduler")
    config = T5Config(vocab_size=32, d_model=WIDTH, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    write_words(folder / "tokenizer")
    return _write_index(folder, "IFPipeline")


def write_words(folder: Path) -> None:
    """A tokenizer that knows a red car."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "red": 3, "car": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder)


def write_clip(folder: Path) -> Path:
    """CLIP, of 16 pixels, for the words of ``write_words``."""
    from transformers import CLIPConfig, CLIPModel

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**size, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**size, "image_size": 16, "patch_size": 8},
        projection_dim=6,
    )
    CLIPModel(config).save_pretrained(folder)
    write_words(folder)
    return folder


def write_own(folder: Path) -> Path:
    """Our own prior, of 16 pixels, on a tiny classifier's features."""
    from nfldm3d.models.nfldm.readers import FrameClassifier

    own = ImageDenoiser(size=16, widths=(8, 16), blocks=1, embedding=8, embedder="frame-classifier", memory=16)
    with torch.no_grad():
        for parameter in own.parameters():  # many begin at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    own.save_pretrained(folder / "image_prior")
    FrameClassifier(maps=2, classes=3, size=16, features=8, width=8).save_pretrained(folder / "frame_classifier")
    return folder


def write_own_texts(folder: Path) -> Path:
    """Our own text prior and judge, of 16 pixels, with a tiny sentence encoder beside them."""
    told = {"embedding": SENTENCE, "embedder": MINILM, "memory": 16, "questions": 2, "viewpoint": True}
    own = ImageDenoiser(size=16, widths=(8, 16), blocks=1, **told)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    own.save_pretrained(folder / "image_prior")
    PictureTextMatcher(16, widths=(8, 8), sentence=SENTENCE, embedder=MINILM).save_pretrained(folder / "retriever")
    write_sentence_encoder(folder / "text_encoder")
    return folder


def _write_latent_parts(folder: Path, kind: str, prediction: str = "epsilon") -> None:
    small_unet().save_pretrained(folder / "unet")
    coder = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.3,
    )
    coder.save_pretrained(folder / "vae")
    DDIMScheduler(prediction_type=prediction, beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    _write_index(folder, kind)


def _write_clip_texts(folder: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=len(words) - 1,
        bos_token_id=len(words) - 2,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    place = folder / "tokenizer"
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers' own imports
        CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt")).save_pretrained(place)


def _write_index(folder: Path, kind: str) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder
