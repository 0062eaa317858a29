"""Views, prompts and options of dreams: ranges, sides and their published weights."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_priors import write_own_texts, write_pixel_texts
from torch import Tensor

from nfldm3d.guidance import load_prior
from nfldm3d.guidance.distillation import Distillation
from nfldm3d.pipelines.dream.canvas import VoxelCanvas, finish, make_canvas
from nfldm3d.pipelines.dream.dreaming import draw_shading, require_visible
from nfldm3d.pipelines.dream.options import DreamOptions
from nfldm3d.pipelines.dream.prompts import Prompts, mix, nearest_side, perpendicular_weights
from nfldm3d.pipelines.dream.views import ViewRanges, directions, draw_views

STILL = ViewRanges(aim=0.0, roll=0.0, shift=0.0)


def test_cameras_lie_in_their_ranges(generator: torch.Generator) -> None:
    ranges = replace(STILL, elevation=(-5.0, 40.0), distance=(1.1, 1.4), focal=(0.8, 1.2), light_distance=(0.9, 1.0))
    views = draw_views(ranges, 40, 20, radius=2.0, generator=generator)
    assert views.camera.shape == (40,) and (views.camera.width, views.camera.height) == (20, 20)
    centers = views.camera.centers
    distance = centers.norm(dim=-1) / 2
    assert 1.1 <= float(distance.min()) < 1.15 and 1.35 < float(distance.max()) <= 1.4
    elevation = torch.rad2deg(torch.asin(centers[:, 2] / centers.norm(dim=-1)))
    torch.testing.assert_close(elevation, views.elevation, atol=1e-3, rtol=0)
    assert float(elevation.min()) >= -5 and 30 < float(elevation.max()) <= 40
    torch.testing.assert_close(
        torch.rad2deg(torch.atan2(centers[:, 1], centers[:, 0])), views.azimuth, atol=1e-2, rtol=0
    )
    torch.testing.assert_close(views.camera.forward, -torch.nn.functional.normalize(centers, dim=-1), atol=1e-5, rtol=0)
    focal = views.camera.focal / 20
    assert float(focal.min()) >= 0.8 and float(focal.max()) <= 1.2 and torch.equal(focal[:, 0], focal[:, 1])
    lamps = views.lamps.norm(dim=-1) / 2
    assert float(lamps.min()) >= 0.9 and float(lamps.max()) <= 1.0
    assert float((torch.nn.functional.normalize(centers, dim=-1) * views.lamps).sum(-1).mean()) > 0.8  # near the camera


def test_cameras_are_spread_over_the_azimuth_and_jitter(generator: torch.Generator) -> None:
    views = draw_views(ViewRanges.published(), 8, 16, generator=generator)
    parts = ((views.azimuth + 180) / 45).floor()
    assert torch.equal(parts, torch.arange(8.0))
    away = -torch.nn.functional.normalize(views.camera.centers, dim=-1)
    assert 0.001 < float((1 - (views.camera.forward * away).sum(-1)).mean()) < 0.1
    again = draw_views(ViewRanges.published(), 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.camera.world_from_camera, views.camera.world_from_camera)


def test_ranges_that_are_none_are_refused() -> None:
    for wrong in (
        {"elevation": (20.0, 10.0)},
        {"elevation": (0.0, 95.0)},
        {"aim": -1.0},
        {"distance": (0.0, math.inf)},
    ):
        with pytest.raises(ValueError, match="got"):
            ViewRanges(**wrong)
    with pytest.raises(ValueError, match="above 0"):
        ViewRanges(focal=(0.0, 1.0))


def test_the_front_is_where_x_grows() -> None:
    torch.testing.assert_close(
        directions(torch.tensor((0.0, 90.0)), torch.zeros(2)), torch.eye(3)[:2], atol=1e-6, rtol=0
    )


AZIMUTH = torch.tensor((0.0, 30.0, -44.0, 46.0, -90.0, 134.0, 136.0, -180.0, 10.0))
ELEVATION = torch.tensor((0.0,) * 8 + (61.0,))


def test_the_nearest_side_is_told() -> None:
    assert nearest_side(AZIMUTH, ELEVATION).argmax(-1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3]


def test_sides_are_mixed_by_the_azimuth() -> None:
    shares = mix(AZIMUTH, ELEVATION)
    torch.testing.assert_close(shares.sum(-1), torch.ones(9))
    torch.testing.assert_close(shares[1], torch.tensor((2 / 3, 1 / 3, 0.0, 0.0)))
    torch.testing.assert_close(shares[5], torch.tensor((0.0, 46 / 90, 44 / 90, 0.0)))
    assert shares[[0, 4, 7, 8]].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_perp_neg_has_its_published_weights() -> None:
    sides, weights = perpendicular_weights(
        torch.tensor((0.0, -45.0, 90.0, 180.0, 0.0)), torch.tensor((0.0,) * 4 + (70.0,))
    )
    assert sides.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]]
    half = 4 * math.exp(-0.25) - 2.426
    wanted = [[0.0, 1.574], [half, half], [0.0, 1.574], [0.394, 1.967], [0.0, 0.0]]
    torch.testing.assert_close(weights, -torch.tensor(wanted), atol=1.5e-3, rtol=0)


class Words:
    """As much of a prior as prompts ask for: the length of a text, and of its last word but one."""

    image_size, alphas_cumprod = 4, torch.ones(2)
    to_latents = to_images = predict_noise = len

    def embed(self, described: list[str]) -> Tensor:
        (text,) = described
        return torch.tensor([[[float(len(text)), float(len(text.split()[-2]))]]])

    def embed_nothing(self, views: int) -> Tensor:
        return torch.zeros(views, 1, 2)


def test_prompts_say_the_side() -> None:
    prompts = Prompts.embed(Words(), "a chair")  # type: ignore[arg-type]
    plain, sides = 7.0, [len(f"a chair, {side} view") for side in ("front", "side", "back", "overhead")]
    assert prompts.plain[0, 0, 0] == plain and prompts.sides[:, 0, 0].tolist() == sides
    angles = (torch.tensor((45.0, 0.0)), torch.tensor((0.0, 80.0)))
    mixed = prompts.conditions(*angles)
    assert mixed.wanted[:, 0, 0].tolist() == [(sides[0] + sides[1]) / 2, sides[3]] and mixed.others is None
    assert prompts.conditions(*angles, "threshold").wanted[:, 0, 0].tolist() == [sides[1], sides[3]]
    assert prompts.conditions(*angles, "none").wanted[:, 0, 0].tolist() == [plain, plain]
    away = prompts.conditions(*angles, "none", perp_neg=True)
    assert away.others is not None and away.others.conditions.shape == (2, 2, 1, 2)
    assert away.wanted.equal(mixed.wanted) and not away.avoided.any()
    assert bool(Prompts.embed(Words(), "a chair", "bad things").conditions(*angles).avoided.any())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the prompt is empty"):
        Prompts.embed(Words(), "  ")  # type: ignore[arg-type]


class Angles(Words):
    """The same, told angles."""

    def place(self, condition: Tensor, azimuth: Tensor, elevation: Tensor) -> Tensor:
        return torch.stack((condition[:, 0, 0], azimuth + elevation / 1000), dim=-1)[:, None]


def test_a_prior_that_is_told_angles_is_told_them() -> None:
    prompts = Prompts.embed(Angles(), "a red chair")  # type: ignore[arg-type]
    angles = (torch.tensor((-40.0, 100.0)), torch.tensor((10.0, 80.0)))
    told = prompts.conditions(*angles).wanted[:, 0]
    torch.testing.assert_close(told, torch.tensor(((11.0, -39.99), (11.0, 100.08))))
    torch.testing.assert_close(prompts.conditions(*angles, "threshold").wanted[:, 0, 1], torch.tensor((0.015, 0.075)))
    assert prompts.conditions(*angles, "none").wanted.equal(prompts.plain.expand(2, -1, -1))
    away = prompts.conditions(*angles, perp_neg=True)
    assert away.others is not None and away.wanted.equal(prompts.conditions(*angles).wanted)
    torch.testing.assert_close(away.others.conditions[0, :, 0, 1], torch.tensor((0.015, 90.015)))


def test_shading_begins_with_albedo_and_is_mixed_afterwards(generator: torch.Generator) -> None:
    options = replace(DreamOptions.published(), albedo_share=0.2)
    assert {draw_shading(options, 0.19, generator) for _ in range(30)} == {"albedo"}
    drawn = [draw_shading(options, 0.2, generator) for _ in range(400)]
    shares = [drawn.count(kind) / 400 for kind in ("albedo", "lambertian", "textureless")]
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.06)


def test_options_out_of_range_are_refused() -> None:
    wrong = ({"steps": 0}, {"size": 2}, {"batch": 0}, {"detail": 4}, {"coarse_share": 1.5}, {"opacity_weight": -1.0})
    for options in wrong:
        with pytest.raises(ValueError, match="got"):
            DreamOptions(**options)
    with pytest.raises(ValueError, match="rescale does not go with perp_neg"):
        DreamOptions(perp_neg=True, distillation=Distillation(rescale=0.5))
    assert DreamOptions(steps=3).identity() == DreamOptions(steps=4).identity()
    assert DreamOptions(seed=3).identity() != DreamOptions(seed=4).identity()


def test_a_field_that_went_empty_is_named(generator: torch.Generator) -> None:
    for kind in ("hash", "voxels"):
        canvas = make_canvas(kind, radius=1.0, detail=16, activation="softplus", generator=generator)  # type: ignore[arg-type]
        with torch.no_grad():
            if isinstance(canvas, VoxelCanvas):
                canvas.grids[-1][0, 0] = -5.0
            else:
                canvas.encoding.table.fill_(1.0)
                canvas.weights[0].fill_(1.0)
                canvas.weights[1].fill_(-1.0)
        with pytest.raises(ValueError, match=r"the field went empty: it hides at most \d+ % .* lower --opacity-weight"):
            require_visible(finish(canvas, generator))


def test_published_options_fill_what_is_left() -> None:
    options = DreamOptions(steps=7, views=ViewRanges(aim=0.3)).or_published()
    published = DreamOptions.published()
    assert options == replace(published, steps=7, views=replace(published.views, aim=0.3))
    assert published.views.distance == (1.0, 1.5) and published.distillation.first_steps == (0.02, 0.98)


def test_options_suit_the_prior(tmp_path: Path) -> None:
    chosen = DreamOptions(steps=7)
    assert chosen.suiting(load_prior(write_own_texts(tmp_path / "own"))) == chosen
    assert chosen.suiting(load_prior(write_pixel_texts(tmp_path / "other"))) == chosen.or_published()
