"""Trains our own text prior: a denoiser of pictures of things that is told what they are, and from where they are seen.

It sees recorded objects from all sides, in their own colours and in others, and captioned pictures, each before a plain
colour, so that what it is told decides on the thing and never on what is behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from nfldm3d.data.captioned_pictures import COLORS, Subject, add_color, bare_pixels, is_unseen, lay_over, recolor
from nfldm3d.guidance.pixel_prior import add_place
from nfldm3d.guidance.sentences import MINILM, NUMBERS, RememberedTexts
from nfldm3d.models.priors.image_denoiser import ImageDenoiser
from nfldm3d.models.priors.told import VIEWPOINT, tell_viewpoint
from nfldm3d.rendering.backgrounds import draw_plain_backgrounds
from nfldm3d.training.image_denoising import draw_pictures, draw_steps, mean_error, velocity_errors, weighted_mean
from nfldm3d.training.stage import Evaluation

SHOWN_THINGS = ("red chair", "wooden table", "blue sofa", "green car", "yellow lamp", "bed", "brown bookcase", "tree")
SHOWN_ANGLES = ((0.0, 15.0), (90.0, 15.0), (180.0, 15.0), (45.0, 40.0))
SHOWN_GUIDANCE = 3.0
LAYOUT, SKETCH = 48, 256
"""Channels of the maps that a new prior makes of what it is told."""


@dataclass(frozen=True)
class Captioned:
    """Pictures with what is said about each."""

    images: Float[Tensor, "views 3 height width"]
    """sRGB in [0, 1]."""
    texts: tuple[str, ...]
    viewpoints: Float[Tensor, "views viewpoint"]
    """See ``told.tell_viewpoint``."""
    cutouts: Float[Tensor, "views 4 height width"]
    """The same before nothing: colours times opacity, and opacity."""

    def to(self, device: torch.device) -> "Captioned":
        """The same on another device."""
        images, viewpoints, cutouts = (each.to(device) for each in (self.images, self.viewpoints, self.cutouts))
        return Captioned(images, self.texts, viewpoints, cutouts)


@dataclass(frozen=True)
class CaptionDrawing:
    """How pictures are drawn from subjects."""

    views: int = 3
    """Of each subject, where it has so many."""
    recolored: float = 0.5
    """Share of objects in a colour that the caption names."""
    placed: float = 0.9
    """Share of pictures whose viewpoint is told, where it is known."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Least and greatest size of a picture, of the recorded one."""
    shift: float = 0.02
    """Greatest shift along each side, of a width."""
    bare: float = 0.0
    """Share of objects that are seen as bare shapes, where these are known; the captions stay as they are."""


class CaptionSource:
    """Draws captioned pictures; see ``SampleSource``."""

    def __init__(self, subjects: Sequence[Subject], drawing: CaptionDrawing | None = None):
        self.subjects, self.drawing = subjects, drawing or CaptionDrawing()
        self.brightness: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.subjects)

    def sample(self, index: int, generator: torch.Generator) -> Captioned:
        """A few pictures of one subject, in one colour."""
        subject, drawing = self.subjects[index], self.drawing
        count = min(drawing.views, len(subject.pixels))
        chosen = torch.randperm(len(subject.pixels), generator=generator)[:count]
        pixels, caption = subject.pixels[chosen].float() / 255, subject.caption
        colors = self._colors(subject)
        if colors and _chance(generator) < drawing.recolored:
            color = colors[int(torch.randint(len(colors), (), generator=generator))]
            if index not in self.brightness:
                self.brightness[index] = subject.brightness()
            pixels, caption = recolor(pixels, color, self.brightness[index]), add_color(caption, color)
        if subject.relief is not None and _chance(generator) < drawing.bare:
            pixels = bare_pixels(pixels, subject.relief[chosen])
        mirrored = torch.rand(count, generator=generator) < 0.5
        pixels = _move(pixels, mirrored, drawing, generator)
        viewpoints = torch.zeros(count, VIEWPOINT)
        if subject.angles is not None:
            azimuth, elevation = subject.angles[chosen].unbind(-1)
            placed = torch.rand(count, 1, generator=generator) < drawing.placed
            viewpoints = placed * tell_viewpoint(torch.where(mirrored, -azimuth, azimuth), elevation)
        images = lay_over(pixels, draw_plain_backgrounds(count, generator))
        cutouts = torch.cat((pixels[:, :3] + pixels[:, 3:] - 1, pixels[:, 3:]), dim=1)  # out of white
        return Captioned(images, (caption,) * count, viewpoints, cutouts)

    def collate(self, samples: Sequence[Captioned]) -> Captioned:
        """All pictures one after the other."""
        texts = tuple(text for sample in samples for text in sample.texts)
        parts = ("images", "viewpoints", "cutouts")
        images, viewpoints, cutouts = (torch.cat([getattr(each, part) for each in samples]) for part in parts)
        return Captioned(images, texts, viewpoints, cutouts)

    def _colors(self, subject: Subject) -> list[str]:
        """What the subject may be painted in: nothing where its caption names a colour or it is seen from one side."""
        if not subject.sides or set(subject.caption.split()) & COLORS.keys():
            return []
        return [color for color in COLORS if not is_unseen(color, subject.caption)]


