"""Laws of scenes inside nerfacc: its pictures and gradients are ours, and its grid hides nothing."""

import sys
from dataclasses import replace

import pytest
import torch
from balls import Ball, make_ball

from nfldm3d import Box, Camera, EnvironmentMap, Rays, Rgb, Scene, SphericalHarmonics, VoxelField, render
from nfldm3d.fields import SparseField, voxelize
from nfldm3d.interop.nerfacc import NerfaccCallbacks, from_nerfacc_rendering, install, occ_grid_estimator

nerfacc = pytest.importorskip("nerfacc")

BOX = Box((-1.0, 0.5, 2.0), (2.0, 2.5, 3.0))
RESOLUTION = (15, 10, 6)
WHITE = torch.tensor([0.9, 0.8, 1.0])


@pytest.fixture(scope="module", autouse=True)
def backend():
    install()


def blobs(generator, channels=3, resolution=RESOLUTION, box=BOX, density=8.0):
    values = torch.rand(resolution, generator=generator) * density
    values[torch.rand(resolution, generator=generator) < 0.8] = 0
    return VoxelField(values, torch.rand(*resolution, channels, generator=generator), box)


def cameras(device="cpu", radius=4.0):
    return Camera.orbit(BOX.center, radius, views=2, width=15, height=11, elevation_degrees=20.0).to(device)


