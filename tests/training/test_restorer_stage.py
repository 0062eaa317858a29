"""A restorer learns what photographs have that renders lack, from pairs on disk, in one step and in several."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, start_folder, write_encoding
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.files import DataFormatError
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.restorer import BESIDE, SCHEDULE, RawViews, Restorer, restore, split_noise
from nfldm3d.training import TrainingOptions, train
from nfldm3d.training.restorer_stage import (
    Pairs,
    PairSource,
    RestorerAndCritic,
    RestorerStage,
    RestorerWeights,
    make_restorer,
)
from nfldm3d.training.stage import SampleSource, Stage

HEIGHT, WIDTH = 16, 24


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedScenes:
    """Photographs are renders with their right half brighter by a fifth; mirroring is told by the opacity."""
    folder = tmp_path_factory.mktemp("pairs")
    start_folder(folder, {"keep": "pairs"})
    generator = torch.Generator().manual_seed(2)
    for number in range(5):
        render = torch.randint(40, 160, (4, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
        opacity = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.uint8)
        opacity[..., WIDTH // 2 :] = 255
        photograph = render + 51 * (opacity[:, None] > 0)
        tensors = {"render": render, "opacity": opacity, "nearness": opacity, "photograph": photograph}
        write_encoding(folder, EncodedScene(f"scene_{number}", 0, tensors))
    return EncodedScenes(folder)


def make_network(**options: object) -> ImageDenoiser:
    return ImageDenoiser(size=16, widths=(8, 16), blocks=1, beside=BESIDE, memory=16, deviation=0.4, **options)  # type: ignore[arg-type]


def test_pairs_are_drawn_and_mirrored_together(encoded: EncodedScenes) -> None:
    source = PairSource(encoded)
    assert isinstance(source, SampleSource) and len(source) == 5
    mirrored = set()
    for seed in range(12):
        pairs = source.sample(1, torch.Generator().manual_seed(seed))
        assert pairs.photograph.shape == (2, 3, HEIGHT, WIDTH)
        difference = pairs.photograph - pairs.raw.render
        assert torch.allclose(difference, 0.2 * pairs.raw.opacity[:, None].expand_as(difference), atol=1e-6)
        mirrored.add(float(pairs.raw.opacity[0, 0, 0]))
    assert mirrored == {0.0, 1.0}
    assert len(source.spread(3).photograph) == 6 and len(source.spread(9, 4).photograph) == 20


def test_parts_are_the_same_of_render_and_photograph(encoded: EncodedScenes, generator: torch.Generator) -> None:
    pairs = PairSource(encoded, crop=10).sample(0, generator)
    assert pairs.photograph.shape == (2, 3, 10, 10)
    difference = pairs.photograph - pairs.raw.render
    assert torch.allclose(difference, 0.2 * pairs.raw.opacity[:, None].expand_as(difference), atol=1e-6)


def test_what_is_no_pair_is_refused(encoded: EncodedScenes, tmp_path: Path) -> None:
    start_folder(tmp_path, {"keep": "pairs"})
    write_encoding(tmp_path, EncodedScene("a", 0, {"render": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}))
    with pytest.raises(DataFormatError, match="lacks opacity, nearness, photograph"):
        PairSource(EncodedScenes(tmp_path)).sample(0, torch.Generator())
    other = EncodedScenes(encoded.folder)
    other.header["keep"] = "fields"
    with pytest.raises(DataFormatError, match="holds no pairs"):
        PairSource(other)


def test_it_learns_to_restore(encoded: EncodedScenes, tmp_path: Path) -> None:
    source = PairSource(encoded)
    stage = RestorerStage(make_network(), source, source, judged=2)
    assert isinstance(stage, Stage)
    options = TrainingOptions(
        steps=60, batch_size=2, learning_rate=5e-3, warmup_steps=5, ema_decay=0.9, evaluate_every=0, precision="fp32"
    )
    result = train(stage, tmp_path / "run", options=options)
    assert result.evaluation is not None
    figures = result.evaluation.scalars
    assert figures["psnr_1"] > figures["psnr_raw"] + 4
    assert set(figures) == {"error"} | {
        f"{kind}_{part}" for kind in ("psnr", "sharpness") for part in ("raw", "1", "4", "12")
    }
    assert result.evaluation.images["restored"].shape == (3, 5 * HEIGHT, 4 * WIDTH)


def test_pure_noise_alone_is_judged_as_a_picture(encoded: EncodedScenes, generator: torch.Generator) -> None:
    batch = PairSource(encoded).spread(2)
    source = PairSource(encoded)
    parts = [set(RestorerStage(make_network(), source, source, single=s).loss(batch, generator)[1]) for s in (0.0, 1.0)]
    assert parts == [{"error"}, {"error", "absolute", "structure", "texture"}]


class Steps(torch.nn.Module):
    """As LPIPS is built: what it finds in pictures are they themselves, and their halves."""

    def __init__(self):
        super().__init__()
        self.scaling_layer = torch.nn.Identity()
        layer = torch.nn.Module()
        layer.model = torch.nn.Identity()
        self.lins = [layer, layer]

    def net(self, picture: torch.Tensor) -> list[torch.Tensor]:
        return [picture, torch.nn.functional.avg_pool2d(picture, 2)]


def test_a_critic_asks_for_photographs(encoded: EncodedScenes, generator: torch.Generator) -> None:
    """Each side of the game gets the gradient of its own part only, and the critic learns which are photographs."""
    source = PairSource(encoded)
    with pytest.raises(ValueError, match="looks at the features of LPIPS; give its weights"):
        RestorerStage(make_network(), source, source, critic=True)
    weights = RestorerWeights(critic=0.0)
    stage = RestorerStage(
        make_network(), source, source, single=1.0, lpips=Lpips(Steps()), critic=True, weights=weights
    )
    batch = source.spread(4)
    total, parts = stage.loss(batch, generator)
    assert {"perceptual", "coarse", "deceit", "critic"} < set(parts)
    total.backward()
    assert isinstance(stage.model, RestorerAndCritic)
    learned = [parameter.grad for parameter in stage.model.critic.parameters() if parameter.grad is not None]
    assert all(float(gradient.abs().max()) == 0 for gradient in learned)
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in stage.restorer.parameters())
    optimizer, wrong = torch.optim.Adam(stage.model.critic.parameters(), 1e-2), []
    stage.weights = RestorerWeights()
    for _ in range(60):
        optimizer.zero_grad()
        total, parts = stage.loss(batch, generator)
        total.backward()
        optimizer.step()
        wrong.append(float(parts["critic"]))
    assert wrong[-1] < 0.8 * wrong[0]


def test_restoring_is_exact_where_the_network_is(encoded: EncodedScenes, generator: torch.Generator) -> None:
    """A network that knows the photograph gives it in any number of steps."""
    batch: Pairs = PairSource(encoded).spread(1)
    clean = 2 * (batch.photograph - batch.raw.render) / 0.4

    class Knowing(ImageDenoiser):
        def forward(self, noisy, timestep, embedding=None, beside=None):
            signal = SCHEDULE.alphas_cumprod.to(noisy)[timestep][:, None, None, None]
            noise = (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()
            return signal.sqrt() * noise - (1 - signal).sqrt() * clean

    network = Knowing(size=16, widths=(8, 16), blocks=1, beside=BESIDE, deviation=0.4)
    for steps in (1, 2, 5):
        made = restore(network, batch.raw, steps=steps, generator=generator)
        assert torch.allclose(made, batch.photograph, atol=1e-3)
    with pytest.raises(ValueError, match="takes 1 to 1000 steps, got 0"):
        Restorer(network).restore(batch.raw, steps=0)


def test_v_splits_into_picture_and_noise(generator: torch.Generator) -> None:
    clean, noise = (torch.randn(2, 3, 4, 6, generator=generator) for _ in range(2))
    t = torch.tensor([50, 950])
    noisy, v = SCHEDULE.add_noise(clean, noise, t), SCHEDULE.get_velocity(clean, noise, t)  # type: ignore[arg-type]
    found = split_noise(v, noisy, t)
    assert torch.allclose(found[0], clean, atol=1e-5) and torch.allclose(found[1], noise, atol=1e-5)


def test_a_new_restorer_has_the_size_of_the_pairs(encoded: EncodedScenes) -> None:
    network = make_restorer(PairSource(encoded), widths=(8, 16))
    assert network.config["size"] == WIDTH and network.config["beside"] == BESIDE


def test_raw_views_are_scaled(generator: torch.Generator) -> None:
    raw = RawViews(*(torch.rand(shape, generator=generator) for shape in ((2, 3, 4, 4), (2, 4, 4), (2, 4, 4))))
    assert raw.channels().shape == (2, 5, 4, 4) and float(raw.channels().min()) < 0
    assert torch.equal(replace(raw, opacity=torch.ones(2, 4, 4)).channels()[:, 3], torch.ones(2, 4, 4))
