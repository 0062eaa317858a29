"""R-Precision: by hand, and by drawing pools."""

import pytest
import torch

from nfldm3d.evaluation.retrieval import precision, precision_in_pools


def test_the_best_text_counts() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.1, 0.5], [0.0, 0.3, 0.4], [0.5, 0.6, 0.1]])
    assert precision(scores, torch.tensor([0, 2, 1, 1])) == 0.75


def test_pools_are_drawn_in_closed_form(generator: torch.Generator) -> None:
    texts = ["a", "b", "c", "d", "e", "b"]
    scores = torch.rand(6, 6, generator=generator)
    scores[:, 5] = scores[:, 1]
    expected, rounds = 0.0, 4000
    for _ in range(rounds):
        picture = int(torch.randint(6, (), generator=generator))
        others = [k for k in range(5) if texts[k] != texts[picture]]
        chosen = [others[k] for k in torch.randperm(4, generator=generator)[:2].tolist()]
        expected += float(all(scores[picture, k] < scores[picture, picture] for k in chosen)) / rounds
    assert precision_in_pools(scores, texts, 3) == pytest.approx(expected, abs=0.04)


def test_the_ends_are_known() -> None:
    texts = [str(number) for number in range(7)]
    assert precision_in_pools(torch.eye(7), texts, 5) == 1.0
    assert precision_in_pools(-torch.eye(7), texts, 5) == 0.0


@pytest.mark.parametrize("pool", [1, 3])
def test_pools_that_cannot_be_filled_are_refused(pool: int) -> None:
    with pytest.raises(ValueError, match="a pool holds 2 to 2 of the different texts"):
        precision_in_pools(torch.eye(3), ["a", "b", "a"], pool)
