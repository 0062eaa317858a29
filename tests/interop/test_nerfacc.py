"""nerfacc itself on our backend: its functions against torch, its estimators and renderer end to end, installation."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nfldm3d.interop import nerfacc_backend as backend
from nfldm3d.interop.nerfacc import install
from nfldm3d.interop.nerfacc_segments import pack_info

if importlib.util.find_spec("nerfacc") is None:
    pytest.skip("nerfacc is not installed", allow_module_level=True)
install()
nerfacc = importlib.import_module("nerfacc")

RAYS = torch.tensor([0, 0, 0, 2, 2, 3, 3, 3, 3])
PACKED = torch.tensor([[0, 3], [3, 0], [3, 2], [5, 4], [9, 0]])


def looking_inwards(generator: torch.Generator, count: int = 64) -> tuple[Tensor, Tensor]:
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 3
    targets = torch.rand(count, 3, generator=generator) - 0.5
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def ball_density(points: Tensor) -> Tensor:
    return 20.0 * (points.norm(dim=-1) < 0.6).float()


def estimator(levels: int = 2) -> "nerfacc.OccGridEstimator":
    """A grid that has learned of a somewhat larger ball, so that none of its cells with a part of ours is empty."""
    grid = nerfacc.OccGridEstimator([-1, -1, -1, 1, 1, 1], resolution=[16, 20, 24], levels=levels)
    grid.train()
    for step in range(0, 32, 16):
        grid.update_every_n_steps(step, occ_eval_fn=lambda x: ball_density(0.7 * x)[:, None] * 0.01)
    return grid


@pytest.mark.parametrize("name", ["inclusive_sum", "exclusive_sum", "inclusive_prod", "exclusive_prod"])
@pytest.mark.parametrize("zeros", [False, True])
def test_packed_scans_agree_with_rows_and_have_gradients(generator: torch.Generator, name: str, zeros: bool) -> None:
    scan = getattr(nerfacc, name)
    rows = torch.rand(6, 7, generator=generator, dtype=torch.float64) + 0.5
    if zeros:
        rows[::2, 3] = 0.0
    starts = torch.arange(6) * 7
    packed = torch.stack((starts, torch.full_like(starts, 7)), dim=-1)
    torch.testing.assert_close(scan(rows.flatten(), packed), scan(rows).flatten())
    assert torch.autograd.gradcheck(lambda x: scan(x, packed), rows.flatten().requires_grad_())


def test_scans_of_rays_without_samples() -> None:
    ones = torch.full((9,), 2.0, requires_grad=True)
    sums = nerfacc.inclusive_sum(ones, PACKED)
    assert sums.tolist() == [2, 4, 6, 2, 4, 2, 4, 6, 8]
    assert nerfacc.exclusive_prod(ones, PACKED).tolist() == [1, 2, 4, 1, 2, 1, 2, 4, 8]
    sums.sum().backward()
    assert ones.grad is not None and ones.grad.tolist() == [3, 2, 1, 2, 1, 4, 3, 2, 1]


def test_pack_info_on_the_cpu() -> None:
    assert nerfacc.pack_info is pack_info is nerfacc.volrend.pack_info
    assert torch.equal(nerfacc.pack_info(RAYS, 5), PACKED)
    assert torch.equal(nerfacc.pack_info(RAYS), PACKED[:4])
    assert nerfacc.pack_info(RAYS.int(), 5).dtype == torch.int32
    assert nerfacc.pack_info(RAYS[:0], 3).tolist() == [[0, 0]] * 3 and nerfacc.pack_info(RAYS[:0]).shape == (0, 2)
    for rays, count in ((RAYS, 3), (RAYS - 1, 5)):
        with pytest.raises(ValueError, match="ray_indices must lie between 0 and n_rays - 1"):
            nerfacc.pack_info(rays, count)


@pytest.mark.parametrize("cone_angle", [0.0, 0.02])
@pytest.mark.parametrize("stratified", [False, True])
def test_occupancy_grid_samples_where_something_is(
    generator: torch.Generator, cone_angle: float, stratified: bool
) -> None:
    grid, (origins, directions) = estimator(), looking_inwards(generator)
    t_min, t_max = torch.rand(64, generator=generator) + 2, torch.rand(64, generator=generator) + 3
    rays, starts, ends = grid.sampling(
        origins,
        directions,
        t_min=t_min,
        t_max=t_max,
        render_step_size=0.02,
        cone_angle=cone_angle,
        stratified=stratified,
    )
    middles = (starts + ends) / 2
    places = origins[rays] + middles[:, None] * directions[rays]
    assert len(rays) > 500
    assert bool((places.norm(dim=-1) < 1.05).all())  # the ball and the cells that it touches
    assert bool((middles >= t_min[rays]).all() and (middles <= t_max[rays]).all())


@pytest.mark.parametrize("use_alpha", [False, True])
def test_sampling_leaves_out_what_cannot_be_seen(generator: torch.Generator, use_alpha: bool) -> None:
    grid, (origins, directions) = estimator(), looking_inwards(generator)

    def density(starts: Tensor, ends: Tensor, rays: Tensor) -> Tensor:
        sigmas = ball_density(origins[rays] + ((starts + ends) / 2)[:, None] * directions[rays])
        return 1 - torch.exp(-sigmas * (ends - starts)) if use_alpha else sigmas

    everything = grid.sampling(origins, directions, render_step_size=0.02)
    options = {"alpha_fn" if use_alpha else "sigma_fn": density}
    seen = grid.sampling(origins, directions, render_step_size=0.02, early_stop_eps=1e-2, **options)
    assert 100 < len(seen[0]) < len(everything[0])


def test_a_ball_is_rendered_as_thick_as_it_is(generator: torch.Generator) -> None:
    grid, (origins, directions) = estimator(), looking_inwards(generator)
    rays, starts, ends = grid.sampling(origins, directions, render_step_size=2e-3)
    scale = torch.tensor(0.05, requires_grad=True)

    def field(starts: Tensor, ends: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        places = origins[rays] + ((starts + ends) / 2)[:, None] * directions[rays]
        return torch.ones_like(places) * torch.tensor([1.0, 0.5, 0.0]), scale * ball_density(places)

    colors, opacities, depths, _ = nerfacc.rendering(starts, ends, rays, n_rays=64, rgb_sigma_fn=field)
    along = -(origins * directions).sum(-1)
    chord = 2 * (0.36 - (origins.square().sum(-1) - along.square())).clamp(min=0).sqrt()
    expected = 1 - torch.exp(-chord)
    torch.testing.assert_close(opacities[:, 0], expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(colors, expected[:, None] * torch.tensor([1.0, 0.5, 0.0]), atol=5e-3, rtol=0)
    assert bool((depths[chord == 0] == 0).all())
    opacities.sum().backward()
    assert scale.grad is not None
    expected_slope = (chord * 20 * torch.exp(-chord)).sum()
    assert float(scale.grad) == pytest.approx(float(expected_slope), rel=0.01)


def test_weights_of_packed_samples_agree_with_rows(generator: torch.Generator) -> None:
    sigmas, edges = torch.rand(4, 9, generator=generator), torch.rand(4, 10, generator=generator).sort()[0]
    starts, ends = edges[:, :-1], edges[:, 1:]
    rays = torch.arange(4).repeat_interleave(9)
    flat = [t.reshape(-1) for t in (starts, ends, sigmas)]
    for packed, batched in zip(
        nerfacc.render_weight_from_density(*flat, ray_indices=rays, n_rays=4),
        nerfacc.render_weight_from_density(starts, ends, sigmas),
        strict=True,
    ):
        torch.testing.assert_close(packed, batched.reshape(-1))
    weights = torch.rand(36, 1, generator=generator)[:, 0]
    sums = nerfacc.accumulate_along_rays(weights, None, rays, 4)
    torch.testing.assert_close(sums[:, 0], weights.view(4, 9).sum(-1))


@pytest.mark.parametrize("background", [None, torch.tensor([0.1, 0.2, 0.3])])
def test_no_samples_at_all_keep_a_loss_differentiable(background: Tensor | None) -> None:
    nothing, nobody = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    color = torch.ones(3, requires_grad=True)

    def field(starts: Tensor, ends: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        return color * torch.ones(len(starts), 3), torch.ones(len(starts)) * color.sum()

    colors, opacities, depths, _ = nerfacc.rendering(
        nothing, nothing, nobody, n_rays=5, rgb_sigma_fn=field, render_bkgd=background
    )
    assert colors.shape == (5, 3) and not opacities.any() and not depths.any()
    (colors.sum() + opacities.sum() + depths.sum()).backward()
    with torch.no_grad():
        assert not nerfacc.rendering(nothing, nothing, nobody, n_rays=5, rgb_sigma_fn=field)[0].requires_grad


def test_an_empty_grid_gives_no_samples(generator: torch.Generator) -> None:
    grid = nerfacc.OccGridEstimator([-1, -1, -1, 1, 1, 1], resolution=4, levels=1)
    origins, directions = looking_inwards(generator)
    rays, starts, ends = grid.sampling(origins, directions, sigma_fn=lambda a, b, c: a)
    assert len(rays) == len(starts) == len(ends) == 0


def test_proposal_networks_are_trained_and_sampled(generator: torch.Generator) -> None:
    sharp = torch.tensor(30.0, requires_grad=True)

    def proposal(starts: Tensor, ends: Tensor) -> Tensor:
        return sharp * torch.exp(-(((starts + ends) / 2 - 3).square()) * 20)

    network = nerfacc.PropNetEstimator(torch.optim.Adam([sharp], lr=0.1))
    network.train()
    starts, ends = network.sampling(
        [proposal], [64], 32, n_rays=5, near_plane=1.0, far_plane=6.0, stratified=True, requires_grad=True
    )
    assert starts.shape == ends.shape == (5, 32)
    assert bool((ends >= starts).all()) and float(((starts > 2) & (ends < 4)).float().mean()) > 0.8
    density = 5 * torch.exp(-((starts - 3).square()) * 40)
    transmittance, _ = nerfacc.render_transmittance_from_density(starts, ends, density)
    assert network.update_every_n_steps(transmittance, requires_grad=True) > 0
    assert float(sharp.detach()) != 30.0


def test_stratified_samples_follow_torchs_seed() -> None:
    intervals = nerfacc.RayIntervals(vals=torch.linspace(0, 1, 9).expand(3, 2, 9))
    cdfs = torch.linspace(0, 1, 9).square().expand(3, 2, 9)
    torch.manual_seed(1)
    first = nerfacc.importance_sampling(intervals, cdfs, 4, True)[1].vals
    torch.manual_seed(1)
    assert torch.equal(nerfacc.importance_sampling(intervals, cdfs, 4, True)[1].vals, first)
    assert first.shape == (3, 2, 4)
    regular = nerfacc.importance_sampling(intervals, cdfs, 4)
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875]).sqrt().expand(3, 2, 4)
    torch.testing.assert_close(regular[1].vals, expected, atol=0.02, rtol=0)
    assert regular[0].vals.shape == (3, 2, 5)


def test_each_ray_may_have_its_own_number_of_samples() -> None:
    intervals = nerfacc.RayIntervals(
        vals=torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]), packed_info=torch.tensor([[0, 2], [2, 3], [5, 0]])
    )
    cdfs = torch.tensor([0.0, 0.5, 0.0, 0.5, 1.0])
    edges, samples = nerfacc.importance_sampling(intervals, cdfs, torch.tensor([2, 4, 3]))
    assert samples.vals.tolist() == [0.25, 0.75, 0.25, 0.75, 1.25, 1.75]
    assert samples.packed_info.tolist() == [[0, 2], [2, 4], [6, 0]]
    assert samples.ray_indices.tolist() == [0, 0, 1, 1, 1, 1]
    assert edges.vals.tolist() == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert edges.packed_info.tolist() == [[0, 3], [3, 5], [8, 0]]
    assert edges.vals[edges.is_left].tolist() == [0.0, 0.5, 0.0, 0.5, 1.0, 1.5]
    assert edges.vals[edges.is_right].tolist() == [0.5, 1.0, 0.5, 1.0, 1.5, 2.0]
    rows, middles = nerfacc.importance_sampling(intervals, cdfs, 2)
    assert rows.vals.tolist() == [[0.0, 0.5, 1.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]
    assert middles.vals[:2].tolist() == [[0.25, 0.75], [0.5, 1.5]]
    with pytest.raises(ValueError, match="n_intervals_per_ray must be at least 1"):
        nerfacc.importance_sampling(intervals, cdfs, 0)
    with pytest.raises(ValueError, match="n_intervals_per_ray has 2 numbers, but there are 3 rays"):
        nerfacc.importance_sampling(intervals, cdfs, torch.tensor([1, 2]))


def test_search_takes_intervals_and_samples_packed_or_not() -> None:
    keys = nerfacc.RayIntervals(
        vals=torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]), packed_info=torch.tensor([[0, 2], [2, 3]])
    )
    values, packed = torch.tensor([0.5, 1.5, 2.5]), torch.tensor([[0, 1], [1, 2]])
    for queries in (
        nerfacc.RayIntervals(vals=values, packed_info=packed),
        nerfacc.RaySamples(vals=values, packed_info=packed),
        nerfacc.RaySamples(vals=values, ray_indices=torch.tensor([0, 1, 1])),
    ):
        lefts, rights = nerfacc.searchsorted(keys, queries)
        assert lefts.tolist() == [0, 3, 3] and rights.tolist() == [1, 4, 4]
    rows = nerfacc.RaySamples(vals=torch.tensor([[-1.0, 0.5], [0.5, 1.5]]))
    assert [found.tolist() for found in nerfacc.searchsorted(keys, rows)] == [[[0, 0], [0, 1]], [[1, 1], [1, 2]]]
    loose = nerfacc.RaySamples(vals=torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]), ray_indices=torch.tensor([0, 0, 1, 1, 1]))
    assert torch.equal(nerfacc.searchsorted(loose, rows)[0], nerfacc.searchsorted(keys, rows)[0])
    with pytest.raises(ValueError, match="values are of 3 rays, sorted_sequence is of 2"):
        nerfacc.searchsorted(keys, nerfacc.RaySamples(vals=torch.zeros(3, 1)))
    with pytest.raises(ValueError, match="flat vals need packed_info or ray_indices"):
        nerfacc.searchsorted(nerfacc.RaySamples(vals=values), rows)


@pytest.mark.parametrize("count", [5, 8, 12])
def test_lens_coefficients_in_every_order(count: int) -> None:
    points = torch.tensor([[[0.3, -0.4], [0.1, 0.2]]])
    params = torch.zeros(1, 2, count)
    params[..., [0, 1, 2 if count < 12 else 6]] = torch.tensor([0.1, -0.02, 0.01])  # k1 k2 p1
    x, y = backend.opencv_lens_undistortion(points, params, 1e-6, 10).unbind(-1)
    r2 = x * x + y * y
    radial = 1 + 0.1 * r2 - 0.02 * r2 * r2
    again = torch.stack((x * radial + 0.02 * x * y, y * radial + 0.01 * (r2 + 2 * y * y)), dim=-1)
    torch.testing.assert_close(again, points, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="params must hold 5, 8 or 12 coefficients, got 7"):
        backend.opencv_lens_undistortion(points, torch.zeros(1, 2, 7), 1e-6, 10)


def test_fisheye_points() -> None:
    points = torch.tensor([[[0.3, -0.4]], [[0.0, 0.0]]])
    found = backend.opencv_lens_undistortion_fisheye(points, torch.zeros(2, 1, 4), 1e-6, 10)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.6, -0.8]) * torch.tan(torch.tensor(0.5)))
    assert found[1, 0].tolist() == [0.0, 0.0]


def test_rays_on_another_device_than_the_grid_are_named(generator: torch.Generator) -> None:
    grid = estimator().to("meta")
    with pytest.raises(ValueError, match=r"aabbs of the grid are on meta, the rays are on cpu: move the estimator"):
        grid.sampling(*looking_inwards(generator))
    with pytest.raises(ValueError, match="rays_o must be torch.float32 on cpu, got torch.float64"):
        estimator().sampling(*(t.double() for t in looking_inwards(generator)))


def test_the_interface_of_version_052(generator: torch.Generator) -> None:
    origins, directions = looking_inwards(generator)
    grid = estimator()
    near, far = torch.zeros(64), torch.full((64,), 1e10)
    bounds = backend.ray_aabb_intersect(origins, directions, grid.aabbs, 0.0, 1e10, float("inf"))
    options = (near, far, 0.02, 0.0, True, True)
    intervals, samples = backend.traverse_grids_v052(origins, directions, grid.binaries, grid.aabbs, *bounds, *options)
    expected = nerfacc.traverse_grids(origins, directions, grid.binaries, grid.aabbs, near, far, 0.02)[1]
    assert torch.equal(samples.vals, expected.vals) and torch.equal(samples.ray_indices, expected.ray_indices)
    assert intervals.is_left is not None and int(intervals.is_left.sum()) == len(samples.vals)


def test_what_is_not_asked_for_is_not_given(generator: torch.Generator) -> None:
    origins, directions = looking_inwards(generator)
    grid = estimator(1)
    t_mins, t_maxs, hits = nerfacc.ray_aabb_intersect(origins, directions, grid.aabbs)
    crossings = (*torch.sort(torch.cat((t_mins, t_maxs), dim=-1), dim=-1), hits)
    mask, near, far = torch.ones(64, dtype=torch.bool), torch.zeros(64), torch.full((64,), 1e10)
    rays, grids = (origins, directions, mask), (grid.binaries, grid.aabbs)
    options = (near, far, 0.02, 0.0, False, False, False, -1, False)
    intervals, samples, ends = backend.traverse_grids(*rays, *grids, *crossings, *options)
    assert intervals.vals is None and samples.vals is None and ends is None
    with pytest.raises(ValueError, match="normalised sums have no gradient"):
        backend.inclusive_sum(PACKED[:, 0], PACKED[:, 1], torch.ones(9), True, True)


def run(code: str, *path: Path) -> str:
    """What a fresh interpreter prints; warnings are errors, but for those of compiling nerfacc's source and kernels."""
    filters = ["error", "ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"]
    options = [*(f"-W{action}" for action in filters), "-c", "import sys; sys.path[:0] = sys.argv[1:]\n" + code]
    here = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, *options, *map(str, (*path, here))], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout.strip()


