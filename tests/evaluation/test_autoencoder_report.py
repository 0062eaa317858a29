"""Reports of single scenes come back as they were kept, and damaged ones are named."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nfldm3d.evaluation.autoencoder_report import AutoencoderReport
from nfldm3d.evaluation.scene_scores import SceneScores
from nfldm3d.files import DataFormatError
from nfldm3d.tensor_files import read_tensors_and_head, write_tensors


def make_report() -> AutoencoderReport:
    score = SceneScores(math.inf, 0.9, math.nan, 0, 1.0, 10.0)
    codes = {"c": [torch.arange(4)], "f": [torch.arange(6) % 3]}
    return AutoencoderReport([score], [score], [score], [0.1], codes, {"c": 8, "f": 8}, 3, [torch.rand(3, 4, 5)])


def test_what_is_no_number_comes_back(tmp_path: Path) -> None:
    made = make_report()
    made.save(tmp_path / "a.safetensors")
    found = AutoencoderReport.load(tmp_path / "a.safetensors")
    assert found.encoded[0].psnr == math.inf and math.isnan(found.encoded[0].depth_error)
    assert found.encoded[0].lpips_like is None and found.views == 3
    assert json.dumps(AutoencoderReport.join([found]).summary()) == json.dumps(AutoencoderReport.join([made]).summary())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, plain: tensors.update({"codes.c.0": torch.tensor([9])}), "codes.c are of no book"),
        (lambda tensors, plain: tensors.update({"codes.c.0": torch.rand(4)}), "codes.c are of no book"),
        (lambda tensors, plain: tensors.update({"strips.0": torch.rand(4)}), "a strip that is no picture"),
        (lambda tensors, plain: plain.update(views=-1), "views is -1; it must be a whole number"),
        (lambda tensors, plain: plain["encoded"][0].update(psnr="high"), "psnr is 'high'; write a number"),
        (lambda tensors, plain: plain["encoded"][0].pop("ssim"), "encoded lacks figures"),
        (lambda tensors, plain: plain["encoded"][0].update(charm=1), "figures of another version"),
    ],
)
def test_damaged_reports_are_named(
    change: Callable[[dict[str, Tensor], dict], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    make_report().save(path)
    tensors, head = read_tensors_and_head(path)
    plain = json.loads(head["report"])
    change(tensors, plain)
    write_tensors(path, tensors, {"report": json.dumps(plain)})
    with pytest.raises(DataFormatError, match=message):
        AutoencoderReport.load(path)
