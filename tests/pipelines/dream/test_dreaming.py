"""The loop of dreams: it ends at the object that a known prior has in mind, and can be stopped and repeated."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_priors import write_latent_texts
from torch import Tensor

from nfldm3d.camera import Camera
from nfldm3d.fields import NeuralField, VoxelField
from nfldm3d.fitting import OptimisationError, Step
from nfldm3d.guidance import load_prior
from nfldm3d.guidance.distillation import Distillation
from nfldm3d.pipelines.dream import DreamOptions, ViewRanges, dream, dreaming, preview, save_sides
from nfldm3d.rendering.shading import ShadingOptions, render_shaded
from nfldm3d.scene import Scene

SIZE, DISTANCE, RADIUS = 20, 1.25, 0.45
COLORS = {"front": (0.9, 0.2, 0.1), "side": (0.2, 0.8, 0.2), "back": (0.1, 0.2, 0.9), "overhead": (0.8, 0.8, 0.2)}
BEHIND, PLAIN = (0.3, 0.35, 0.4), (0.8, 0.5, 0.2)


@dataclass
class Gaussian:
    """A prior whose pictures are normally distributed about a disc on a plain ground; a text names its colour."""

    deviation: float = 0.05
    bad: bool = False
    image_size = SIZE
    alphas_cumprod = torch.linspace(1, 0, 102)[1:-1] ** 2

    def mean(self, colors: Tensor) -> Tensor:
        middle = torch.arange(SIZE) + 0.5 - SIZE / 2
        reach = SIZE * RADIUS / (DISTANCE**2 - RADIUS**2) ** 0.5
        disc = (reach + 0.5 - torch.hypot(middle[:, None], middle)).clamp(0, 1)
        ground = torch.tensor(BEHIND)[:, None, None]
        return ground + disc * (colors[..., None, None] - ground)

    def to_latents(self, images: Tensor) -> Tensor:
        return 2 * torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear") - 1

    def to_images(self, latents: Tensor) -> Tensor:
        return latents / 2 + 0.5

    def predict_noise(self, latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        signal = self.alphas_cumprod[t][:, None, None, None]
        mean = 2 * self.mean(condition[:, 0]) - 1
        noise = (1 - signal).sqrt() * (latents - signal.sqrt() * mean) / (signal * self.deviation**2 + 1 - signal)
        return noise * torch.nan if self.bad else noise

    def embed(self, described: list[str]) -> Tensor:
        found = [next((color for side, color in COLORS.items() if side in text), PLAIN) for text in described]
        return torch.tensor(found)[:, None]

    def embed_nothing(self, views: int) -> Tensor:
        return torch.full((views, 1, 3), 0.5)


VIEWS = ViewRanges(
    elevation=(-10.0, 30.0), distance=(DISTANCE, DISTANCE), focal=(1.0, 1.0), aim=0.0, roll=0.0, shift=0.0
)
QUICK = replace(
    DreamOptions.published(),
    steps=4,
    detail=16,
    size=SIZE,
    coarse_size=12,
    views=VIEWS,
    preview_every=0,
    distillation=Distillation(guidance_scale=1.0),
)


def run(options: DreamOptions = QUICK, **more: object) -> Scene:
    return dream("a ball", Gaussian(), options, progress=False, **more)  # type: ignore[arg-type]


def look_from(azimuth: float) -> Camera:
    turn = torch.deg2rad(torch.tensor(azimuth))
    eye = DISTANCE * torch.stack((turn.cos(), turn.sin(), torch.tensor(0.0)))
    camera = Camera.look_at(eye, (0.0, 0.0, 0.0), width=SIZE, height=SIZE)
    return replace(camera, focal=torch.full((2,), float(SIZE)))


@pytest.mark.slow
def test_the_object_is_what_the_prior_has_in_mind() -> None:
    """A ball of the right size before the right ground, whose colours follow its sides."""
    scene = run(
        replace(QUICK, steps=150, detail=32, rate=0.04, albedo_share=1.0, random_background=0.0, opacity_weight=3.0)
    )
    assert isinstance(scene.field, NeuralField)
    for azimuth, side in ((0.0, "front"), (90.0, "side"), (180.0, "back"), (-90.0, "side")):
        camera, color = look_from(azimuth), torch.tensor(COLORS[side])
        with torch.no_grad():
            image = scene.render(camera).image
        assert int(image[:, SIZE // 2, SIZE // 2].argmax()) == int(color.argmax()), side
        torch.testing.assert_close(image[:, 0, 0], torch.tensor(BEHIND), atol=0.2, rtol=0)
        disc = (Gaussian().mean(color) - torch.tensor(BEHIND)[:, None, None]).abs().sum(0) > 0.1
        solid = render_shaded(scene.field, camera, ShadingOptions("albedo")).opacity > 0.5
        assert float((disc & solid).sum() / (disc | solid).sum()) > 0.8, side


@pytest.mark.slow
def test_voxels_are_dreamt_on_as_well() -> None:
    known = {"steps": 100, "field": "voxels", "view_prompts": "none", "detail": 32, "batch": 2, "rate": 0.02}
    scene = run(replace(QUICK, **known, albedo_share=1.0, random_background=0.0))  # type: ignore[arg-type]
    assert isinstance(scene.field, VoxelField)
    with torch.no_grad():
        image = scene.render(look_from(0.0)).image
    torch.testing.assert_close(image[:, SIZE // 2, SIZE // 2], torch.tensor(PLAIN), atol=0.1, rtol=0)


def test_the_same_seed_gives_the_same_object() -> None:
    first, again, other = run(), run(), run(replace(QUICK, seed=1))
    assert isinstance(first.field, NeuralField) and isinstance(again.field, NeuralField)
    for name, value in first.field.state().tensors.items():
        assert torch.equal(value, again.field.state().tensors[name]), name
    assert isinstance(other.field, NeuralField) and not torch.equal(first.field.cells, other.field.cells)
    assert first.metadata == {"prompt": "a ball", "seed": 0}


def test_a_stopped_dream_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreaming, "Checkpoint", partial(dreaming.Checkpoint, every_seconds=0.0))

    def stop(_: object, step: Step) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "a", callbacks=[stop])
    resumed, whole = run(checkpoint=tmp_path / "a"), run()
    assert isinstance(resumed.field, NeuralField) and isinstance(whole.field, NeuralField)
    for name, value in whole.field.state().tensors.items():
        assert torch.equal(value, resumed.field.state().tensors[name]), name
    with pytest.raises(ValueError, match="another run, with other options: seed"):
        run(replace(QUICK, seed=5), checkpoint=tmp_path / "a")


def test_guidance_that_is_no_number_stops_and_is_named() -> None:
    with pytest.raises(OptimisationError, match="step 1: guidance is nan"):
        dream("a ball", Gaussian(bad=True), QUICK, progress=False)


def test_light_texture_and_pictures_change_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures and albedo first, then light, with a penalty that grows."""
    steps, seen = [], []
    original = dreaming.look_shaded
    monkeypatch.setattr(
        dreaming,
        "look_shaded",
        lambda field, rays, light, options, **rest: (
            seen.append((len(rays), options.shading)) or original(field, rays, light, options, **rest)
        ),
    )

    def note(_: object, step: Step) -> None:
        steps.append(SimpleNamespace(share=step.share, losses=dict(step.losses)))

    run(replace(QUICK, steps=10, coarse_share=0.5, albedo_share=0.3, shaded_share=1.0), callbacks=[note])
    assert [rays for rays, _ in seen] == [144] * 5 + [400] * 5
    assert [shading == "albedo" for _, shading in seen] == [True] * 3 + [False] * 7
    assert all("orientation" not in step.losses for step in steps[:3])
    assert all("orientation" in step.losses and "opacity" in step.losses for step in steps[3:])


def test_previews_and_sheets_are_written(tmp_path: Path) -> None:
    scene = run(callbacks=[preview(tmp_path / "a.png", 2, size=16)])
    save_sides(scene, tmp_path / "b.png", size=16)
    assert (tmp_path / "a.png").is_file() and (tmp_path / "b.png").is_file()
    with pytest.raises(ValueError, match="every 1 step or more, got 0"):
        preview(tmp_path / "a.png", 0)


def test_pipelines_of_diffusers_dream(tmp_path: Path) -> None:
    prior = load_prior(write_latent_texts(tmp_path / "prior"))
    options = replace(
        QUICK, steps=2, perp_neg=True, negative="blurred", normals="field", shaded_share=1.0, albedo_share=0.0
    )
    scene = dream("a red car", prior, options, progress=False)
    assert isinstance(scene.field, NeuralField) and bool(torch.isfinite(scene.field.cells).all())
