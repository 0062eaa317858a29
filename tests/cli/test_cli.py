"""The command line as a user meets it: whole jobs on tiny data, one-line errors with the right exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from balls import make_ball
from small_fits import ball_scene, views_of

from nfldm3d import Camera, PosedImages, Rgb, Scene, render
from nfldm3d.cli import main
from nfldm3d.cli.commands import _shorten
from nfldm3d.cli.fit import measure
from nfldm3d.written_files import NOTE


@pytest.fixture
def scene_file(tmp_path):
    path = tmp_path / "ball.nfld"
    ball_scene().save(path)
    return path


@pytest.fixture
def capture(tmp_path):
    folder = tmp_path / "capture"
    views_of(ball_scene(), count=8, size=(24, 20)).save(folder)
    return folder


def run_failing(arguments, capsys):
    """Exit code and stderr of a command that is to fail in one line."""
    code = main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert error.startswith("nfldm3d: ") and error.count("\n") == 1 and "Traceback" not in error
    return code, error


def test_info_tells_what_a_scene_holds(scene_file, capsys):
    assert main(["info", str(scene_file)]) == 0
    text = capsys.readouterr().out
    assert "30x25x20 voxels" in text and "% occupied" in text and "MiB" in text


def test_fit_writes_scene_and_metrics(capture, tmp_path, capsys):
    out = tmp_path / "out" / "scene.nfld"
    small = ["--steps", "20", "--rays-per-step", "256", "--voxels", "4096", "--surroundings", "0", "--device", "cpu"]
    assert main(["fit", str(capture), "--out", str(out), "--holdout-every", "4", *small]) == 0
    figures = json.loads((out.parent / "scene.metrics.json").read_text())
    assert figures["views"] == "held out" and figures["count"] == 2
    assert figures["psnr"] > 5 and 0 <= figures["ssim"] <= 1
    assert figures["seconds"] > 0 and figures["peak_memory_mb"] > 0
    assert Scene.load(out).metadata["fit"]["steps_done"] == 20
    names = [NOTE, "scene.contact.png", "scene.metrics.json", "scene.nfld"]
    assert sorted(path.name for path in out.parent.iterdir()) == names


WRITERS = {
    "fit": (["fit", "capture", "--out", "a.nfld"], ["a.nfld", "a.contact.png", "a.metrics.json"]),
    "render": (["render", "ball.nfld", "--out", "."], ["orbit.mp4"]),
    "export": (
        ["export", "ball.nfld", "--mesh", "a.obj", "--points", "b.ply", "--volume", "c.vdb", "--texture", "16"],
        ["a.obj", "a.mtl", "a.png", "b.ply", "c.vdb"],
    ),
    "encode": (["encode", "capture", "--out", "a.nfld"], ["a.nfld"]),
    "evaluate": (["evaluate", "autoencoders", "--data", "capture", "--page", "a.png"], ["a.png"]),
    "edit": (["edit", "ball.nfld", "--box", *"000111", "--out", "a.nfld"], ["a.nfld"]),
    "grow": (["grow", "--out", "a.nfld"], ["a.nfld"]),
    "assemble": (["assemble", "--out", "a", "--latents", "b", "--parts", "c"], ["a/thesis.txt"]),
    "train": (
        ["train", "denoiser", "--level", "g", "--latents", "b", "--held-out", "b", "--out", "a"],
        ["a/thesis.txt"],
    ),
}


ALWAYS_REPLACE = ("render", "export", "encode", "evaluate", "train")
"""Commands without ``--overwrite``: they replace what nfldm3d wrote, and nothing else."""


@pytest.mark.parametrize("command", WRITERS)
def test_files_of_people_are_refused_before_the_work(scene_file, tmp_path, monkeypatch, capsys, command):
    arguments, names = WRITERS[command]
    monkeypatch.chdir(tmp_path)
    for name in names:
        for overwrite in [[]] if command in ALWAYS_REPLACE else ([], ["--overwrite"]):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"mine")
            code, error = run_failing([*arguments, *overwrite], capsys)
            own_only = overwrite or command in ALWAYS_REPLACE
            told = "was not written by nfldm3d" if own_only else "is there already"
            assert code == 2 and name.split("/")[0] in error and (told in error or command in ("assemble", "train"))
            assert (tmp_path / name).read_bytes() == b"mine"
        (tmp_path / name).unlink()


def test_what_is_made_of_a_scene_is_made_again_unless_somebody_changed_it(scene_file, tmp_path, capsys):
    arguments = ["export", str(scene_file), "--mesh", str(tmp_path / "a.obj"), "--texture", "16"]
    assert main(arguments) == 0
    before = (tmp_path / "a.png").stat().st_ino
    assert main(arguments) == 0 and (tmp_path / "a.png").stat().st_ino != before
    (tmp_path / "a.mtl").write_text("mine")
    code, error = run_failing(arguments, capsys)
    assert code == 2 and "a.mtl was not written by nfldm3d, or has changed since" in error
    assert (tmp_path / "a.mtl").read_text() == "mine"


def test_render_writes_a_video(scene_file, tmp_path):
    size = ["--views", "3", "--width", "32", "--height", "24", "--device", "cpu"]
    assert main(["render", str(scene_file), "--out", str(tmp_path / "out"), *size]) == 0
    assert (tmp_path / "out" / "orbit.mp4").stat().st_size > 0


def test_a_restorer_draws_over_frames(scene_file, tmp_path):
    size = ["--views", "2", "--width", "32", "--height", "16", "--format", "gif", "--device", "cpu"]
    films = []
    for name, more in (("plain", []), ("drawn", ["--restorer", "driving"])):
        assert main(["render", str(scene_file), "--out", str(tmp_path / name), *size, *more]) == 0
        films.append((tmp_path / name / "orbit.gif").read_bytes())
    assert films[0] != films[1]


def test_render_follows_a_camera_file(scene_file, tmp_path):
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.5, 1.2, 6.0])
    frames = [{"transform_matrix": pose.tolist()}] * 2
    path = tmp_path / "way.json"
    path.write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))
    size = ["--width", "16", "--height", "16", "--format", "gif", "--device", "cpu"]
    assert main(["render", str(scene_file), "--path", str(path), "--out", str(tmp_path), *size]) == 0
    assert (tmp_path / "way.gif").stat().st_size > 0


def test_export_writes_what_is_asked_for(scene_file, tmp_path):
    files = {"mesh": "ball.glb", "points": "ball.ply", "volume": "ball.nvdb", "cameras": None}
    arguments = [item for kind, name in files.items() if name for item in (f"--{kind}", str(tmp_path / name))]
    assert main(["export", str(scene_file), *arguments]) == 0
    assert all((tmp_path / name).stat().st_size > 0 for name in files.values() if name)


def test_export_honours_the_box(scene_file, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    box = ["--box", "0.5", "0", "1", "2", "2.5", "3"]
    assert main(["export", str(scene_file), "--mesh", str(tmp_path / "half.ply"), *box]) == 0
    assert trimesh.load(tmp_path / "half.ply").bounds[0][0] >= 0.5 - 1e-3


def test_missing_capture_is_bad_data(tmp_path, capsys):
    code, error = run_failing(["fit", tmp_path / "nowhere"], capsys)
    assert code in (2, 3) and "nowhere" in error


def test_truncated_scene_is_bad_data(scene_file, capsys):
    scene_file.write_bytes(scene_file.read_bytes()[:1000])
    code, error = run_failing(["info", scene_file], capsys)
    assert code == 3 and scene_file.name in error


def test_unknown_suffix_is_wrong_usage(scene_file, tmp_path, capsys):
    code, error = run_failing(["export", scene_file, "--mesh", tmp_path / "ball.xyz"], capsys)
    assert code == 2 and ".glb" in error


def test_export_of_nothing_is_wrong_usage(scene_file, capsys):
    code, error = run_failing(["export", scene_file], capsys)
    assert code == 2 and "--mesh" in error


def test_unknown_path_names_the_choices(scene_file, tmp_path, capsys):
    code, error = run_failing(["render", scene_file, "--path", "spiral", "--out", tmp_path], capsys)
    assert code == 2 and "panorama" in error


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError):
        main(["info", str(tmp_path / "nothing.nfld"), "--debug"])


def test_wrong_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["info", "--colour", "red"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("rule", ["  ----------  ", "│ ────────── │"])
def test_what_the_parser_refuses_is_told_in_one_line(rule):
    side = rule[0]
    inner = ["Error parsing --views: 'two'", "is no number", rule.strip(" │"), "Argument helptext:", "--views INT"]
    top = " Value error " if side == " " else "╭─ Value error ────╮"
    page = [top, *([rule] if side == " " else []), *(f"{side} {line} {side}" for line in inner), "╰──────╯"]
    assert _shorten("\n".join(page)) == "Error parsing --views: 'two' is no number (see --help)"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell's pipe")
@pytest.mark.parametrize(
    ("arguments", "sink"), [("--help", "| head -c 1"), ("info a.nfld", "| head -c 1"), ("info a.nfld", ">&-")]
)
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, arguments, sink):
    ball_scene().save(tmp_path / "a.nfld")
    command = f"{sys.executable} -m nfldm3d.cli {arguments} {sink}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert len(done.stdout) == ("head" in sink) and not done.stderr


@pytest.mark.slow
def test_help_of_the_installed_command_lists_the_verbs():
    done = subprocess.run([sys.executable, "-m", "nfldm3d.cli", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in ("capture", "fit", "render", "export", "info"))


def no_work(*arguments, **options):
    raise AssertionError("the work has begun before the name of its result was checked")


@pytest.mark.parametrize("name", ["scene.glb", "taken", "file/s.nfld", "n" * 300 + ".nfld"])
def test_fit_refuses_a_bad_output_before_the_first_step(name, capture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nfldm3d.cli.fit.fit", no_work)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, error = run_failing(["fit", capture, "--out", tmp_path / name], capsys)
    assert code == 2 and f"cannot write {tmp_path / name}" in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("render", "SCENE", "--out", "file/videos"),
        ("export", "SCENE", "--mesh", "a.glb", "--points", "points.xyz"),
        ("export", "SCENE", "--mesh", "a.glb", "--volume", "file/a.vdb"),
        ("export", "SCENE", "--mesh", "a.glb", "--cameras", "a.glb"),
        ("encode", "nowhere", "--out", "file/a.nfld"),
        ("encode", "nowhere", "--out", "file"),
        ("evaluate", "autoencoders", "--data", "nowhere", "--page", "page.gif"),
        ("evaluate", "generator", "--data", "nowhere", "--page", "file/page.png"),
        ("generate", "--out", "file"),
        ("edit", "SCENE", "--box", *"000111", "--out", "scene.glb"),
        ("grow", "--out", "taken"),
        ("capture", "vizdoom", "--out", "taken"),
        ("capture", "vizdoom", "--out", "file", "--scenes", "4"),
        ("train", "scene-autoencoder", "--data", "nowhere", "--out", "file"),
        ("assemble", "--out", "file", "--latents", "nowhere", "--parts", "nowhere"),
    ],
)
def test_every_command_checks_its_output_before_its_work(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    (tmp_path / "file").touch()
    ball_scene().save("ball.nfld")
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(Scene, "load", no_work)
        code, error = run_failing(["ball.nfld" if word == "SCENE" else word for word in arguments], capsys)
    assert code == 2 and "cannot write" in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["--width", "--height", "--scenes"])
def test_generate_refuses_sizes_of_nothing_before_its_work(option, tmp_path, capsys):
    code, error = run_failing(["generate", "--out", tmp_path / "out", "--weights", tmp_path, option, 0], capsys)
    assert code == 2 and f"{option} must be at least 1" in error


def test_any_field_is_measured(tmp_path):
    scene = Scene(make_ball(), Rgb())
    camera = Camera.orbit(scene.box.center, 5.0, views=3, width=24, height=18)
    figures = measure(scene, PosedImages.from_tensors(render(scene, camera).image, camera), tmp_path / "sheet.png")
    assert figures["psnr"] > 60 and figures["ssim"] == pytest.approx(1, abs=1e-3)


def test_masked_pixels_are_not_measured(tmp_path):
    scene = Scene(make_ball(), Rgb())
    camera = Camera.orbit(scene.box.center, 5.0, views=3, width=24, height=18)
    images, masks = render(scene, camera).image, torch.ones(3, 18, 24, dtype=torch.bool)
    masks[:, :6], masks[2] = False, False  # the last view says nothing at all
    images = torch.where(masks[:, None], images, 1.0)
    figures = measure(scene, PosedImages.from_tensors(images, camera, masks=masks), tmp_path / "sheet.png")
    assert figures["psnr"] > 60 and figures["count"] == 3
    nothing = PosedImages.from_tensors(images, camera, masks=torch.zeros_like(masks))
    assert measure(scene, nothing, tmp_path / "sheet.png")["psnr"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--downscale", "1e308"],
            "cannot measure pictures of 1x1 pixels; give larger ones, or lower --downscale",
        ),
        (["--seed", str(2**70)], "seed must be at most 9223372036854775807"),
    ],
)
def test_fits_that_would_fail_at_their_end_do_not_begin(capture, tmp_path, capsys, options, told):
    code, error = run_failing(["fit", capture, "--out", tmp_path / "a.nfld", *options], capsys)
    assert code == 2 and told in error and not list(tmp_path.glob("*.nfld"))


def test_closed_streams_are_none(scene_file, tmp_path):
    """What is opened next takes the lowest number: no file of ours may become the place of error messages."""
    command = [sys.executable, "-m", "nfldm3d.cli", "render", str(scene_file), "--out", str(tmp_path / "a")]
    command += ["--views", "2", "--width", "16", "--height", "16", "--device", "cpu"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, preexec_fn=lambda: [os.close(number) for number in range(3)])
    assert done.returncode == 0 and [path.name for path in (tmp_path / "a").glob("*.mp4")] == ["orbit.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps folders that somebody is in")
def test_a_current_folder_that_was_deleted_is_told(scene_file, tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, error = run_failing(["export", scene_file, "--mesh", "a.obj"], capsys)
    assert code == 2 and "the current folder was deleted; change to another one" in error
