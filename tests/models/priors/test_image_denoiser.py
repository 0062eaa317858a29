"""The small denoiser of pictures: what it is told matters, and sizes that do not fit are refused."""

import pytest
import torch

from nfldm3d.models.priors.image_denoiser import ImageDenoiser, make_image_schedule


def make(**options: int | str) -> ImageDenoiser:
    network = ImageDenoiser(**{"size": 16, "widths": (8, 16), "blocks": 1, "memory": 16} | options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def test_it_begins_at_zero(generator: torch.Generator) -> None:
    network = ImageDenoiser(size=16, widths=(8, 16), blocks=1)
    assert not network(torch.randn(2, 3, 16, 24, generator=generator), torch.tensor([3, 800])).any()


def test_all_that_it_is_told_matters(generator: torch.Generator) -> None:
    network = make(embedding=5, beside=2)
    noisy = torch.randn(1, 3, 16, 24, generator=generator)
    t, known, seen = torch.tensor([400]), torch.randn(1, 5, generator=generator), torch.rand(1, 2, 16, 24)
    with torch.no_grad():
        answer = network(noisy, t, known, seen)
        others = (
            network(noisy + 0.1, t, known, seen),
            network(noisy, t + 300, known, seen),
            network(noisy, t, -known, seen),
            network(noisy, t, 0 * known, seen),
            network(noisy, t, known, 1 - seen),
        )
    assert answer.shape == noisy.shape
    assert all(not torch.allclose(answer, other, atol=1e-4) for other in others)


def test_a_predicted_picture_is_answered_as_v(generator: torch.Generator) -> None:
    network, schedule = make(predicts="picture"), make_image_schedule()
    noisy, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([30, 900])
    with torch.no_grad():
        velocity = network(noisy, t)
        network.register_to_config(predicts="velocity")  # the layers' own answer
        picture = network(noisy, t)
    for number, step in enumerate(t):
        kept = schedule.alphas_cumprod[step]
        found = kept.sqrt() * noisy[number] - (1 - kept).sqrt() * velocity[number]
        torch.testing.assert_close(found, picture[number], atol=1e-4, rtol=1e-4)


def test_every_token_matters_and_zeros_are_none(generator: torch.Generator) -> None:
    network = make(embedding=5, questions=3)
    noisy, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([400, 500])
    tokens = torch.randn(2, 4, 5, generator=generator)
    longer = torch.cat((tokens, torch.zeros(2, 3, 5)), dim=1)
    other = tokens.clone()
    other[:, 2] *= -1
    with torch.no_grad():
        answer = network(noisy, t, tokens)
        assert torch.allclose(network(noisy, t, longer), answer, atol=1e-5)
        assert not torch.allclose(network(noisy, t, other), answer, atol=1e-4)
        nothing = network(noisy, t, torch.zeros(2, 4, 5))
        assert bool(torch.isfinite(nothing).all()) and not torch.allclose(nothing, answer, atol=1e-4)
        assert torch.allclose(network(noisy, t, torch.zeros(2, 1, 5)), nothing, atol=1e-6)


def test_viewpoints_need_tokens_to_stand_among() -> None:
    for told in ({"questions": 0, "embedding": 12}, {"questions": 2, "embedding": 4}):
        with pytest.raises(ValueError, match="told viewpoints is told tokens"):
            make(viewpoint=True, **told)


def test_a_layout_is_made_of_what_is_told_alone(generator: torch.Generator) -> None:
    network = make(embedding=4, layout=3)
    assert network.plan is not None
    told, t = torch.randn(2, 4, generator=generator), torch.tensor([900, 900])
    maps = network.plan(torch.randn(2, 16, generator=generator))
    assert maps.shape == (2, 16, 4, 4) and maps.flatten(2).std(-1).min() > 0
    noisy = torch.zeros(2, 3, 16, 16)
    with_map = network(noisy, t, told)
    with torch.no_grad():
        network.plan.widen.weight.zero_()
        network.plan.widen.bias.zero_()
    assert not torch.allclose(network(noisy, t, told), with_map, atol=1e-5)
    for wrong in ({"layout": 3, "widths": (8,)}, {"layout": 3, "size": 6, "patch": 2}):
        with pytest.raises(ValueError, match="a layout needs two levels"):
            ImageDenoiser(embedding=4, **{"size": 16, "widths": (8, 16)} | wrong)  # type: ignore[arg-type]


def test_a_sketch_is_made_of_what_is_told_alone_and_reaches_all_levels(generator: torch.Generator) -> None:
    network = make(embedding=4, sketch=16, size=14)
    told, t = torch.randn(2, 4, generator=generator), torch.tensor([900, 900])
    with torch.no_grad():
        sketch = network.draw_sketch(told)
        assert sketch.pixels.shape == (2, 4, 14, 14) and not torch.allclose(sketch.pixels[0], sketch.pixels[1])
        assert [tuple(level.shape[1:]) for level in sketch.levels] == [(8, 7, 7), (16, 4, 4)]
        noisy = torch.zeros(2, 3, 14, 14)
        answer = network(noisy, t, told)
        assert torch.equal(network(noisy, t, told, sketch=sketch), answer)
        for show in network.sketcher.show:  # type: ignore[union-attr]
            before = show.bias.clone()
            show.bias += 1
            assert not torch.allclose(network(noisy, t, told), answer, atol=1e-5)
            show.bias.copy_(before)
    with pytest.raises(ValueError, match="12 channels cannot be halved 1 times; give a multiple of 16"):
        make(embedding=4, sketch=12)
    with pytest.raises(ValueError, match="set embedding, or leave sketch out"):
        make(sketch=16)
    with pytest.raises(ValueError, match="does not sketch"):
        make(embedding=4).draw_sketch(told)


def test_sizes_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="21 pixels cannot be cut into patches of 2"):
        ImageDenoiser(size=21, widths=(8, 8, 8))


def test_a_restorer_is_no_prior() -> None:
    with pytest.raises(ValueError, match="restores renders and is no prior"):
        make(beside=5).require_prior(5)
    with pytest.raises(ValueError, match="told embeddings of 5 numbers, not 7"):
        make(embedding=5).require_prior(7)


def test_its_noise_goes_from_none_to_all() -> None:
    share = make_image_schedule().alphas_cumprod
    assert share[0] > 0.999 and share[-1] < 1e-4
