"""The denoisers: what reaches their answer, the statistics they keep, and that they learn from encoded scenes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rooms import disturb
from torch import nn

from nfldm3d import DataFormatError
from nfldm3d.data.encoded_scenes import EncodedScene, EncodedScenes, start_folder, write_encoding
from nfldm3d.models.nfldm.condition_encoders import MapEncoder
from nfldm3d.models.nfldm.denoisers import GlobalDenoiser, GridDenoiser
from nfldm3d.models.nfldm.latent_statistics import Scaling, Whitening, find_importance
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.training.denoiser_stage import DenoiserStage, LatentSetSource, Level, make_denoiser, make_schedule
from nfldm3d.training.stage import SampleSource, Stage

HEADER = {"keep": "latents", "weights": [], "box_size": [4.0, 4.0, 2.0], "map_classes": list("abc"), "map_size": 8}
DIMENSIONS = 6 + 5 * POSES


def write_latents(folder: Path, scenes: int = 4, header: dict | None = None) -> LatentSetSource:
    """Scenes of two kinds: what the map shows, g, c and f all say the same."""
    start_folder(folder, HEADER if header is None else header)
    draws = torch.Generator().manual_seed(1)
    for number in range(scenes):
        sign = 1.0 if number % 2 else -1.0
        tensors = {
            "g": sign + 0.1 * torch.randn(6, generator=draws),
            "c": 3 * sign + 0.1 * torch.randn(4, 2, 4, 4, generator=draws),
            "f": sign + 0.1 * torch.randn(4, 8, 8, generator=draws),
            "path": sign + 0.1 * torch.randn(5 * POSES, generator=draws),
            "bev": torch.full((8, 8), number % 2, dtype=torch.uint8),
        }
        write_encoding(folder, EncodedScene(f"scene_{number:04d}", 0, tensors))
    return LatentSetSource(EncodedScenes(folder))


def small(level: Level, **options: object) -> GlobalDenoiser | GridDenoiser:
    condition: dict = {"dimensions": DIMENSIONS, "map_classes": 3, "map_size": 8, "map_width": 32}
    grid: dict = {"widths": (32,), "attention": (True,), "layers": 1} | condition
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        if level == "g":
            return GlobalDenoiser(widths=(32, 16), **(condition | options))  # type: ignore[arg-type]
        if level == "c":
            return GridDenoiser(channels=8, size=4, **(grid | options))  # type: ignore[arg-type]
        return GridDenoiser(channels=4, size=8, parent_channels=8, patch=2, **(grid | options))  # type: ignore[arg-type]


def answer(model: nn.Module, level: str, **changes: torch.Tensor) -> torch.Tensor:
    draws = torch.Generator().manual_seed(3)
    shape = {"g": (2, DIMENSIONS), "c": (2, 8, 4, 4), "f": (2, 4, 8, 8)}[level]
    given: dict = {"noisy": torch.randn(shape, generator=draws), "timestep": torch.tensor([5, 700])}
    if level != "g":
        given["g"] = torch.randn(2, DIMENSIONS, generator=draws)
    if level == "f":
        given["parent"] = torch.randn(2, 8, 4, 4, generator=draws)
    given["bev"] = torch.randint(4, (2, 8, 8), generator=draws)
    return model(**(given | changes))


@pytest.mark.parametrize("level", ["g", "c", "f"])
@torch.no_grad()
def test_everything_given_reaches_the_answer(level: Level) -> None:
    model = disturb(small(level))
    plain = answer(model, level)
    assert bool(torch.isfinite(plain).all())
    changes = {"timestep": torch.tensor([6, 300]), "bev": torch.zeros(2, 8, 8, dtype=torch.long)}
    if level != "g":
        changes["g"] = torch.ones(2, DIMENSIONS)
    if level == "f":
        changes["parent"] = torch.ones(2, 8, 4, 4)
    for name, value in changes.items():
        difference = answer(model, level, **{name: value}) - plain
        assert bool((difference.flatten(1).abs().amax(1) > 1e-5).all()), name


@pytest.mark.parametrize("level", ["g", "c", "f"])
@torch.no_grad()
def test_new_networks_predict_nothing(level: Level) -> None:
    """The last layer starts from zero, so the first steps do not have to unlearn."""
    assert float(answer(small(level).eval(), level).abs().max()) < 1e-6


@torch.no_grad()
def test_a_missing_map_is_an_open_one() -> None:
    model = disturb(small("c"))
    assert torch.allclose(answer(model, "c", bev=None), answer(model, "c", bev=torch.full((2, 8, 8), 3)), atol=1e-5)  # type: ignore[arg-type]
    without = disturb(small("c", map_classes=0, dimensions=0))
    assert torch.equal(answer(without, "c"), answer(without, "c", bev=torch.zeros(2, 8, 8, dtype=torch.long)))


@pytest.mark.parametrize("level", ["g", "c", "f"])
@torch.no_grad()
def test_embeddings_reach_the_answer(level: Level) -> None:
    """With a map and without one; zeros are no embedding."""
    for classes in (0, 3):
        model = disturb(small(level, embedding_dimensions=5, map_classes=classes))
        known = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(5))
        plain, told = answer(model, level), answer(model, level, embedding=known)
        assert bool(((told - plain).flatten(1).abs().amax(1) > 1e-5).all())
        assert torch.allclose(answer(model, level, embedding=torch.zeros(2, 1, 5)), plain, atol=1e-6)
        with pytest.raises(ValueError, match="5 numbers a token, got 6"):
            answer(model, level, embedding=torch.zeros(2, 1, 6))


@torch.no_grad()
def test_networks_see_where_the_path_leads() -> None:
    """Without what g says by group norm: a path that is moved changes the answer most where it was and is."""
    model = disturb(GridDenoiser(8, 16, widths=(32,), attention=(False,), layers=1, dimensions=80, path_beside=True))
    for parameter in model.unet.class_embedding.parameters():  # type: ignore[union-attr]
        parameter.zero_()
    for block in model.unet.mid_block.attentions:  # type: ignore[union-attr]
        block.proj_out.weight.zero_()
    path = torch.zeros(1, 16, 5)
    path[..., 0] = -0.7
    noisy, step = torch.zeros(1, 8, 16, 16), torch.tensor([100])
    left = model(noisy, step, path.flatten(1))
    path[..., 0] = 0.7
    change = (model(noisy, step, path.flatten(1)) - left).abs().mean((0, 1))
    assert float(change[2, 8]) > 2 * float(change[8, 0]) < float(change[13, 8])
    with pytest.raises(ValueError, match="has no camera path"):
        GridDenoiser(8, 16, dimensions=70, path_beside=True)


@torch.no_grad()
def test_networks_know_where_pixels_lie() -> None:
    """Convolutions and attention alone would answer the same everywhere in the middle of a constant grid."""
    model = disturb(GridDenoiser(8, 16, widths=(32,), attention=(False,), layers=1, dimensions=0))
    made = model(torch.zeros(1, 8, 16, 16), torch.tensor([100]))
    assert not torch.allclose(made[..., 7, 7], made[..., 8, 9], atol=1e-4)


def test_statistics_are_measured_and_undone(generator: torch.Generator) -> None:
    values = 3 + torch.tensor([1.0, 5.0, 0.0])[:, None, None] * torch.randn(64, 3, 4, 4, generator=generator)
    scaling = Scaling(3)
    scaling.measure(values)
    normal = scaling.normalize(values)
    assert torch.allclose(normal[:, :2].std((0, 2, 3)), torch.ones(2), atol=1e-3)
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4) and float(scaling.deviation[2]) == 1
    assert torch.allclose(scaling.denormalize(normal), values, atol=1e-4)
    assert {"mean", "deviation"} == set(scaling.state_dict())


def test_whitened_vectors_have_no_correlations(generator: torch.Generator) -> None:
    mixed = 2 + torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    mixed[:, 4] = mixed[:, 5] + 1e-4 * mixed[:, 0]  # as near as neighbouring poses
    mixed[:, 2] = 7.0
    whitening = Whitening(6)
    whitening.measure(mixed)
    normal = whitening.normalize(mixed)
    assert torch.allclose(whitening.denormalize(normal), mixed, atol=1e-4)
    others = [0, 1, 3, 5]
    assert torch.allclose(normal[:, others].T.cov(), torch.eye(4), atol=0.01)
    changed = whitening.normalize(mixed + torch.tensor([5.0, 5.0, 5.0, 0.0, 0.0, 0.0]))
    assert torch.allclose(changed[:, 3:], normal[:, 3:])  # the last numbers are whitened by themselves
    whitening.measure(mixed[:8])  # too few to tell
    assert torch.equal(whitening.factor, torch.diag(whitening.factor.diag()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 6, "widths": (16, 32), "patch": 2, "attention": (True, True)}, "cannot be halved 1 times"),
        ({"size": 9, "patch": 2}, "9 cells in patches of 2"),
        ({"attention": (True,)}, "give attention for each of 2 widths, got 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridDenoiser(**options)


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="8 x 8 cells, got 4 x 4"):
        MapEncoder(3, 8, 16)(torch.zeros(1, 4, 4, dtype=torch.long), 1)


@pytest.mark.parametrize("level", ["g", "c", "f"])
def test_each_level_learns(level: Level, tmp_path: Path) -> None:
    source = write_latents(tmp_path)
    stage = DenoiserStage(level, small(level), source, source, without_map=0.0)
    assert isinstance(stage, Stage) and isinstance(source, SampleSource)
    batch = source.collate([source.sample(number, torch.Generator()) for number in range(4)])
    optimizer = torch.optim.Adam(stage.model.parameters(), 3e-3)
    errors = []
    for _ in range(30):
        loss, parts = stage.loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(parts["error"]))
    assert errors[-1] < 0.5 * errors[0]
    silent = [name for name, value in stage.model.named_parameters() if value.grad is None]
    assert not silent or (level == "g" and not silent) or silent == ["open"]
    stage.model.eval()
    with torch.no_grad():
        evaluation = stage.evaluate(torch.Generator().manual_seed(0))
    assert evaluation.score == -evaluation.scalars["error"]
    assert evaluation.scalars["error_other_map"] != evaluation.scalars["error"]
    assert ("error_other_g" in evaluation.scalars) == (level != "g")
    assert ("error_other_c" in evaluation.scalars) == (level == "f")


def test_perfect_networks_have_no_loss(tmp_path: Path) -> None:
    """v of the schedule, in closed form: alpha * noise - sigma * latents."""
    source = write_latents(tmp_path)
    stage = DenoiserStage("c", small("c"), source, source)
    batch = source.spread(4)
    clean = stage.model.scaling.normalize(batch.c)
    seen: dict[str, torch.Tensor] = {}

    def oracle(noisy: torch.Tensor, timestep: torch.Tensor, *rest: object) -> torch.Tensor:
        alpha = make_schedule().alphas_cumprod[timestep].sqrt()[:, None, None, None]
        sigma = (1 - alpha.square()).sqrt()
        seen["timestep"] = timestep
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean

    stage.model.forward = oracle  # type: ignore[assignment]
    loss, _ = stage.loss(batch, torch.Generator().manual_seed(4))
    assert float(loss.detach()) < 1e-6 and len(seen["timestep"].unique()) > 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_conditions_are_left_out_as_often_as_asked(share: float, tmp_path: Path) -> None:
    source = write_latents(tmp_path, 2)
    batch = source.collate([source.read(0)] * 200)
    stage = DenoiserStage("g", small("g"), source, source, without_map=share, without_path=share)
    seen: dict = {}

    def look(batch, timestep, generator, shift) -> torch.Tensor:
        seen.update(bev=batch.bev, shift=shift)
        return torch.zeros(200)

    stage._errors = look
    stage.loss(batch, torch.Generator().manual_seed(0))
    for left_out in (seen["bev"][:, 0, 0] == 3, seen["shift"][:, 0] > 1):
        found = float(left_out.float().mean())
        assert found == pytest.approx(share, abs=0.1) and (share == 0.3 or found == share)


def test_networks_fit_the_latents(tmp_path: Path) -> None:
    source = write_latents(tmp_path / "a")
    for level in ("g", "c", "f"):
        model = make_denoiser(level, source)  # type: ignore[arg-type]
        assert model.config["dimensions"] == DIMENSIONS and model.config["map_classes"] == 3
    assert make_denoiser("c", source, use_map=False).config["map_classes"] == 0


def test_panoramas_count_by_their_spread(tmp_path: Path) -> None:
    """A third each for what is learned, the panorama and the path; in the panorama by what its numbers stand for."""
    source = write_latents(tmp_path, header=HEADER | {"panorama_spread": [3.0, 1.0]})
    model = make_denoiser("g", source)
    assert model.config["parts"] == (4, 2, 5 * POSES)
    stage = DenoiserStage("g", model, source, source)  # type: ignore[arg-type]
    assert torch.equal(stage.importance, model.importance)
    learned, panorama, path = stage.importance.split((4, 2, 5 * POSES))
    for part in (learned, panorama, path):
        assert float(part.sum()) == pytest.approx(1 / 3)
    assert float(panorama[0] / panorama[1]) == pytest.approx(9, rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parts_are_looked_at_in_half_precision_too(dtype: torch.dtype) -> None:
    model = disturb(GlobalDenoiser(64, (64, 48), parts=(56, 8), part_width=48)).eval()
    noisy, timestep = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 300, 900])
    with torch.no_grad():
        expected, found = model(noisy, timestep), model.to(dtype)(noisy, timestep)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("spread", [[1.0] * 7, [0.0], [-1.0]])
def test_spreads_that_cannot_be_are_named(spread: list[float], tmp_path: Path) -> None:
    source = write_latents(tmp_path, header=HEADER | {"panorama_spread": spread})
    with pytest.raises(DataFormatError, match="panorama_spread does not fit g; encode the scenes again"):
        make_denoiser("g", source)


def test_headings_along_four_directions_are_found() -> None:
    """They mirror each other, so that whitened they look Gaussian but for moments of the fourth order."""
    draws = torch.Generator().manual_seed(0)
    turn = torch.randint(4, (4096,), generator=draws) * torch.pi / 2
    heading = torch.stack((turn.cos(), turn.sin()), dim=-1).repeat(1, 4)
    heading = heading + 0.05 * torch.randn(heading.shape, generator=draws)
    values = torch.cat((torch.randn(4096, 56, generator=draws), heading), dim=-1)
    errors = {}
    for parts in ((), (56, 8)):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = GlobalDenoiser(64, (64, 48), parts=parts, part_width=48)
        model.scaling.measure(values)
        if parts:
            model.importance.copy_(find_importance(model.scaling, (), 8))
        errors[parts] = learn_headings(model, values)
    assert errors[()] > 0.95 and errors[56, 8] < 0.8


def learn_headings(model: GlobalDenoiser, values: torch.Tensor) -> float:
    """The mean squared error of v of the last two numbers after some steps."""
    draws, optimizer = torch.Generator().manual_seed(1), torch.optim.Adam(model.parameters(), 2e-3)
    clean, errors, alphas = model.scaling.normalize(values), [], make_schedule().alphas_cumprod
    for _ in range(250):
        chosen = clean[torch.randint(len(clean), (128,), generator=draws)]
        timestep = torch.randint(200, 700, (128,), generator=draws)
        noise = torch.randn(chosen.shape, generator=draws)
        alpha, sigma = alphas[timestep, None].sqrt(), (1 - alphas[timestep, None]).sqrt()
        error = model(alpha * chosen + sigma * noise, timestep) - (alpha * noise - sigma * chosen)
        optimizer.zero_grad()
        model.scaling.unwhiten(error).square()[:, -8:].mean().backward()
        optimizer.step()
        errors.append(float(error.detach()[:, -2:].square().mean()))
    return sum(errors[-50:]) / 50


def test_broken_latents_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no latents"):
        write_latents(tmp_path / "a", header=HEADER | {"keep": "fields"})
    source = write_latents(tmp_path / "b")
    scene = source.encoded[1]
    write_encoding(tmp_path / "b", replace(scene, tensors={name: scene.tensors[name] for name in ("g", "f")}))
    with pytest.raises(DataFormatError, match="lacks c, path; encode the scene again"):
        source.read(1)
    write_encoding(tmp_path / "b", replace(scene, tensors=scene.tensors | {"g": torch.full((6,), torch.nan)}))
    with pytest.raises(DataFormatError, match="g holds NaN"):
        source.sample(1, torch.Generator())
    for name, value, message in (
        ("c", torch.zeros(4, 4, 4), r"c has shape \(4, 4, 4\), not 4 axes"),
        ("bev", torch.zeros(0, 8, dtype=torch.uint8), r"bev has shape \(0, 8\)"),
        ("bev", torch.full((8, 8), 4, dtype=torch.uint8), "bev is no map of the 3 classes"),
        ("bev", torch.zeros(8, 8), "bev is no map of the 3 classes"),
        ("f", torch.zeros(4, 8, 8, dtype=torch.complex64), "f is kept as torch.complex64"),
    ):
        write_encoding(tmp_path / "b", replace(scene, tensors=scene.tensors | {name: value}))
        with pytest.raises(DataFormatError, match=message):
            source.read(1)
    write_encoding(tmp_path / "b", replace(scene, tensors=scene.tensors | {"f": torch.zeros(4, 6, 8)}))
    with pytest.raises(DataFormatError, match=r"holds f of \(4, 6, 8\) and \(4, 8, 8\); encode all scenes in one way"):
        source.spread(4)
