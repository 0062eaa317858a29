"""Every option of every command with values that nobody should give: one line on stderr and exit code 2 or 3."""

import dataclasses
import shutil
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small_fits import ball_scene, views_of
from small_objects import write_objects
from small_priors import write_pixel_texts
from small_refining import make_restorer
from small_rooms import labelled, scene_generator
from small_sentences import write_sentence_encoder

from nfldm3d.cli import main
from nfldm3d.cli.assemble import Assemble
from nfldm3d.cli.capture import CaptureDriving, CaptureVizdoom
from nfldm3d.cli.encode import Encode
from nfldm3d.cli.evaluate import Evaluate
from nfldm3d.cli.export import Export
from nfldm3d.cli.fit import Fit
from nfldm3d.cli.generate import Edit, Generate, Grow
from nfldm3d.cli.info import Info
from nfldm3d.cli.refine import Refine
from nfldm3d.cli.render import Render
from nfldm3d.cli.train import Train
from nfldm3d.cli.views import Views
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
from nfldm3d.models.views.xunet import XUNet

SMALL = ["--device", "cpu"]
FIT = ["--steps", "2", "--rays-per-step", "16", "--voxels", "64", "--surroundings", "0", "--degree", "0"]
GENERATOR = ["--weights", "weights", "--steps", "1", *SMALL]
BRIEF_VIEWS = ["--views", "1", "--steps", "1", "--fit-steps", "2"]
REFINE = ["--steps", "1", "--views", "3", "--views-per-step", "1", "--finer", "1"]
TRAIN = ["--out", "run", "--steps", "1", *SMALL]
ON_FIELDS = ["--data", "shards", "--fields", "fields", "--weights", "weights"]
FEW_VIEWS = ["--rank", "2", "--grid", "8", "--views", "2", "--preserved", "0"]
STAGES = {
    "scene-autoencoder": ["--data", "shards", "--resolution", "8", "8", "4"],
    "image-decoder": ON_FIELDS,
    "latent-autoencoder": ON_FIELDS,
    "denoiser": ["--level", "g", "--latents", "latents", "--held-out", "latents"],
    "autodecoder": ON_FIELDS,
    "frame-classifier": ["--data", "shards"],
    "bev-reader": ["--data", "shards", "--fields", "fields", "--held-out", "fields"],
    "restorer": ["--pairs", "pairs", "--held-out", "pairs"],
    "image-prior": ["--pairs", "pairs", "--held-out", "pairs"],
    "text-prior": ["--objects", "objects", "--sentences", "sentences"],
    "retriever": ["--objects", "objects", "--sentences", "sentences"],
    "multiview": ["--prior", "prior", "--data", "shards", *FEW_VIEWS],
    "view-diffusion": ["--data", "shards", "--size", "8", "--channels", "8", "--multiples", "1", "--memory", "8"],
}
BASES: dict[str, tuple[type, list[str]]] = {
    "capture": (CaptureVizdoom, ["vizdoom", "--out", "new"]),
    "capture --scenes": (CaptureVizdoom, ["vizdoom", "--out", "new", "--scenes", "2"]),
    "capture --driving": (CaptureDriving, ["driving", "--out", "new", "--scenes", "2"]),
    "fit": (Fit, ["capture", "--out", "new.nfld", *FIT, *SMALL]),
    "render": (Render, ["ball.nfld", "--out", "new", "--views", "1", "--width", "8", "--height", "6", *SMALL]),
    "export": (Export, ["ball.nfld", "--mesh", "new.glb", "--points", "new.ply", "--volume", "new.vdb"]),
    "info": (Info, ["ball.nfld"]),
    "encode": (Encode, ["shards", "--weights", "weights", "--out", "new", "--turns", "0", *SMALL]),
    "encode one": (Encode, ["shards", "--weights", "weights", "--out", "new.nfld", *SMALL]),
    "evaluate autoencoders": (
        Evaluate,
        ["autoencoders", "--data", "shards", "--weights", "weights", "--scenes", "1", "--page", "new.png", *SMALL],
    ),
    "evaluate generator": (
        Evaluate,
        ["generator", "--data", "shards", *GENERATOR, "--scenes", "2", "--pictures", "16", "--page", "new.png"],
    ),
    "assemble": (Assemble, ["--out", "new", "--latents", "latents", "--parts", "weights"]),
    "generate": (Generate, ["--out", "new", "--frames", "0", "--no-mesh", "--width", "8", "--height", "6", *GENERATOR]),
    "edit": (Edit, ["made.nfld", "--box", "1", "1", "-1", "2", "2", "1", "--out", "new.nfld", *GENERATOR]),
    "refine": (Refine, ["made.nfld", "--weights", "restorer", "--out", "new.nfld", *REFINE, *SMALL]),
    "views": (Views, ["object.png", "--weights", "drawer", "--out", "new", *BRIEF_VIEWS, *SMALL]),
    "grow": (Grow, ["--out", "new.nfld", "--windows", "1", "1", *GENERATOR]),
}
PARSERS = dict(zip(STAGES, typing.get_args(typing.get_type_hints(Train)["stage"]), strict=True))
BASES |= {f"train {name}": (PARSERS[name], [*arguments, *TRAIN]) for name, arguments in STAGES.items()}

