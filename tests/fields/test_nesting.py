"""Nested fields as one: the innermost answers, and nobody is asked outside its box."""

from dataclasses import replace

import pytest
import torch
from balls import BOX, make_ball
from torch import Tensor

from nfldm3d import Box, VoxelField
from nfldm3d.fields import Field, read_innermost, split_levels

AROUND = Box((-3.0, -0.5, -2.0), (3.5, 5.0, 2.5))


def constant(value: float, box: Box) -> VoxelField:
    return VoxelField(torch.full((3, 4, 5), value), torch.full((3, 4, 5, 2), -value), box)


def read(field: Field, points: Tensor) -> Tensor:
    density, features = field.query(points)
    return torch.cat((density[:, None], features), dim=-1)


@pytest.fixture
def points(generator: torch.Generator) -> Tensor:
    """In the inner box, between both, and beyond both."""
    whole = torch.tensor(AROUND.lower) - 1 + torch.rand(6, 50, 3, generator=generator) * (torch.tensor(AROUND.size) + 2)
    inside, around = BOX.contains(whole), AROUND.contains(whole)
    assert inside.any() and (around & ~inside).any() and (~around).any()
    return whole


@pytest.mark.parametrize("balls", [False, True])
def test_the_innermost_answers(points: Tensor, balls: bool) -> None:
    levels: list[Field] = [constant(2.0, BOX), constant(5.0, AROUND)]
    if balls:
        levels = [make_ball(), replace(make_ball(2.0), box=AROUND)]
    values = read_innermost(levels, points, read)
    inside, around = BOX.contains(points), AROUND.contains(points)
    torch.testing.assert_close(values[inside], read(levels[0], points[inside]))
    torch.testing.assert_close(values[around & ~inside], read(levels[1], points[around & ~inside]))
    assert (values[~around] == 0).all() and values.shape[:-1] == points.shape[:-1]


@pytest.mark.parametrize("ball", [False, True])
def test_one_field_is_zero_beyond_its_box(points: Tensor, ball: bool) -> None:
    """Normals of a grid too, though its slope just outside is none."""
    field = make_ball() if ball else constant(2.0, BOX)
    normals = read_innermost([field], points, lambda level, some: level.normals(some))
    inside = BOX.contains(points)
    assert (normals[~inside] == 0).all()
    torch.testing.assert_close(normals[inside], field.normals(points[inside]))


def test_no_points_are_no_mistake() -> None:
    for levels in ([make_ball()], [constant(1.0, BOX)], [make_ball(), constant(1.0, AROUND)]):
        assert read_innermost(levels, torch.zeros(0, 3), lambda level, some: some[:, :1]).shape == (0, 1)


def test_points_on_faces_belong_inside() -> None:
    levels = [constant(1.0, BOX), constant(1.0, AROUND)]
    face = torch.tensor([[BOX.upper[0] + 1e-6, *BOX.center[1:]]])
    assert not split_levels(levels, face)[0].any() and split_levels(levels, face, slack=1e-5)[0].all()
