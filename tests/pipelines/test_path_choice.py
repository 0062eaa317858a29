"""Of candidate camera paths, the one that fits a map."""

from collections.abc import Sequence

import pytest
import torch
from small_rooms import scene_generator

from nfldm3d.models.nfldm.trajectories import POSES, classes_under, count_unlikely, measure_path_odds, unpack_path
from nfldm3d.pipelines.hierarchy import Condition
from nfldm3d.pipelines.path_choice import ROUNDS, draw_fitting
from nfldm3d.pipelines.scene_generator import SceneGenerator

ODDS = torch.tensor([0.0, 2.0, 0.4])


def at(x: float, y: float) -> torch.Tensor:
    """A packed path that stays on one place of a box from -1 to 1."""
    return torch.tensor([x, y, 0.0, 1.0, 0.0]).repeat(POSES)


def test_classes_are_those_under_the_poses() -> None:
    classes = torch.arange(8).view(4, 2)
    for x in range(4):
        for y in range(2):
            under = classes_under(at((x + 0.5) / 2 - 1, y - 0.5), classes)
            assert under.shape == (POSES,) and bool((under == classes[x, y]).all())
    assert int(classes_under(at(-3, 3), classes)[0]) == 1, "poses outside stand on the nearest cell"


def test_poses_in_metres_stand_where_packed_ones_do() -> None:
    generator = scene_generator()
    poses = unpack_path(at(0.3, -0.7), generator.box)
    share = (poses[0, :2] - torch.tensor(generator.box.center[:2])) / torch.tensor(generator.box.size[:2]) + 0.5
    assert torch.allclose(share, torch.tensor([0.65, 0.15]))


def test_odds_compare_paths_with_chance() -> None:
    classes = torch.tensor([[0, 0], [1, 2]])[None]
    paths = torch.cat((at(0.5, -0.5)[: 5 * 12], at(-0.5, 0.5)[: 5 * 4]))[None]
    odds = measure_path_odds(paths, classes, 4)
    assert torch.allclose(odds, torch.tensor([0.25 / 0.5, 0.75 / 0.25, 0.0, 1.0]))
    assert count_unlikely(paths, classes, torch.tensor([0.5, 0.2, 1.0, 1.0])).tolist() == [12]
    assert count_unlikely(paths, torch.full_like(classes, 4), odds).tolist() == [0], "cells of no class are likely"


class Places:
    """Stands in for a network: candidates stand at random places; counts them."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, generators: Sequence[torch.Generator], scenes: torch.Tensor) -> torch.Tensor:
        assert len(generators) == len(scenes)
        self.drawn += len(scenes)
        return torch.stack([at(*(2 * torch.rand(2, generator=one) - 1).tolist()) for one in generators])


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(count)]


def test_paths_are_drawn_until_they_fit() -> None:
    maps = torch.ones(6, 4, 4, dtype=torch.long)
    maps[:, :2] = 0
    places = Places()
    made = draw_fitting(places, seeds(6), maps, ODDS)
    assert count_unlikely(made, maps, ODDS).tolist() == [0] * 6 and bool((made[:, 0] > 0).all())
    assert places.drawn < 6 * ROUNDS[-1]
    changed = maps.clone()
    changed[:, :2] = 2
    assert torch.equal(made[3], draw_fitting(Places(), seeds(6), maps, ODDS)[3])
    open_world = draw_fitting(Places(), seeds(6), changed, ODDS)
    kept = (open_world == made).all(1)
    assert torch.equal(kept, open_world[:, 0] > 0), "a path stays unless an earlier candidate fits now"


def test_where_nothing_fits_the_least_bad_is_taken() -> None:
    places = Places()
    made = draw_fitting(places, seeds(2), torch.zeros(2, 4, 4, dtype=torch.long), ODDS)
    assert places.drawn == 2 * ROUNDS[-1] and made.shape == (2, 5 * POSES)


@pytest.fixture(scope="module")
def generator() -> SceneGenerator:
    made = scene_generator()
    made.register_to_config(path_odds=ODDS.tolist())
    return made


def test_maps_choose_paths(generator: SceneGenerator) -> None:
    plain, sampler = scene_generator(), generator.sampler(2)
    odds = generator.config["path_odds"]
    free = generator.hierarchy.sample_g(sampler, seeds(4))
    assert torch.equal(free, plain.hierarchy.sample_g(sampler, seeds(4))), "without a map nothing is chosen"
    maps = torch.ones(4, 8, 8, dtype=torch.long)
    maps[:, 2:6] = 0
    first, chosen = (one.hierarchy.sample_g(sampler, seeds(4), Condition(maps)) for one in (plain, generator))
    counts = [count_unlikely(g[:, -5 * POSES :], maps, torch.tensor(odds)) for g in (chosen, first)]
    assert bool((counts[0] <= counts[1]).all()) and int(counts[0].sum()) < int(counts[1].sum())


def test_given_paths_are_not_chosen(generator: SceneGenerator) -> None:
    maps, path = torch.zeros(8, 8, dtype=torch.long), torch.tensor([[0.1, 0.2, 0.0, 1.0, 0.0]]).repeat(POSES, 1)
    made = generator.generate(bev=maps, trajectory=path, num_inference_steps=2, generator=seeds(1)[0])
    assert torch.allclose(made.trajectories[0], path, atol=1e-4)


def test_odds_must_be_those_of_the_classes() -> None:
    made = scene_generator()
    parts = {name: part for name, part in made.components.items() if part is not None}
    with pytest.raises(ValueError, match="path_odds has 2 values for 3 map_classes"):
        SceneGenerator(**parts, map_classes=["a", "b", "c"], path_odds=[1.0, 0.0])
