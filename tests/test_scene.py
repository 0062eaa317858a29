"""Scenes: what they refuse, and that their files give back every bit or say what is wrong."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from jaxtyping import TypeCheckError
from safetensors.torch import load, save

from nfldm3d.appearance import EnvironmentMap, Rgb, SphericalHarmonics
from nfldm3d.camera import Camera
from nfldm3d.data import PosedImages
from nfldm3d.fields import VoxelField
from nfldm3d.files import DataFormatError
from nfldm3d.geometry import Box, Rays
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.rendering import render
from nfldm3d.scene import Scene
from nfldm3d.scene_file import CONFIG, TENSORS

BOX = Box((-1.0, 2.0, 0.5), (3.3, 2.7, 4.5))


def make_field(generator: torch.Generator, resolution=(11, 3, 17), channels=3, box=BOX, dtype=torch.float32):
    """Half of the voxels empty, some bricks wholly empty."""
    density = torch.rand(resolution, generator=generator) * 5
    density[torch.rand(resolution, generator=generator) < 0.5] = 0
    features = torch.randn(*resolution, channels, generator=generator)
    density[8:], features[8:] = 0, 0
    return VoxelField(density.to(dtype), features.to(dtype), box)


def make_scene(generator: torch.Generator) -> Scene:
    """One of everything."""
    cameras = Camera.orbit((1.0, 2.3, 2.0), 3.0, views=4, width=20, height=12)
    return Scene(
        make_field(generator, channels=12),
        SphericalHarmonics(1, ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))),
        EnvironmentMap(torch.rand(4, 8, 3, generator=generator)),
        (
            make_field(generator, (4, 5, 6), 12, Box((-4.0, -1.0, -2.0), (6.0, 5.0, 7.0))),
            make_field(generator, (3, 2, 4), 12, Box((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0))),
        ),
        replace(cameras, distortion=torch.rand(4, 8, generator=generator) * 0.01),
        False,
        {"capture": "room", "größe": [1, 2.5, None, True], "nested": {"a": "b"}},
        {"latent": torch.rand(3, 2, generator=generator), "codes": torch.arange(4)},
    )


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def assert_equal(a: Scene, b: Scene) -> None:
    assert len(a.levels) == len(b.levels)
    for level, other in zip(a.levels, b.levels, strict=True):
        assert level.box == other.box
        assert same_bits(level.density, other.density) and same_bits(level.features, other.features)
    assert a.appearance == b.appearance and a.metric == b.metric and a.metadata == b.metadata
    assert a.extras.keys() == b.extras.keys() and all(same_bits(a.extras[name], b.extras[name]) for name in a.extras)
    assert type(a.background) is type(b.background)
    if a.background is not None and b.background is not None:
        pictures = [x.image if isinstance(x, EnvironmentMap) else x for x in (a.background, b.background)]
        assert same_bits(*pictures)
    assert (a.cameras is None) == (b.cameras is None)
    if a.cameras is not None and b.cameras is not None:
        assert (a.cameras.width, a.cameras.height, a.cameras.lens) == (
            b.cameras.width,
            b.cameras.height,
            b.cameras.lens,
        )
        for name in ("world_from_camera", "focal", "principal"):
            assert same_bits(getattr(a.cameras, name).contiguous(), getattr(b.cameras, name))
        assert (a.cameras.distortion is None) == (b.cameras.distortion is None)


layouts = pytest.mark.parametrize("name", ["scene.nfld", "scene"], ids=["file", "folder"])


@layouts
def test_a_scene_comes_back_bit_by_bit(generator: torch.Generator, tmp_path: Path, name: str) -> None:
    scene = make_scene(generator)
    scene.save(tmp_path / name)
    assert_equal(Scene.load(tmp_path / name), scene)
    assert_equal(Scene.load(str(tmp_path / name), device="cpu"), scene)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtypes_and_strange_numbers_survive(generator: torch.Generator, tmp_path: Path, name: str, dtype) -> None:
    field = make_field(generator, dtype=dtype)
    field.features[0, 0, 0] = torch.tensor([-0.0, torch.finfo(dtype).tiny, torch.finfo(dtype).max], dtype=dtype)
    scene = Scene(field, Rgb())
    scene.save(tmp_path / name)
    assert_equal(Scene.load(tmp_path / name), scene)


@pytest.mark.parametrize(
    "background", [None, torch.tensor([0.2, 0.3, 0.4]), torch.arange(12.0), EnvironmentMap(torch.ones(2, 3, 12))]
)
def test_every_background_survives(generator: torch.Generator, tmp_path: Path, background) -> None:
    scene = Scene(make_field(generator, channels=12), SphericalHarmonics(1), background)
    scene.save(tmp_path / "a.nfld")
    assert_equal(Scene.load(tmp_path / "a.nfld"), scene)


def test_empty_and_tiny_scenes_survive(tmp_path: Path) -> None:
    for resolution in ((1, 1, 1), (9, 1, 8)):
        scene = Scene(VoxelField.zeros(BOX, resolution, 7), Rgb(7))
        scene.save(tmp_path / "a.nfld")
        assert_equal(Scene.load(tmp_path / "a.nfld"), scene)


def test_features_without_density_survive(tmp_path: Path) -> None:
    field = VoxelField.zeros(BOX, (20, 9, 9), 3)
    field.features[17, 8, 8, 1] = 4.0
    Scene(field, Rgb()).save(tmp_path / "a.nfld")
    assert_equal(Scene.load(tmp_path / "a.nfld"), Scene(field, Rgb()))


def test_tensors_that_share_memory_survive(generator: torch.Generator, tmp_path: Path) -> None:
    numbers = torch.rand(2, 3, 2, generator=generator) + 5
    poses = torch.eye(4).expand(3, 4, 4)
    cameras = Camera(poses, numbers[0], numbers[1], 8, 6)
    scene = Scene(make_field(generator), Rgb(), numbers.view(-1)[:3], cameras=cameras)
    scene.save(tmp_path / "a.nfld")
    assert_equal(Scene.load(tmp_path / "a.nfld"), scene)


def test_a_trained_scene_can_be_saved(generator: torch.Generator, tmp_path: Path) -> None:
    field = make_field(generator)
    scene = Scene(replace(field, density=field.density.clone().requires_grad_()), Rgb())
    scene.save(tmp_path / "a.nfld")
    loaded = Scene.load(tmp_path / "a.nfld")
    assert same_bits(loaded.field.density, field.density) and not loaded.field.density.requires_grad


def test_one_scene_makes_one_file(generator: torch.Generator, tmp_path: Path) -> None:
    scene = make_scene(generator)
    scene.save(tmp_path / "a.nfld")
    scene.save(tmp_path / "b.nfld")
    assert (tmp_path / "a.nfld").read_bytes() == (tmp_path / "b.nfld").read_bytes()


def test_sparse_scenes_make_small_files(tmp_path: Path) -> None:
    field = VoxelField.zeros(BOX, (64, 64, 64), 3)
    field.density[10:14, 10:14, 10:14] = 1
    Scene(field, Rgb()).save(tmp_path / "a.nfld")
    assert (tmp_path / "a.nfld").stat().st_size < 8 * 8**3 * 4 * 4 + 5000 < field.nbytes / 50


def test_a_save_replaces_the_scene_that_was_there(generator: torch.Generator, tmp_path: Path) -> None:
    first, second = Scene(make_field(generator), Rgb()), Scene(make_field(generator), Rgb())
    for name in ("a.nfld", "folder"):
        first.save(tmp_path / name)
        second.save(tmp_path / name)
        assert_equal(Scene.load(tmp_path / name), second)


def test_a_save_destroys_nothing_else(generator: torch.Generator, tmp_path: Path) -> None:
    scene = Scene(make_field(generator), Rgb())
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "weights.safetensors").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("model", "file"):
        with pytest.raises(ValueError, match="it exists and is not a scene folder"):
            scene.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"files ending in \.nfld or folders without a suffix"):
        scene.save(tmp_path / "a.ply")
    assert (model / "weights.safetensors").read_text() == (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    scene.save(tmp_path / "empty")


@layouts
def test_a_bad_scene_leaves_the_old_file(generator: torch.Generator, tmp_path: Path, name: str) -> None:
    good = Scene(make_field(generator), Rgb())
    good.save(tmp_path / name)
    bad = make_field(generator)
    bad.density[1, 2, 3] = float("nan")  # after the constructor looked
    with pytest.raises(ValueError, match=r"density\[1, 2, 3\] is nan"):
        Scene(bad, Rgb()).save(tmp_path / name)
    for metadata in ({"a": float("nan")}, {"a": torch.ones(1)}):
        with pytest.raises(ValueError, match="metadata must be plain, finite JSON"):
            replace(good, metadata=metadata).save(tmp_path / name)
    assert_equal(Scene.load(tmp_path / name), good)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_that_cannot_be_written_is_named(generator: torch.Generator, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("a.nfld", "a"):
        with pytest.raises(ValueError, match="cannot write .*file"):
            Scene(make_field(generator), Rgb()).save(tmp_path / "file" / name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene in both layouts."""
    folder = tmp_path_factory.mktemp("saved")
    scene = Scene(make_field(torch.Generator().manual_seed(0), (5, 3, 4)), Rgb(), torch.tensor([0.1, 0.2, 0.3]))
    scene = replace(scene, cameras=Camera.orbit((1.0, 2.3, 2.0), 3.0, views=2, width=20, height=12))
    scene.save(folder / "scene.nfld")
    scene.save(folder / "scene")
    return folder


