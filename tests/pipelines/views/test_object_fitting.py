"""Drawn views are fitted before white, or with what is around them."""

from dataclasses import replace

import pytest
from small_views import cameras, look

from nfldm3d.pipelines.views.object_fitting import FIT, OBJECT_BOX, as_capture, fit_object


@pytest.mark.parametrize("surroundings", [False, True])
def test_shells_are_fitted_where_pictures_show_what_is_around(surroundings: bool) -> None:
    camera = cameras(4)
    images = look(1, camera) * (0.6 if surroundings else 1.0)
    capture = as_capture(images, camera, "a ball", surroundings=surroundings)
    assert (capture.background is None) == surroundings
    scene = fit_object(capture, replace(FIT, steps=2, rays_per_step=64, voxels=512), progress=False)
    assert bool(scene.surroundings) == surroundings and scene.box == OBJECT_BOX
