"""Spherical harmonics and environment maps against their laws; pictures and points agree on colour."""

import json
import math

import numpy as np
import pytest
import torch

from nfldm3d.appearance import Appearance, EnvironmentMap, Rgb, SphericalHarmonics, spherical_harmonics
from nfldm3d.geometry import Rays, look_at
from nfldm3d.scene_file import unpack_appearance


def as_motion(rotation: torch.Tensor) -> torch.Tensor:
    motion = torch.eye(4, dtype=rotation.dtype)
    motion[:3, :3] = rotation
    return motion


def unit_vectors(generator: torch.Generator, *shape: int) -> torch.Tensor:
    vectors = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


@pytest.fixture
def rotation() -> torch.Tensor:
    """A turn about no axis in particular."""
    eye, target = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([-0.3, 0.1, 0.9]).double()
    return look_at(eye, target)[:3, :3]


def sphere_quadrature() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials up to degree 11 over the sphere exactly."""
    heights, shares = np.polynomial.legendre.leggauss(6)
    azimuth = torch.arange(12, dtype=torch.float64) * (2 * math.pi / 12) + 0.1
    z = torch.from_numpy(heights)[:, None].expand(6, 12)
    ring = (1 - z**2).sqrt()
    directions = torch.stack((ring * azimuth.cos(), ring * azimuth.sin(), z), dim=-1).reshape(-1, 3)
    weights = torch.from_numpy(shares)[:, None].expand(6, 12).reshape(-1) * (2 * math.pi / 12)
    return directions, weights


def test_the_basis_is_orthonormal() -> None:
    directions, weights = sphere_quadrature()
    basis = spherical_harmonics(directions, 3)
    gram = torch.einsum("nb,nc,n->bc", basis, basis, weights)
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lower_degrees_begin_higher_ones(generator: torch.Generator, degree: int) -> None:
    directions = unit_vectors(generator, 2, 5)
    basis = spherical_harmonics(directions, degree)
    assert basis.shape == (2, 5, (degree + 1) ** 2)
    assert torch.equal(basis, spherical_harmonics(directions, 3)[..., : (degree + 1) ** 2])


def test_order_and_signs_are_those_of_gaussian_splatting() -> None:
    """The constants and polynomials of 3-D Gaussian splatting's sh_utils.py."""
    x, y, z = 2 / 7, -3 / 7, 6 / 7
    xx, yy, zz = x * x, y * y, z * z
    c2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
    c3 = (-0.5900435899266435, 2.890611442640554, -0.4570457994644658, 0.3731763325901154)
    c3 += (-0.4570457994644658, 1.445305721320277, -0.5900435899266435)
    p2 = (x * y, y * z, 2 * zz - xx - yy, x * z, xx - yy)
    p3 = (y * (3 * xx - yy), x * y * z, y * (4 * zz - xx - yy), z * (2 * zz - 3 * xx - 3 * yy))
    p3 += (x * (4 * zz - xx - yy), z * (xx - yy), x * (xx - 3 * yy))
    expected = [0.28209479177387814, *(0.4886025119029199 * v for v in (-y, z, -x))]
    expected += [c * p for c, p in zip((*c2, *c3), (*p2, *p3), strict=True)]
    basis = spherical_harmonics(torch.tensor([x, y, z], dtype=torch.float64), 3)
    assert basis.tolist() == pytest.approx(expected, abs=1e-12)


def make_appearances() -> list:
    turned = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    return [Rgb(), Rgb(7), *(SphericalHarmonics(degree) for degree in range(4)), SphericalHarmonics(2, turned)]