NUMBERS = ["-1", "nan", "inf", "-inf", "", "two", "1e400", "0", "0x1"]
TEXTS = ["", "banana", "cuda", "cuda:7", "mps", "meta", "\0", "ü" * 300]
PATHS = ["", "none/at/all", "full", "garbage", ".", "/proc/none", "x" * 300, "garbage/below", "\0"]


class Reached(BaseException):
    """The work was begun: the options passed."""


def flatten(cls: type, tried: set[type]) -> Iterator[tuple[str, object]]:
    """Options of a command by name, and of records within it that are not yet among ``tried``."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if not dataclasses.is_dataclass(kind):
            yield field.name, kind
        elif kind not in tried:
            tried.add(typing.cast(type, kind))
            yield from flatten(typing.cast(type, kind), tried)


def hostile(kind: object) -> list[list[str]]:
    """Values that somebody might give an option of this type by mistake or in anger."""
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return [values for part in arguments if part is not type(None) for values in hostile(part)]
    if origin is tuple:
        inner = [hostile(part)[0] for part in arguments if part is not Ellipsis]
        once = [value for values in inner for value in values]
        return [once, [], ["9"] * len(once), *([value] for value in NUMBERS[:3])]
    if origin is typing.Literal:
        return [["banana"], [""]]
    return [[text] for text in {int: NUMBERS, float: NUMBERS, str: TEXTS, Path: PATHS}.get(kind, [])]  # type: ignore[call-overload]


def cases() -> Iterator[tuple[str, str, object]]:
    """Commands with an option and its type; how to train is checked by one record, and tried in one stage."""
    trained: set[type] = set()
    for name, (cls, _) in BASES.items():
        tried = trained if name.startswith("train ") else set()
        yield from ((name, option, kind) for option, kind in flatten(cls, tried) if kind is not bool)


CASES = list(cases())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny data of every kind."""
    root = tmp_path_factory.mktemp("place")
    ball_scene().save(root / "ball.nfld")
    views_of(ball_scene(), count=3, size=(12, 10)).save(root / "capture")
    generator = scene_generator()
    generator.save_pretrained(root / "weights")
    generator.generate(num_inference_steps=1).scenes[0].save(root / "made.nfld")
    FrameClassifier(maps=2, classes=2, size=16, features=4, width=8).save_pretrained(root / "weights/frame_classifier")
    BevReader((8, 8, 4), 5, 3, (8, 8)).save_pretrained(root / "weights/bev_reader")
    written = []
    for split in ("train", "test"):
        samples = [replace(labelled(n), key=f"{split}_{n}", split=split) for n in range(4)]
        written.append(write_shard(_made(root / "shards") / f"{split}-000000.tar", samples))
    entries = tuple(scene for _, scenes in written for scene in scenes)
    write_index(root / "shards", ShardIndex(tuple(shard for shard, _ in written), entries))
    make_restorer().network.save_pretrained(root / "restorer" / "restorer")
    for keep in ("latents", "fields", "pairs"):
        given = ["--weights", "weights", "--keep", keep, "--turns", "0", "--device", "cpu"]
        assert main(["encode", str(root / "shards"), "--out", str(root / keep), *_absolute(given, root)]) == 0
    write_objects(root / "objects")
    write_sentence_encoder(root / "sentences")
    write_pixel_texts(root / "prior")
    (root / "garbage").write_bytes(bytes(range(256)) * 9)
    (_made(root / "full") / "thesis.txt").write_text("years")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "map.png")
    Image.new("RGBA", (4, 4), (9, 9, 9, 255)).crop((0, 0, 8, 8)).save(root / "object.png")
    XUNet(size=8, channels=8, multiples=(1,), memory=8).save_pretrained(root / "drawer" / "view_denoiser")
    return root


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _absolute(arguments: list[str], root: Path) -> list[str]:
    return [str(root / text) if (root / text).exists() else text for text in arguments]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds however small is not done."""

    def reach(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr("nfldm3d.recording.vizdoom.recorder.record_vizdoom", reach)
    monkeypatch.setattr("nfldm3d.recording.vizdoom.shard_recorder.record_scenes", reach)
    monkeypatch.setattr("nfldm3d.recording.driving.shard_recorder.record_scenes", reach)
    monkeypatch.setattr("nfldm3d.recording.driving.capture_recorder.record_captures", reach)
    monkeypatch.setattr("nfldm3d.recording.driving.torcs.TorcsData.find", lambda folder: folder)
    monkeypatch.setattr("nfldm3d.training.train", reach)
    monkeypatch.setattr("nfldm3d.evaluation.generator._gather", reach)


def attempt(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what stands on stderr below the progress bars; 0 too if the work was begun."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Reached:
        code = 0
    return code, capsys.readouterr().err.replace("\r", "\n")


def command(name: str) -> list[str]:
    return [*name.split(" --")[0].split(" one")[0].split()[: 2 if name.startswith("train") else 1], *BASES[name][1]]


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_the_commands_work_as_they_are(
    name: str, place: Path, begun: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else what follows would tell nothing."""
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    code, error = attempt(command(name), capsys)
    assert code == 0, error
    tidy(place, before)


