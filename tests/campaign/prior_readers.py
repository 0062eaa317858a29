"""What networks of views, priors and judges are read from, and what they learn from: weights, checkpoints, lists."""

import json
import struct
import warnings
from pathlib import Path

import torch

from campaign.formats import Format
from nfldm3d.tensor_files import read_tensors_and_head, write_tensors

PROMPT = "a red car"


def _make_text_prior(folder: Path) -> None:
    from small_priors import write_own_texts

    torch.manual_seed(0)
    write_own_texts(folder / "weights")


def _read_text_prior(folder: Path) -> None:
    from nfldm3d.evaluation.dreams import MatcherJudge
    from nfldm3d.guidance import load_prior

    _use_prior(load_prior(folder / "weights"))
    MatcherJudge.load(folder / "weights").score(torch.rand(1, 3, 16, 16), ["a chair", "a table"])


def _use_prior(prior) -> None:
    size = 8 if prior.image_size > 64 else prior.image_size
    latents = prior.to_latents(torch.rand(1, 3, size, size))
    prior.predict_noise(latents, torch.tensor([9]), prior.embed([PROMPT]))


def _make_pipelines(folder: Path) -> None:
    from small_priors import write_latent_pictures, write_latent_texts

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that write them
        write_latent_texts(folder / "latents")
        write_latent_pictures(folder / "pictures")


def _read_pipelines(folder: Path) -> None:
    from nfldm3d.guidance import load_prior

    for name in ("latents", "pictures"):
        load_prior(folder / name)


def _make_clip(folder: Path) -> None:
    from small_priors import write_clip

    torch.manual_seed(0)
    write_clip(folder / "clip")


def _read_clip(folder: Path) -> None:
    from nfldm3d.evaluation.dreams import ClipJudge

    ClipJudge.load(folder / "clip").score(torch.rand(1, 3, 16, 16), [PROMPT, "a car"])


def _make_view_weights(folder: Path) -> None:
    from small_priors import write_pixel_texts
    from small_refining import make_restorer

    from nfldm3d.models.priors.restorer import FOLDER
    from nfldm3d.models.views.multiview.view_layers import ViewLayers
    from nfldm3d.models.views.xunet import XUNet
    from nfldm3d.pipelines.views.multiview import LAYERS, open_text_model

    torch.manual_seed(0)
    tiny = XUNet(size=16, channels=8, multiples=(1,), attention=(8,), heads=1, memory=8)
    tiny.save_pretrained(folder / "drawer" / "view_denoiser")
    make_restorer().network.save_pretrained(folder / "restorer" / FOLDER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_pixel_texts(folder / "viewdiff")
    unet = open_text_model(folder / "viewdiff").unet
    ViewLayers.of(unet, rank=2, grid=8).save_pretrained(folder / "viewdiff" / LAYERS)  # type: ignore[arg-type]


def _read_view_weights(folder: Path) -> None:
    from nfldm3d.models.priors.restorer import Restorer
    from nfldm3d.pipelines.views import ViewSynthesizer
    from nfldm3d.pipelines.views.multiview import MultiViewGenerator

    ViewSynthesizer.from_pretrained(folder / "drawer")
    Restorer.from_pretrained(folder / "restorer")
    MultiViewGenerator.from_pretrained(folder / "viewdiff")


def _make_baseline(folder: Path) -> None:
    from small_rooms import GRID, disturb, scene_autoencoder

    from nfldm3d.models.gaudi.autodecoder import SceneAutodecoder
    from nfldm3d.models.nfldm.denoisers import GlobalDenoiser
    from nfldm3d.models.nfldm.trajectories import POSES
    from nfldm3d.pipelines.global_generator import GlobalGenerator
    from nfldm3d.training.denoiser_stage import make_schedule

    torch.manual_seed(0)
    shape = {"resolution": GRID, "channels": 5, "sky_rows": 4, "width": 16, "fine_width": 8, "downsampling": 4}
    decoder = disturb(SceneAutodecoder(("one", "two"), global_dimensions=6, **shape))
    denoiser = disturb(GlobalDenoiser(6 + 5 * POSES, (16, 16), map_classes=2, map_size=8, map_width=32))
    parts = scene_autoencoder(), decoder, denoiser, make_schedule(), (4.0, 4.0, 2.0)
    GlobalGenerator(*parts, ("a", "b"), ((0, 0, 0), (1, 1, 1))).save_pretrained(folder / "weights")  # type: ignore[arg-type]


def _read_baseline(folder: Path) -> None:
    from nfldm3d.pipelines.global_generator import GlobalGenerator

    GlobalGenerator.from_pretrained(folder / "weights")


def _make_dream(folder: Path) -> None:
    from nfldm3d.fitting.checkpoint import before

    path = folder / "fit.safetensors"
    _dream(path)
    before(path).unlink(missing_ok=True)
    tensors, head = read_tensors_and_head(path)
    head["counters"] = json.dumps({"number": 1, "seconds": 1.0})  # a step is left
    write_tensors(path, tensors, head)
    sign_checkpoint(folder)


def _dream(path: Path) -> None:
    from small_priors import GaussianPrior

    from nfldm3d.pipelines.dream import DreamOptions, dream

    class TextPrior(GaussianPrior):
        def embed(self, described):
            return torch.zeros(len(described), 1, 1)

    options = DreamOptions(steps=2, detail=16, size=8, coarse_size=8)
    dream(PROMPT, TextPrior(image_size=8), options, checkpoint=path, progress=False)


def _read_dream(folder: Path) -> None:
    _dream(folder / "fit.safetensors")


def sign_checkpoint(folder: Path) -> None:
    """Puts the sum in the head of a checkpoint right."""
    from nfldm3d.fitting.checkpoint import _digest

    path = folder / "fit.safetensors"
    tensors, texts = read_tensors_and_head(path)
    texts.pop("sha256", None)
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    head = json.loads(content[8 : 8 + size])
    head["__metadata__"] = texts | {"sha256": _digest(tensors, texts)}
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


EVERYTHING = ("**/*",)
FORMATS = {
    "text prior": Format(_make_text_prior, _read_text_prior, EVERYTHING, linked=True, slow=True),
    "pipelines": Format(_make_pipelines, _read_pipelines, EVERYTHING, linked=True, slow=True),
    "CLIP": Format(_make_clip, _read_clip, EVERYTHING, linked=True, slow=True),
    "view weights": Format(_make_view_weights, _read_view_weights, EVERYTHING, linked=True, slow=True),
    "baseline": Format(_make_baseline, _read_baseline, EVERYTHING, linked=True, slow=True),
    "dream": Format(_make_dream, _read_dream, sign=sign_checkpoint, linked=True, slow=True),
}
