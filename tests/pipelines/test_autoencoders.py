"""Both auto-encoders as a user meets them: weights in a folder, captures in, scenes, figures and encodings out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rooms import latent_autoencoder, room_sample, scene_autoencoder

from nfldm3d import DataFormatError, Scene, render
from nfldm3d.cli import main
from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.data.scene_sample import SceneSample
from nfldm3d.data.scene_shards import ShardIndex, write_index, write_shard
from nfldm3d.evaluation.autoencoder_report import judge_autoencoders
from nfldm3d.evaluation.metrics import Lpips
from nfldm3d.models.nfldm.latent_autoencoder import Latents
from nfldm3d.models.nfldm.scene_voxels import tensors_from_voxels
from nfldm3d.pipelines.autoencoders import Autoencoders, views_of
from nfldm3d.pipelines.encoding import encode_scenes, fingerprint
from nfldm3d.pipelines.global_generator import GlobalGenerator


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    scene_autoencoder().half().save_pretrained(folder / "scene_autoencoder")
    latent_autoencoder().half().save_pretrained(folder / "latent_autoencoder")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, written = tmp_path_factory.mktemp("shards"), []
    for split in ("train", "test"):
        samples = [replace(room_sample(n, views=8), key=f"{split}_{n}", split=split) for n in range(2)]
        written.append(write_shard(folder / f"{split}-000000.tar", samples))
    scenes = tuple(scene for _, entries in written for scene in entries)
    write_index(folder, ShardIndex(tuple(shard for shard, _ in written), scenes))
    return folder


def test_an_encoded_scene_shows_itself_anywhere(weights: Path, tmp_path: Path) -> None:
    networks, sample = Autoencoders.from_pretrained(weights), room_sample(views=6)
    scene = networks.encode(views_of(sample), sample.box)
    scene.save(tmp_path / "room.nfld")
    with torch.no_grad():
        here, there = (render(s, sample.camera[0]).image for s in (scene, Scene.load(tmp_path / "room.nfld")))
    assert torch.equal(here, there)


def test_latents_lead_back_to_a_scene(weights: Path) -> None:
    networks, sample = Autoencoders.from_pretrained(weights), room_sample()
    scene = networks.encode(views_of(sample), sample.box)
    again = networks.decompress(networks.compress(scene), sample.box)
    assert again.field.density.shape == scene.field.density.shape and again.box == scene.box


class Squares(torch.nn.Module):
    """In place of LPIPS's network."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, normalize: bool) -> torch.Tensor:
        return (a - b).square().mean((1, 2, 3), keepdim=True)


def test_figures_have_the_names_that_users_read(weights: Path) -> None:
    samples = [room_sample(n, views=8) for n in range(2)]
    report = judge_autoencoders(Autoencoders.from_pretrained(weights), samples, inputs=5, lpips=Lpips(Squares()))
    summary = report.summary()
    assert all(0 < summary[part]["lpips_like"] < 1 for part in ("scene_autoencoder", "latent_autoencoder"))  # type: ignore[index]
    assert summary["scenes"] == 2 and summary["views"] == 6
    for name in ("psnr", "ssim", "depth_error", "sharpness"):
        assert name in summary["scene_autoencoder"] and name in summary["latent_autoencoder"]  # type: ignore[operator]
    assert set(summary["latent_autoencoder"]["code_usage"]) == {"c", "f"}  # type: ignore[index,call-overload]
    assert json.loads(json.dumps(summary)) == summary and len(report.strips) == 2


def test_nothing_to_judge_by_is_an_error(weights: Path) -> None:
    with pytest.raises(ValueError, match="no scenes to judge by"):
        judge_autoencoders(Autoencoders.from_pretrained(weights), [])


def test_encoding_goes_on_where_it_stopped(weights: Path, tmp_path: Path) -> None:
    networks, scenes = Autoencoders.from_pretrained(weights), [room_sample(0), room_sample(1)]
    first = encode_scenes(networks, scenes[:1], tmp_path / "fields", turns=(0, 2))
    second = encode_scenes(networks, scenes, tmp_path / "fields", turns=(0, 2))
    assert (first.written, second.written, second.present) == (2, 2, 2)
    assert len(EncodedScenes(tmp_path / "fields")) == 4
    with pytest.raises(ValueError, match="encodings with .*keep 'fields', not 'latents'"):
        encode_scenes(networks, scenes, tmp_path / "fields", keep="latents")


class Noted(list[SceneSample]):
    """A data set that knows its scenes by name, and notes which of them are read."""

    keys = ("room_0", "room_1")
    fingerprint = "first"

    def __init__(self):
        super().__init__(replace(room_sample(number), key=key) for number, key in enumerate(self.keys))
        self.seen: list[int] = []

    def __getitem__(self, index):
        self.seen.append(index)
        return super().__getitem__(index)


