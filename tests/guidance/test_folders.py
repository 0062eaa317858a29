"""Priors read from folders: all kinds answer the same contract, and what is wrong with a folder is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_priors import (
    WIDTH,
    write_latent_pictures,
    write_latent_texts,
    write_own,
    write_own_texts,
    write_pixel_texts,
)
from torch import Tensor

from nfldm3d.files import DataFormatError
from nfldm3d.guidance import CameraPrior, Prior, add_noise, load_prior, remove_noise

WRITERS = {
    "texts": write_latent_texts,
    "pictures": write_latent_pictures,
    "pixels": write_pixel_texts,
    "own": write_own,
    "own texts": write_own_texts,
}
TEXTS = ("texts", "pixels", "own texts")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {name: writer(tmp_path_factory.mktemp(name)) for name, writer in WRITERS.items()}


@pytest.fixture(scope="module")
def priors(folders: dict[str, Path]) -> dict[str, Prior]:
    return {name: load_prior(folder) for name, folder in folders.items()}


def describe(kind: str, generator: torch.Generator) -> Tensor | list[str]:
    return ["a red car", "a"] if kind in TEXTS else torch.rand(2, 3, 20, 28, generator=generator)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_answers_the_contract(kind: str, priors: dict[str, Prior], generator: torch.Generator) -> None:
    prior = priors[kind]
    assert isinstance(prior, Prior)
    assert prior.image_size == (8 if kind == "pixels" else 16)
    share = prior.alphas_cumprod
    assert len(share) == 1000 and bool((share.diff() < 0).all()) and share[0] > 0.99 and share[-1] < 0.01
    images = torch.rand(2, 3, 24, 32, generator=generator)
    latents = prior.to_latents(images)
    condition, nothing = prior.embed(describe(kind, generator)), prior.embed_nothing(2)
    assert condition.shape == nothing.shape and condition.shape[-1] == (8 if kind == "own" else WIDTH)
    assert not torch.equal(condition[0], condition[1]) and torch.equal(nothing[0], nothing[1])
    t = torch.tensor([10, 900])
    noise = prior.predict_noise(latents, t, condition)
    assert noise.shape == latents.shape and bool(torch.isfinite(noise).all())
    alone = prior.predict_noise(latents[1:], t[1:], condition[1:])
    assert torch.allclose(alone, noise[1:], atol=1e-5)
    assert not torch.allclose(prior.predict_noise(latents, t, nothing), noise, atol=1e-7)
    assert prior.to_images(latents).shape == (2, 3, prior.image_size, prior.image_size)


def test_our_text_prior_is_told_viewpoints(priors: dict[str, Prior], generator: torch.Generator) -> None:
    prior, noisy = priors["own texts"], torch.randn(4, 3, 16, 16, generator=generator)
    assert isinstance(prior, CameraPrior) and not isinstance(priors["pixels"], CameraPrior)
    plain = prior.embed(["a red car"] * 4)
    around, up = torch.tensor((0.0, 90.0, 360.0, 0.0)), torch.tensor((10.0, 10.0, 10.0, 60.0))
    placed = prior.place(plain, around, up)
    assert torch.equal(placed[:, :-1], plain[:, :-1]) and not plain[:, -1].any()
    t, noisy = torch.full((4,), 500), noisy[:1].expand(4, -1, -1, -1)
    noise, without = (prior.predict_noise(noisy, t, condition) for condition in (placed, plain))
    assert torch.allclose(noise[2], noise[0], atol=1e-5)
    for other in (noise[1], noise[3], without[0]):
        assert not torch.allclose(other, noise[0], atol=1e-5)
    assert torch.allclose(prior.place(placed, around, up), placed)


@pytest.mark.parametrize("kind", WRITERS)
def test_gradients_reach_the_pictures(kind: str, priors: dict[str, Prior], generator: torch.Generator) -> None:
    prior = priors[kind]
    images = torch.rand(1, 3, 24, 20, generator=generator, requires_grad=True)
    weight = torch.randn(prior.to_latents(images).shape, generator=generator)

    def value(pictures: Tensor) -> Tensor:
        latents = prior.to_latents(pictures)
        return (weight * (latents + prior.predict_noise(latents, torch.tensor([300]), prior.embed_nothing(1)))).sum()

    (gradient,) = torch.autograd.grad(value(images), images)
    direction = torch.randn(images.shape, generator=generator)
    step = 2e-3
    with torch.no_grad():
        numeric = (value(images + step * direction) - value(images - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=0.02, abs=0.02)


@pytest.mark.parametrize("kind", ["pixels", "own", "own texts"])
def test_pixels_come_back(kind: str, priors: dict[str, Prior], generator: torch.Generator) -> None:
    prior = priors[kind]
    images = torch.rand(2, 3, prior.image_size, prior.image_size, generator=generator)
    assert torch.allclose(prior.to_images(prior.to_latents(images)), images, atol=1e-6)


def test_noise_is_added_and_removed(priors: dict[str, Prior], generator: torch.Generator) -> None:
    prior = priors["pictures"]
    latents, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.tensor([0, 400, 900])
    noisy = add_noise(prior, latents, noise, t)
    signal = prior.alphas_cumprod[400]
    assert torch.allclose(noisy[1], signal.sqrt() * latents[1] + (1 - signal).sqrt() * noise[1])
    assert torch.allclose(remove_noise(prior, noisy, noise, t), latents, atol=1e-3)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_condition_of_the_other_kind_is_refused(kind: str, priors: dict[str, Prior]) -> None:
    other = torch.rand(1, 3, 8, 8) if kind in TEXTS else ["a car"]
    with pytest.raises(ValueError, match="conditioned on"):
        priors[kind].embed(other)
    if kind not in TEXTS:
        with pytest.raises(ValueError, match="must be \\(views, 3, height, width\\)"):
            priors[kind].embed(torch.rand(3, 8, 8))


def spoil(part: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / part)


def rename(kind: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))


def set_option(file: str, name: str, value: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | {name: value}))

    return change


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("pixels", spoil("unet"), "unet: holds no config.json; copy the whole folder"),
        ("pixels", spoil("scheduler"), "scheduler: holds no scheduler_config.json"),
        ("pixels", spoil("tokenizer"), "tokenizer: holds no tokenizer_config.json"),
        ("texts", spoil("vae"), "vae: holds no config.json"),
        ("pixels", rename("StableDiffusionXLPipeline"), "is of a StableDiffusionXLPipeline; known are"),
        ("texts", rename("IFPipeline"), "takes 4 channels where pictures have 3"),
        (
            "pixels",
            set_option("text_encoder/config.json", "model_type", "bert"),
            "is of a bert; known are clip_text",
        ),
        ("pixels", set_option("scheduler/scheduler_config.json", "prediction_type", "flow"), "not 'flow'"),
        ("pixels", lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "no weights"),
        ("pixels", set_option("text_encoder/config.json", "d_ff", "nan"), "holds no T5EncoderModel in safetensors"),
        ("pixels", set_option("text_encoder/config.json", "d_ff", 10**9), "but the file holds"),
        ("pixels", set_option("unet/config.json", "layers_per_block", 10**9), "asks for more than"),
        ("pixels", set_option("scheduler/scheduler_config.json", "num_train_timesteps", 10**12), "up to 100000"),
        ("pixels", set_option("scheduler/scheduler_config.json", "trained_betas", [0.1, 3.0]), "between 0 and 1"),
        ("pixels", set_option("scheduler/scheduler_config.json", "trained_betas", 0.1), "describes no schedule"),
        ("pixels", set_option("model_index.json", "_class_name", ["IFPipeline"]), "known are"),
        ("pixels", set_option("tokenizer/tokenizer.json", "model", []), "holds no readable tokenizer"),
        ("pictures", set_option("feature_extractor/preprocessor_config.json", "image_std", [0, 1, 1]), "three numbers"),
        ("own", spoil("frame_classifier"), "frame_classifier: holds no config.json"),
        ("own", set_option("image_prior/config.json", "embedder", "clip"), "names the embedder 'clip'; known are"),
        ("own", set_option("frame_classifier/config.json", "features", 9), "is not of this FrameClassifier"),
        ("own", set_option("image_prior/config.json", "size", 0), "0 pixels cannot be cut into patches"),
        ("own texts", set_option("image_prior/config.json", "embedding", 9), "is not of this ImageDenoiser"),
        ("own texts", lambda folder: (folder / "text_encoder/tokenizer.json").unlink(), "lacks tokenizer.json: pip"),
        ("own", spoil("image_prior"), "holds neither image_prior nor model_index.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    kind: str, change: Callable[[Path], object], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / "copy")
    change(folder)
    with pytest.raises(DataFormatError, match=message):
        load_prior(folder)
