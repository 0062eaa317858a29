"""Whether dreams look like their texts: R-Precision of their renders, in colour and as bare shapes (Poole et al. 2022).

Each dream is looked at from four sides, and each picture asks which of all prompts fits it best. Bare shapes tell
whether the object itself is right, or a flat picture of it painted on something else.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from nfldm3d._types import PathName
from nfldm3d.data.captioned_pictures import COLORS, Subject, add_color, bare_pixels, lay_over, recolor
from nfldm3d.evaluation.retrieval import precision
from nfldm3d.files import DataFormatError, read_json, read_lines
from nfldm3d.guidance.embedders import CLIP_DEVIATION, CLIP_MEAN
from nfldm3d.guidance.pretrained import first_line, import_transformers, load_pretrained, load_tokenizer
from nfldm3d.guidance.sentences import SentenceEmbedder, average_tokens
from nfldm3d.models.priors.image_denoiser import MOST_PIXELS
from nfldm3d.models.priors.matcher import PictureTextMatcher
from nfldm3d.models.weight_folders import find_weights
from nfldm3d.models.weights import load_network
from nfldm3d.pipelines.dream.dreaming import RADIUS
from nfldm3d.pipelines.dream.showing import show_sides
from nfldm3d.pipelines.dream.views import circle_views
from nfldm3d.scene import Scene

RETRIEVER = "retriever"
"""Folder of our own judge in its weights."""
RECORD, SCENE = "dream.json", "scene.nfld"
MAX_BYTES = 2**20
"""Of a list of prompts."""
VIEWS, ELEVATION, SIZE = 4, 30.0, 128
KINDS = ("color", "shape")


@runtime_checkable
class Judge(Protocol):
    """Tells how well texts fit pictures."""

    def score(
        self, images: Float[Tensor, "views 3 height width"], texts: Sequence[str]
    ) -> Float[Tensor, "views texts"]:
        """Higher is better; pictures are sRGB in [0, 1]."""
        ...


@dataclass(frozen=True)
class MatcherJudge:
    """Our own network, trained on recorded objects."""

    matcher: PictureTextMatcher
    sentences: SentenceEmbedder

    @classmethod
    def load(cls, weights: PathName, device: torch.device | str = "cpu") -> "MatcherJudge":
        """From weights that the package comes with, a folder, or a run of ``nfldm3d train retriever``."""
        folder = find_weights(weights)
        matcher = load_network(PictureTextMatcher, folder / RETRIEVER)
        torch.nn.Module.to(matcher, device)
        return cls(matcher.eval(), SentenceEmbedder.beside(folder, device))

    @torch.no_grad()
    def score(
        self, images: Float[Tensor, "views 3 height width"], texts: Sequence[str]
    ) -> Float[Tensor, "views texts"]:
        """See ``Judge``."""
        return self.matcher(images.to(self.matcher.device), average_tokens(self.sentences.embed(list(texts))))


@dataclass(frozen=True)
class ClipJudge:
    """CLIP (Radford et al. 2021), by which papers judge."""

    network: Any
    """transformers' CLIPModel."""
    tokenizer: Any

    @classmethod
    def load(cls, folder: PathName, device: torch.device | str = "cpu") -> "ClipJudge":
        """From a folder as transformers keeps it; only safetensors are read.

        Raises:
            DataFormatError: the folder holds no CLIP.
            ImportError: transformers is missing.
        """
        network = import_transformers().CLIPModel
        loaded = load_pretrained(network, Path(folder), torch.device(device), {}, "dtype")
        judge, size = cls(loaded, load_tokenizer(Path(folder))), loaded.config.vision_config.image_size
        if type(size) is not int or not 1 <= size <= MOST_PIXELS:
            raise DataFormatError(Path(folder), f"holds a CLIP for pictures of {size} pixels; copy it again")
        try:  # network and tokenizer may be of two different ones
            judge.score(torch.zeros(1, 3, size, size, device=device), ["a red chair"])
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataFormatError(Path(folder), f"holds a CLIP that cannot be used: {first_line(error)}") from error
        return judge

    @torch.no_grad()
    def score(
        self, images: Float[Tensor, "views 3 height width"], texts: Sequence[str]
    ) -> Float[Tensor, "views texts"]:
        """See ``Judge``."""
        size = int(self.network.config.vision_config.image_size)
        seen = functional.interpolate(images.clamp(0, 1), (size, size), mode="bicubic", antialias=True)
        mean, deviation = (seen.new_tensor(each)[:, None, None] for each in (CLIP_MEAN, CLIP_DEVIATION))
        words = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        device = self.network.device
        answer = self.network(
            input_ids=words.input_ids.to(device),
            attention_mask=words.attention_mask.to(device),
            pixel_values=((seen - mean) / deviation).to(device),
        )
        return answer.logits_per_image