class TextPriorStage:
    """See ``Stage``."""

    name = "text-prior"
    optional_parameters = True

    def __init__(
        self,
        model: ImageDenoiser,
        source: CaptionSource,
        held_out: CaptionSource,
        *,
        embed: Callable[[Sequence[str]], Float[Tensor, "texts tokens numbers"]],
        untold: float = 0.12,
        judged: int = 24,
        sketch_only: bool = False,
    ):
        """Judges by pictures of ``judged`` held-out subjects.

        Args:
            embed: from texts to tokens, such as ``SentenceEmbedder.embed``.
            untold: share of pictures of which nothing is said, for guidance without a classifier.
            sketch_only: teaches the sketcher alone what things look like, which takes a third of the time a step.
        """
        if sketch_only and model.sketcher is None:
            raise ValueError("this network has no sketcher to be taught; train one with sketch")
        self.sketch_only = sketch_only
        self.model, self.source, self.held_out = model, source, held_out
        self.tell, self.untold, self.judged = RememberedTexts(lambda texts: embed(texts).half().cpu()), untold, judged

    def config(self) -> dict[str, Any]:
        """The network's constructor arguments."""
        return {name: value for name, value in self.model.config.items() if not name.startswith("_")}

    def to(self, device: torch.device) -> None:
        """Moves the network; texts are embedded where the encoder is."""
        torch.nn.Module.to(self.model, device)

    def loss(self, batch: Captioned, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of v, less at little noise: what a text tells shows where most is noise, and
        distillation pulls hardest there."""
        views = len(batch.images)
        t = draw_steps(views, generator, busy=True)
        silent = torch.rand(views, 1, 1, generator=generator) < self.untold
        told = torch.where(silent, 0.0, self._tell(batch).cpu()).to(batch.images)
        if self.model.sketcher is None:
            error = weighted_mean(velocity_errors(self.model, batch.images, told, t, generator), t)
            return error, {"error": error.detach()}
        sketch = self.model.draw_sketch(told)
        missed = (sketch.pixels.float() - batch.cutouts).square().mean()
        if self.sketch_only:
            return missed, {"sketch_error": missed.detach()}
        error = weighted_mean(velocity_errors(self.model, batch.images, told, t, generator, sketch), t)
        return error + missed, {"error": error.detach(), "sketch_error": missed.detach()}

    def evaluate(self, generator: torch.Generator) -> Evaluation:
        """Errors of v on held-out subjects that the network is told of, not told of, and told others of; and a sheet of
        things from four sides."""
        seed, count = generator.initial_seed(), min(self.judged, len(self.held_out))
        numbers = [number * len(self.held_out) // count for number in range(count)]
        batch = self.held_out.collate([self.held_out.sample(number, generator) for number in numbers])
        images = batch.images.to(self.model.device)
        told = self._tell(batch).to(images)
        variants = {
            "error": told,
            "error_untold": torch.zeros_like(told),
            "error_other": told.roll(max(1, count // 2), 0),
        }
        scalars = {name: mean_error(self.model, images, variant, seed) for name, variant in variants.items()}
        sketched, rows = list[Tensor](), list[Tensor]()
        texts = self.tell([f"a {thing}" for thing in SHOWN_THINGS])
        for angles in SHOWN_ANGLES:
            azimuth, elevation = torch.tensor(angles).expand(len(texts), 2).unbind(-1)
            told = add_place(texts, tell_viewpoint(azimuth, elevation)).to(images)
            rows.append(torch.cat(list(draw_pictures(self.model, told, seed, guidance_scale=SHOWN_GUIDANCE)), dim=-1))
            if self.model.sketcher is not None:
                color, opacity = self.model.draw_sketch(told).pixels.split((3, 1), dim=1)
                sketched.append(torch.cat(list((color + 1 - opacity).clamp(0, 1)), dim=-1))
        shown = {"drawn": torch.cat(rows, dim=-2)} | ({"sketched": torch.cat(sketched, dim=-2)} if sketched else {})
        if self.model.sketcher is None:
            return Evaluation(-scalars["error"], scalars, shown)
        missed = (self.model.draw_sketch(variants["error"]).pixels - batch.cutouts.to(images)).square().mean()
        scalars["sketch_error"] = float(missed)
        return Evaluation(-scalars["sketch_error" if self.sketch_only else "error"], scalars, shown)

    def _tell(self, batch: Captioned) -> Float[Tensor, "views tokens numbers"]:
        return add_place(self.tell(batch.texts), batch.viewpoints.cpu())


def make_text_prior(size: int, numbers: int = NUMBERS, *, widths: tuple[int, ...] = (64, 192, 320)) -> ImageDenoiser:
    """A new prior that asks eight questions of all-MiniLM-L6-v2's tokens; 4 x 4 pixels are one, for speed."""
    options = {"questions": 8, "predicts": "picture", "viewpoint": True, "layout": LAYOUT, "sketch": SKETCH}
    return ImageDenoiser(size, 4, widths, blocks=1, embedding=numbers, embedder=MINILM, **options)


def sample_texts(source: CaptionSource, count: int = 1000) -> list[str]:
    """Captions of ``count`` subjects, drawn at random, each once."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(source), (count,), generator=generator).tolist()
    return sorted({text for number in chosen for text in source.sample(number, generator).texts})


def known_tokens(tokens: Float[Tensor, "texts tokens numbers"]) -> Float[Tensor, "samples numbers"]:
    """Those of all texts that are not zeros, for ``ImageDenoiser.tell_apart``."""
    return tokens[(tokens != 0).any(-1)].float()


def _move(
    pixels: Float[Tensor, "pictures 4 height width"],
    mirrored: Bool[Tensor, " pictures"],
    drawing: CaptionDrawing,
    generator: torch.Generator,
) -> Float[Tensor, "pictures 4 height width"]:
    """Pictures larger or smaller, shifted, and mirrored where asked; what comes in from outside is empty."""
    count = len(pixels)
    low, high = drawing.zoom
    zoom = low + (high - low) * torch.rand(count, generator=generator)
    mirror = 1 - 2.0 * mirrored
    shift = 2 * drawing.shift * (2 * torch.rand(count, 2, generator=generator) - 1)
    turns = torch.zeros(count, 2, 3)
    turns[:, 0, 0], turns[:, 1, 1], turns[:, :, 2] = mirror / zoom, 1 / zoom, shift
    places = functional.affine_grid(turns, list(pixels.shape), align_corners=False)
    emptied = torch.cat((1 - pixels[:, :3], pixels[:, 3:]), dim=1)  # zeros are empty
    moved = functional.grid_sample(emptied, places, mode="bilinear", align_corners=False)
    return torch.cat((1 - moved[:, :3], moved[:, 3:]), dim=1)


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
