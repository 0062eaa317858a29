"""What priors are told is read by the directions in which it differs."""

import torch

from nfldm3d.models.priors.told import TokenReader, VectorReader, Whitening

COMMON = torch.tensor([5.0, -3.0, 2.0, 1.0])


def make_samples(count: int = 500) -> torch.Tensor:
    """Much that all share, and differences of very unequal size."""
    draws = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    mixing = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.1, -0.1, 0.0], [0.0, 0.0, 0.0, 0.01]])
    return COMMON + draws @ mixing


def test_whitened_samples_differ_alike_in_all_directions() -> None:
    samples, whitening = make_samples(), Whitening(4, 3)
    whitening.fit(samples)
    seen = whitening(samples)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.T @ seen / len(seen), torch.eye(3), atol=1e-3, rtol=0)


def test_noise_and_missing_directions_are_not_drawn_out() -> None:
    whitening = Whitening(4, 4)
    whitening.fit(make_samples()[:2])  # one direction, and nothing else
    assert float(whitening(make_samples()).isfinite().float().mean()) == 1
    assert int((whitening.directions.abs().sum(1) > 0).sum()) <= 2
    shy = Whitening(4, 3)
    shy.fit(make_samples(), least=1.0)
    assert float(shy(make_samples())[:, 2].std()) < 0.1
    same = Whitening(4, 3)
    same.fit(COMMON.expand(10, 4))
    assert bool(same(COMMON[None]).isfinite().all())


def test_readers_tell_what_hardly_differs_apart() -> None:
    torch.manual_seed(0)
    samples = make_samples()
    for reader, told in (
        (VectorReader(4, 8, 3), samples[:2]),
        (TokenReader(4, 2, 8, 3), torch.stack([samples[:2], torch.zeros(2, 4)], dim=1)),
    ):
        before = (reader(told)[0] - reader(told)[1]).norm()
        reader.whitening.fit(samples)
        assert (reader(told)[0] - reader(told)[1]).norm() > before