def load_bytes(content: bytes, tmp_path: Path) -> Scene:
    (tmp_path / "a.nfld").write_bytes(content)
    return Scene.load(tmp_path / "a.nfld")


@pytest.mark.parametrize("percent", range(0, 100, 10))
def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path, percent: int) -> None:
    content = (saved / "scene.nfld").read_bytes()
    with pytest.raises(DataFormatError, match=r"a\.nfld: .*(truncated|not a scene)"):
        load_bytes(content[: len(content) * percent // 100], tmp_path)
    with pytest.raises(DataFormatError, match=r"a\.nfld"):
        load_bytes(content[:-1], tmp_path)


@pytest.mark.parametrize("percent", range(0, 100, 10))
@pytest.mark.parametrize("part", [CONFIG, TENSORS])
def test_a_truncated_folder_is_refused(saved: Path, tmp_path: Path, percent: int, part: str) -> None:
    shutil.copytree(saved / "scene", tmp_path / "scene")
    content = (tmp_path / "scene" / part).read_bytes()
    (tmp_path / "scene" / part).write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(DataFormatError, match="JSON" if part == CONFIG else "damaged or truncated"):
        Scene.load(tmp_path / "scene")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_noticed_or_harmless(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((saved / "scene.nfld").read_bytes())
    ends = st.integers(0, 80) | st.integers(len(content) - 260, len(content) - 1)  # where the archive's headers lie
    content[data.draw(st.integers(0, len(content) - 1) | ends)] ^= 1 << data.draw(st.integers(0, 7))
    try:
        scene = load_bytes(bytes(content), tmp_path)
    except DataFormatError:
        return
    assert_equal(scene, Scene.load(saved / "scene.nfld"))


def test_a_flipped_bit_in_a_folder_is_noticed(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "scene", tmp_path / "scene")
    content = bytearray((tmp_path / "scene" / TENSORS).read_bytes())
    content[-5] ^= 1
    (tmp_path / "scene" / TENSORS).write_bytes(content)
    with pytest.raises(DataFormatError, match=r"scene\.safetensors is damaged .*sha256"):
        Scene.load(tmp_path / "scene")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_config_loads_or_is_refused(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Never another error than DataFormatError, whatever stands in the place of any value."""
    config = json.loads((saved / "scene" / CONFIG).read_text())
    strange = st.sampled_from([None, -1, 0, 1.5, 10**18, "x", [], {}, True, [[1]], {"type": "Rgb"}, {"type": "Net"}])
    place = config
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
        else:
            break
    place[key] = data.draw(strange)
    folder = tmp_path / "scene"
    shutil.copytree(saved / "scene", folder, dirs_exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config))
    try:
        Scene.load(folder)
    except DataFormatError as error:
        assert str(error).startswith(str(folder))


def rewrite(saved: Path, tmp_path: Path, change: Callable[[dict, dict[str, torch.Tensor]], None]) -> Path:
    """A copy of the scene with other content and an honest checksum."""
    config = json.loads((saved / "scene" / CONFIG).read_text())
    tensors = load((saved / "scene" / TENSORS).read_bytes())
    change(config, tensors)
    data = save(tensors)
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / CONFIG).write_text(json.dumps(config))
    (tmp_path / "forged" / TENSORS).write_bytes(data)
    return tmp_path / "forged"


DECODER = {"type": "ImageDecoder", "channels": 3, "widths": [4096] * 8, "octaves": 4}
DECODER |= {"finest": 0.5, "pixel_angle": 0.03}
FORGERIES = {
    "newer": (lambda c, t: c.update(version=99), "version 99, .*upgrade with pip"),
    "version 0": (lambda c, t: c.update(version=0), "version 0"),
    "no version": (lambda c, t: c.pop("version"), "version None"),
    "foreign": (lambda c, t: c.update(format="other"), "not a scene"),
    "no levels": (lambda c, t: c.update(levels=[]), "do not fit"),
    "flat box": (lambda c, t: c["levels"][0].update(upper=c["levels"][0]["lower"]), "no volume"),
    "too few channels": (lambda c, t: c["appearance"].update(channels=5), "3 channels but Rgb needs 5"),
    "network": (lambda c, t: c["appearance"].update(type="Decoder"), r"Scene\.load\(path, appearance="),
    "no tensor": (lambda c, t: t.pop("level0.density"), "lacks the entry 'level0.density'"),
    "nan": (lambda c, t: t["level0.density"].view(-1)[0].fill_(float("nan")), r"density\[0, 0, 0\] is nan"),
    "negative": (lambda c, t: t["level0.density"].view(-1)[0].fill_(-1), "is -1.0"),
    "huge": (lambda c, t: t["level0.resolution"].fill_(2**20), "GiB"),
    "brick outside": (lambda c, t: t["level0.bricks"].fill_(7), "bricks outside its 5x3x4 voxels"),
    "brick far outside": (lambda c, t: t["level0.bricks"].fill_(2**29), "bricks outside"),
    "brick before": (lambda c, t: t["level0.bricks"].fill_(-1), "bricks outside"),
    "missing bricks": (lambda c, t: t.update({"level0.density": t["level0.density"][:0]}), "do not fit|bricks but"),
    "small bricks": (lambda c, t: t.update({"level0.density": t["level0.density"][:, :1]}), "do not fit|bricks but"),
    "wide background": (lambda c, t: t.update(background=torch.ones(9)), "3 colours"),
    "camera shapes": (lambda c, t: t.update({"cameras.focal": torch.ones(3, 2)}), "do not fit"),
    "camera size": (lambda c, t: c["cameras"].update(width=-4), "at least one pixel"),
    "lens": (lambda c, t: c["cameras"].update(lens="wide"), "lens"),
    "metadata": (lambda c, t: c.update(metadata=7), "do not fit"),
    "14 GB": (lambda c, t: t["level0.resolution"].copy_(torch.tensor([1000, 1000, 900, 3])), r"13\.4 GiB"),
    "float bricks": (lambda c, t: t.update({"level0.bricks": t["level0.bricks"].float()}), "torch.float32, not whole"),
    "camera nan": (lambda c, t: t["cameras.world_from_camera"][0, 0, 3].fill_(torch.nan), "from_camera holds NaN"),
    "camera integers": (lambda c, t: t.update({"cameras.focal": t["cameras.focal"].long()}), "focal holds torch.int64"),
    "no focal": (lambda c, t: t["cameras.focal"][1].fill_(-3), "focal holds -3, but"),
    "giant pictures": (lambda c, t: c["cameras"].update(width=10**9), "1000000000x12 pixels"),
    "background nan": (lambda c, t: t["background"][1].fill_(float("nan")), "background holds NaN"),
    "background integers": (lambda c, t: t.update(background=torch.arange(3)), "background holds torch.int64"),
    "wide decoder": (lambda c, t: c.update(appearance=DECODER), "asks for more than 256 weights, but the file holds 0"),
    "finest": (lambda c, t: c.update(appearance=DECODER | {"finest": 0}), "finest and pixel_angle .* above 0, got 0.0"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_scenes_are_refused_in_words(saved: Path, tmp_path: Path, forgery: str) -> None:
    change, message = FORGERIES[forgery]
    folder = rewrite(saved, tmp_path, change)
    with pytest.raises(DataFormatError, match=message) as caught:
        Scene.load(folder)
    assert str(caught.value).startswith(str(folder))


def test_foreign_files_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="does not exist"):
        Scene.load(tmp_path / "missing.nfld")
    with pytest.raises(DataFormatError, match="not a scene folder: config.json is missing"):
        Scene.load(tmp_path)
    with pytest.raises(DataFormatError, match="not a scene or is truncated"):
        load_bytes(b"\x89PNG\r\n", tmp_path)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(DataFormatError, match="zip but not a scene"):
        load_bytes(stream.getvalue(), tmp_path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONFIG, b" " * 2**24)
        archive.writestr(TENSORS, b"\0" * 2**24)
    with pytest.raises(DataFormatError, match="compressed or larger"):
        load_bytes(stream.getvalue(), tmp_path)


def test_a_network_appearance_is_handed_in(saved: Path, tmp_path: Path) -> None:
    folder = rewrite(saved, tmp_path, lambda c, t: c["appearance"].update(type="Decoder"))
    assert Scene.load(folder, appearance=Rgb()).appearance == Rgb()


def test_scenes_refuse_what_does_not_fit(generator: torch.Generator) -> None:
    field = make_field(generator)
    with pytest.raises(ValueError, match="field has 3 channels but SphericalHarmonics needs 12"):
        Scene(field, SphericalHarmonics(1))
    with pytest.raises(ValueError, match="surroundings has 4 channels but Rgb needs 3"):
        Scene(field, Rgb(), surroundings=(make_field(generator, channels=4, box=BOX.scaled(2.0)),))
    with pytest.raises(ValueError, match="do not enclose"):
        Scene(field, Rgb(), surroundings=(make_field(generator, box=Box((0, 0, 0), (9, 9, 9))),))
    two = VoxelField(field.density[None].expand(2, -1, -1, -1), field.features[None].expand(2, -1, -1, -1, -1), BOX)
    with pytest.raises(ValueError, match=r"field holds \(2,\); index one"):
        Scene(two, Rgb())
    for background in (torch.ones(5), EnvironmentMap(torch.ones(2, 3, 4))):
        with pytest.raises(ValueError, match="3 colours or 3 features"):
            Scene(field, Rgb(), background)
    with pytest.raises((ValueError, TypeCheckError)):
        Scene(field, Rgb(), torch.ones(2, 3))


def test_surroundings_are_ordered_from_the_inside(generator: torch.Generator) -> None:
    scene = make_scene(generator)
    assert [part.resolution for part in scene.levels] == [(11, 3, 17), (4, 5, 6), (3, 2, 4)]
    assert scene.box == BOX and scene.device.type == "cpu"
    with pytest.raises(ValueError, match="do not enclose"):
        replace(scene, surroundings=scene.surroundings[::-1])


def test_backgrounds_answer_rays(generator: torch.Generator) -> None:
    directions = torch.nn.functional.normalize(torch.randn(4, 5, 3, generator=generator), dim=-1)
    rays, field = Rays(torch.zeros_like(directions), directions), make_field(generator)
    sky = EnvironmentMap(torch.rand(4, 8, 3, generator=generator))
    assert Scene(field, Rgb()).background_color(rays).abs().max() == 0
    assert torch.equal(Scene(field, Rgb(), sky).background_color(rays), sky.query(directions))
    color = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(Scene(field, Rgb(), color).background_color(rays), color.expand(4, 5, 3))


def test_a_scene_prints_what_it_is(generator: torch.Generator) -> None:
    text = str(make_scene(generator))
    for words in (
        "units of unknown size",
        "11x3x17 voxels x 12 channels",
        "% occupied",
        "MiB",
        "SphericalHarmonics",
        "environment map, 8x4",
        "Camera (4,)",
        "from (-1 2 0.5) to (3.3 2.7 4.5)",
    ):
        assert words in text
    assert "Scene in metres" in str(Scene(make_field(generator), Rgb()))
    assert "none" in str(Scene(make_field(generator), Rgb()))
    assert "constant (0.5, 0, 1)" in str(Scene(make_field(generator), Rgb(), torch.tensor([0.5, 0.0, 1.0])))


def test_a_scene_moves_as_a_whole(generator: torch.Generator) -> None:
    scene = make_scene(generator).to(torch.float64)
    assert {part.density.dtype for part in scene.levels} == {torch.float64}
    assert isinstance(scene.background, EnvironmentMap) and scene.background.image.dtype == torch.float64
    assert scene.cameras is not None and scene.cameras.focal.dtype == torch.float64


def test_scenes_cameras_rays_and_captures_are_keys_of_dictionaries() -> None:
    camera = Camera.orbit((0.0, 0.0, 0.0), 2.0, views=2, width=4, height=3)
    scene = Scene(VoxelField.zeros(Box((0.0, 0.0, 0.0), (1.0, 2.0, 1.0)), (2, 4, 2), 3), Rgb(), cameras=camera)
    views = PosedImages.from_tensors(torch.zeros(2, 3, 3, 4), camera)
    for item in (scene, camera, camera.rays(), views):
        assert {item: 1}[item] == 1 and item == item and item != replace(item)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_fields_are_halved(generator: torch.Generator, dtype: torch.dtype) -> None:
    scene = replace(make_scene(generator), extras={"code": torch.arange(3)}).to(dtype)
    assert {tensor.dtype for part in scene.levels for tensor in (part.density, part.features)} == {dtype}
    assert isinstance(scene.background, EnvironmentMap) and scene.background.image.dtype == torch.float32
    assert scene.cameras is not None and scene.cameras.focal.dtype == torch.float32
    assert scene.extras["code"].dtype == torch.int64
    with pytest.raises(ValueError, match=r"density must be torch.float32 on cpu, got .*: convert it with .to\(\)"):
        render(scene, scene.cameras)
    with pytest.raises(ValueError, match="floating-point dtype, got torch.int32"):
        scene.to(torch.int32)


@pytest.mark.cuda
def test_halved_scenes_are_rendered_on_the_gpu(generator: torch.Generator) -> None:
    scene = make_scene(generator).to("cuda")
    whole, halved = (render(each, scene.cameras).image for each in (scene, scene.to(torch.float16)))  # type: ignore[arg-type]
    assert whole.dtype == halved.dtype == torch.float32 and torch.allclose(whole, halved, atol=2e-2)


@pytest.mark.cuda
@pytest.mark.parametrize("part", ["surroundings", "background", "cameras", "appearance"])
def test_parts_on_different_devices_are_refused(generator: torch.Generator, part: str) -> None:
    scene = make_scene(generator)
    if part == "appearance":
        scene = replace(scene, appearance=ImageDecoder(scene.field.channels, widths=(8,), octaves=1))
    moved = getattr(scene.to("cuda"), part)
    with pytest.raises(ValueError, match=rf"one device, but the field is on cpu and the {part} on cuda:0; move either"):
        replace(scene, **{part: moved})
