"""Sampling: seeds, batches, conditions, schedulers, what is kept, and weights that are complete or refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from small_rooms import BOX, cameras, room_views, scene_generator

from nfldm3d import DataFormatError, Scene
from nfldm3d.data.bev_map import BevMap
from nfldm3d.models.nfldm.trajectories import POSES
from nfldm3d.pipelines.sampling import Kept, SamplingError
from nfldm3d.pipelines.scene_generator import SceneGenerator
from nfldm3d.pipelines.scene_latents import SceneLatents


@pytest.fixture(scope="module")
def generator() -> SceneGenerator:
    return scene_generator()


@pytest.fixture(scope="module")
def folder(generator: SceneGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    generator.save_pretrained(path)
    return path


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def same(a: SceneLatents, b: SceneLatents, tolerance: float = 1e-4) -> bool:
    pairs = [(getattr(a.latents, name), getattr(b.latents, name)) for name in ("g", "c", "f")] + [(a.paths, b.paths)]
    return all(torch.allclose(x, y, atol=tolerance) for x, y in pairs)


def test_scenes_have_all_that_they_need(generator: SceneGenerator, tmp_path: Path) -> None:
    made = generator.generate(2, num_inference_steps=3, generator=seed())
    assert len(made.scenes) == 2 and made.trajectories.shape == (2, POSES, 5)
    assert bool(generator.box.contains(made.trajectories[..., :3]).all())
    for number, scene in enumerate(made.scenes):
        assert scene.field.resolution == (8, 8, 4) and scene.box == generator.box and scene.cameras is not None
        assert torch.allclose(scene.cameras.centers, made.trajectories[number, :, :3])
        scene.save(tmp_path / "scene.nfld")
        recalled = generator.recall(Scene.load(tmp_path / "scene.nfld"))
        assert recalled is not None and same(recalled, made.latents[number])
    assert not torch.equal(made.scenes[0].field.density, made.scenes[1].field.density)


def test_changed_scenes_are_not_recalled(generator: SceneGenerator) -> None:
    (scene,) = generator.generate(num_inference_steps=2, generator=seed()).scenes
    assert generator.recall(scene) is not None
    other = replace(scene, field=replace(scene.field, density=scene.field.density + 0.1))
    assert generator.recall(other) is None and generator.recall(replace(scene, metadata={})) is None
    about = {"nfldm3d": scene.metadata["nfldm3d"] | {"weights": "others"}}  # type: ignore[operator]
    assert generator.recall(replace(scene, metadata=about)) is None


def test_a_seed_gives_the_same_scenes_however_many_at_once(generator: SceneGenerator) -> None:
    options = {"num_inference_steps": 3, "scheduler": diffusers.DDPMScheduler.from_config(generator.scheduler.config)}
    together = generator.generate(3, generator=seed(7), **options).latents
    assert same(together, generator.generate(3, generator=seed(7), batch_size=2, **options).latents)
    assert same(together[0], generator.generate(1, generator=seed(7), **options).latents)
    assert not same(together, generator.generate(3, generator=seed(8), **options).latents)


def test_embeddings_steer() -> None:
    generator = scene_generator(embedding_dimensions=6)
    known = torch.randn(6, generator=seed(3))
    options = {"num_inference_steps": 2, "guidance_scale": 3.0}
    plain, told = (generator.generate(2, embedding=e, generator=seed(), **options).latents for e in (None, known))
    assert not same(plain, told)
    each = torch.stack((torch.zeros_like(known), known))[:, None]
    mixed = generator.generate(2, embedding=each, generator=seed(), **options).latents
    assert same(mixed[0], plain[0]) and same(mixed[1], told[1])
    for wrong in (torch.zeros(5), torch.zeros(3, 1, 6), torch.zeros(1, 1, 1, 6)):
        with pytest.raises(ValueError, match=r"does not fit 2 scenes; give \(6,\)"):
            generator.generate(2, embedding=wrong)
    with pytest.raises(ValueError, match="trained without embeddings"):
        scene_generator().generate(embedding=torch.zeros(6))


def test_the_path_steers_the_coarse_latent(generator: SceneGenerator) -> None:
    def make(scale: float) -> SceneLatents:
        return generator.generate(num_inference_steps=2, path_guidance_scale=scale, generator=seed()).latents

    plain, strongly = make(1.0), make(3.0)
    assert torch.equal(plain.latents.g, strongly.latents.g) and torch.equal(plain.paths, strongly.paths)
    assert not torch.allclose(plain.latents.c, strongly.latents.c, atol=1e-4)


def test_some_scenes_may_be_left_out(generator: SceneGenerator) -> None:
    whole = generator.generate(5, num_inference_steps=2, generator=seed()).latents
    some = generator.generate(5, numbers=[0, 3, 4], num_inference_steps=2, generator=seed(), batch_size=2).latents
    assert len(some) == 3 and all(same(some[place], whole[number]) for place, number in enumerate((0, 3, 4)))
    for wrong in ([], [5], [-1]):
        with pytest.raises(ValueError, match="from 0 to 4"):
            generator.generate(5, numbers=wrong)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solvers, from numpy
def test_other_schedulers_can_be_given(generator: SceneGenerator) -> None:
    scheduler = diffusers.EulerDiscreteScheduler.from_config(generator.scheduler.config)
    made = generator.generate(num_inference_steps=4, scheduler=scheduler, generator=seed())
    assert bool(torch.isfinite(made.scenes[0].field.features).all())
    with pytest.raises(ValueError, match="HeunDiscreteScheduler would give noise"):
        generator.generate(scheduler=diffusers.HeunDiscreteScheduler.from_config(generator.scheduler.config))


def test_maps_steer_and_guidance_amplifies(generator: SceneGenerator) -> None:
    bev = torch.zeros(8, 8, dtype=torch.long)
    bev[:4] = 2

    def make(bev: object, scale: float = 1.0) -> SceneLatents:
        return generator.generate(bev=bev, guidance_scale=scale, num_inference_steps=3, generator=seed()).latents

    plain, steered, strongly = make(None), make(bev), make(bev, 3.0)
    assert not same(plain, steered, 1e-3) and not same(steered, strongly, 1e-3)
    assert same(plain, make(torch.full((8, 8), 3)))  # all cells left open
    assert same(steered, make(bev.numpy())) and same(steered, make(bev[None]))


def test_pictures_are_maps(generator: SceneGenerator, tmp_path: Path) -> None:
    names, palette = tuple(generator.config["map_classes"]), generator.config["map_palette"]
    classes = torch.randint(3, (8, 8), generator=seed(), dtype=torch.uint8)
    bev = BevMap(classes, None, (0.0, 0.0), 0.5, names, tuple(tuple(color) for color in palette))
    path = tmp_path / "map.png"
    Image.fromarray(bev.picture().permute(1, 2, 0).numpy()).save(path)
    assert torch.equal(generator.read_map(path)[0], classes.long())
    assert torch.equal(generator.read_map(bev)[0], classes.long())
    pixels = np.dstack((bev.picture().permute(1, 2, 0).numpy(), np.full((8, 8), 255, np.uint8)))
    pixels[0, 7, 3] = 0  # the corner with the largest x and y
    Image.fromarray(pixels).save(path)
    assert int(generator.read_map(path)[0, 7, 7]) == 3


def paint(path: Path, size: int = 8, color: tuple[int, int, int] = (0, 255, 10)) -> Path:
    Image.new("RGB", (size, size), color).save(path)
    return path


def of_another_world() -> BevMap:
    return BevMap(
        torch.zeros(8, 8, dtype=torch.uint8), None, (0.0, 0.0), 0.5, ("road", "terrain"), ((0, 0, 0), (9, 9, 9))
    )


@pytest.mark.parametrize(
    ("bev", "message"),
    [
        (lambda p: torch.zeros(4, 4, dtype=torch.long), "has 4 x 4 cells, not 8 x 8"),
        (lambda p: torch.zeros(8, 8), "class numbers as integers, got torch.float32"),
        (lambda p: torch.full((8, 8), 4), r"holds class 4, but classes go from 0 to 2 \(class 0, class 1, class 2\)"),
        (lambda p: torch.full((8, 8), -1), "holds class -1"),
        (lambda p: torch.zeros(2, 8, 8, dtype=torch.long), "got 2 maps for 1 scenes"),
        (lambda p: paint(p / "a.png", 9), "a.png has 9 x 9 cells"),
        (lambda p: paint(p / "a.png", 8, (1, 2, 3)), "a.png has unknown colours: #010203; paint with #00ff0a, #3cc30a"),
        (lambda p: p / "none.png", "none.png does not exist"),
        (
            lambda p: of_another_world(),
            r"another world \(road, terrain\); these weights know class 0, class 1, class 2",
        ),
    ],
)
def test_bad_maps_are_refused(
    bev: Callable[[Path], object], message: str, generator: SceneGenerator, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        generator.read_map(bev(tmp_path))  # type: ignore[arg-type]


def test_void_maps_and_maps_without_need_are_refused(tmp_path: Path) -> None:
    generator = scene_generator()
    generator.register_to_config(map_classes=["void", "floor", "wall"])
    with pytest.raises(ValueError, match="void everywhere"):
        generator.generate(bev=torch.zeros(8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="trained without maps"):
        scene_generator(map_classes=0).generate(bev=torch.zeros(8, 8, dtype=torch.long))
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataFormatError, match="a.png: is not a PNG, JPEG, WebP, BMP or GIF picture"):
        generator.generate(bev=tmp_path / "a.png")


def test_trajectories_are_followed(generator: SceneGenerator) -> None:
    heading = torch.linspace(0, 3, POSES)
    path = torch.stack((0.1 * heading, 0.2 * heading, 0 * heading, heading.cos(), heading.sin()), dim=-1)
    made = generator.generate(trajectory=path, num_inference_steps=3, generator=seed())
    assert torch.allclose(made.trajectories[0], path, atol=1e-4)


def test_what_is_kept_stays(generator: SceneGenerator) -> None:
    options = {"num_inference_steps": 3, "generator": seed()}
    made = generator.generate(**options).latents  # type: ignore[arg-type]
    g, c, f = generator.hierarchy.fold(made)
    share = torch.zeros_like(f)
    share[..., :4, :] = 1
    for rounds in (1, 3):
        sampler = generator.sampler(3, diffusers.DDIMScheduler.from_config(generator.scheduler.config), rounds=rounds)
        again = generator.hierarchy.sample_grid("f", sampler, [seed(9)], g, c, kept=Kept(f, share))
        assert torch.allclose(again[..., :4, :], f[..., :4, :], atol=1e-5)
        assert not torch.allclose(again[..., 4:, :], f[..., 4:, :], atol=1e-2)
    with pytest.raises(ValueError, match="may remember earlier steps"):
        generator.sampler(3, diffusers.DPMSolverMultistepScheduler.from_config(generator.scheduler.config), rounds=2)


def test_windows_make_larger_grids(generator: SceneGenerator) -> None:
    made = generator.generate(num_inference_steps=2, generator=seed()).latents
    g, _, _ = generator.hierarchy.fold(made)
    sampler = generator.sampler(2)
    c = generator.hierarchy.sample_grid("c", sampler, [seed(1)], g, None, windows=(3, 2))
    f = generator.hierarchy.sample_grid("f", sampler, [seed(1)], g, c, windows=(3, 2))
    assert c.shape[-2:] == (4, 3) and f.shape[-2:] == (16, 12)


def test_callbacks_see_and_change_latents(generator: SceneGenerator) -> None:
    seen = []

    def zero_c(pipeline: SceneGenerator, step: int, timestep: object, values: dict) -> dict:
        seen.append((values["level"], step))
        return {"latents": torch.zeros_like(values["latents"])} if values["level"] == "c" else {}

    made = generator.generate(num_inference_steps=2, generator=seed(), callback_on_step_end=zero_c)
    assert seen == [(level, step) for level in "gcf" for step in (0, 1)]
    assert torch.allclose(generator.denoiser_c.scaling.normalize(made.latents.latents.c.flatten(1, 2)), torch.zeros(1))


def test_numbers_that_are_not_finite_stop_sampling(generator: SceneGenerator) -> None:
    def poison(pipeline: SceneGenerator, step: int, timestep: object, values: dict) -> dict:
        return {"latents": values["latents"] * torch.nan} if (values["level"], step) == ("c", 0) else {}

    with pytest.raises(SamplingError, match="level c: step 2 of 3 gave NaN"):
        generator.generate(num_inference_steps=3, callback_on_step_end=poison)


def test_scenes_can_be_interpolated_and_encoded(generator: SceneGenerator) -> None:
    made = generator.generate(2, num_inference_steps=2, generator=seed()).latents
    between = generator.interpolate(made[0], made[1], 5)
    assert len(between) == 5 and same(between[0], made[0]) and same(between[4], made[1])
    assert len(generator.decode(between)) == 5
    encoded = generator.encode(room_views(cameras(6)), BOX)
    assert encoded.latents.f.shape == made.latents.f[:1].shape and encoded.paths.shape == made.paths[:1].shape


def test_weights_return(folder: Path, generator: SceneGenerator) -> None:
    again = SceneGenerator.from_pretrained(folder)
    again.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "bev": torch.ones(8, 8, dtype=torch.long)}
    first, second = (pipe.generate(generator=seed(), **options).latents for pipe in (generator, again))
    assert same(first, second) and again.sha256 == generator.sha256 and again.box == generator.box


def test_diffusers_arguments_are_taken(folder: Path, tmp_path: Path, generator: SceneGenerator) -> None:
    scheduler = diffusers.DDIMScheduler.from_config(generator.scheduler.config)
    again = SceneGenerator.from_pretrained(
        str(folder), torch_dtype=torch.float16, scheduler=scheduler, denoiser_f=None, low_cpu_mem_usage=True, token=None
    )
    assert again.scheduler is scheduler and again.denoiser_f is None and again.config["box_size"] == [4.0, 4.0, 2.0]
    assert next(again.denoiser_c.parameters()).dtype == torch.float16
    assert next(SceneGenerator.from_pretrained(folder).denoiser_c.parameters()).dtype == torch.float32
    generator.save_pretrained(tmp_path / "all" / "half", variant="fp16", max_shard_size="50KB")
    again = SceneGenerator.from_pretrained(tmp_path / "all", variant="fp16", subfolder="half", box_size=(8.0, 8.0, 4.0))
    assert again.sha256 == generator.sha256 and again.box.size == (8.0, 8.0, 4.0)
    assert set(again.components) == set(generator.components)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"typo": 1}, TypeError, "SceneGenerator.from_pretrained does not take typo; it takes device, torch_dtype"),
        ({"denoiser_c": None}, ValueError, "denoiser_c must be a GridDenoiser, got NoneType"),
        ({"denoiser_f": torch.nn.Linear(1, 1)}, ValueError, "denoiser_f must be a GridDenoiser, got Linear"),
        ({"scheduler": None}, ValueError, "scheduler must be one of diffusers', got NoneType"),
        ({"variant": "fp16"}, DataFormatError, "no safetensors of the variant 'fp16', but diffusion_pytorch_model"),
        ({"revision": "main"}, ValueError, "can only be meant for the Hub"),
    ],
)
def test_other_arguments_are_refused(options: dict, error: type, message: str, folder: Path) -> None:
    with pytest.raises(error, match=message):
        SceneGenerator.from_pretrained(folder, **options)


@pytest.mark.parametrize(
    "part", ["denoiser_c", "scene_autoencoder", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_missing_parts_are_named(part: str, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "weights"
    shutil.copytree(folder, broken)
    target = broken / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(DataFormatError, match=Path(part).name):
        SceneGenerator.from_pretrained(broken)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "does not describe a SceneGenerator"),
        ("model_index.json", {"path_odds": [1.0]}, "model_index.json: path_odds has 1 values"),
        ("scheduler/scheduler_config.json", {"_class_name": "os"}, "'os', which is none of diffusers' schedulers"),
        ("denoiser_f/config.json", {"depth": 3}, "options that this nfldm3d does not know: depth"),
        ("denoiser_f/config.json", {"channels": 5}, "is not of this GridDenoiser"),
    ],
)
def test_other_weights_are_refused(file: str, change: dict, message: str, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "weights"
    shutil.copytree(folder, broken)
    path = broken / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataFormatError, match=message):
        SceneGenerator.from_pretrained(broken)


def test_numbers_of_scenes_must_be_positive(generator: SceneGenerator) -> None:
    for options in ({"num_scenes": 0}, {"batch_size": 0}, {"num_inference_steps": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            generator.generate(**options)  # type: ignore[arg-type]
