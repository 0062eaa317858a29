"""Pairs of renders and photographs: the same each time, of fresh and of encoded views, kept like other encodings."""

from pathlib import Path

import pytest
import torch
from small_rooms import latent_autoencoder, room_sample, scene_autoencoder

from nfldm3d.data.encoded_scenes import EncodedScenes
from nfldm3d.models.priors.image_denoiser import nearness
from nfldm3d.pipelines import Autoencoders
from nfldm3d.pipelines.encoding import encode_scenes
from nfldm3d.pipelines.pairs import encode_as_generated, look_at, make_pairs, to_bytes

PLAIN = Autoencoders(scene_autoencoder(), None)


def test_renders_stand_beside_their_photographs() -> None:
    sample = room_sample(0)
    pairs, again = (make_pairs(PLAIN, sample, 3) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in pairs.items())
    assert pairs["render"].shape == pairs["photograph"].shape == (3, 3, 16, 20)
    assert pairs["opacity"].shape == pairs["nearness"].shape == (3, 16, 20)
    assert {value.dtype for value in pairs.values()} == {torch.uint8}
    where = [
        next(n for n in range(6) if torch.equal(sample.images[n], photograph)) for photograph in pairs["photograph"]
    ]
    assert where == sorted(set(where))
    # all views but one are encoded, so the fresh one is among the pairs, and the scene is that of the others
    for fresh in where:
        rest = [number for number in range(6) if number != fresh]
        shown = look_at(encode_as_generated(PLAIN, sample, rest), sample.camera[where])
        if torch.allclose(to_bytes(shown["render"]).float(), pairs["render"].float(), atol=1):
            break
    else:
        pytest.fail("the render is of no scene that was encoded from the other views")


def test_with_a_second_stage_scenes_are_compressed() -> None:
    both = Autoencoders(PLAIN.scene, latent_autoencoder())
    assert not torch.equal(make_pairs(both, room_sample(0))["render"], make_pairs(PLAIN, room_sample(0))["render"])


def test_pairs_are_kept_like_other_encodings(tmp_path: Path) -> None:
    samples = [room_sample(0), room_sample(1)]
    assert encode_scenes(PLAIN, samples, tmp_path, keep="pairs", progress=False).written == 2
    assert encode_scenes(PLAIN, samples, tmp_path, keep="pairs", progress=False).present == 2
    encoded = EncodedScenes(tmp_path)
    assert encoded.header["keep"] == "pairs"
    assert torch.equal(encoded[0].tensors["render"], make_pairs(PLAIN, samples[0])["render"])
    with pytest.raises(ValueError, match="pairs are of the world as it stands"):
        encode_scenes(PLAIN, samples, tmp_path, keep="pairs", turns=(0, 1), progress=False)


def test_one_view_makes_no_pair() -> None:
    with pytest.raises(ValueError, match="room_0000 has 1 view"):
        make_pairs(PLAIN, room_sample(0, views=1))


def test_nearness_falls_with_distance() -> None:
    values = nearness(torch.tensor([[0.0, 1.0, 4.0, 1e6]]))[0]
    assert values[0] == 0 and values[2] == 0.5 and values[1] == 0.8 and values[3] < 1e-5