@pytest.mark.parametrize("appearance", make_appearances(), ids=str)
class TestEveryAppearance:
    def test_keeps_the_protocol(self, appearance) -> None:
        assert isinstance(appearance, Appearance)
        config = json.loads(json.dumps({"type": type(appearance).__name__, **appearance.config()}))
        assert unpack_appearance(config) == appearance and hash(unpack_appearance(config)) == hash(appearance)

    @pytest.mark.parametrize("shape", [(), (6,), (2, 5, 4)])
    def test_an_opaque_pixel_has_the_colour_of_its_point(self, appearance, generator, shape: tuple[int, ...]) -> None:
        features = 0.5 + 0.1 * torch.randn(*shape, appearance.channels, generator=generator, dtype=torch.float64)
        directions = unit_vectors(generator, *shape)
        image = appearance.image(features, torch.ones(shape).double(), Rays(torch.zeros_like(directions), directions))
        color = appearance.point_color(features, directions)
        assert image.shape == color.shape == (*shape, 3)
        assert torch.allclose(image.clamp(0, 1), color)

    def test_pictures_are_linear_in_what_is_composited(self, appearance, generator) -> None:
        """The colour of a sum of weighted samples is the sum of their colours: one evaluation for each ray is right."""
        weights = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
        samples = torch.randn(3, appearance.channels, generator=generator, dtype=torch.float64)
        direction = unit_vectors(generator, 1)
        rays = Rays(torch.zeros_like(direction), direction)
        whole = appearance.image((weights @ samples)[None], weights.sum()[None], rays)
        parts = [appearance.image(sample[None], torch.ones(1).double(), rays) for sample in samples]
        assert torch.allclose(whole, (weights[:, None] * torch.cat(parts)).sum(0, keepdim=True))

    def test_a_turned_world_looks_the_same_from_turned_eyes(self, appearance, generator, rotation) -> None:
        features = 0.1 * torch.randn(9, appearance.channels, generator=generator, dtype=torch.float64)
        directions = unit_vectors(generator, 9)
        turned = appearance.moved(as_motion(rotation))
        assert torch.allclose(
            turned.point_color(features, directions @ rotation.T), appearance.point_color(features, directions)
        )
        back = turned.moved(as_motion(rotation.T))
        assert torch.allclose(back.point_color(features, directions), appearance.point_color(features, directions))

    def test_colours_lie_between_0_and_1(self, appearance, generator) -> None:
        features = 9 * torch.randn(50, appearance.channels, generator=generator, dtype=torch.float64)
        color = appearance.point_color(features, unit_vectors(generator, 50), unit_vectors(generator, 50))
        assert color.min() == 0 and color.max() == 1


def test_turns_follow_one_another(generator: torch.Generator, rotation: torch.Tensor) -> None:
    second = look_at(torch.tensor([0.0, 1.0, 4.0]).double(), torch.tensor([3.0, 1.0, 1.0]).double())[:3, :3]
    appearance = SphericalHarmonics(3)
    twice, once = appearance.rotated(rotation).rotated(second), appearance.rotated(second @ rotation)
    assert torch.allclose(torch.tensor(twice.frame), torch.tensor(once.frame))


def test_view_dependence_is_real(generator: torch.Generator) -> None:
    features = torch.zeros(2, 12)
    features[:, 3 * 2] = 0.5  # red grows with z
    down, up = SphericalHarmonics(1).point_color(features, torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]))
    assert up[0] > 0.7 > 0.3 > down[0] and up[1] == down[1] == 0.5


def test_unknown_appearances_are_refused() -> None:
    with pytest.raises(ValueError, match="degree 0 to 3, got 4"):
        SphericalHarmonics(4)
    with pytest.raises(ValueError, match="at least 3 channels, got 2"):
        Rgb(2)


@pytest.fixture
def sky(generator: torch.Generator) -> EnvironmentMap:
    return EnvironmentMap(torch.rand(6, 16, 5, generator=generator, dtype=torch.float64))


def test_the_zenith_is_row_0_and_the_first_column_starts_at_minus_x(sky: EnvironmentMap) -> None:
    assert torch.allclose(sky.query(sky.directions()), sky.image), "pixel centres are exact"
    directions = sky.directions()
    assert directions[0, :, 2].min() > 0.9 and directions[-1, :, 2].max() < -0.9
    assert torch.allclose(directions[:, 0, 0].sign(), -torch.ones(6).double()) and (directions[:, 0, 1] < 0).all()
    azimuth = torch.atan2(directions[3, :, 1], directions[3, :, 0])
    assert torch.allclose(azimuth.diff(), torch.full((15,), 2 * math.pi / 16).double()), "counter-clockwise from above"
    column_8_starts_at_plus_x = torch.stack((directions[2, 7], directions[2, 8]))
    assert torch.allclose(column_8_starts_at_plus_x[0, 1], -column_8_starts_at_plus_x[1, 1])
    assert (column_8_starts_at_plus_x[:, 0] > 0).all()


