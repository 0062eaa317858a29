"""Fitting: it recovers a known scene, tells where to look, resumes after a kill, and refuses what cannot work."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import small_fits
import torch
from small_fits import QUICK, ball_scene, views_of

from nfldm3d import Camera, DataFormatError, EnvironmentMap
from nfldm3d.data import PosedImages
from nfldm3d.data.scene_box import find_focus
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.fitting import FitOptions, estimate_boxes, fit, photographs
from nfldm3d.fitting.batches import PixelStore
from nfldm3d.fitting.phases import COARSE_SCHEDULE, find_phase
from nfldm3d.ops import PoolMap, bricks as brick_ops
from nfldm3d.ops.pool_reference import gather, spread
from nfldm3d.rendering import render


def test_fit_recovers_a_known_scene():
    images = views_of(ball_scene())
    train, held_out = images.split(4)
    scene = fit(train, options=replace(QUICK, steps=300), progress=False)
    rendered = render(scene, held_out.camera)
    assert psnr(rendered.image, held_out.load_images()) > 26
    depth = held_out.load_depth()
    assert depth is not None
    solid = depth > 0
    assert (rendered.depth - depth)[solid].abs().median() < 0.1
    assert scene.box == ball_scene().box and scene.cameras is not None and len(scene.cameras) == len(train)
    assert scene.metadata["fit"]["steps_done"] == 300
    assert 0.001 < scene.field.occupied_fraction < 0.5  # the empty part has been pruned


def test_fit_of_an_unbounded_scene_uses_surroundings_and_sky():
    images = views_of(ball_scene(), count=6)
    images = replace(images, metadata={})
    options = FitOptions(steps=6, rays_per_step=128, voxels=12**3, surrounding_voxels=8**3, surroundings=2)
    scene = fit(images, options=options, progress=False)
    assert len(scene.surroundings) == 2 and scene.background is not None
    assert scene.surroundings[0].box.size == pytest.approx(tuple(2 * s for s in scene.box.size))


def test_same_seed_gives_the_same_scene():
    images = views_of(ball_scene(), count=4, size=(20, 16))
    options = replace(QUICK, steps=10)
    first, second = (fit(images, options=options, progress=False) for _ in range(2))
    assert torch.equal(first.field.density, second.field.density)
    assert torch.equal(first.field.features, second.field.features)


def test_focus_of_cameras_on_a_circle_is_its_centre():
    camera = Camera.orbit((1.0, -2.0, 0.5), 3.0, views=9)
    focus, inward = find_focus(camera.centers, camera.forward)
    assert inward
    torch.testing.assert_close(focus, torch.tensor([1.0, -2.0, 0.5]), atol=1e-3, rtol=0)
    panorama = Camera.panorama((1.0, -2.0, 0.5), views=9)
    assert not find_focus(panorama.centers, panorama.forward)[1]


def test_box_comes_from_depth_when_the_capture_names_none():
    scene = ball_scene()
    box, _ = estimate_boxes(replace(views_of(scene), metadata={}))
    assert torch.tensor(box.center) == pytest.approx(torch.tensor(scene.box.center), abs=0.15)
    assert 1.2 < max(box.size) < 2.2  # the ball's diameter is 1.6


def hand_before(images: PosedImages) -> PosedImages:
    """The same views with something green before every camera, which masks leave out."""
    pixels, depth = images.load_images(), images.load_depth()
    assert depth is not None
    hand = torch.zeros(depth.shape, dtype=torch.bool)
    hand[:, -10:, 3:30] = True
    pixels = torch.where(hand[:, None], torch.tensor([0.0, 1.0, 0.0])[:, None, None], pixels)
    held = PosedImages.from_tensors(pixels, images.camera, depth=torch.where(hand, 0.3, depth), masks=~hand)
    return replace(held, metadata=images.metadata)


def test_what_is_masked_out_shapes_no_box():
    clean = replace(views_of(ball_scene()), metadata={})
    held = hand_before(clean)
    with_masks = PosedImages.from_tensors(
        clean.load_images(), clean.camera, depth=clean.load_depth(), masks=held.load_masks()
    )
    assert estimate_boxes(held) == estimate_boxes(with_masks)
    assert max(estimate_boxes(held)[0].size) < 2.2


def test_what_is_masked_out_is_not_fitted():
    images = hand_before(views_of(ball_scene(), count=6, size=(40, 30)))
    store = PixelStore.load(images, torch.device("cpu"))
    batch = store.draw(4000, torch.Generator().manual_seed(0))
    assert batch.distances is not None and not ((batch.distances > 0) & (batch.distances < 1)).any()
    assert not (batch.colors == torch.tensor([0.0, 1.0, 0.0])).all(-1).any()


def test_masked_pixels_do_not_count_against_dense_depth():
    camera = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=2, width=8, height=6)
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[:, :2] = True
    depth = torch.full((2, 6, 8), 2.0)
    depth[:, 2:] = 0.1
    images = PosedImages.from_tensors(torch.rand(2, 3, 6, 8), camera, depth=depth, masks=masks)
    known = PixelStore.load(images, torch.device("cpu")).surface_points()
    assert known is not None and len(known[0]) == 32


def test_checkpoint_of_another_fit_is_refused(tmp_path):
    images = views_of(ball_scene(), count=4, size=(16, 12))
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DataFormatError, match="delete it to start anew"):
        fit(images, options=replace(QUICK, steps=2), checkpoint=path, progress=False)


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupts the next fit in the step after so many, with a checkpoint after each."""
    real, calls = photographs._compare, iter(range(1000))

    def compare_or_die(*arguments):
        if next(calls) == steps:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(photographs, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(photographs, "_compare", compare_or_die)


@pytest.mark.parametrize("steps", [2, 13, 27])
@pytest.mark.parametrize("background", ["none", "environment"])
def test_killed_fit_goes_on_as_if_it_had_never_stopped(tmp_path, monkeypatch, background, steps):
    """Also before the sky's first gradient, when its optimiser knows nothing of it, and between looks at what is
    empty."""
    images = replace(views_of(ball_scene(), count=4, size=(20, 16)), metadata={})
    images = PosedImages.from_tensors(images.load_images(), images.camera)
    options = replace(QUICK, steps=30, background=background, voxels=12**3, rays_per_step=256)
    straight = fit(images, options=options, progress=False)
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(steps, patch)
        fit(images, options=options, checkpoint=path, progress=False)
    assert path.exists()
    resumed = fit(images, options=options, checkpoint=path, progress=False)
    for one, other in zip(resumed.levels, straight.levels, strict=True):
        assert torch.equal(one.density, other.density) and torch.equal(one.features, other.features)
    if background == "environment":
        assert isinstance(resumed.background, EnvironmentMap) and isinstance(straight.background, EnvironmentMap)
        assert torch.equal(resumed.background.image, straight.background.image)


def invert(images: PosedImages) -> PosedImages:
    pixels = images.load_images()
    pixels[1] = 1 - pixels[1]
    return replace(PosedImages.from_tensors(pixels, images.camera, depth=images.load_depth()), metadata=images.metadata)


def mask(images: PosedImages) -> PosedImages:
    masks = torch.ones(len(images), images.camera.height, images.camera.width, dtype=torch.bool)
    masks[3, :4] = False
    kept = PosedImages.from_tensors(images.load_images(), images.camera, depth=images.load_depth(), masks=masks)
    return replace(kept, metadata=images.metadata)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (invert, "with other pictures: 00001.png changed since; restore what it was, or delete it to start anew"),
        (mask, "with other pictures: 00003.png"),
        (lambda images: images.downscaled(2), "with other pictures: 00000.png and 3 more of 4 changed since"),
        (lambda images: replace(images, camera=images.camera.resized(20, 17)), "with other pictures"),
        (lambda images: images[:3], "with other pictures: 00003.png"),
        (
            lambda images: replace(images, camera=replace(images.camera, focal=images.camera.focal * 1.01)),
            "with other cameras: 00000.png and 3 more",
        ),
        (
            lambda images: replace(images, camera=images.camera.transformed(torch.eye(4).roll(1, 1).roll(1, 0))),
            "with other cameras",
        ),
        (lambda images: replace(images, metadata={"box": {"lower": [-1, 0, 1], "upper": [2, 2.5, 4]}}), "other grids"),
    ],
)
def test_a_fit_does_not_go_on_with_what_has_changed(tmp_path, monkeypatch, change, problem):
    images = views_of(ball_scene(), count=4, size=(20, 16))
    options, path = replace(QUICK, steps=30, voxels=8**3, rays_per_step=64), tmp_path / "state.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(2, patch)
        fit(images, options=options, checkpoint=path, progress=False)
    with pytest.raises(DataFormatError, match=problem):
        fit(change(images), options=options, checkpoint=path, progress=False)
    with pytest.raises(DataFormatError, match=r"with other options: steps \(30, now 31\) changed since"):
        fit(images, options=replace(options, steps=31), checkpoint=path, progress=False)