def tidy(place: Path, before: list[Path]) -> None:
    for path in set(place.rglob("*")) - set(before):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize(("name", "option", "kind"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_hostile_values_are_refused_in_one_line(
    name: str,
    option: str,
    kind: object,
    place: Path,
    begun: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    base = command(name)
    before = sorted(place.rglob("*"))
    for values in hostile(kind):
        arguments = with_option(base, option, values, BASES[name][0])
        code, error = attempt(arguments, capsys)
        told = [line for line in error.splitlines() if line.startswith("nfldm3d: ")]
        assert code in ((0, 2, 3) if may_pass(name, option, values) else (2, 3)), (values, error)
        assert code == 0 or (len(told) == 1 and error.endswith(told[0] + "\n")), (values, error)
        assert "Traceback" not in error
        tidy(place, before)
    assert (place / "full" / "thesis.txt").read_text() == "years" and sorted(place.rglob("*")) == before


OVERSIZED = {
    "render": ("width", "height", "views"),
    "generate": ("scenes", "width", "height", "frames"),
    "fit": ("voxels", "rays_per_step", "surroundings"),
    "export": ("texture", "splat_detail"),
    "grow": ("windows",),
    "refine": ("views", "finer"),
    "capture": ("views", "size"),
    "capture --driving": ("scenes", "size"),
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, some in OVERSIZED.items() for option in some])
def test_more_than_fits_is_refused_before_the_work(
    name: str, option: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    values = ["1000000000"] * (2 if option == "windows" else 1)
    base = [*command(name), "--splats", "new.ply"] if option == "splat_detail" else command(name)
    code, error = attempt(with_option(base, option, values, BASES[name][0]), capsys)
    assert code == 2 and "nfldm3d: " in error and "Traceback" not in error, error
    assert sorted(place.rglob("*")) == before


SENSELESS = ("-1", "nan", "-inf", "two", "banana", "none/at/all")
"""No number or name of anything."""


FREE = ("out", "page", "guidance_scale", "path_guidance_scale", "box", "map", "path", "parts")
FREE += ("inception", "i3d", "efficientnet", "embeddings", "data", "tracks", "preview")
FREE += ("dreams", "prompts", "retriever", "clip", "leave_out")  # of other uses of the command, or any words
FREE += ("azimuth", "elevation", "text")
RESULTS = {"views": ("scene",)}
"""Paths of results that are called as other commands call what they read."""


def may_pass(name: str, option: str, values: list[str]) -> bool:
    """Whether values could be meant: paths of results can be anywhere, and some numbers may be negative."""
    free = option in FREE or option in RESULTS.get(name, ())
    return free or not values or values[0] not in SENSELESS


def with_option(base: list[str], option: str, values: list[str], cls: type) -> list[str]:
    """The command with other values of an option, which stands alone if it is positional."""
    flag = f"--{option.replace('_', '-')}"
    hint = typing.get_type_hints(cls, include_extras=True).get(option)
    positional = any("Positional" in repr(extra) for extra in getattr(hint, "__metadata__", ()))
    if positional:
        number = next((number for number, text in enumerate(base) if text.startswith("--")), len(base)) - 1
        return [*base[:number], *values, *base[number + 1 :]]
    if flag in base:
        start = base.index(flag)
        end = next((n for n in range(start + 1, len(base)) if base[n].startswith("--")), len(base))
        base = [*base[:start], *base[end:]]
    return [*base, flag, *values]
