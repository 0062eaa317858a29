"""How well both auto-encoders show scenes of maps that they were not trained on."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nfldm3d._types import PathName
from nfldm3d.data.json_record import Record
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.evaluation.scene_scores import INPUTS, SceneScores, judge_field, mean_scores, split_views
from nfldm3d.files import DataFormatError, atomic_write, parse_json
from nfldm3d.models.nfldm.quantizer import perplexity
from nfldm3d.models.nfldm.scene_voxels import background_of, field_of, voxels_of
from nfldm3d.pipelines.autoencoders import Autoencoders
from nfldm3d.tensor_files import read_tensors_and_head, require_finite, write_tensors

SHOWN = 8
"""Scenes on the page of pictures."""
SCORES = ("encoded", "from_colour", "compressed")
"""Lists of scores, by their names in the report."""
REPORTED = ("psnr", "ssim", "depth_error", "sharpness", "lpips_like")


@dataclass
class AutoencoderReport:
    """Scores of many scenes as they come in."""

    encoded: list[SceneScores] = field(default_factory=list)
    """Stage 1, with depth as an input where the capture has it."""
    from_colour: list[SceneScores] = field(default_factory=list)
    """Stage 1 from colour alone."""
    compressed: list[SceneScores] = field(default_factory=list)
    """After stage 2."""
    voxel_errors: list[float] = field(default_factory=list)
    """Mean absolute error of opacities and features after stage 2."""
    codes: dict[str, list[Tensor]] = field(default_factory=lambda: {"c": [], "f": []})
    book_sizes: dict[str, int] = field(default_factory=dict)
    views: int = 0
    strips: list[Float[Tensor, "3 height width"]] = field(default_factory=list)
    """Truth, stage 1 and stage 2, one above the other."""

    def summary(self) -> dict[str, object]:
        """Means over all scenes, as plain JSON values."""
        means = mean_scores(self.encoded)
        result: dict[str, object] = {
            "scene_autoencoder": _rounded(means),
            "scene_autoencoder_from_colour": _rounded(mean_scores(self.from_colour)),
        }
        if self.compressed:
            figures: dict[str, object] = dict(_rounded(mean_scores(self.compressed)))
            codes = {name: torch.cat(parts) for name, parts in self.codes.items() if parts}
            figures["code_usage"] = {
                name: round(len(part.unique()) / self.book_sizes[name], 4) for name, part in codes.items()
            }
            figures["perplexity"] = {
                name: round(perplexity(part, self.book_sizes[name]), 1) for name, part in codes.items()
            }
            figures["voxel_error"] = round(sum(self.voxel_errors) / len(self.voxel_errors), 4)
            result["latent_autoencoder"] = figures
        result["mean_colour_psnr"] = round(means.mean_colour_psnr, 3)
        return result | {"scenes": len(self.encoded), "views": self.views}

    def save(self, path: PathName) -> None:
        """Keeps the report, of one scene perhaps, as safetensors."""
        tensors = {f"codes.{name}.{n}": part for name, parts in self.codes.items() for n, part in enumerate(parts)}
        tensors |= {f"strips.{number}": strip for number, strip in enumerate(self.strips)}
        scores = {
            name: [{key: _spell(value) for key, value in vars(score).items()} for score in getattr(self, name)]
            for name in SCORES
        }
        plain = {"voxel_errors": [*map(_spell, self.voxel_errors)], "book_sizes": self.book_sizes, "views": self.views}
        with atomic_write(path) as temporary:
            write_tensors(temporary, tensors, {"report": json.dumps(scores | plain)})

    @classmethod
    def load(cls, path: PathName) -> "AutoencoderReport":
        """What ``save`` kept; raises DataFormatError for anything else."""
        remedy = "delete it and evaluate again"
        tensors, head = read_tensors_and_head(path, remedy=remedy)
        require_finite(tensors, path, remedy)
        record = Record.of(Path(path), parse_json(head.get("report", "null"), path), "report")
        scores = {name: [_read_score(record, name, score) for score in record.items(name)] for name in SCORES}
        codes = {
            name: [part for key, part in tensors.items() if key.startswith(f"codes.{name}.")] for name in ("c", "f")
        }
        strips = [tensors[name] for name in sorted(tensors) if name.startswith("strips.")]
        sizes = _read_sizes(record, codes)
        if any(strip.dim() != 3 or not strip.dtype.is_floating_point for strip in strips):
            raise DataFormatError(path, f"holds a strip that is no picture; {remedy}")
        return cls(
            **scores,
            voxel_errors=_read_errors(record),
            book_sizes=sizes,
            views=_read_count(record, "views"),
            codes=codes,
            strips=strips,
        )

    @classmethod
    def join(cls, reports: Iterable["AutoencoderReport"]) -> "AutoencoderReport":
        """One report of the scenes of several, in this order."""
        whole = cls()
        for report in reports:
            for name in (*SCORES, "voxel_errors", "strips"):
                getattr(whole, name).extend(getattr(report, name))
            for name, parts in report.codes.items():
                whole.codes[name].extend(parts)
            whole.book_sizes |= report.book_sizes
            whole.views += report.views
        whole.strips = whole.strips[:SHOWN]
        return whole


@torch.no_grad()
def judge_autoencoders(
    networks: Autoencoders, samples: Iterable[SceneSample], *, inputs: int = INPUTS, lpips: Lpips | None = None
) -> AutoencoderReport:
    """Encodes ``inputs`` views of each scene, and compares the others with what the scene shows.

    With ``lpips``, ``Lpips.find_like()`` say, scores have ``lpips_like`` as well.

    Raises:
        ValueError: if there are no scenes.
    """
    report = AutoencoderReport()
    lpips = None if lpips is None else lpips.to(networks.scene.device)
    for sample in samples:
        split = split_views(sample, inputs=inputs)
        report.views += len(split.targets.images)
        scene = networks.encode(split.inputs, sample.box)
        assert scene.background is not None and not isinstance(scene.background, Tensor)
        score, strip = judge_field(networks.scene, scene.field, scene.background, split, lpips)
        report.encoded.append(score)
        blind = networks.encode(split_views(sample, with_depth=False, inputs=inputs).inputs, sample.box)
        assert blind.background is not None and not isinstance(blind.background, Tensor)
        report.from_colour.append(judge_field(networks.scene, blind.field, blind.background, split, lpips)[0])
        if networks.latent is not None:
            truth = voxels_of(scene.field, scene.background)
            latents, codes = networks.latent.quantize(networks.latent.encode(truth).latents)
            made = networks.latent.decode(latents)
            background = background_of(made[0], networks.scene.sky_code)
            score, after = judge_field(networks.scene, field_of(made[0], scene.field.box), background, split, lpips)
            report.compressed.append(score)
            errors = [(made.opacity - truth.opacity).abs().mean(), (made.features - truth.features).abs().mean()]
            report.voxel_errors.append(float(sum(errors)) / len(errors))
            for name, code in codes.items():
                report.codes[name].append(code.indices.flatten().cpu())
                report.book_sizes[name] = len(getattr(networks.latent, f"quantizer_{name}").usage)
            strip = torch.cat((strip, after[:, after.shape[1] // 2 :]), dim=-2)
        if len(report.strips) < SHOWN:
            report.strips.append(strip)
    if not report.encoded:
        raise ValueError("there are no scenes to judge by; check the folder and the split")
    return report


def _read_score(record: Record, name: str, values: object) -> SceneScores:
    score = Record.of(record.source, values, name)
    known = {part.name for part in fields(SceneScores)}
    if score.values.keys() - known:
        raise DataFormatError(record.source, f"{name} has figures of another version; delete it and evaluate again")
    figures = {key: _read_figure(score, key) for key in known - {"surfaces"} if score.values.get(key) is not None}
    try:
        return SceneScores(**figures, surfaces=_read_count(score, "surfaces"))  # type: ignore[arg-type]
    except TypeError as error:
        raise DataFormatError(record.source, f"{name} lacks figures; delete it and evaluate again") from error


def _spell(value: object) -> object:
    """JSON knows no infinity and no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read_figure(record: Record, key: str) -> float:
    value = record.values[key]
    return float(value) if value in ("nan", "inf", "-inf") else record.number(key)


def _read_errors(record: Record) -> list[float]:
    values = Record(record.source, {str(number): value for number, value in enumerate(record.items("voxel_errors"))})
    return [_read_figure(values, key) for key in values.values]


def _read_count(record: Record, key: str) -> int:
    value = record.number(key)
    if value != int(value) or value < 0:
        raise record.problem(key, "it must be a whole number")
    return int(value)


def _read_sizes(record: Record, codes: dict[str, list[Tensor]]) -> dict[str, int]:
    """Sizes of the books that the codes are numbers of pages of."""
    books = Record.of(record.source, record.values.get("book_sizes"), "book_sizes")
    sizes = {name: books.integer(name) for name in books.values}
    for name, parts in codes.items():
        for part in parts:
            plain = part.dim() == 1 and part.dtype == torch.int64 and part.numel()
            if not plain or not 0 <= int(part.min()) <= int(part.max()) < sizes.get(name, 0):
                raise DataFormatError(record.source, f"codes.{name} are of no book; delete it and evaluate again")
    return sizes


def _rounded(scores: SceneScores) -> dict[str, float | None]:
    """JSON knows no infinity and no NaN."""
    values = {name: value for name, value in scores.figures().items() if name in REPORTED}
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}
