"""Every public function gives on the GPU what it gives on the CPU, and gives it there."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device_calls import CALLS, FILES, ON_THE_CPU, SLANT, decoded, features, posed
from on_devices import BOX, CPU, assert_same_on_gpu, ball, cameras

import nfldm3d
import nfldm3d.data
import nfldm3d.export
import nfldm3d.fields
import nfldm3d.fitting
import nfldm3d.ops
import nfldm3d.rendering
from nfldm3d import Scene
from nfldm3d.evaluation import distributions
from nfldm3d.fitting import FitOptions, fit
from nfldm3d.rendering import make_path, render
from nfldm3d.rendering.paths import read_camera_path


@pytest.mark.cuda
@pytest.mark.parametrize("name", CALLS)
def test_the_gpu_gives_what_the_cpu_gives(name: str) -> None:
    assert_same_on_gpu(CALLS[name])


@pytest.mark.cuda
@pytest.mark.parametrize("name", ON_THE_CPU)
def test_captures_come_to_the_cpu(name: str) -> None:
    assert_same_on_gpu(ON_THE_CPU[name], stays=False)


@pytest.mark.cuda
@pytest.mark.parametrize("name", FILES)
def test_files_are_written_from_the_gpu(name: str, tmp_path: Path) -> None:
    FILES[name](torch.device("cuda"), tmp_path)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert made and all(path.stat().st_size > 0 for path in made)


@pytest.mark.cuda
def test_scenes_are_read_to_the_gpu(tmp_path: Path) -> None:
    ball(CPU).save(tmp_path / "scene.nfld")
    assert_same_on_gpu(lambda d: Scene.load(tmp_path / "scene.nfld", device=d))
    decoded(CPU).save(tmp_path / "decoded.nfld")
    assert_same_on_gpu(lambda d: render(Scene.load(tmp_path / "decoded.nfld", device=d), cameras(d)))


@pytest.mark.cuda
def test_paths_are_read_for_the_device_of_the_scene(tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    path.write_text('{"camera_angle_x": 0.8, "frames": [{"transform_matrix": ' + f"{SLANT.tolist()}" + "}]}")
    assert_same_on_gpu(lambda d: make_path(ball(d), str(path), width=8, height=6))
    assert not read_camera_path(path, width=8, height=6).world_from_camera.is_cuda


@pytest.mark.cuda
def test_scenes_are_fitted_on_the_gpu(tmp_path: Path) -> None:
    quick = FitOptions(steps=6, rays_per_step=64, voxels=4000, surrounding_voxels=60, surroundings=1, degree=1)
    captures = {"cuda": posed(torch.device("cuda")), "cpu": replace(posed(CPU), metadata={"box": BOX.__dict__})}
    for name, capture in captures.items():
        path = tmp_path / f"{name}.safetensors"
        made = fit(capture, options=quick, device="cuda", checkpoint=path, progress=False)
        assert made.device.type == "cuda" and made.cameras is not None and made.cameras.device.type == "cuda"
        assert render(made, make_path(made, "orbit", views=1, width=8, height=6)).image.is_cuda


@pytest.mark.cuda
def test_a_stopped_fit_goes_on_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nfldm3d.fitting import photographs

    real, calls = photographs._compare, iter(range(100))

    def compare_or_die(*arguments):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(photographs, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(photographs, "_compare", compare_or_die)
    quick = FitOptions(steps=6, rays_per_step=64, voxels=1000, surroundings=0, degree=0, background="environment")
    path = tmp_path / "fit.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(posed(CPU), options=quick, device="cuda", checkpoint=path, progress=False)
    made = fit(posed(CPU), options=quick, device="cuda", checkpoint=path, progress=False)
    assert made.device.type == "cuda" and made.metadata["fit"]["steps_done"] == 6


@pytest.mark.cuda
def test_points_are_drawn_by_generators_of_either_device() -> None:
    for device in ("cpu", "cuda"):
        draws = torch.Generator(device).manual_seed(0)
        assert nfldm3d.extract_points(ball(torch.device("cuda")), count=20, generator=draws).points.is_cuda
        distributions.kernel_distance(features(torch.device("cuda"), 9, 4), features(CPU, 8, 4).cuda(), generator=draws)


ABOUT = (nfldm3d, nfldm3d.data, nfldm3d.export, nfldm3d.fields, nfldm3d.fitting, nfldm3d.ops, nfldm3d.rendering)
READERS = ("DataFormatError", "SceneFolder", "Co3dCategory", "read_", "rig_scenes")
"""They make captures from files; no device takes part."""
NUMBERS = (  # methods that give plain numbers or words, or do what another row does
    "Box.", "Frame.", "FitOptions.", "Field.", "FusedField.", "GridField.", "StoredField.", "grid_resolution",
    "PosedImages.group_numbers", "Scene.show", "Appearance.", "surface_density", "DataFormatError",
    "PosedImages.names", "Camera.orbit", "Camera.panorama",
    "Camera.shape", "Camera.device", "Rays.shape", "Rgb.", "SphericalHarmonics.", "VoxelField.device",
    "VoxelField.nbytes", "VoxelField.resolution", "VoxelField.voxel_size", "VoxelField.channels", "Scene.levels",
    "Scene.box", "Scene.device", "Scene.load", "fit", "SceneFolder.", "MeshOptions.", "Schedule.", "Parameters.",
    "TensorParameters.", "Checkpoint.", "OptimisationError", "find_missing", "HashGrid.width",
    "HashGrid.from_tinycudann", "HashGrid.tinycudann_config", "NeuralField.box", "NeuralField.to",
    "NeuralField.voxel_size", "NeuralField.device", "SparseField.device", "SparseField.nbytes",
    "SparseField.voxel_size", "SparseField.channels", "SparseField.map",
)  # fmt: skip


def public_calls() -> set[str]:
    """Functions and methods of everything that the packages export."""
    found = set()
    for module in ABOUT:
        for name in module.__all__:
            item: Any = getattr(module, name)
            if inspect.isclass(item):
                kinds = (classmethod, staticmethod, property)
                members = (
                    key for key, value in vars(item).items() if inspect.isfunction(value) or isinstance(value, kinds)
                )
                found |= {f"{name}.{member}" for member in members if not member.startswith("_")}
            elif inspect.isroutine(item):
                found.add(name)
    return found


def test_nothing_public_is_left_out() -> None:
    called = {*CALLS, *ON_THE_CPU, *FILES}
    missing = {name for name in public_calls() - called if not name.startswith((*READERS, *NUMBERS))}
    assert not missing, f"add a row to CALLS for {sorted(missing)}"