CHECK = """
import torch
from nerfacc import inclusive_sum, pack_info
info = pack_info(torch.tensor([0, 0, 2]))
print(first, second, inclusive_sum(torch.ones(3), info).tolist(), info.tolist())
"""
INSTALL = "from nfldm3d.interop.nerfacc import install\nfirst, second = install(), install()\n"
EXPECTED = "True True [1.0, 2.0, 1.0] [[0, 2], [2, 0], [2, 1]]"


@pytest.mark.slow
@pytest.mark.parametrize("code", [INSTALL, "import nerfacc, nerfacc.volrend\n" + INSTALL])
def test_installs_before_or_after_the_import_and_without_a_word(code: str) -> None:
    assert run(code + CHECK) == EXPECTED


@pytest.mark.slow
def test_mends_a_backend_that_found_no_compiler() -> None:
    broken = "import types, nerfacc.cuda\nloader = types.ModuleType('nerfacc.cuda._backend')\nloader._C = None\n"
    broken += "sys.modules['nerfacc.cuda._backend'] = nerfacc.cuda._backend = loader\n"
    assert run(broken + INSTALL + CHECK) == EXPECTED


@pytest.mark.slow
def test_names_imported_by_value_are_replaced() -> None:
    code = "import types, nerfacc\nuser = types.ModuleType('user')\nuser.packing = user.pack_info = nerfacc.pack_info\n"
    code += "sys.modules['user'] = user\n" + INSTALL + "print(user.pack_info.__module__)"
    assert run(code) == "nfldm3d.interop.nerfacc_segments"


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [True, False])
def test_a_compiled_backend_is_left_alone_unless_forced(loaded: bool) -> None:
    if loaded:
        code = "import types, nerfacc.cuda\nloader = types.ModuleType('nerfacc.cuda._backend')\nloader._C = object()\n"
        code += "sys.modules['nerfacc.cuda._backend'] = loader\n"
    else:  # as a wheel with compiled code has it
        code = "import types, nerfacc, importlib.machinery\n"
        code += "compiled = sys.modules['nerfacc.csrc'] = types.ModuleType('nerfacc.csrc')\n"
        code += "compiled.__spec__ = importlib.machinery.ModuleSpec('nerfacc.csrc', None)\n"
    code += "from nfldm3d.interop.nerfacc import install\nfirst = install()\n"
    code += "print(first, nerfacc.pack_info.__module__)\nfirst, second = install(force=True), install()\n"
    assert run(code + CHECK) == "False nerfacc.pack\n" + EXPECTED


@pytest.mark.slow
def test_a_gpu_alone_starts_no_compiler(tmp_path: Path) -> None:
    code = "import os, torch\ntorch.cuda.is_available = lambda: True\n"
    code += f"os.environ['TORCH_EXTENSIONS_DIR'] = {str(tmp_path)!r}\n" + INSTALL + "print(first, second)"
    assert run(code) == "True True" and not list(tmp_path.rglob("*.so"))


@pytest.mark.slow
def test_other_versions_and_none_are_refused(tmp_path: Path) -> None:
    tried = "from nfldm3d.interop.nerfacc import install\ntry:\n    install()\nexcept ImportError as error:\n    "
    tried += "print(error)"
    missing = "sys.modules['nerfacc'] = None\n" + tried
    assert run(missing) == "nerfacc is not installed: pip install nerfacc==0.5.3"
    (tmp_path / "nerfacc").mkdir()
    (tmp_path / "nerfacc" / "__init__.py").write_text("__version__ = '0.3.5'\n", encoding="utf-8")
    assert run(tried, tmp_path).startswith("nerfacc 0.3.5 is installed, but its backend is known for 0.5.3 and 0.5.2")
