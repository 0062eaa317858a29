"""Choices of views."""

import pytest

from nfldm3d.data.scenes import spread_views


@pytest.mark.parametrize(("count", "chosen"), [(24, 8), (36, 20), (9, 9), (7, 3), (5, 1)])
def test_one_view_of_each_stretch_is_chosen(count: int, chosen: int):
    for name in ("a", "b", "c"):
        numbers = spread_views(count, chosen, name)
        assert len(numbers) == chosen and numbers == sorted(set(numbers)) == spread_views(count, chosen, name)
        for stretch, number in enumerate(numbers):
            assert stretch * count // chosen <= number < (stretch + 1) * count // chosen


def test_no_camera_of_a_rig_is_left_out_or_preferred():
    cameras = [number % 6 for scene in range(300) for number in spread_views(24, 8, f"scene_{scene:04d}")]
    shares = [cameras.count(camera) / len(cameras) for camera in range(6)]
    assert all(0.12 < share < 0.21 for share in shares), shares
