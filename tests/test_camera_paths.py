"""Circles are level and turn to the left; frames on a key have what the key has, and lie in straight lines between."""

import math

import pytest
import torch

from nfldm3d.camera_paths import KeyPath, circle


@pytest.mark.parametrize("elevation", [0.0, 25.0, -90.0])
def test_a_circle_has_one_elevation(elevation: float) -> None:
    directions = circle(7, elevation)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(7))
    assert torch.allclose(directions[:, 2], torch.tensor(math.sin(math.radians(elevation))))


def test_a_circle_turns_left_from_x() -> None:
    assert torch.allclose(circle(4), torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]), atol=1e-6)


@pytest.mark.parametrize("closed", [False, True])
def test_frames_on_a_key_are_the_key(closed: bool) -> None:
    values = torch.tensor([[1.0, 5.0], [4.0, 2.0], [-3.0, 0.5]])
    path = KeyPath.past(3, 3 if closed else 5, closed=closed)
    frames = path.mix(values[path.keys])
    wanted = (
        values if closed else torch.stack((values[0], values[:2].mean(0), values[1], values[1:].mean(0), values[2]))
    )
    assert torch.allclose(frames, wanted)


def test_a_closed_path_passes_the_seam() -> None:
    values = torch.tensor([[1.0], [4.0], [-3.0]])
    path = KeyPath.past(3, 6, closed=True)
    assert torch.allclose(path.mix(values[path.keys])[-1], (values[2] + values[0]) / 2)


@pytest.mark.parametrize(("views", "frames"), [(1, 5), (2, 0)])
def test_a_path_needs_two_views_and_a_frame(views: int, frames: int) -> None:
    with pytest.raises(ValueError, match="at least two cameras and one frame"):
        KeyPath.past(views, frames, closed=False)