def read_prompts(path: PathName) -> list[str]:
    """The prompts of a text file, one a line; a DataFormatError says that there are too few, or one twice."""
    lines = [line.strip() for line in read_lines(path, MAX_BYTES, "write one prompt a line")]
    prompts = [line for line in lines if line]
    twice = next((prompt for prompt, count in Counter(prompts).items() if count > 1), None)
    if twice is not None:
        raise DataFormatError(path, f"holds {twice!r} twice; leave one out")
    if len(prompts) < 2:
        raise DataFormatError(path, f"holds {len(prompts)} prompts, but one is looked for among others; write more")
    return prompts


def find_dreams(folder: PathName, prompts: Sequence[str]) -> dict[str, Path]:
    """The scenes in a folder of dreams, by those of the prompts that they were dreamt from.

    Raises:
        DataFormatError: there is none.
    """
    found: dict[str, Path] = {}
    for record in sorted(Path(folder).glob(f"**/{RECORD}")):
        content = read_json(record)
        prompt = content.get("prompt") if isinstance(content, dict) else None
        if prompt in prompts and (record.parent / SCENE).is_file():
            found.setdefault(str(prompt), record.parent / SCENE)
    if not found:
        raise DataFormatError(folder, "holds no dream of these prompts; make them with nfldm3d dream PROMPT --out")
    return found


def draw_dream(scene: Scene) -> dict[str, Float[Tensor, "views 3 size size"]]:
    """What is judged: an object from four sides, in colour and as a bare shape, before grey."""
    cameras = circle_views(VIEWS, SIZE, radius=RADIUS, elevation=ELEVATION).to(scene.device)
    return dict(zip(KINDS, show_sides(scene.field, cameras), strict=False))


def draw_real(prompts: Sequence[str], subjects: Sequence[Subject]) -> dict[str, list[dict[str, Tensor]]]:
    """Recorded objects that are what prompts ask for, in the colours that these name, drawn as dreams are."""
    found: dict[str, list[dict[str, Tensor]]] = {}
    for prompt in prompts:
        for subject in subjects:
            if subject.relief is None:
                raise ValueError("bare shapes need the recorded normals; read objects with_relief=True")
            names = {subject.caption: None} | {add_color(subject.caption, color): color for color in COLORS}
            if prompt not in names:
                continue
            chosen = torch.arange(VIEWS) * len(subject.pixels) // VIEWS
            pixels, color = subject.pixels[chosen].float() / 255, names[prompt]
            painted = pixels if color is None else recolor(pixels, color, subject.brightness())
            bare = bare_pixels(pixels, subject.relief[chosen])
            grey = torch.full((VIEWS, 3), 0.5)
            found.setdefault(prompt, []).append({"color": lay_over(painted, grey), "shape": lay_over(bare, grey)})
    return found


def measure_dreams(
    prompts: Sequence[str],
    dreams: Mapping[str, Callable[[], Scene]],
    judges: Mapping[str, Judge],
    subjects: Sequence[Subject] = (),
) -> dict[str, object]:
    """R-Precision of dreams among all prompts, by judge; ``together`` adds the scores of a dream's views first.

    Args:
        dreams: by prompt; those that are missing are named, and do not count.
        subjects: recorded objects, of which those that prompts ask for tell how much a judge finds at best.
    """
    drawn = {prompt: [draw_dream(dreams[prompt]())] for prompt in prompts if prompt in dreams}
    real = draw_real(prompts, subjects)
    figures: dict[str, object] = {"prompts": len(prompts), "dreams": len(drawn), "chance": round(1 / len(prompts), 4)}
    for name, judge in judges.items():
        if drawn:
            figures |= _judge(prompts, drawn, judge, name)
        if real:
            figures |= {f"real_{key}": value for key, value in _judge(prompts, real, judge, name).items()}
    return figures | {"missing": [prompt for prompt in prompts if prompt not in drawn]}


def _judge(
    prompts: Sequence[str], drawn: Mapping[str, Sequence[Mapping[str, Tensor]]], judge: Judge, name: str
) -> dict[str, object]:
    """Figures of pictures that are of these prompts."""
    figures: dict[str, object] = {}
    asked = [prompt for prompt, things in drawn.items() for _ in things]
    own = torch.tensor([prompts.index(prompt) for prompt in asked])
    for kind in KINDS:
        views = [thing[kind] for things in drawn.values() for thing in things]
        scores = torch.stack([judge.score(each, prompts).cpu() for each in views])
        figures[f"{name}_{kind}"] = round(precision(scores.flatten(0, 1), own.repeat_interleave(VIEWS)), 4)
        figures[f"{name}_{kind}_together"] = round(precision(scores.mean(1), own), 4)
        best = [str(prompts[number]) for number in scores.mean(1).argmax(-1).tolist()]
        wrong = dict[str, list[str]]()
        for prompt, taken in zip(asked, best, strict=True):
            if taken != prompt:
                wrong.setdefault(prompt, []).append(taken)
        figures[f"{name}_{kind}_taken_for"] = wrong
    return figures