def test_the_old_name_of_progress_warns_once_more():
    images = views_of(ball_scene(), count=4, size=(16, 12))
    options = replace(QUICK, steps=1, voxels=4**3, rays_per_step=16)
    with pytest.warns(DeprecationWarning, match="show_progress of fit is now progress"):
        fit(images, options=options, show_progress=False)


@pytest.mark.slow
def test_sigkill_leaves_no_half_written_file(tmp_path):
    program = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path(small_fits.__file__).parent)!r})
        import nfldm3d.fitting.photographs as photographs, os, signal
        from small_fits import ball_scene, views_of, QUICK
        from dataclasses import replace
        photographs.CHECKPOINT_SECONDS = 0.0
        steps = iter(range(100)); real = photographs._compare
        def compare(*a):
            if next(steps) == 8: os.kill(os.getpid(), signal.SIGKILL)
            return real(*a)
        photographs._compare = compare
        images = views_of(ball_scene(), count=4, size=(20, 16))
        photographs.fit(images, options=replace(QUICK, steps=20), checkpoint={str(tmp_path / "state.safetensors")!r})
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.before.safetensors", "state.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxels": 10**15}, "GiB"),
        ({"box": ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))}, "no volume"),
    ],
)
def test_impossible_grids_are_refused_with_a_reason(change, message):
    images = views_of(ball_scene(), count=4, size=(16, 12))
    with pytest.raises(ValueError, match=message):
        fit(images, options=replace(QUICK, **change), progress=False)