def test_halfway_between_pixels_is_their_mean(sky: EnvironmentMap) -> None:
    polar, azimuth = 3 / 6 * math.pi, 5 / 16 * 2 * math.pi - math.pi
    direction = torch.tensor(
        [math.sin(polar) * math.cos(azimuth), math.sin(polar) * math.sin(azimuth), math.cos(polar)]
    )
    assert torch.allclose(sky.query(direction.double()), sky.image[2:4, 4:6].mean((0, 1)), atol=1e-6)


def test_the_sky_has_no_seam(sky: EnvironmentMap) -> None:
    height = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    side = torch.full_like(height, 1e-7)
    left, right = (torch.stack((-torch.ones_like(height), sign * side, height), dim=-1) for sign in (1, -1))
    left, right = (torch.nn.functional.normalize(value, dim=-1) for value in (left, right))
    assert torch.allclose(sky.query(left), sky.query(right), atol=1e-5)
    middle = (sky.image[:, 0] + sky.image[:, -1]) / 2
    polar = (torch.arange(6) + 0.5) * (math.pi / 6)
    seam = torch.stack((-torch.sin(polar), torch.zeros(6), torch.cos(polar)), dim=-1).double()
    assert torch.allclose(sky.query(seam), middle, atol=1e-6)


def test_the_poles_and_beyond_are_finite(sky: EnvironmentMap) -> None:
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0 + 1e-7], [-1.0, -0.0, 0.0]])
    assert torch.isfinite(sky.query(poles.double())).all()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_queries_keep_their_shape(sky: EnvironmentMap, generator: torch.Generator, shape: tuple[int, ...]) -> None:
    assert sky.query(unit_vectors(generator, *shape)).shape == (*shape, 5)


def test_the_picture_learns(sky: EnvironmentMap, generator: torch.Generator) -> None:
    directions = unit_vectors(generator, 7)
    assert torch.autograd.gradcheck(
        lambda image: EnvironmentMap(image).query(directions), sky.image.clone().requires_grad_()
    )


def test_a_quarter_turn_of_the_sky_shifts_it(sky: EnvironmentMap) -> None:
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(sky.rotated(quarter).image, sky.image.roll(4, 1), atol=1e-6)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert torch.allclose(sky.rotated(flip).image, sky.image.flip(0, 1), atol=1e-6)


def test_a_turned_smooth_sky_is_seen_alike(generator: torch.Generator, rotation: torch.Tensor) -> None:
    fine = EnvironmentMap(torch.zeros(64, 128, 3).double())
    smooth = EnvironmentMap(fine.directions() * 0.5 + 0.5)
    directions = unit_vectors(generator, 40)
    turned = smooth.rotated(rotation).query(directions @ rotation.T)
    assert torch.allclose(turned, directions * 0.5 + 0.5, atol=3e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halved_skies_are_read_in_single_precision(
    sky: EnvironmentMap, generator: torch.Generator, dtype: torch.dtype
) -> None:
    halved, directions = sky.to(dtype), unit_vectors(generator, 50)
    seen = halved.query(directions.float())
    assert seen.dtype == torch.float32 and torch.allclose(seen.double(), sky.query(directions), atol=1e-2)
    assert torch.isfinite(halved.query(directions.to(dtype))).all()
    assert halved.rotated(torch.eye(3)).image.dtype == dtype


def test_an_environment_map_needs_three_axes() -> None:
    with pytest.raises(ValueError, match=r"\(height, width, channels\), got \(0, 4, 3\)"):
        EnvironmentMap(torch.zeros(0, 4, 3))