def test_the_grid_of_sparse_fields_is_that_of_dense_ones(generator, monkeypatch):
    outer = Box((-3.0, -0.5, 1.0), (4.0, 3.5, 4.0))
    dense = (blobs(generator, resolution=(45, 30, 18)), blobs(generator, resolution=(21, 17, 13), box=outer))
    for field in dense:
        field.density[len(field.density) // 2 :] = 0
        field.features[len(field.density) // 2 :] = 0
    sparse = tuple(SparseField.from_dense(field) for field in dense)
    for around in (0, 1):
        scenes = [Scene(fields[0], Rgb(), None, fields[1 : 1 + around]) for fields in (dense, sparse)]
        theirs, ours = (occ_grid_estimator(scene, resolution=(20, 11, 9)) for scene in scenes)
        assert torch.equal(ours.binaries, theirs.binaries) and 0 < float(ours.binaries.float().mean()) < 1
        torch.testing.assert_close(ours.occs, theirs.occs)


def nested(generator, *boxes, channels=3):
    """Blobs in surroundings, too: thin in front, so that something of every level is seen."""
    return tuple(blobs(generator, channels, box=box, density=1.0) for box in boxes)


def look(scene, camera, step_in_voxels=0.5, estimator=None):
    """What a user of nerfacc would write."""
    callbacks = NerfaccCallbacks(scene, camera.rays().reshape(-1), step_in_voxels)
    rays, estimator = callbacks.rays, estimator or occ_grid_estimator(scene)
    ray_indices, t_starts, t_ends = estimator.sampling(
        rays.origins,
        rays.directions,
        sigma_fn=callbacks.sigma_fn,
        t_min=callbacks.t_min,
        t_max=callbacks.t_max,
        render_step_size=callbacks.render_step_size,
    )
    colors, opacities, depths, _ = nerfacc.rendering(
        t_starts,
        t_ends,
        ray_indices,
        n_rays=len(rays),
        rgb_sigma_fn=callbacks.rgb_sigma_fn,
        render_bkgd=callbacks.render_bkgd,
    )
    return from_nerfacc_rendering(camera, colors, opacities, depths)


def assert_same_picture(ours, theirs, tolerance=1e-3):
    assert ours.opacity.max() > 0.5
    for name in ("image", "opacity", "distance", "depth"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=tolerance, rtol=0, msg=name)


CASES = {
    "rgb": (Rgb(), WHITE),
    "transparent": (Rgb(), None),
    "view dependent": (SphericalHarmonics(2), WHITE),
    "features behind": (SphericalHarmonics(1), torch.linspace(-0.4, 0.4, 12)),
    "environment map": (Rgb(4), EnvironmentMap(torch.rand(4, 8, 3, generator=torch.Generator().manual_seed(1)))),
}


@pytest.mark.parametrize("case", CASES)
def test_pictures_agree(generator, case):
    appearance, background = CASES[case]
    field = blobs(generator, appearance.channels)
    if isinstance(appearance, SphericalHarmonics):
        field = replace(field, features=0.6 * (field.features - 0.5))
    scene, camera = Scene(field, appearance, background), cameras()
    assert_same_picture(render(scene, camera), look(scene, camera))


@pytest.mark.parametrize("radius", [0.01, 1.2])
def test_cameras_inside_the_box_see_the_same(generator, radius):
    scene, camera = Scene(blobs(generator), Rgb(), WHITE), cameras(radius=radius)
    assert_same_picture(render(scene, camera, step_in_voxels=0.3), look(scene, camera, 0.3))


@pytest.mark.parametrize("twice", [True, False])
def test_surroundings_agree_in_the_limit_of_small_steps(generator, twice):
    """render starts every level's steps anew, nerfacc walks through with one step: they meet as it goes to zero."""
    boxes = (BOX.scaled(2.0), BOX.scaled(4.0)) if twice else (Box((-2.0, -1.0, 1.9), (2.5, 3.0, 4.0)),)
    scene, camera = Scene(blobs(generator), Rgb(), WHITE, nested(generator, *boxes)), cameras()
    coarse, fine = (
        (render(scene, camera, step_in_voxels=step).image - look(scene, camera, step).image).square().mean().sqrt()
        for step in (0.25, 0.05)
    )
    assert fine < 1e-3 and 3 < coarse / fine < 9, "first order: 5 times the step, 5 times the error"


def test_gradients_agree(generator):
    camera, slopes, gradients = cameras(), torch.linspace(-1, 1, 2 * 3 * 11 * 15).view(2, 3, 11, 15), []
    field = blobs(generator)
    for picture in (render, look):
        density, features = field.density.clone().requires_grad_(), field.features.clone().requires_grad_()
        image = picture(Scene(VoxelField(density, features, BOX), Rgb(), WHITE), camera).image
        gradients.append(torch.autograd.grad((image * slopes).sum(), (density, features)))
    for ours, theirs in zip(*gradients, strict=True):
        # where a voxel is empty, nerfacc's half of the field's kink at density 0 decides about its gradient
        solid = field.density > 0
        torch.testing.assert_close(theirs[solid], ours[solid], atol=2e-3, rtol=1e-2)


def test_callbacks_read_the_field_at_the_middle_of_intervals(generator):
    field, camera = blobs(generator), cameras()
    callbacks = NerfaccCallbacks(Scene(field, Rgb()), camera.rays().reshape(-1))
    count = len(callbacks.rays)
    starts = 3 + torch.rand(count, 5, generator=generator)
    ends = starts + 0.1 * torch.rand(count, 5, generator=generator)
    points = callbacks.rays.origins[:, None] + (starts + ends)[..., None] / 2 * callbacks.rays.directions[:, None]
    density, features = field.query(points)
    rgbs, sigmas = callbacks.rgb_sigma_fn(starts, ends)  # as PropNetEstimator asks: (rays samples)
    torch.testing.assert_close(sigmas, density, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rgbs, features, atol=1e-4, rtol=1e-4)
    indices = torch.arange(count).repeat_interleave(5)
    flat = callbacks.sigma_fn(starts.flatten(), ends.flatten(), indices)
    torch.testing.assert_close(flat.view(count, 5), callbacks.sigma_fn(starts, ends))
    torch.testing.assert_close(callbacks.occ_eval_fn(points)[..., 0], sigmas * callbacks.render_step_size)


@pytest.mark.parametrize("surroundings", [0, 1])
def test_no_samples_are_no_mistake(generator, surroundings):
    scene = Scene(blobs(generator), Rgb(), WHITE, nested(generator, BOX.scaled(2.0))[:surroundings])
    callbacks = NerfaccCallbacks(scene, cameras().rays().reshape(-1))
    rgbs, sigmas = callbacks.rgb_sigma_fn(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert rgbs.shape == (0, 3) and sigmas.shape == (0,)
    away = replace(callbacks, rays=Rays(callbacks.rays.origins, -callbacks.rays.directions))
    assert away.t_min.max() == 0 and away.t_max.max() == 0


def test_the_inner_level_hides_the_outer_one(generator):
    outer = blobs(generator, box=BOX.scaled(2.0))
    scene = Scene(VoxelField.zeros(BOX, (3, 4, 5), 3), Rgb(), None, (outer,))
    points = torch.rand(2000, 3, generator=generator) * 8 - torch.tensor([3.0, 3.0, 1.5])
    seen = NerfaccCallbacks(scene, Rays(points[:1], points[:1])).occ_eval_fn(points)[:, 0] > 0
    wanted = (outer.query(points)[0] > 0) & ~BOX.contains(points)
    assert wanted.sum() > 50 and torch.equal(seen, wanted)


def cell_values(estimator, values, points):
    """Per point, the value of the finest level's cell around it, and whether there is one."""
    result, free = torch.zeros(len(points)), torch.ones(len(points), dtype=torch.bool)
    for aabb, level in zip(estimator.aabbs, values, strict=True):
        place = (points - aabb[:3]) / (aabb[3:] - aabb[:3]) * estimator.resolution
        inside = free & ((place >= 0) & (place < estimator.resolution)).all(-1)
        result[inside] = level[tuple(place[inside].long().T)].to(result)
        free &= ~inside
    return result, ~free


@pytest.mark.parametrize("resolution", [None, (30, 20, 12), (7, 11, 3), (16, 9, 1), 1])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_grid_misses_nothing(generator, resolution, levels):
    boxes = (BOX.scaled(2.0), Box((-5.5, -5.0, -2.0), (6.5, 6.5, 5.0)))[: levels - 1]
    field = blobs(generator)
    field.density[torch.rand(RESOLUTION, generator=generator) < 0.8] = 0
    scene = Scene(field, Rgb(), None, nested(generator, *boxes))
    estimator = occ_grid_estimator(scene, resolution=resolution)
    assert estimator.binaries.shape[0] == (1, 2, 5)[levels - 1]  # the third box is not centred on the first
    outer = scene.levels[-1].box
    points = torch.rand(20000, 3, generator=generator) * torch.tensor(outer.size) + torch.tensor(outer.lower)
    absorbed = NerfaccCallbacks(scene, Rays(points[:1], points[:1])).occ_eval_fn(points)[:, 0]
    solid, known = cell_values(estimator, estimator.binaries, points)
    assert known.all() and (absorbed > 0).sum() > 100
    assert not bool(((solid == 0) & (absorbed > 1e-5)).any())
    occs, _ = cell_values(estimator, estimator.occs.view(estimator.binaries.shape), points)
    assert bool((occs >= absorbed - 1e-5).all()), "occs is an upper bound"


def test_the_grid_skips_what_it_can():
    density = torch.zeros(RESOLUTION)
    density[7, 4, 3] = 5.0
    field = VoxelField(density, torch.zeros(*RESOLUTION, 3), BOX)
    grid = occ_grid_estimator(Scene(field, Rgb()), step_in_voxels=0.25)
    wanted = torch.zeros(RESOLUTION, dtype=torch.bool)
    wanted[6:9, 3:6, 2:5] = True  # the voxel and its neighbours, which mix it
    assert torch.equal(grid.binaries[0], wanted)
    assert grid.occs.max() == pytest.approx(5 * 0.25 * min(field.voxel_size))
    assert not occ_grid_estimator(Scene(field, Rgb()), threshold=6.0).binaries.any()
    outer = VoxelField(torch.ones(8, 8, 8), torch.zeros(8, 8, 8, 3), BOX.scaled(2.0))
    hidden = occ_grid_estimator(Scene(field, Rgb(), None, (outer,)))
    assert torch.equal(hidden.binaries[0], wanted) and hidden.binaries[1, 0].all()


def test_updates_keep_what_the_scene_told(generator):
    scene = Scene(blobs(generator), Rgb())
    estimator = occ_grid_estimator(scene)
    before = estimator.binaries.clone()
    callbacks = NerfaccCallbacks(scene, cameras().rays().reshape(-1))
    for step in range(3):
        estimator.update_every_n_steps(step, callbacks.occ_eval_fn, occ_thre=0.0, n=1)
    assert torch.equal(estimator.binaries, before)


def test_large_fields_get_a_coarser_grid(generator):
    field = VoxelField(torch.rand(200, 3, 2, generator=generator), torch.zeros(200, 3, 2, 3), BOX)
    assert occ_grid_estimator(Scene(field, Rgb())).binaries.shape == (1, 128, 3, 2)


class Painter(Rgb):
    """An appearance that looks at whole pictures."""

    per_ray = False


def test_mistakes_are_named(generator, monkeypatch):
    scene, rays = Scene(blobs(generator), Painter()), cameras().rays()
    with pytest.raises(ValueError, match=r"\(2, 11, 15, 3\).*reshape\(-1\)"):
        NerfaccCallbacks(scene, rays)
    with pytest.raises(ValueError, match="scene is on cpu, the rays on meta"):
        NerfaccCallbacks(scene, rays.reshape(-1).to("meta"))
    with pytest.raises(ValueError, match="step_in_voxels must be positive, got 0.0"):
        NerfaccCallbacks(scene, rays.reshape(-1), 0.0)
    callbacks = NerfaccCallbacks(scene, rays.reshape(-1))
    assert callbacks.sigma_fn(torch.ones(330, 2), torch.ones(330, 2)).shape == (330, 2)
    with pytest.raises(ValueError, match="Painter colours whole pictures"):
        callbacks.rgb_sigma_fn(torch.ones(330, 2), torch.ones(330, 2))
    with pytest.raises(ValueError, match="without ray_indices must be \\(330 rays, samples\\), got \\(7,\\)"):
        callbacks.sigma_fn(torch.ones(7), torch.ones(7))
    with pytest.raises(ValueError, match="330 rays.*for 329"):
        from_nerfacc_rendering(cameras(), torch.zeros(329, 3), torch.zeros(329, 1), torch.zeros(329, 1))
    with pytest.raises(ValueError, match=r"at least one cell.*\(4, 0, 4\)"):
        occ_grid_estimator(scene, resolution=(4, 0, 4))
    far = replace(scene, surroundings=nested(generator, BOX.scaled(200.0)))
    with pytest.raises(ValueError, match="reach 200 times.*8 levels reach 128 times"):
        occ_grid_estimator(far)
    monkeypatch.setitem(sys.modules, "nerfacc", None)
    with pytest.raises(ImportError, match="pip install nerfacc"):
        occ_grid_estimator(scene)


@pytest.mark.cuda
def test_pictures_agree_on_cuda(generator):
    scene, camera = Scene(blobs(generator), Rgb(), WHITE).to("cuda"), cameras("cuda")
    assert_same_picture(render(scene, camera), look(scene, camera))


@pytest.mark.parametrize("background", [None, WHITE])
def test_fields_without_a_grid_pass_through_nerfacc(background):
    scene = Scene(make_ball(density=4.0), Rgb(), background)
    camera = Camera.orbit(scene.box.center, 4.0, views=2, width=15, height=11, elevation_degrees=20.0)
    assert_same_picture(render(scene, camera), look(scene, camera))


def test_their_parameters_get_gradients_through_nerfacc():
    camera, gradients = Camera.orbit(make_ball().box.center, 4.0, views=1, width=9, height=7), []
    for picture in (render, look):
        values = [torch.tensor(0.8, requires_grad=True), torch.tensor(4.0, requires_grad=True)]
        image = picture(Scene(Ball(*values), Rgb(), WHITE), camera).image
        gradients.append(torch.stack(torch.autograd.grad(image.square().mean(), values)))
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize("ball_inside", [True, False])
@pytest.mark.parametrize("resolution", [None, (7, 11, 3)])
def test_their_grid_misses_nothing(generator, ball_inside, resolution):
    """A thin shell between the voxel centres, too: the mask of the field tells of it."""
    ball = replace(make_ball(radius=0.7), voxel_size=(0.5, 0.5, 0.5))
    around = replace(make_ball(radius=1.5), box=ball.box.scaled(2.0))
    levels = (ball, voxelize(around)) if ball_inside else (voxelize(ball), around)
    scene = Scene(levels[0], Rgb(), None, (levels[1],))
    estimator = occ_grid_estimator(scene, resolution=resolution)
    outer = scene.levels[-1].box
    points = torch.rand(20000, 3, generator=generator) * torch.tensor(outer.size) + torch.tensor(outer.lower)
    absorbed = NerfaccCallbacks(scene, Rays(points[:1], points[:1])).occ_eval_fn(points)[:, 0]
    solid, known = cell_values(estimator, estimator.binaries, points)
    assert known.all() and (absorbed > 0).sum() > 100 and not estimator.binaries.all()
    assert not bool(((solid == 0) & (absorbed > 1e-5)).any())


def test_points_beyond_a_box_read_nothing():
    """Formulas go on for ever; fields end at their box."""
    ball = replace(make_ball(radius=9.0), box=BOX)
    beyond = torch.tensor([[-2.0, 1.0, 2.5], [0.0, 1.0, 2.5]])
    found = NerfaccCallbacks(Scene(ball, Rgb()), Rays(beyond, beyond)).occ_eval_fn(beyond)[:, 0]
    assert found[0] == 0 and found[1] > 0


class Headlight(Rgb):
    """Lit from the camera."""

    needs_normals = True

    def image(self, features, opacity, rays, distance=None, normals=None):
        return features[..., :3] * -(rays.directions * normals).sum(-1, keepdim=True)


def test_appearances_that_need_normals_get_them_at_samples():
    ball = make_ball()
    rays = Rays(torch.tensor([[-3.0, *ball.box.center[1:]]]), torch.tensor([[1.0, 0.0, 0.0]]))
    rgbs, _ = NerfaccCallbacks(Scene(ball, Headlight()), rays).rgb_sigma_fn(
        torch.tensor([2.9, 3.8]), torch.tensor([3.1, 4.0]), torch.tensor([0, 0])
    )
    assert (rgbs[0] > 0).all() and (rgbs[1] < 0).all()


@pytest.mark.cuda
def test_fields_without_a_grid_pass_through_nerfacc_on_cuda():
    scene = Scene(make_ball(density=4.0), Rgb(), WHITE).to("cuda")
    camera = Camera.orbit(scene.box.center, 4.0, views=1, width=15, height=11).to("cuda")
    assert_same_picture(render(scene, camera), look(scene, camera))
