"""The restorer that comes with weights: it is found where there is one, and changes pictures it is shown."""

from pathlib import Path

import pytest
import torch

from nfldm3d.models.priors.restorer import FOLDER, RawViews, Restorer


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
