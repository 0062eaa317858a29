"""The neural field: a whole field, twice differentiable, with a blob at the start and nothing outside its ball."""

import json
import math
import zipfile
from pathlib import Path

import pytest
import torch
from on_devices import CPU, assert_same_on_gpu
from torch import Tensor

from nfldm3d import Camera, Rgb, Scene, extract_mesh, render
from nfldm3d.fields import Field, FieldState, NeuralField, StoredField
from nfldm3d.files import DataFormatError
from nfldm3d.interop.nerfacc_field import NerfaccCallbacks

CENTER, RADIUS = (0.3, -0.2, 1.0), 1.5
ENCODING = {"levels": 4, "features": 2, "log2_rows": 10, "base_resolution": 6, "growth": 1.6}


def make(activation: str = "softplus", *, roughness: float = 0.0) -> NeuralField:
    """One with a blob; ``roughness`` is the size of random features."""
    generator = torch.Generator().manual_seed(0)
    ball = {"center": CENTER, "radius": RADIUS, "detail": 32, "encoding": ENCODING, "width": 16}
    made = NeuralField(**ball, activation=activation, generator=generator)  # type: ignore[arg-type]
    made.encoding.table.data = roughness * torch.randn(made.encoding.table.shape, generator=generator)
    made.update_occupancy(generator=generator, decay=0.0, samples=2)
    return made


def places(count: int, generator: torch.Generator) -> Tensor:
    """Points in the box, some of them outside the ball."""
    return torch.tensor(CENTER) + RADIUS * (2 * torch.rand(count, 3, generator=generator) - 1)


def test_it_offers_what_fields_offer(generator: torch.Generator) -> None:
    field, points = make(roughness=0.3), places(60, generator).view(5, 4, 3, 3)
    assert isinstance(field, Field) and isinstance(field, StoredField)
    density, features = field.query(points)
    assert density.shape == (5, 4, 3) and features.shape == (5, 4, 3, 3)
    torch.testing.assert_close(field.query_density(points), density, rtol=1e-5, atol=1e-6)
    assert [part.shape for part in field.query(points[:0])] == [(0, 4, 3), (0, 4, 3, 3)]
    assert field.normals(points[:0]).shape == (0, 4, 3, 3)
    outside = (points - torch.tensor(CENTER)).norm(dim=-1) > RADIUS
    assert bool(outside.any()) and not bool(density[outside].any()) and bool((density[~outside] > 0).all())
    assert bool(((features > 0) & (features < 1)).all())


