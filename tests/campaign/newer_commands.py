"""Commands on networks of views, priors and recorders, with weights of a few random numbers."""

import shutil
from collections.abc import Mapping
from pathlib import Path

CPU = ["--device", "cpu"]
FEW = ["--steps", "4", "--detail", "16", "--size", "8", "--coarse-size", "8", "--frames", "2"]
TRAIN = ["--out", "new", "--steps", "6", "--save-every", "2", "--evaluate-every", "0", "--batch-size", "2", "--resume"]
TRAIN += ["--precision", "fp32", *CPU]
ON_OBJECTS = ["--objects", "objects", "--sentences", "sentences"]
TINY_VIEWS = ["--size", "8", "--channels", "8", "--multiples", "1", "--attention", "4", "--memory", "8", "--pairs", "1"]
TINY_LAYERS = ["--rank", "2", "--grid", "8", "--views", "2", "--preserved", "0"]
REFINE = ["refine", "room.nfld", "--weights", "restorers", "--out", "new/room.nfld", "--mesh", "new/room.glb"]
VIEWS = [
    "views",
    "ball.png",
    "--weights",
    "drawer",
    "--out",
    "new/views",
    "--scene",
    "new/a.nfld",
    "--mesh",
    "new/a.ply",
]
RECORD = ["--out", "new", "--size", "16", "--workers", "1", "--layout"]
COMMANDS: Mapping[str, list[str]] = {
    "refine": [*REFINE, "--steps", "6", "--views", "4", "--views-per-step", "2", *CPU],
    "dream": ["dream", "a red car", "--out", "new", "--prior", "texts", *FEW, *CPU],
    "views": [*VIEWS, "--views", "3", "--steps", "2", "--fit-steps", "12", *CPU],
    "train text-prior": ["train", "text-prior", *ON_OBJECTS, *TRAIN],
    "train retriever": ["train", "retriever", *ON_OBJECTS, *TRAIN],
    "train view-diffusion": ["train", "view-diffusion", "--data", "balls", *TINY_VIEWS, *TRAIN],
    "train multiview": ["train", "multiview", "--prior", "pixels", "--data", "balls", *TINY_LAYERS, *TRAIN],
    "train autodecoder": [
        *("train", "autodecoder", "--data", "shards", "--fields", "fields", "--weights", "weights"),
        *("--global-dimensions", "6", "--sky-dimensions", "0", *TRAIN),
    ],
    "train restorer": ["train", "restorer", "--pairs", "pairs", "--held-out", "pairs", *TRAIN],
    "train image-prior": ["train", "image-prior", "--pairs", "pairs", "--held-out", "pairs", *TRAIN],
    "evaluate dreams": [
        *("evaluate", "dreams", "--dreams", "dreams", "--prompts", "prompts.txt"),
        *("--retriever", "texts", "--json", *CPU),
    ],
    "evaluate views": [
        *("evaluate", "views", "--data", "balls", "--weights", "drawer", "--scenes", "1", "--views", "3"),
        *("--steps", "2", "--consistency", "0", "--page", "new/page.png", "--json", *CPU),
    ],
    "capture emoji": [
        "capture",
        "emoji",
        "--pictures",
        "pictures",
        "--names",
        "names",
        "--out",
        "new/e",
        "--size",
        "8",
    ],
    "capture objects": ["capture", "objects", "--from", "meshes", *RECORD, "srn", "--views", "2"],
    "capture rooms": [
        *("capture", "rooms", "--data", "furniture", "--scenes", "2", "--test-scenes", "1", *RECORD, "captures"),
        *("--walk", "2", "--free", "2"),
    ],
    "capture driving": [
        *("capture", "driving", "--data", "torcs", "--scenes", "2", "--test-scenes", "1", *RECORD, "captures"),
        *("--stops", "1", "--free", "2"),
    ],
}
OVERWRITES = ("refine", "dream", "views")
"""Those that take ``--overwrite``."""


def make_data(root: Path) -> None:
    """Fills a folder, in which there are shards of scenes and weights of auto-encoders, with what the commands take."""
    import torch
    from small_objects import write_objects
    from small_priors import write_own_texts, write_pixel_texts
    from small_refining import make_restorer, make_scene
    from small_sentences import write_sentence_encoder
    from small_views import write_balls

    from nfldm3d.models.views.xunet import XUNet

    torch.manual_seed(1)
    make_scene().save(root / "room.nfld")
    make_restorer(0.1).network.save_pretrained(root / "restorers" / "restorer")
    write_own_texts(root / "texts")
    write_pixel_texts(root / "pixels")
    write_objects(root / "objects")
    write_sentence_encoder(root / "sentences")
    write_balls(root / "balls", size=8)
    drawer = XUNet(size=16, channels=8, multiples=(1,), attention=(8,), heads=1, memory=8)
    torch.nn.init.normal_(drawer.head.weight, std=0.1)
    drawer.save_pretrained(root / "drawer" / "view_denoiser")
    _make_dreams(root)
    _make_packages(root)


def _make_dreams(root: Path) -> None:
    from small_fits import ball_scene

    from campaign.picture_readers import draw_ball
    from nfldm3d.cli import main

    draw_ball(root)
    (root / "prompts.txt").write_text("a chair\na table\n")
    (root / "dreams" / "chair").mkdir(parents=True)
    ball_scene().save(root / "dreams" / "chair" / "scene.nfld")
    (root / "dreams" / "chair" / "dream.json").write_text('{"prompt": "a chair"}')
    for keep in ("fields", "pairs"):
        given = ["--weights", str(root / "weights"), "--keep", keep, "--turns", "0", *CPU]
        assert main(["encode", str(root / "shards"), "--out", str(root / keep), *given]) == 0


def _make_packages(root: Path) -> None:
    """Packages of other programs, as recorders take them."""
    from small_furniture import box_mtl, box_obj, write_library
    from small_tracks import TRACK, write_car, write_track

    from campaign.recorder_readers import write_emoji
    from nfldm3d.recording.driving.torcs import TEST_BODIES, TRACKS, TRAINING_BODIES

    write_emoji(root)
    for name in ("one", "two"):
        (root / "meshes" / name).mkdir(parents=True)
        (root / "meshes" / name / "box.obj").write_text(box_obj())
        (root / "meshes" / name / "box.mtl").write_text(box_mtl((0.8, 0.1, 0.1)))
    kinds = ("Plain chair", "Round table", "Small bed", "Tall cabinet", "Green plant", "Floor lamp")
    pieces = [(f"{kind} {n}", "Living room", (40.0, 60.0, 70.0), (0.8, 0.1 * n, 0.1)) for kind in kinds for n in (1, 2)]
    write_library(root / "furniture" / "small.sh3f", pieces)
    write_track(root / "torcs")
    roads = root / "torcs" / "tracks" / "road"
    for name in TRACKS:
        if name != TRACK:
            shutil.copytree(roads / TRACK, roads / name)
            (roads / name / f"{TRACK}.acc").rename(roads / name / f"{name}.acc")
    for body in (*TRAINING_BODIES, *TEST_BODIES):
        write_car(root / "torcs", body)