def test_scenes_that_are_encoded_are_not_read_again(weights: Path, tmp_path: Path) -> None:
    networks, scenes = Autoencoders.from_pretrained(weights), Noted()
    encode_scenes(networks, scenes, tmp_path / "fields", turns=(0, 2))
    (tmp_path / "fields" / "room_1.2.safetensors").unlink()
    scenes.seen.clear()
    report = encode_scenes(networks, scenes, tmp_path / "fields", turns=(0, 2))
    assert scenes.seen == [1] and (report.written, report.present) == (1, 3)


def test_other_data_and_embeddings_are_other_encodings(weights: Path, tmp_path: Path) -> None:
    networks, scenes = Autoencoders.from_pretrained(weights), Noted()
    given = dict.fromkeys(scenes.keys, torch.ones(5))
    encode_scenes(networks, scenes, tmp_path / "out", keep="latents", turns=(0,), embeddings=given)
    with pytest.raises(ValueError, match="encodings with embeddings "):
        other = given | {"room_1": torch.zeros(5)}
        encode_scenes(networks, scenes, tmp_path / "out", keep="latents", turns=(0,), embeddings=other)
    scenes.fingerprint = "second"
    with pytest.raises(ValueError, match="encodings with data 'first', not 'second'"):
        encode_scenes(networks, scenes, tmp_path / "out", keep="latents", turns=(0,), embeddings=given)


def test_decoded_fields_are_what_latents_hold(weights: Path, tmp_path: Path) -> None:
    networks, scene = Autoencoders.from_pretrained(weights), room_sample(0)
    assert networks.latent is not None
    for keep in ("fields", "decoded", "latents"):
        encode_scenes(networks, [scene], tmp_path / keep, keep=keep, turns=(3,))
    decoded, latents = (EncodedScenes(tmp_path / keep)[0].tensors for keep in ("decoded", "latents"))
    made = Latents(*(latents[name][None].float() for name in ("g", "c", "f")))
    with torch.no_grad():
        expected = tensors_from_voxels(networks.latent.decode(networks.latent.quantize(made)[0]))
    assert all(torch.allclose(decoded[name].float(), expected[name].float(), atol=1e-2) for name in expected)
    assert len(EncodedScenes(tmp_path / "fields")) == len(EncodedScenes(tmp_path / "decoded")) == 1
    with pytest.raises(ValueError, match="latents need the weights of stage 2"):
        encode_scenes(Autoencoders(networks.scene, None), [scene], tmp_path / "none", keep="decoded")


def test_latents_come_from_fields_that_were_kept(weights: Path, tmp_path: Path) -> None:
    networks, scene = Autoencoders.from_pretrained(weights), room_sample(0)
    encode_scenes(networks, [scene], tmp_path / "fields", turns=(0,))
    fields = EncodedScenes(tmp_path / "fields")
    dark = replace(scene, images=torch.zeros_like(scene.images))  # nobody looks at the pictures again
    encode_scenes(networks, [scene], tmp_path / "direct", keep="latents", turns=(0, 5))
    encode_scenes(networks, [dark], tmp_path / "kept", keep="latents", turns=(0, 5), fields=fields)
    for number in range(2):
        direct, kept = (EncodedScenes(tmp_path / name)[number].tensors for name in ("direct", "kept"))
        assert all(torch.allclose(direct[name], kept[name], atol=2e-2) for name in direct)
    with pytest.raises(ValueError, match="fields are made of pictures"):
        encode_scenes(networks, [scene], tmp_path / "again", fields=fields)
    other = Autoencoders(scene_autoencoder(sky_rows=8), networks.latent)
    with pytest.raises(ValueError, match="holds no fields of these weights of stage 1"):
        encode_scenes(other, [scene], tmp_path / "other", keep="latents", fields=fields)


def test_embeddings_are_kept_with_latents(tmp_path: Path) -> None:
    networks, scenes = Autoencoders(scene_autoencoder(), latent_autoencoder()), [room_sample(0), room_sample(1)]
    given = {sample.key: torch.full((5,), float(number)) for number, sample in enumerate(scenes)}
    encode_scenes(networks, scenes, tmp_path / "latents", keep="latents", turns=(0,), embeddings=given)
    encoded = EncodedScenes(tmp_path / "latents")
    assert encoded.header["embedding_size"] == 5
    assert torch.equal(encoded[1].tensors["embedding"], torch.ones(1, 5))
    with pytest.raises(ValueError, match="embeddings go with latents"):
        encode_scenes(networks, scenes, tmp_path / "fields", embeddings=given)
    with pytest.raises(ValueError, match="no embedding of scene"):
        encode_scenes(networks, [*scenes, room_sample(2)], tmp_path / "a", keep="latents", embeddings=given)
    for wrong in ({"a": torch.ones(5), "b": torch.ones(6)}, {"a": torch.ones(1, 2, 3)}):
        with pytest.raises(ValueError, match="all be of one shape"):
            encode_scenes(networks, scenes, tmp_path / "b", keep="latents", embeddings=wrong)