@pytest.mark.parametrize("density", ["exp", "softplus"])
def test_it_begins_as_the_blob_of_its_kind(density: str) -> None:
    field = make(density)
    distance = torch.tensor((0.1, 0.4, 0.9))  # shares of the radius
    points = torch.tensor(CENTER) + RADIUS * distance[:, None] * torch.tensor((0.6, 0.0, -0.8))
    if density == "exp":
        wanted = torch.exp(5 * torch.exp(-(distance**2) / (2 * 0.2**2)))
    else:
        wanted = torch.nn.functional.softplus(10 * (1 - distance / 0.5))
    torch.testing.assert_close(field.query_density(points), wanted / RADIUS, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.query(points)[1], torch.full((3, 3), 0.5))
    normals = field.normals(points)
    torch.testing.assert_close(normals, torch.tensor((0.6, 0.0, -0.8)).expand(3, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", ["exp", "softplus"])
def test_normals_point_against_the_gradient(density: str, generator: torch.Generator) -> None:
    field = make(density, roughness=1.0)
    points = torch.tensor(CENTER) + 0.3 * torch.randn(200, 3, generator=generator)
    step = 1e-3 * torch.eye(3)
    with torch.no_grad():
        ups, downs = (field.query_density(points[:, None] + sign * step) for sign in (1, -1))
        wanted = -torch.nn.functional.normalize(ups - downs, dim=-1)
        agreement = (field.normals(points) * wanted).sum(-1)
    assert float(agreement.quantile(0.1)) > 0.999  # some differences cross the end of a cell


def test_normals_can_be_learned(generator: torch.Generator) -> None:
    """Their derivative along a change of all weights is that of a difference."""
    field, points = make(roughness=1.0), torch.tensor(CENTER) + 0.3 * torch.randn(50, 3, generator=generator)
    weights = torch.randn(50, 3, generator=generator)
    parameters = list(field.parameters())
    ways = [torch.randn(value.shape, generator=generator) for value in parameters]
    slopes = torch.autograd.grad((field.normals(points) * weights).sum(), parameters)
    predicted = sum(float((slope.detach() * way).sum()) for slope, way in zip(slopes, ways, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for value, way in zip(parameters, ways, strict=True):
                value += sign * 1e-4 * way
            values.append(float((field.normals(points) * weights).sum()))
            for value, way in zip(parameters, ways, strict=True):
                value -= sign * 1e-4 * way
    assert predicted == pytest.approx((values[0] - values[1]) / 2e-4, rel=0.05)


def test_occupancy_follows_the_field(generator: torch.Generator) -> None:
    field = make()
    mask, points = field.occupancy(), places(500, generator)
    assert 0 < float(mask.float().mean()) < 0.6
    side = mask.shape[0]
    index = ((points - torch.tensor(field.box.lower)) / (2 * RADIUS) * side).long().clamp(0, side - 1)
    dense = field.query_density(points) > 1.0
    assert bool(dense.any()) and bool(mask[index.unbind(-1)][dense].all())
    assert int(field.occupancy(3.0).sum()) < int(mask.sum())
    with torch.no_grad():
        field.encoding.table.fill_(1.0)
        field.weights[0].fill_(1.0)
        field.weights[1].fill_(-1e3)  # empties it
    field.update_occupancy(generator=generator)
    assert bool(field.occupancy(1.0).any())  # what was seen fades
    field.update_occupancy(generator=generator, decay=0.0)
    assert not bool(field.occupancy(1.0).any())


def test_it_is_read_on_any_grid() -> None:
    field = make(roughness=0.5)
    grid = field.to_voxels((7, 5, 9))
    density, features = field.query(grid.voxel_centers())
    torch.testing.assert_close(grid.density, density.detach())
    torch.testing.assert_close(grid.features, features.detach())
    assert field.to_voxels().resolution == (32, 32, 32)


def look(field: Field) -> Tensor:
    orbit = Camera.orbit(CENTER, 4.0, views=2, width=12, height=9)
    return render(Scene(field, Rgb(), torch.ones(3)), orbit, step_in_voxels=1.0).image


def test_it_renders_with_gradients() -> None:
    field = make(roughness=0.3)
    picture = look(field)
    with torch.no_grad():
        voxels = look(field.to_voxels((96, 96, 96)))
    assert float((picture.detach() - voxels).abs().mean()) < 0.01 and bool((picture < 0.7).any())
    picture.mean().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in field.parameters())


def test_scene_files_keep_it(tmp_path: Path, generator: torch.Generator) -> None:
    field, points = make("exp", roughness=0.5), places(40, generator)
    Scene(field, Rgb()).save(tmp_path / "a.nfld")
    loaded = Scene.load(tmp_path / "a.nfld").field
    assert isinstance(loaded, NeuralField) and not any(value.requires_grad for value in loaded.parameters())
    for ours, theirs in zip(field.query(points), loaded.query(points), strict=True):
        assert torch.equal(ours.detach(), theirs)
    assert torch.equal(loaded.occupancy(), field.occupancy())
    config = json.loads(zipfile.ZipFile(tmp_path / "a.nfld").read("config.json"))
    assert config["levels"][0]["type"] == "NeuralField" and config["version"] == 2


def test_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config, tensors = make().state()
    for change in ({"encoding": ENCODING | {"log2_rows": 24, "base_resolution": 256}}, {"width": 17}, {"detail": 64}):
        with pytest.raises(ValueError, match="numbers|shape"):
            NeuralField.from_state(FieldState(config | change, tensors))
    with pytest.raises(ValueError, match="table holds numbers that are not finite"):
        NeuralField.from_state(FieldState(config, tensors | {"table": tensors["table"] * math.nan}))
    scene = Scene(make(), Rgb())
    scene.field.detail = 64  # type: ignore[union-attr]
    scene.save(tmp_path / "b.nfld")
    with pytest.raises(DataFormatError):
        Scene.load(tmp_path / "b.nfld")


def test_sizes_out_of_range_are_refused() -> None:
    for wrong in ({"radius": 0.0}, {"detail": 4}, {"channels": 0}, {"width": 0}):
        with pytest.raises(ValueError, match="got"):
            NeuralField(**wrong)


def test_it_becomes_a_closed_mesh() -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = extract_mesh(Scene(make("exp"), Rgb()))
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).is_watertight
    distance = (mesh.vertices - torch.tensor(CENTER)).norm(dim=-1)
    level = math.log(2) / (2 * RADIUS / 32)
    wanted = RADIUS * 0.2 * math.sqrt(-2 * math.log(math.log(level * RADIUS) / 5))
    assert float(distance.mean()) == pytest.approx(wanted, rel=0.05)


def test_it_goes_through_nerfacc(generator: torch.Generator) -> None:
    field = make(roughness=0.3)
    rays = Camera.orbit(CENTER, 4.0, views=1, width=5, height=4).rays().reshape(-1)
    callbacks = NerfaccCallbacks(Scene(field, Rgb()), rays)
    starts = 2.0 + 4 * torch.rand(30, generator=generator)
    index = torch.arange(30) % 20
    color, density = callbacks.rgb_sigma_fn(starts, starts + 0.1, index)
    points = rays[index].at(starts + 0.05)
    inside = field.box.contains(points)
    torch.testing.assert_close(density, torch.where(inside, field.query_density(points), 0.0))
    assert color.shape == (30, 3)
    torch.testing.assert_close(callbacks.sigma_fn(starts, starts + 0.1, index), density)
    assert callbacks.occ_eval_fn(points).shape == (30, 1)


@pytest.mark.cuda
def test_gives_the_same_on_the_gpu(generator: torch.Generator) -> None:
    points = places(50, generator)

    def call(device: torch.device) -> list[Tensor]:
        field = make(roughness=0.3).to(device)
        return [*field.query(points.to(device)), field.normals(points.to(device)), field.to_voxels((3, 4, 5)).density]

    assert make().device == CPU
    assert_same_on_gpu(call)
