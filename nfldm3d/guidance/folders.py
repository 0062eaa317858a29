"""Priors from folders of weights, or from a hub where that is asked for; safetensors alone are read."""

from pathlib import Path
from typing import Any

import torch

from nfldm3d._types import PathName
from nfldm3d.data.json_record import Record
from nfldm3d.evaluation.features import EfficientNetFeatures
from nfldm3d.files import DataFormatError, read_json
from nfldm3d.guidance.embedders import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    ClipPictureEmbedder,
    Embedder,
    FeatureEmbedder,
    TextEmbedder,
)
from nfldm3d.guidance.latent_prior import LatentPrior
from nfldm3d.guidance.noise_schedule import NoiseSchedule
from nfldm3d.guidance.pixel_prior import PixelPrior, PlacedPixelPrior
from nfldm3d.guidance.pretrained import freeze, import_transformers, load_pretrained, load_tokenizer, read_config
from nfldm3d.guidance.prior import Prior
from nfldm3d.guidance.sentences import MINILM, SentenceEmbedder
from nfldm3d.models.nfldm.readers import FrameClassifier
from nfldm3d.models.priors.image_denoiser import ImageDenoiser, make_image_schedule
from nfldm3d.models.weight_folders import INDEX, device_of, find_weights, require_options
from nfldm3d.models.weights import CONFIG, load_network

OWN, CLASSIFIER = "image_prior", "frame_classifier"
"""Folders of our own weights."""
EMBEDDERS = ("efficientnet-lite0", "frame-classifier", MINILM)
"""Networks that give our own priors their conditions; the second lies in a folder beside it, the third may."""
KINDS = {
    "StableDiffusionPipeline": ("text_encoder", "vae"),
    "StableDiffusionImageVariationPipeline": ("image_encoder", "vae"),
    "IFPipeline": ("text_encoder",),
}
"""Pipelines of diffusers that generate pictures from noise, and their parts beside ``unet`` and ``scheduler``."""


def load_prior(weights: PathName, device: torch.device | str | None = None, **options: Any) -> Prior:
    """A diffusion model of pictures, of our own training or in diffusers' layout.

    Args:
        weights: a folder or run folder, or with ``hub=True`` a name on the Hugging Face Hub.
        options: diffusers' own, those of ``LoadOptions``.

    Raises:
        DataFormatError: the folder is incomplete, damaged, or of a kind that is not known here.
        ImportError: transformers is missing, or a package of our own prior's embedder.
    """
    require_options(options, "load_prior")
    folder, place = find_weights(weights, **options), device_of(device, options)
    if (folder / OWN).is_dir():
        return _load_own(folder, place)
    if not (folder / INDEX).is_file():
        raise DataFormatError(folder, f"holds neither {OWN} nor {INDEX}; give weights of image-prior or a pipeline")
    index = read_json(folder / INDEX)
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataFormatError(folder / INDEX, f"is of a {kind}; known are {', '.join(KINDS)}")
    try:
        return _load_pipeline(folder, KINDS[kind], place, options)
    except DataFormatError:
        raise
    except ValueError as error:
        raise DataFormatError(folder, str(error)) from error


def _load_own(folder: Path, device: torch.device) -> PixelPrior:
    network = load_network(ImageDenoiser, folder / OWN)
    embedder = _load_embedder(str(network.config["embedder"]), folder, device)
    schedule = NoiseSchedule.from_scheduler(make_image_schedule()).to(device)
    try:
        kind = PlacedPixelPrior if network.config["viewpoint"] else PixelPrior
        return kind(freeze(network, device), schedule, embedder)
    except ValueError as error:
        raise DataFormatError(folder / OWN, str(error)) from error


def _load_embedder(name: str, folder: Path, device: torch.device) -> Embedder:
    if name == EMBEDDERS[0]:
        return FeatureEmbedder(freeze(EfficientNetFeatures.load(), device), 1280, device)
    if name == EMBEDDERS[1]:
        classifier = load_network(FrameClassifier, folder / CLASSIFIER)
        return FeatureEmbedder(freeze(classifier, device).embed, int(classifier.config["features"]), device)
    if name == MINILM:
        return SentenceEmbedder.beside(folder, device)
    raise DataFormatError(folder / OWN / CONFIG, f"names the embedder {name!r}; known are {', '.join(EMBEDDERS)}")


def _load_pipeline(folder: Path, parts: tuple[str, ...], device: torch.device, options: dict[str, Any]) -> Prior:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = load_pretrained(UNet2DConditionModel, folder / "unet", device, options)
    schedule = NoiseSchedule.read(folder / "scheduler").to(device)
    text = "text_encoder" in parts
    embedder = _load_texts(folder, device, options) if text else _load_pictures(folder, device, options)
    if "vae" not in parts:
        return PixelPrior(unet, schedule, embedder)
    return LatentPrior(unet, load_pretrained(AutoencoderKL, folder / "vae", device, options), schedule, embedder)


def _load_texts(folder: Path, device: torch.device, options: dict[str, Any]) -> TextEmbedder:
    transformers = import_transformers()
    encoder_folder, tokenizer_folder = folder / "text_encoder", folder / "tokenizer"
    config = read_config(encoder_folder)
    kinds = {"clip_text_model": transformers.CLIPTextModel, "t5": transformers.T5EncoderModel}
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in kinds:
        raise DataFormatError(encoder_folder / CONFIG, f"is of a {kind}; known are {', '.join(kinds)}")
    encoder = load_pretrained(kinds[kind], encoder_folder, device, options, "dtype")
    return TextEmbedder(encoder, load_tokenizer(tokenizer_folder))


def _load_pictures(folder: Path, device: torch.device, options: dict[str, Any]) -> ClipPictureEmbedder:
    transformers = import_transformers()
    network = transformers.CLIPVisionModelWithProjection
    encoder = load_pretrained(network, folder / "image_encoder", device, options, "dtype")
    path = folder / "feature_extractor" / "preprocessor_config.json"
    record = Record.of(path, read_json(path) if path.is_file() else {})
    mean = record.numbers("image_mean") if "image_mean" in record else CLIP_MEAN
    deviation = record.numbers("image_std") if "image_std" in record else CLIP_DEVIATION
    if len(mean) != 3 or len(deviation) != 3 or not min(deviation) > 1e-3:
        raise DataFormatError(path, "has no three numbers in image_mean and image_std; copy the file again")
    return ClipPictureEmbedder(encoder, mean, deviation)
