"""Networks and pipelines give on the GPU what they give on the CPU, wherever their input lies; and in any precision."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from on_devices import CPU, assert_same_on_gpu, ball
from small_rooms import (
    BOX,
    cameras,
    latent_autoencoder,
    room_sample,
    room_views,
    scene_autoencoder,
    scene_generator,
)

from nfldm3d import Box, Scene
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.pipelines.scene_editing import adopt
from nfldm3d.pipelines.scene_generator import GeneratedScenes, SceneGenerator
from nfldm3d.pipelines.showing import open_top, picture_from_above, picture_sheet
from nfldm3d.rendering import render

MAP = torch.arange(64).view(8, 8) % 3
REGION = Box((-1.0, -1.0, -0.5), (0.5, 1.5, 1.0))
STEPS = {"num_inference_steps": 2}


@cache
def pipeline(device: torch.device) -> SceneGenerator:
    return scene_generator(embedding_dimensions=4, path_odds=(0.2, 1.0, 2.0)).to(device)


@cache
def networks(device: torch.device) -> Autoencoders:
    return Autoencoders(scene_autoencoder().to(device), latent_autoencoder().to(device))


@cache
def made_on_cpu() -> GeneratedScenes:
    return made(CPU)


def made(device: torch.device, **options: object) -> GeneratedScenes:
    draws = torch.Generator().manual_seed(0)
    return pipeline(device).generate(2, generator=draws, **STEPS, **options)  # type: ignore[arg-type]


def scene_on(device: torch.device) -> Scene:
    return made_on_cpu().scenes[0].to(device)


def encoded(device: torch.device) -> Scene:
    return networks(device).encode(room_views(cameras(4)), BOX)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


CALLS: dict[str, Callable[[torch.device], object]] = {
    "generate": made,
    "generate.map": lambda d: made(d, bev=MAP.to(d), embedding=torch.ones(4)),
    "generate.trajectory": lambda d: made(d, trajectory=made_on_cpu().trajectories[0]),
    "generate.generators": lambda d: pipeline(d).generate(2, generator=[seeded(), seeded()], **STEPS),
    "decode": lambda d: pipeline(d).decode(made_on_cpu().latents),
    "encode": lambda d: pipeline(d).encode(room_views(cameras(4)), BOX),
    "encode.path": lambda d: pipeline(d).encode(room_views(cameras(4)), BOX, made_on_cpu().trajectories[0]),
    "recall": lambda d: pipeline(d).recall(scene_on(CPU)),
    "interpolate": lambda d: pipeline(d).interpolate(made_on_cpu().latents[0], made_on_cpu().latents[1], 3),
    "latents": lambda d: made_on_cpu().latents.to(d),
    "edit": lambda d: pipeline(d).edit(scene_on(d), REGION, generator=seeded(), rounds=2, **STEPS),
    "grow": lambda d: pipeline(d).grow((2, 1), generator=seeded(), **STEPS),
    "grow.around": lambda d: pipeline(d).grow((2, 1), scene=scene_on(CPU), generator=seeded(), **STEPS),
    "adopt": lambda d: adopt(pipeline(d).coder, ball(d)),
    "adopt.cpu": lambda d: adopt(pipeline(d).coder, ball(CPU)),
    "autoencoders.encode": encoded,
    "autoencoders.encode_sample": lambda d: networks(d).encode_sample(room_sample()),
    "autoencoders.compress": lambda d: networks(d).compress(encoded(CPU)),
    "autoencoders.decompress": lambda d: networks(d).decompress(networks(CPU).compress(encoded(CPU)), BOX),
    "render": lambda d: render(scene_on(d), cameras(2).to(d), with_normals=True),
    "open_top": lambda d: open_top(scene_on(d)),
}


@pytest.mark.cuda
@pytest.mark.parametrize("name", CALLS)
def test_the_gpu_gives_what_the_cpu_gives(name: str) -> None:
    assert_same_on_gpu(CALLS[name], atol=2e-3)


@pytest.mark.cuda
def test_a_scene_of_the_cpu_is_edited_on_the_gpu() -> None:
    edited = pipeline(torch.device("cuda")).edit(scene_on(CPU), REGION, generator=seeded(), **STEPS)
    assert {value.device for value in edited.extras.values()} == {edited.device} == {CPU}
    assert edited.cameras is not None and not render(edited, edited.cameras[:1].resized(8, 6)).image.is_cuda


@pytest.mark.cuda
def test_generators_of_the_gpu_draw_too() -> None:
    for draws in (torch.Generator("cuda").manual_seed(0), [torch.Generator("cuda").manual_seed(0)]):
        scene = pipeline(torch.device("cuda")).generate(generator=draws, **STEPS).scenes[0]
        assert scene.device.type == "cuda"


@pytest.mark.cuda
def test_pictures_of_generated_scenes_come_to_the_cpu() -> None:
    device = torch.device("cuda")
    generator, scene = pipeline(device), scene_on(device)
    for bev in (None, MAP, MAP.to(device)):
        assert not picture_from_above(generator, scene, bev).is_cuda
    assert scene.cameras is not None
    assert not picture_sheet(render(scene, scene.cameras[:3].resized(8, 6)).image, columns=2).is_cuda


@pytest.mark.cuda
def test_scenes_of_the_gpu_are_saved_and_read(tmp_path: Path) -> None:
    pipeline(torch.device("cuda")).save_pretrained(tmp_path / "weights")
    read = SceneGenerator.from_pretrained(tmp_path / "weights", "cuda")
    read.set_progress_bar_config(disable=True)
    scene = read.generate(generator=seeded(), **STEPS).scenes[0]
    scene.save(tmp_path / "scene.nfld")
    back = Scene.load(tmp_path / "scene.nfld", device="cuda")
    assert read.recall(back) is not None and set(back.extras) == {"g", "c", "f", "path"}
    assert Autoencoders.from_pretrained(tmp_path / "weights", "cuda").latent is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pipelines_work_in_other_precisions(dtype: torch.dtype) -> None:
    generator = scene_generator(embedding_dimensions=4, path_odds=(0.2, 1.0, 2.0)).to(dtype)
    assert {
        value.dtype for name in ("denoiser_g", "denoiser_f") for value in getattr(generator, name).parameters()
    } == {dtype}
    kept = made(CPU, bev=MAP, embedding=torch.ones(4))
    scene = generator.generate(2, generator=torch.Generator().manual_seed(0), bev=MAP, embedding=torch.ones(4), **STEPS)
    near = {torch.float16: 0.1, torch.bfloat16: 0.8, torch.float64: 1e-3}[dtype]
    assert scene.scenes[0].field.density.dtype == torch.float32
    assert (scene.latents.latents.c - kept.latents.latents.c).abs().mean() < near
    assert scene.scenes[0].cameras is not None
    seen = [render(each, each.cameras[:2].resized(12, 8)).image for each in (scene.scenes[0], kept.scenes[0])]  # type: ignore[index]
    assert seen[0].dtype == torch.float32 and (seen[0] - seen[1]).abs().mean() < near
    edited = generator.edit(scene.scenes[0], REGION, generator=seeded(), **STEPS)
    assert torch.isfinite(edited.field.features).all()
    again = generator.encode(room_views(cameras(4)), BOX).latents
    assert again.g.dtype == torch.float32 and torch.isfinite(again.g).all()
    assert generator.networks.decompress(generator.networks.compress(edited), BOX).field.density.dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pipelines_work_in_half_precision_on_the_gpu(dtype: torch.dtype) -> None:
    generator = scene_generator().to("cuda", dtype)
    scene = generator.generate(generator=seeded(), bev=MAP, **STEPS).scenes[0]
    assert scene.cameras is not None and render(scene, scene.cameras[:1].resized(12, 8)).image.dtype == torch.float32


def test_a_list_of_generators_gives_each_scene_its_own() -> None:
    generator = pipeline(CPU)
    draws = [torch.Generator().manual_seed(number) for number in (3, 4)]
    both = generator.generate(2, generator=draws, **STEPS).latents
    alone = generator.generate(generator=torch.Generator().manual_seed(4), **STEPS).latents
    assert torch.allclose(both[1].latents.c, alone.latents.c, atol=1e-4)
    with pytest.raises(ValueError, match="got 2 generators for 3 scenes; give one for each, or one for all"):
        generator.generate(3, generator=draws, **STEPS)


def test_offloading_is_refused_in_words() -> None:
    for offload in (pipeline(CPU).enable_model_cpu_offload, pipeline(CPU).enable_sequential_cpu_offload):
        with pytest.raises(ValueError, match=r"cannot be offloaded; .* move it with .to\('cuda'\)"):
            offload()


def test_an_encoded_scene_keeps_its_views_where_it_lies() -> None:
    scene = encoded(CPU)
    assert scene.cameras is not None and replace(scene, background=None).cameras is scene.cameras
