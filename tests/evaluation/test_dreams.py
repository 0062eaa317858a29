"""Dreams are judged by whether their texts are found."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_objects import make_subject
from small_priors import write_clip
from torch import Tensor

from nfldm3d import Box, Rgb, Scene, VoxelField
from nfldm3d.evaluation.dreams import ClipJudge, draw_dream, draw_real, find_dreams, measure_dreams, read_prompts
from nfldm3d.files import DataFormatError

PROMPTS = ["a red thing", "a blue thing", "a chair"]


@dataclass(frozen=True)
class ColorJudge:
    """Red pictures are of the first prompt, blue ones of the second, others of the third."""

    def score(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        red, _, blue = (images - images[..., :1, :1]).mean((-2, -1)).unbind(-1)
        return torch.stack((red - blue, blue - red, torch.full_like(red, 1e-3)), dim=-1)


def dream(color: tuple[float, float, float]) -> Scene:
    """A ball."""
    empty = VoxelField.zeros(Box.from_center((0.0, 0.0, 0.0), (2.0, 2.0, 2.0)), (12, 12, 12), 3)
    density = torch.where(empty.voxel_centers().norm(dim=-1) < 0.6, 50.0, 0.0)
    return Scene(VoxelField(density, torch.tensor(color).expand(12, 12, 12, 3).clone(), empty.box), Rgb())


def test_dreams_are_found_and_taken_for_others() -> None:
    dreams = {PROMPTS[0]: lambda: dream((0.9, 0.1, 0.1)), PROMPTS[2]: lambda: dream((0.1, 0.1, 0.9))}
    figures = measure_dreams(PROMPTS, dreams, {"judge": ColorJudge()})
    assert (figures["prompts"], figures["dreams"], figures["missing"]) == (3, 2, [PROMPTS[1]])
    assert figures["judge_color"] == figures["judge_color_together"] == 0.5
    assert figures["judge_color_taken_for"] == {PROMPTS[2]: [PROMPTS[1]]}
    assert figures["judge_shape"] == 0.5  # both are grey
    assert figures["chance"] == pytest.approx(1 / 3, abs=1e-4)


def test_recorded_things_tell_what_a_judge_finds_at_best() -> None:
    subjects = [make_subject("a thing", (90, 90, 90), size=16), make_subject("a chair", (90, 90, 90), size=16)]
    real = draw_real(PROMPTS, subjects)
    assert list(real) == PROMPTS and real[PROMPTS[0]][0]["color"].shape == (4, 3, 16, 16)
    assert real["a chair"][0]["shape"].unique().numel() == 2
    dreams = {PROMPTS[0]: lambda: dream((0.9, 0.1, 0.1))}
    figures = measure_dreams(PROMPTS, dreams, {"judge": ColorJudge()}, subjects)
    assert figures["real_judge_color"] == 1.0 and figures["judge_color"] == 1.0


def test_a_dream_is_seen_from_four_sides() -> None:
    drawn = draw_dream(dream((0.9, 0.1, 0.1)))
    assert drawn["color"].shape == drawn["shape"].shape == (4, 3, 128, 128)
    middle = drawn["shape"][:, :, 64, 64]
    assert torch.allclose(middle, middle[:, :1].expand(-1, 3), atol=1e-3) and float(middle.min()) > 0.6


@pytest.mark.parametrize(
    ("text", "message"), [("", "holds 0 prompts"), ("a\n\n", "holds 1 prompts"), ("a\nb\na\n", "holds 'a' twice")]
)
def test_lists_of_prompts_are_checked(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(text)
    with pytest.raises(DataFormatError, match=message):
        read_prompts(tmp_path / "prompts.txt")


def test_prompts_stand_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a chair \n\n  a car\n")
    assert read_prompts(tmp_path / "prompts.txt") == ["a chair", "a car"]
    with pytest.raises(DataFormatError, match="none.txt: cannot be read .No such file"):
        read_prompts(tmp_path / "none.txt")


def test_dreams_are_looked_for_by_their_prompts(tmp_path: Path) -> None:
    for name, prompt in (("one", "a chair"), ("two", "a lamp"), ("three", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dream.json").write_text(json.dumps({"prompt": prompt}))
        (tmp_path / name / "scene.nfld").write_bytes(b"")
    assert find_dreams(tmp_path, ["a chair", "a car"]) == {"a chair": tmp_path / "one" / "scene.nfld"}
    with pytest.raises(DataFormatError, match="holds no dream of these prompts"):
        find_dreams(tmp_path, ["a car"])


def test_a_folder_without_clip_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(DataFormatError, match="holds no config.json; copy the whole folder"):
        ClipJudge.load(tmp_path)


def test_clip_judges(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_clip(tmp_path)
    scores = ClipJudge.load(tmp_path).score(torch.rand(2, 3, 20, 20), ["a red car", "a"])
    assert scores.shape == (2, 2) and bool(torch.isfinite(scores).all())


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda c: c["vision_config"].update(image_size=-16), "pictures of -16 pixels|CLIPModel"),
        ("tokenizer.json", lambda c: c["model"]["vocab"].update(chair=9999, red=9998), "cannot be used: index out of"),
        ("tokenizer.json", lambda c: c["added_tokens"][0].update(shape=1), "a token with the unknown field shape"),
    ],
)
def test_a_clip_that_cannot_be_used_is_refused(file: str, change, message: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_clip(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    change(content)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=message):
        ClipJudge.load(tmp_path)
