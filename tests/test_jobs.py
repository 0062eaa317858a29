"""Jobs that several processes share, and the options that they note."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nfldm3d.files import DataFormatError
from nfldm3d.jobs import Share, claim_folder

OPTIONS = {"seed": 0, "maps": ("MAP01",), "steps": 1}


@given(st.integers(0, 50), st.integers(1, 9))
def test_every_piece_is_one_process_s(count: int, processes: int) -> None:
    shares = [Share(number, processes).of(count) for number in range(processes)]
    assert sorted(piece for share in shares for piece in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launcher_tells_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Share.from_launcher() == Share(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert Share.from_launcher() == Share(2, 3)
    for rank in ("3", "-1", "x", ""):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ValueError, match="do not fit; start with torchrun"):
            Share.from_launcher()


def claim(folder: Path, **changes: object) -> None:
    claim_folder(folder, "job.json", OPTIONS | changes, what="pieces", pieces="*.bin")


def test_a_job_goes_on_with_its_options_only(tmp_path: Path) -> None:
    for _ in range(2):
        claim(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "job.json").read_text(encoding="utf-8"))["maps"] == ["MAP01"]
    told = r"holds pieces with seed 0, not 7, steps 1, not 2; repeat its options to go on with it, or choose another"
    with pytest.raises(ValueError, match=told):
        claim(tmp_path / "new", seed=7, steps=2)
    with pytest.raises(ValueError, match="size missing, not 3"):
        claim(tmp_path / "new", size=3)


def test_pieces_without_a_record_are_somebody_else_s(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    claim(tmp_path)
    (tmp_path / "job.json").unlink()
    (tmp_path / "0.bin").touch()
    with pytest.raises(DataFormatError, match="holds pieces but no job.json; choose another folder"):
        claim(tmp_path)
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(ValueError, match="seed missing, not 0"):
        claim(tmp_path)