def test_broken_scenes_are_left_out_until_there_are_too_many(weights: Path, tmp_path: Path) -> None:
    class Broken(list[SceneSample]):
        def __getitem__(self, index):
            if index == 1:
                raise DataFormatError("shard.tar", "is truncated")
            return room_sample(index)

        def __len__(self) -> int:
            return 3

    networks = Autoencoders.from_pretrained(weights)
    report = encode_scenes(networks, Broken(), tmp_path / "fields", turns=(0,))
    assert report.written == 2 and len(report.problems) == 1


def test_fingerprints_tell_weights_apart() -> None:
    network = scene_autoencoder()
    before = fingerprint(network)
    assert fingerprint(network) == before
    with torch.no_grad():
        network.sky_code += 1
    assert fingerprint(network) != before


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="holds no folder scene_autoencoder"):
        Autoencoders.from_pretrained(tmp_path)


@pytest.fixture
def without_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to load."""
    monkeypatch.setattr("nfldm3d.evaluation.metrics.Lpips.find_like", lambda: None)


@pytest.mark.usefixtures("without_vgg")
def test_commands(weights: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--weights", str(weights), "--device", "cpu"]
    assert main(["encode", str(shards), "--out", str(tmp_path / "room.nfld"), *out]) == 0
    assert json.loads(capsys.readouterr().out)["views"] == 8
    assert main(["encode", str(shards), "--out", str(tmp_path / "fields"), "--turns", "0", *out]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 2
    page = ["--page", str(tmp_path / "page.png"), "--views", "5", "--json"]
    assert main(["evaluate", "autoencoders", "--data", str(shards), *out, *page]) == 0
    assert json.loads(capsys.readouterr().out)["scenes"] == 2 and (tmp_path / "page.png").is_file()


@pytest.mark.usefixtures("without_vgg")
@pytest.mark.parametrize("name", ["room", "d16", "house"])
def test_one_capture_of_photographs_is_enough(weights: Path, name: str, tmp_path: Path, capsys) -> None:
    """Whatever its folder is called, without depth, and of unknown scale."""
    sample = replace(room_sample(views=6), depth=None, metric=False)
    sample.posed_images().save(tmp_path / name)
    out = ["--weights", str(weights), "--device", "cpu"]
    for options in ([], ["--no-use-depth"]):
        made = tmp_path / f"made{len(options)}.nfld"
        assert main(["encode", str(tmp_path / name), "--out", str(made), *out, *options]) == 0
        assert json.loads(capsys.readouterr().out)["scene"] == name
        assert not Scene.load(made).metric
    assert main(["evaluate", "autoencoders", "--data", str(tmp_path / name), *out, "--views", "4", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["scenes"] == 1 and figures["scene_autoencoder"]["depth_error"] is None


@pytest.mark.slow
def test_every_stage_trains_by_command(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 1, its fields, its decoder alone, stage 2: each command reads what the one before has written."""
    brief = ["--steps", "2", "--batch-size", "1", "--evaluate-every", "0", "--device", "cpu"]
    data, first, fields, second = ["--data", str(shards)], tmp_path / "first", tmp_path / "fields", tmp_path / "second"
    small = ["--resolution", "8", "8", "4", "--channels", "5"]
    assert main(["train", "scene-autoencoder", *data, "--out", str(first), *small, *brief]) == 0
    assert main(["encode", str(shards), "--out", str(fields), "--turns", "0", "--weights", str(first)]) == 0
    given = [*data, "--fields", str(fields), *brief]
    assert main(["train", "image-decoder", *given, "--weights", str(first), "--out", str(second)]) == 0
    before, after = (Autoencoders.from_pretrained(folder / "weights").scene.state_dict() for folder in (first, second))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    third = tmp_path / "third"
    assert main(["train", "latent-autoencoder", *given, "--weights", str(second), "--out", str(third)]) == 0
    assert list((third / "weights" / "latent_autoencoder").glob("*.safetensors"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 2
    fourth, fifth, whole = (tmp_path / name for name in ("fourth", "fifth", "whole"))
    assert main(["train", "autodecoder", *given, "--weights", str(second), "--out", str(fourth)]) == 0
    codes = ["--latents", str(fourth / "codes"), "--held-out", str(fourth / "codes_held_out")]
    assert main(["train", "denoiser", "--level", "g", *codes, "--out", str(fifth), *brief]) == 0
    parts = [str(folder) for folder in (second, fourth, fifth)]
    assert main(["assemble", "--out", str(whole), "--latents", str(fourth / "codes"), "--parts", *parts]) == 0
    made = GlobalGenerator.from_pretrained(whole).generate(1, num_inference_steps=1)
    assert made.scenes[0].field.resolution == (8, 8, 4)  # type: ignore[attr-defined]
