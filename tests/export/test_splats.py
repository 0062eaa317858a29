"""Gaussians of scenes, rendered from the file's own numbers and laid beside the field."""

import math
from pathlib import Path

import pytest
import torch
from balls import BOX as BALL_BOX, make_ball
from splat_renderer import read_columns, render_splats, rotation_matrices

from nfldm3d import Box, Camera, Rgb, Scene, SphericalHarmonics, VoxelField
from nfldm3d.export import export_splats, extract_splats
from nfldm3d.export.splats import encode_splats
from nfldm3d.rendering import render

BOX = Box((-1.0, 2.0, 0.5), (1.5, 5.0, 2.5))
MIDDLE = (0.3, 3.4, 1.4)


def ball(density: float, resolution: tuple[int, int, int] = (15, 18, 11), signed: bool = False) -> VoxelField:
    """Of a radius of 0.75 off the middle of its box; its colours say where."""
    blank = VoxelField.zeros(BOX, resolution, 3)
    centers = blank.voxel_centers()
    depth = 0.75 - (centers - torch.tensor(MIDDLE)).norm(dim=-1)
    values = density * (depth if signed else depth.clamp(min=0)) / 0.2
    return VoxelField(values, (centers - torch.tensor(BOX.lower)) / torch.tensor(BOX.size), BOX, signed)


def around(box: Box = BOX, views: int = 2) -> Camera:
    return Camera.orbit(box.center, 3.2, views=views, width=44, height=33)


def differences(scene: Scene, cameras: Camera, detail: int = 1) -> tuple[float, float]:
    """Mean error of picture and of opacity, over what is seen."""
    columns = read_columns(encode_splats(extract_splats(scene, detail=detail)))
    images, opacities = zip(*(render_splats(columns, camera) for camera in cameras), strict=True)
    wanted = render(scene, cameras)
    seen = wanted.opacity.sum()
    color = (torch.stack(images) - wanted.image).abs().mean(1).sum() / seen
    return float(color), float((torch.stack(opacities) - wanted.opacity).abs().sum() / seen)


@pytest.mark.parametrize("density", [2.0, 40.0])
def test_splats_look_like_the_field(density: float) -> None:
    color, opacity = differences(Scene(ball(density), Rgb()), around(views=1))
    assert color < 0.06 and opacity < 0.1


def test_finer_splats_show_a_signed_field_better() -> None:
    scene = Scene(ball(40.0, (10, 12, 8), signed=True), Rgb())
    coarse, fine = (differences(scene, around(views=1), detail)[1] for detail in (1, 2))
    assert fine < 0.6 * coarse


def test_a_formula_becomes_splats() -> None:
    scene = Scene(make_ball(0.8, 3.0), Rgb())
    color, opacity = differences(scene, around(BALL_BOX, views=1))
    assert color < 0.06 and opacity < 0.06, (color, opacity)


def test_view_dependent_colours_stay_so(generator: torch.Generator) -> None:
    """Coefficients in turned axes give in the file, which has none, the same colours from every side."""
    field = ball(40.0)
    turned = ((0.0, -1.0, 0.0), (0.6, 0.0, -0.8), (0.8, 0.0, 0.6))
    features = 0.1 * torch.randn(12, generator=generator).expand(*field.resolution, 12)
    scene = Scene(VoxelField(field.density, features, BOX), SphericalHarmonics(1, turned))
    columns = read_columns(encode_splats(extract_splats(scene)))
    for camera in around(views=3):
        image, opacity = render_splats(columns, camera)
        seen = render(scene, camera)
        solid = (opacity > 0.95) & (seen.opacity > 0.95)
        assert (image / opacity - seen.image / seen.opacity)[:, solid].abs().max() < 0.02


def test_hidden_matter_is_left_out_and_normals_give_the_thin_axis() -> None:
    splats = extract_splats(Scene(ball(400.0, (25, 30, 20)), Rgb()))
    offset = splats.centers - torch.tensor(MIDDLE)
    assert offset.norm(dim=-1).min() > 0.3, "the middle cannot be seen"
    thin = rotation_matrices(splats.rotations)[..., 2]
    assert (thin * torch.nn.functional.normalize(offset, dim=-1)).sum(-1).min() > 0.9
    assert torch.allclose(splats.scales[:, :2], torch.tensor(0.05), atol=1e-3) and splats.scales[:, 2].max() < 0.035


def test_optical_depth_of_a_slab() -> None:
    """A wall of splats absorbs on average what the wall does, 1 - exp(-density * thickness)."""
    density = torch.zeros(24, 24, 5)
    density[:, :, 2] = 1.5
    box = Box((0.0, 0.0, 0.0), (24.0, 24.0, 5.0))
    columns = read_columns(
        encode_splats(extract_splats(Scene(VoxelField(density, torch.ones(24, 24, 5, 3), box), Rgb())))
    )
    camera = Camera.look_at((12.0, 12.0, 400.0), (12.0, 12.01, 0.0), width=48, height=48, horizontal_fov_degrees=1.0)
    opacity = render_splats(columns, camera)[1]
    assert float(-torch.log1p(-opacity).mean()) == pytest.approx(1.5, rel=0.06)


def test_surroundings_begin_where_the_field_ends() -> None:
    outer = Box((-4.0, -2.0, -1.5), (4.5, 9.0, 4.5))
    around_it = VoxelField(torch.full((8, 9, 7), 0.5), torch.zeros(8, 9, 7, 3), outer)
    splats = extract_splats(Scene(ball(5.0), Rgb(), surroundings=(around_it,)))
    large = splats.scales[:, 0] > 0.2
    assert large.any() and (~large).any() and not bool(BOX.contains(splats.centers[large]).any())


def test_the_file_holds_what_splat_viewers_ask_for(tmp_path: Path) -> None:
    part = Box((-1.0, 2.0, 0.5), (0.3, 5.0, 2.5))
    splats = export_splats(Scene(ball(40.0), Rgb()), tmp_path / "a.ply", box=part)
    columns = read_columns((tmp_path / "a.ply").read_bytes())
    wanted = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert list(columns) == wanted.split() and len(columns["x"]) == len(splats)
    assert columns["x"].max() <= 0.3 and (columns["opacity"].sigmoid() <= 0.99001).all()
    assert torch.allclose(columns["scale_2"].exp(), splats.scales[:, 2])
    color = 0.5 + 0.5 / math.sqrt(math.pi) * torch.stack([columns[f"f_dc_{number}"] for number in range(3)], -1)
    assert torch.allclose(color, (splats.centers - torch.tensor(BOX.lower)) / torch.tensor(BOX.size), atol=1e-5)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    scene = Scene(ball(40.0), Rgb())
    with pytest.raises(ValueError, match="written as .ply"):
        export_splats(scene, tmp_path / "a.splat")
    with pytest.raises(ValueError, match="nothing can be seen from"):
        export_splats(scene, tmp_path / "a.ply", box=Box((-1.0, 2.0, 0.5), (-0.9, 2.1, 0.6)))
    for detail in (0, 5):
        with pytest.raises(ValueError, match="detail must lie between 1 and 4"):
            extract_splats(scene, detail=detail)
    assert not list(tmp_path.iterdir())
