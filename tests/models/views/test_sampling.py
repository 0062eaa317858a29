"""Each step goes by the view that the sampler chooses, and the end is without noise."""

import pytest
import torch
from small_views import cameras, look

from nfldm3d.camera import Camera
from nfldm3d.models.views import sampling
from nfldm3d.models.views.log_snr import split_variance
from nfldm3d.models.views.sampling import ViewSampling, draw_views
from nfldm3d.models.views.xunet import XUNet

SIZE = 16


class Known(XUNet):
    """Says the noise as if the picture were of the colour of the view that it goes by, a little brighter."""

    def __init__(self, **options):
        super().__init__(size=SIZE, channels=8, multiples=(1,), heads=1, memory=8, prediction="epsilon", **options)
        self.asked: list[torch.Tensor] = []
        self.untold: list[torch.Tensor] = []

    def forward(self, clean, noisy, log_snr, camera=None, known=None, *, places=None):
        if self.config["objective"] == "regression":
            return clean
        known = log_snr[:, 0] > 0
        if not bool(known.all()):
            self.untold.append(clean[~known])
        self.asked.append(clean[known].mean((1, 2, 3)))
        alpha, sigma = split_variance(log_snr[:, 1], noisy)
        return (noisy - alpha * (clean.mean((1, 2, 3), keepdim=True) + 0.1)) / sigma


def draw(network: XUNet, views: int = 3, seed: int = 0, **options) -> torch.Tensor:
    camera = cameras(8, SIZE)
    given = torch.full((2, 1, 3, SIZE, SIZE), 0.3)
    given[1] = 0.6
    two = Camera.cat([camera[:1].reshape(1, 1)] * 2).reshape(2, 1)
    wanted = camera[1 : 1 + views].reshape(1, views)
    wanted = Camera.cat([wanted.reshape(-1)] * 2).reshape(2, views)
    return draw_views(
        network, given, two, wanted, ViewSampling(**options), generator=torch.Generator().manual_seed(seed)
    )


def levels_of(pictures: torch.Tensor) -> list[float]:
    return [round(float(picture.mean()), 2) for picture in pictures]


def test_the_naive_way_goes_by_the_first_view_alone() -> None:
    made = draw(Known(), conditioning="first", steps=12, guidance=0.0)
    assert made.shape == (2, 3, 3, SIZE, SIZE) and levels_of(made[0]) == [0.35, 0.35, 0.35]
    assert levels_of(made[1]) == [0.65, 0.65, 0.65] and float(made[0, 0].std()) < 1e-3  # no noise is left


def test_markov_goes_by_the_last_views() -> None:
    assert levels_of(draw(Known(), conditioning="markov", steps=12, guidance=0.0)[0]) == [0.35, 0.4, 0.45]
    network = Known()
    draw(network, conditioning="markov", memory=2, steps=60, guidance=0.0)
    third = {round(float(each[0]) / 2 + 0.5, 2) for each in network.asked[120:]}
    assert 0.35 in third and 0.3 not in third  # those that were drawn, not the one that was given


def test_stochastic_conditioning_goes_by_all_views() -> None:
    network = Known()
    draw(network, steps=60, guidance=0.0)
    assert len(network.asked) == 180 and not network.untold
    assert {round(float(each[0]) / 2 + 0.5, 2) for each in network.asked[:60]} == {0.3}
    third = [round(float(each[0]) / 2 + 0.5, 2) for each in network.asked[120:]]
    assert set(third) >= {0.3, 0.35}
    assert third != [round(float(each[1]) / 2 + 0.2, 2) for each in network.asked[120:]]  # objects choose by themselves


def test_guidance_leads_away_from_what_is_said_without_a_view() -> None:
    network = Known()
    draw(network, views=1, steps=5, guidance=2.0)
    assert len(network.untold) == 5 and len(network.asked) == 5
    assert all(torch.equal(each, network.untold[0]) for each in network.untold)  # one frame of noise for a view


@pytest.mark.parametrize("options", [{"guidance": 1.5}, {"guidance": 0.0}, {"conditioning": "markov", "memory": 2}])
@pytest.mark.parametrize("kept", [0, 2**30])
def test_places_that_are_kept_tell_what_cameras_do(options: dict, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the sampler as it is written: cameras are told at every step, with a pass of their own for guidance."""
    network = XUNet(size=SIZE, channels=8, multiples=(1, 2), attention=(4,), heads=1, memory=8).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    monkeypatch.setattr(sampling, "KEPT_BYTES", kept)
    made = draw(network, steps=6, **options)
    monkeypatch.setattr(sampling._Drawing, "_predict", predict_plainly)
    assert torch.allclose(made, draw(network, steps=6, **options), atol=1e-4)


def predict_plainly(drawing, noisy, level, chosen, instead):
    camera = Camera.cat([drawing.cameras[torch.arange(len(noisy)), chosen].reshape(-1, 1), drawing.wanted])
    said = []
    for view, clean in ((drawing.pool[torch.arange(len(noisy)), chosen], 20.0), (instead, -20.0)):
        if view is not None:
            levels = torch.stack((torch.full_like(level, clean), level), dim=-1)
            said.append(drawing.network(view, noisy, levels, camera, torch.full((len(noisy),), clean > 0)))
    weight = drawing.sampling.guidance
    return said[0] if instead is None else (1 + weight) * said[0] - weight * said[1]


def test_equal_generators_draw_equal_views() -> None:
    network = XUNet(size=SIZE, channels=8, multiples=(1,), heads=1, memory=8)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    first, same, other = (draw(network, seed=seed, steps=3) for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.allclose(first, other)
    calm = draw(network, steps=3, eta=0.0, guidance=0.0)
    assert not torch.allclose(calm, first) and torch.isfinite(calm).all()


def test_regression_asks_once_by_the_first_view() -> None:
    made = draw(Known(objective="regression"), steps=50)
    assert levels_of(made[0]) == [0.3, 0.3, 0.3]


def test_progress_is_told_and_can_stop_it() -> None:
    heard: list[float] = []
    camera = cameras(3, SIZE).reshape(1, 3)
    given = look(0, cameras(1, SIZE))[None]
    draw_views(Known(), given, camera[:, :1], camera[:, 1:], ViewSampling(steps=2), tell=heard.append)
    assert heard == [0.25, 0.5, 0.75, 1.0]

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_views(Known(), given, camera[:, :1], camera[:, 1:], ViewSampling(steps=2), tell=stop)


def test_what_does_not_fit_is_refused() -> None:
    camera, given = cameras(3, SIZE).reshape(1, 3), look(0, cameras(1, SIZE))[None]
    with pytest.raises(ValueError, match="draws 16x16 pixels, got 12x12, 16x16"):
        draw_views(Known(), given, camera[:, :1].resized(12, 12), camera[:, 1:])
    with pytest.raises(ValueError, match="need cameras of that shape"):
        draw_views(Known(), given, camera[:, :2], camera[:, 1:])
    for options in ({"steps": 0}, {"memory": 0}, {"guidance": -1.0}, {"guidance": float("nan")}, {"eta": 2.0}):
        with pytest.raises(ValueError, match="must"):
            ViewSampling(**options)
