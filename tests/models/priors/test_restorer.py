"""The restorer that comes with weights: it is found where there is one, and changes pictures it is shown."""

from pathlib import Path

import pytest
import torch
from small_refining import make_scene

from nfldm3d import Camera, render
from nfldm3d.models.priors.restorer import FOLDER, RawViews, Restorer, look_at


def test_weights_with_and_without_one(tmp_path: Path) -> None:
    found = Restorer.find("driving")
    assert found is not None and found.image_size == 64
    assert Restorer.find("vizdoom") is None
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(ValueError):  # one that is damaged is none that is missing
        Restorer.find(tmp_path)


def test_the_shipped_one_sharpens_what_is_soft() -> None:
    """Edges of a blurred road come nearer to those of a picture; the same noise gives the same picture."""
    row = torch.linspace(-1, 1, 64)
    ground = torch.sigmoid(12 * row)[:, None].expand(64, 64)  # sky above, road below, softly
    render = torch.stack((0.5 - 0.1 * ground, 0.6 - 0.2 * ground, 0.9 - 0.5 * ground))[None]
    raw = RawViews(render, ground[None], 0.4 * ground[None])
    restorer = Restorer.from_pretrained("driving")
    draws = [
        restorer.restore(raw, steps=4, noise=torch.randn(render.shape, generator=torch.Generator().manual_seed(seed)))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.allclose(draws[0], draws[2], atol=1e-3)
    assert float((draws[0] - render).abs().mean()) < 0.1  # still that road
    assert float(draws[0].diff(dim=-1).abs().mean()) > 2 * float(render.diff(dim=-1).abs().mean()) + 1e-4


def test_pictures_of_scenes_are_drawn_in_any_size() -> None:
    """Sizes that cannot be cut into patches lose nothing, and what lies beyond their edges changes little."""
    torch.manual_seed(0)
    scene, restorer = make_scene(), Restorer.from_pretrained("driving")
    camera = Camera.look_at((0.0, 0.0, 0.5), (2.0, 0.3, 0.4), width=37, height=22).reshape(1)
    drawn = restorer.draw(scene, camera)
    assert drawn.shape == (1, 3, 22, 37) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    assert torch.equal(restorer.draw(scene, camera[0]), drawn[0])
    raw = RawViews(**look_at(scene, camera))
    assert torch.equal(raw.render, render(scene, camera).image)
    assert torch.equal(restorer.restore(raw).clamp(0, 1), drawn)
