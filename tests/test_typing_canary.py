"""The shape checker is on: were it not, every annotation in the package would be a claim that nobody checks."""

import pytest
import torch
from jaxtyping import TypeCheckError

from nfldm3d.geometry import Box, Rays, transform_points

BOX = Box((-1.0, 0.0, 2.0), (1.0, 3.0, 7.0))


def test_right_shapes_pass() -> None:
    assert BOX.contains(torch.zeros(2, 5, 3)).shape == (2, 5)


@pytest.mark.parametrize("points", [torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64)], ids=["shape", "dtype"])
def test_a_wrong_argument_fails(points: torch.Tensor) -> None:
    with pytest.raises(TypeCheckError):
        BOX.contains(points)


def test_axes_of_one_name_must_agree() -> None:
    with pytest.raises(TypeCheckError):
        transform_points(torch.eye(4).expand(2, 4, 4), torch.zeros(3, 7, 3))


def test_a_wrong_field_of_a_dataclass_fails() -> None:
    whole_numbers = torch.zeros(5, 3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        Rays(whole_numbers, whole_numbers)