@pytest.mark.parametrize("change", [{"steps": 0}, {"time_budget": -1.0}, {"surroundings": 99}])
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(QUICK, **change)


def test_adam_matches_torch_on_the_voxels_that_have_a_gradient(generator):
    shape = (11, 9, 5, 7)
    values, gradient = (torch.rand(shape, generator=generator) - 0.5 for _ in range(2))
    gradient[torch.rand(shape[:3], generator=generator) < 0.5] = 0
    bricks = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(1)).int()
    moved = (gradient != 0).any(-1)
    theirs = values.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99), eps=1e-15)
    theirs.grad = gradient.clone()
    optimizer.step()
    before, state = values.clone(), brick_ops.AdamState.zeros_like(values)
    brick_ops.adam_features_(values, gradient, state, brick_ops.AdamRates(0.03, 1), bricks)
    torch.testing.assert_close(values[moved], theirs.detach()[moved])
    assert torch.equal(values[~moved], before[~moved]) and not gradient.any()


def test_optimiser_leaves_other_bricks_alone(generator):
    values, gradient = (torch.rand(16, 16, 8, 2, generator=generator) for _ in range(2))
    before, state = values.clone(), brick_ops.AdamState.zeros_like(values)
    brick_ops.adam_features_(values, gradient, state, brick_ops.AdamRates(0.1, 1), torch.tensor([[1, 0, 0]]).int())
    changed = (values != before).any(-1)
    assert changed[8:, :8].all() and not changed[:8].any() and not changed[8:, 8:].any()


def test_smoothness_is_the_gradient_of_total_variation(generator):
    values = torch.rand(6, 17, 12, 3, generator=generator)
    bricks = torch.tensor([[0, 2, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]]).int()  # two are missing
    places = PoolMap.of(bricks, (6, 17, 12))
    pool = gather(values, places)
    gradient = torch.full_like(pool, 1e-9)  # only voxels with a gradient take part
    brick_ops.add_smoothness_(pool, gradient, places, bricks, 0.5)
    wanted, held = values.clone().requires_grad_(), spread(torch.ones_like(pool), places)
    energy = torch.zeros(())
    for axis in range(3):
        both = held.narrow(axis, 1, held.shape[axis] - 1) * held.narrow(axis, 0, held.shape[axis] - 1)
        energy = energy + (both * wanted.diff(dim=axis) ** 2).sum() / 2
    (expected,) = torch.autograd.grad(0.5 * energy, wanted)
    torch.testing.assert_close(spread(gradient, places), expected, atol=1e-6, rtol=1e-5)


def test_bricks_round_trip(generator):
    grid = torch.rand(13, 8, 17, 2, generator=generator)
    bricks = torch.cartesian_prod(*(torch.arange(-(-count // 8)) for count in grid.shape[:3])).int()
    copy = torch.zeros_like(grid)
    brick_ops.scatter_bricks_(brick_ops.gather_bricks(grid, bricks), bricks, copy)
    assert torch.equal(copy, grid)


def test_coarse_phases_take_shares_of_the_steps_also_where_time_is_the_limit():
    assert [find_phase(share, 0, timed=False) for share in (0.0, 0.02, 0.14, 0.15, 0.35, 1.0)] == [0, 1, 1, 2, 3, 3]
    assert find_phase(0.1, COARSE_SCHEDULE, timed=False) == 1
    assert find_phase(0.1, round(0.35 * COARSE_SCHEDULE), timed=True) == 3 and find_phase(0.4, 5, timed=True) == 3


def test_voxels_are_no_finer_than_what_photographs_show():
    many = photographs.VALUES // 13
    assert [photographs.count_voxels(n, 12) for n in (0, 5_000_000, 10**9, None)] == [10**6, 2 * 10**6, many, many]
