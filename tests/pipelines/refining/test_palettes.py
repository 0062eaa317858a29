"""Colours move as a whole: to another mean and covariance, and in pictures as in what is rendered."""

from dataclasses import replace

import pytest
import torch
from small_priors import GaussianPrior
from small_refining import make_scene

from nfldm3d import render
from nfldm3d.pipelines.refining import RefineOptions, refine
from nfldm3d.pipelines.refining.cameras import square
from nfldm3d.pipelines.refining.grid import RefinedGrid
from nfldm3d.pipelines.refining.palettes import apply_palette, match_palette


def spread(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    colors = pictures.movedim(1, -1).reshape(-1, 3).double()
    return colors.mean(0), torch.cov(colors.T)


def draw(generator: torch.Generator, *, low: float, high: float) -> torch.Tensor:
    """Pictures of correlated colours."""
    grey = torch.rand(4, 1, 9, 7, generator=generator)
    return low + (high - low) * (0.7 * grey + 0.3 * torch.rand(4, 3, 9, 7, generator=generator))


def test_mean_and_covariance_become_those_of_the_other_pictures(generator: torch.Generator) -> None:
    shown, wanted = draw(generator, low=0.4, high=0.9), draw(generator, low=0.2, high=0.5)
    matrix, shift = match_palette(shown, wanted)
    made = torch.einsum("ij,njhw->nihw", matrix, shown) + shift[:, None, None]
    for found, aim in zip(spread(made), spread(wanted), strict=True):
        assert torch.allclose(found, aim, atol=1e-4)
    assert torch.allclose(matrix, matrix.T, atol=1e-5), "colours move no further than they must"
    same = match_palette(shown, shown)
    assert torch.allclose(same[0], torch.eye(3), atol=1e-4) and float(same[1].abs().max()) < 1e-4
    kept = match_palette(shown, wanted, 0.0)
    assert torch.allclose(kept[0], torch.eye(3), atol=1e-6) and float(kept[1].abs().max()) < 1e-6


def test_pictures_of_one_colour_can_be_matched(generator: torch.Generator) -> None:
    for shown, wanted in (
        (torch.full((1, 3, 4, 4), 0.3), draw(generator, low=0.1, high=0.4)),
        (torch.rand(2, 3, 4, 4, generator=generator), torch.zeros(1, 3, 4, 4)),
    ):
        made = apply_palette(shown.movedim(1, -1), match_palette(shown, wanted))
        assert bool(torch.isfinite(made).all()) and torch.allclose(
            made.mean((0, 1, 2)), wanted.mean((0, 2, 3)), atol=0.05
        )


def test_what_is_rendered_changes_like_the_colours(generator: torch.Generator) -> None:
    """Of field, surroundings and sky."""
    scene = make_scene()
    grid = RefinedGrid(scene, RefineOptions())
    around = replace(
        grid.plain,
        surroundings=(
            replace(grid.field, box=replace(grid.field.box, upper=tuple(2 * side for side in grid.field.box.upper))),
        ),
    )
    palette = 0.5 * torch.eye(3) + 0.1, torch.tensor([0.1, 0.0, 0.05])
    for plain in (scene, around):
        grid = RefinedGrid(plain, RefineOptions())
        camera = square(scene.cameras.reshape(-1), 8)  # type: ignore[union-attr]
        before = render(grid.scene(), camera).image
        grid.recolor(palette)
        after = render(grid.scene(), camera).image
        assert torch.allclose(after, apply_palette(before.movedim(1, -1), palette).movedim(-1, 1), atol=2e-3)


def test_a_look_begins_with_its_colours() -> None:
    scene = make_scene()
    like, prior = torch.full((4, 3, 16, 16), 0.2), GaussianPrior()
    few = RefineOptions(steps=1, views=3, views_per_step=1, seed=1)
    kept = refine(scene, prior, options=few, like=like, progress=False)
    moved = refine(scene, prior, options=replace(few, match_colors=1.0), like=like, progress=False)
    assert scene.cameras is not None
    with torch.no_grad():
        shown = [render(each, scene.cameras.reshape(-1)).image for each in (scene, kept, moved)]
    away = [float((image - 0.2).abs().mean()) for image in shown]
    assert away[2] < 0.5 * min(away[:2]) and moved.metadata["refined"]["match_colors"] == 1.0  # type: ignore[index]
    with pytest.raises(ValueError, match="at least 4 pictures, got 2"):
        refine(scene, prior, options=replace(few, match_colors=1.0), like=like[:2], progress=False)
    with pytest.raises(ValueError, match="match_colors is a share"):
        RefineOptions(match_colors=1.5)
