"""The X-UNet has the published size, and tells views and poses apart as it should."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_views import cameras, look

from nfldm3d import Camera
from nfldm3d.files import DataFormatError
from nfldm3d.models.views.ray_encoding import count_encoded, encode_rays, turn_to_first
from nfldm3d.models.views.sweep import fetch, show_swept, sweep_points
from nfldm3d.models.views.xunet import PUBLISHED_128, XUNet
from nfldm3d.models.weights import load_network

TINY: dict = {"size": 16, "patch": 2, "channels": 8, "multiples": (1, 2), "attention": (4,), "heads": 2, "memory": 16}


def tiny(**options) -> XUNet:
    """With weights that are not those it starts from: zero layers would hide mistakes."""
    network = XUNet(**(TINY | options))
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def ask(network: XUNet, *, clean=None, noisy=None, camera: Camera | None = None, known: bool = True):
    views = look(1, cameras(4))
    given, wanted = views[:2] if clean is None else clean, views[2:] if noisy is None else noisy
    camera = cameras(4).reshape(2, 2) if camera is None else camera
    levels = torch.tensor([[20.0, 0.5], [20.0, -1.0]])
    with torch.no_grad():
        return network(given, wanted, levels, camera, torch.full((2,), known))


def turned(camera: Camera, angle: float) -> Camera:
    motion = torch.eye(4)
    sine, cosine = torch.tensor(angle).sin(), torch.tensor(angle).cos()
    motion[0, 0], motion[0, 1], motion[1, 0], motion[1, 1] = cosine, -sine, sine, cosine
    return camera.transformed(motion)


def test_the_published_network_has_its_number_of_weights() -> None:
    with torch.device("meta"):
        published, concat = XUNet(**PUBLISHED_128), XUNet(**PUBLISHED_128, kind="concat")
    count, fewer = (sum(each.numel() for each in network.parameters()) for network in (published, concat))
    assert count == 461_661_731 and fewer < count  # the authors' listing; the paper says 471 and 421 million


def test_it_begins_by_saying_nothing() -> None:
    assert not ask(XUNet(**TINY)).any()


@pytest.mark.parametrize("kind", ["xunet", "concat"])
def test_it_looks_at_the_given_view_and_at_poses(kind) -> None:
    network = tiny(kind=kind)
    said, views = ask(network), look(2, cameras(2))
    assert not torch.allclose(ask(network, clean=views), said, atol=1e-4)
    assert not torch.allclose(ask(network, camera=cameras(5)[1:].reshape(2, 2)), said, atol=1e-4)
    unknown = ask(network, known=False)
    assert torch.equal(ask(network, camera=cameras(5)[1:].reshape(2, 2), known=False), unknown)


def test_places_are_told_instead_of_cameras() -> None:
    for kind in ("xunet", "concat"):
        network, views, levels = tiny(kind=kind), look(1, cameras(4)), torch.tensor([[20.0, 0.5], [20.0, -1.0]])
        with torch.no_grad():
            places = network.prepare(cameras(4).reshape(2, 2), torch.ones(2, dtype=torch.bool))
            assert torch.equal(network(views[:2], views[2:], levels, places=places), ask(network))
    with pytest.raises(ValueError, match="give camera and known, or places"):
        network(views[:2], views[2:], levels)


def test_objects_of_a_batch_do_not_mix() -> None:
    network, views = tiny(), look(3, cameras(2))
    other = ask(network, clean=torch.stack((look(1, cameras(4))[0], views[1])))
    assert torch.allclose(ask(network)[0], other[0], atol=1e-5) and not torch.allclose(ask(network)[1], other[1])


def test_azimuths_count_from_the_given_view_where_they_are_relative() -> None:
    camera = cameras(4).reshape(2, 2)
    for relative in (True, False):
        network = tiny(relative=relative)
        change = (ask(network) - ask(network, camera=turned(camera, 0.7))).abs().mean() / ask(network).abs().mean()
        assert bool(change < 0.02) == relative  # the finest octaves feel rounding
    first = turn_to_first(camera)
    assert torch.allclose(first.centers[:, 0, 1], torch.zeros(2), atol=1e-6) and (first.centers[:, 0, 0] > 0).all()
    above = Camera.look_at((0.0, 0.0, 2.0), (0.0, 0.0, 0.0), width=4, height=4).reshape(1, 1)
    for angle in (0.0, 2.0):
        assert torch.allclose(
            turn_to_first(turned(above, angle)).world_from_camera[0, 0, :3, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5
        )


def test_rays_are_told_by_sines() -> None:
    camera = cameras(2, 4)
    encoded, rays = encode_rays(camera), camera.rays()
    assert encoded.shape == (2, count_encoded(), 4, 4)
    assert torch.allclose(encoded[:, :3].movedim(1, -1), rays.origins)
    assert torch.allclose(encoded[:, 93:96].movedim(1, -1), rays.directions)
    assert torch.allclose(encoded[:, 3 + 3 * 2 + 1], (4 * rays.origins[..., 1]).sin(), atol=1e-5)


def test_it_is_saved_and_read(tmp_path: Path) -> None:
    network = tiny()
    network.save_pretrained(tmp_path / "net")
    read = load_network(XUNet, tmp_path / "net")
    assert torch.allclose(ask(read), ask(network), atol=1e-6)
    with pytest.raises(DataFormatError, match="describes a XUNet"):
        from nfldm3d.models.priors.image_denoiser import ImageDenoiser

        load_network(ImageDenoiser, tmp_path / "net")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 18}, "cannot be halved"),
        ({"heads": 3}, "cannot be shared by 3 heads"),
        ({"channels": 0}, "must be at least 1"),
        ({"dropout": float("nan")}, "dropout must be"),
        ({"multiples": ()}, "must be at least 1"),
        ({"memory": 10**9}, r"memory of 1000000000 numbers needs .* GiB are free; take fewer"),
        ({"channels": 10**8}, "take fewer"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        XUNet(**(TINY | options))


def test_parameters_move_with_gradients() -> None:
    network = tiny().train()
    camera = replace(cameras(4), width=16).reshape(2, 2)
    views = look(1, cameras(4))
    levels = torch.tensor([[20.0, 0.5], [20.0, -1.0]])
    network(views[:2], views[2:], levels, camera, torch.tensor([True, True])).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("kind", ["xunet", "concat"])
@pytest.mark.parametrize("patch", [1, 4])
def test_a_sweep_tells_the_drawn_frame_of_the_given_one(kind, patch: int) -> None:
    views, levels = look(1, cameras(4)), torch.tensor([[20.0, 0.5], [20.0, -1.0]])
    network = tiny(planes=3, patch=patch, attention=(), kind=kind, prediction="picture")  # nothing else looks across
    camera, known = cameras(4).reshape(2, 2), torch.ones(2).bool()

    def draw(given, levels=levels):
        with torch.no_grad():
            return network(given, views[2:], levels, camera, known)

    given, other = views[:2], 1 - views[:2]
    assert not torch.allclose(draw(given), draw(other), atol=1e-4)
    if kind == "xunet":
        noise = -levels.abs()
        assert torch.allclose(draw(given, noise), draw(other, noise), atol=1e-4)


def test_a_sweep_looks_where_the_given_view_shows_what_stands_on_its_planes() -> None:
    camera = cameras(4).reshape(2, 2).resized(8, 8)
    points = sweep_points(camera, 5)
    drawn = camera[:, 1]
    distance = drawn.centers.norm(dim=-1)
    reach = distance * 8 / (2 * drawn.focal[:, 0])
    for plane, share in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
        depth = (distance + share * reach)[:, None, None].expand(2, 8, 8)
        world = drawn.unproject(depth).flatten(1, 2)
        pixels, ahead = camera[:, 0].project(world)
        there = (2 * pixels / camera.width - 1).unflatten(1, (8, 8))
        near = (ahead > 0).unflatten(1, (8, 8)) & (there.abs() < 2).all(-1)
        assert near.any() and torch.allclose(points[:, plane][near], there[near], atol=1e-4)
    same = sweep_points(camera[:, [0, 0]], 5)
    assert torch.allclose(same, same[:, :1].expand_as(same), atol=1e-5)  # a camera sees its own rays as points


def test_what_a_sweep_finds_is_shown_where_the_network_says_so() -> None:
    camera, given = cameras(2)[[0, 0]].reshape(1, 2), look(1, cameras(2))[:1]
    points = sweep_points(camera, 3)
    own, gate, likely = torch.zeros(1, 3, 16, 16), torch.full((1, 1, 16, 16), 99.0), torch.zeros(1, 3, 16, 16)
    said = torch.cat((own, gate, likely), dim=1)
    assert torch.allclose(show_swept(said, given, points, torch.ones(1)), given, atol=1e-4)  # from the same camera
    assert not show_swept(said, given, points, torch.zeros(1)).any()
    other = sweep_points(cameras(2).reshape(1, 2), 3)
    for plane in range(3):
        said[:, 4:] = 99.0 * torch.eye(3)[plane][:, None, None]
        found = show_swept(said, given, other, torch.ones(1))
        assert torch.allclose(found, fetch(given, other)[:, :, plane], atol=1e-4)


@pytest.mark.parametrize("octaves", [(0, 4), (33, 4), (10**9, 10**9)])
def test_octaves_are_two_numbers_of_some_size(octaves: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="octaves are two numbers from 1 to 32"):
        tiny(octaves=octaves)
    assert tiny(octaves=(2, 3)).conditions.place.shape[0] == count_encoded(2, 3) == 36


@pytest.mark.parametrize("options", [{"patch": 3, "size": 24}, {"prediction": "v"}, {"planes": 10**9}, {"planes": -1}])
def test_a_sweep_needs_patches_that_fit_and_pictures(options: dict) -> None:
    with pytest.raises(ValueError, match="cannot be swept in patches of"):
        tiny(**({"planes": 4, "prediction": "picture"} | options))
