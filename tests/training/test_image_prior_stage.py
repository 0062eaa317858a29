"""Our own prior learns pictures by their embeddings; what it is told lowers its error, another picture's raises it."""

from pathlib import Path

import pytest
import torch

from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, start_folder, write_encoding
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.image_prior_stage import FEATURES, ImagePriorStage, PictureSource, make_image_prior
from nfldm3d.training.restorer_stage import PairSource
from nfldm3d.training.stage import SampleSource, Stage

SIZE = 8


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    """Photographs of one colour each; renders are black."""
    folder = tmp_path_factory.mktemp("pairs")
    start_folder(folder, {"keep": "pairs"})
    generator = torch.Generator().manual_seed(2)
    for number in range(6):
        photograph = torch.randint(1, 256, (3, 3, 1, 1), generator=generator).expand(-1, -1, SIZE, SIZE).byte()
        empty = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
        tensors = {"render": torch.zeros_like(photograph), "opacity": empty, "nearness": empty}
        write_encoding(folder, EncodedScene(f"scene_{number}", 0, tensors | {"photograph": photograph.contiguous()}))
    return PairSource(EncodedScenes(folder))


def test_photographs_and_renders_are_drawn(pairs: PairSource) -> None:
    for renders, expected in ((0.0, {True}), (1.0, {False}), (0.5, {True, False})):
        source = PictureSource(pairs, renders)
        assert isinstance(source, SampleSource) and len(source) == 6
        drawn = [source.sample(1, torch.Generator().manual_seed(seed)).images for seed in range(8)]
        assert {bool(image.any()) for images in drawn for image in images} == expected
    assert len(source.collate([source.sample(0, torch.Generator()) for _ in range(3)]).images) == 6


def test_every_picture_is_embedded_once(pairs: PairSource) -> None:
    asked: list[int] = []

    def embed(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return images.mean((-2, -1)) - 0.5

    model = ImageDenoiser(size=SIZE, widths=(8,), blocks=1, embedding=3, embedder="mean", memory=16)
    source = PictureSource(pairs, 0.5)
    stage = ImagePriorStage(model, source, source, embed=embed)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        batch = source.collate([source.sample(index, generator) for index in range(6)])
        with torch.autocast("cpu", torch.bfloat16):
            stage.loss(batch, generator)
        told = stage._tell(batch)
        torch.testing.assert_close(told, batch.images.mean((-2, -1)) - 0.5, atol=1e-3, rtol=0)
    assert sum(asked) == len(stage.known) == 6 * 3 * 2  # photographs and renders


def test_it_learns_what_embeddings_tell(pairs: PairSource, tmp_path: Path) -> None:
    model = ImageDenoiser(size=SIZE, widths=(8, 16), blocks=1, embedding=3, embedder="mean", memory=16)
    source = PictureSource(pairs, 0.2)
    stage = ImagePriorStage(model, source, source, embed=lambda images: images.mean((-2, -1)) - 0.5, judged=3)
    assert isinstance(stage, Stage)
    options = TrainingOptions(
        steps=80, batch_size=6, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, evaluate_every=0, precision="fp32"
    )
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None
    figures = result.evaluation.scalars
    assert figures["error"] < figures["error_untold"] and figures["error"] < figures["error_other"]
    assert result.evaluation.images["told_and_drawn"].shape == (3, 2 * SIZE, 3 * SIZE)


def test_a_new_prior_is_told_features_of_efficientnet(pairs: PairSource) -> None:
    model = make_image_prior(PictureSource(pairs), widths=(8, 16))
    assert model.config["embedding"] == FEATURES and model.config["size"] == SIZE
